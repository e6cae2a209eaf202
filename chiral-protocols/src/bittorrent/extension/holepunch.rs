//! [`Holepunch`]: a peer that two others know brings them together (BEP 55).

use std::net::{IpAddr, SocketAddr};

/// Why a relay does not bring two peers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PunchError {
    /// The address is none.
    NoSuchPeer,
    /// The relay is not connected to it.
    NotConnected,
    /// It does not speak the extension.
    NoSupport,
    /// It is the relay itself.
    NoSelf,
    /// Something that this library does not know.
    Other(u32),
}

impl PunchError {
    const fn code(self) -> u32 {
        match self {
            Self::NoSuchPeer => 1,
            Self::NotConnected => 2,
            Self::NoSupport => 3,
            Self::NoSelf => 4,
            Self::Other(code) => code,
        }
    }

    const fn of_code(code: u32) -> Self {
        match code {
            1 => Self::NoSuchPeer,
            2 => Self::NotConnected,
            3 => Self::NoSupport,
            4 => Self::NoSelf,
            other => Self::Other(other),
        }
    }
}

/// A message of `ut_holepunch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holepunch {
    /// To the relay: bring me together with this peer.
    Rendezvous(SocketAddr),
    /// From the relay: begin to connect to this peer.
    Connect(SocketAddr),
    /// From the relay: that does not work.
    Error(SocketAddr, PunchError),
}

/// The bytes are no message of `ut_holepunch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed holepunch message")]
pub struct HolepunchError;

impl Holepunch {
    /// The peer that it is about.
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Rendezvous(address) | Self::Connect(address) | Self::Error(address, _) => {
                *address
            }
        }
    }

    /// The body of the message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, error) = match self {
            Self::Rendezvous(_) => (0, 0),
            Self::Connect(_) => (1, 0),
            Self::Error(_, error) => (2, error.code()),
        };
        let address = self.address();
        let mut body = vec![kind, u8::from(address.is_ipv6())];
        match address.ip() {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
        body.extend(address.port().to_be_bytes());
        body.extend(error.to_be_bytes());
        body
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`HolepunchError`].
    pub fn decode(body: &[u8]) -> Result<Self, HolepunchError> {
        let (ip, rest): (IpAddr, &[u8]) = match body {
            [_, 0, rest @ ..] => {
                let (ip, rest) = rest.split_first_chunk::<4>().ok_or(HolepunchError)?;
                (IpAddr::from(*ip), rest)
            }
            [_, 1, rest @ ..] => {
                let (ip, rest) = rest.split_first_chunk::<16>().ok_or(HolepunchError)?;
                (IpAddr::from(*ip), rest)
            }
            _ => return Err(HolepunchError),
        };
        let (port, rest) = rest.split_first_chunk::<2>().ok_or(HolepunchError)?;
        let address = SocketAddr::new(ip, u16::from_be_bytes(*port));
        // Some leave the error code away where there is none.
        let code = match rest {
            [] => 0,
            rest => u32::from_be_bytes(rest.try_into().map_err(|_| HolepunchError)?),
        };
        match body[0] {
            0 => Ok(Self::Rendezvous(address)),
            1 => Ok(Self::Connect(address)),
            2 => Ok(Self::Error(address, PunchError::of_code(code))),
            _ => Err(HolepunchError),
        }
    }

    /// What a relay does with a rendezvous from `from` for `to`: the message for each, or the
    /// refusal. `known` says of an address whether the relay is connected to it and whether it
    /// speaks the extension; `me` whether it is the relay itself.
    ///
    /// # Errors
    /// The message that goes back instead.
    pub fn relay(
        from: SocketAddr,
        to: SocketAddr,
        me: impl Fn(SocketAddr) -> bool,
        known: impl Fn(SocketAddr) -> Option<bool>,
    ) -> Result<(Self, Self), Self> {
        let refuse = |error| Err(Self::Error(to, error));
        if to.port() == 0 || to.ip().is_unspecified() || to.ip().is_multicast() {
            return refuse(PunchError::NoSuchPeer);
        }
        if me(to) || from == to {
            return refuse(PunchError::NoSelf);
        }
        match known(to) {
            None => refuse(PunchError::NotConnected),
            Some(false) => refuse(PunchError::NoSupport),
            // First to the one that asks, then to the one that it asks for.
            Some(true) => Ok((Self::Connect(to), Self::Connect(from))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 6881))
    }

    #[test]
    fn a_relay_tells_both_or_says_why_not() {
        let known = |at: SocketAddr| {
            [(address(1), true), (address(2), true), (address(3), false)]
                .into_iter()
                .find(|(other, _)| *other == at)
                .map(|(_, speaks)| speaks)
        };
        let relay = |to| Holepunch::relay(address(1), to, |at| at == address(9), known);
        let both = (
            Holepunch::Connect(address(2)),
            Holepunch::Connect(address(1)),
        );
        assert_eq!(relay(address(2)), Ok(both));
        for (to, error) in [
            (address(3), PunchError::NoSupport),
            (address(4), PunchError::NotConnected),
            (address(9), PunchError::NoSelf),
            (address(1), PunchError::NoSelf),
            (SocketAddr::from(([0, 0, 0, 0], 1)), PunchError::NoSuchPeer),
            (SocketAddr::from(([10, 0, 0, 2], 0)), PunchError::NoSuchPeer),
        ] {
            assert_eq!(relay(to), Err(Holepunch::Error(to, error)));
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        for bad in [
            &b""[..],
            &[0],
            &[0, 2, 1, 2, 3, 4, 5, 6],
            &[0, 0, 1, 2, 3],
            &[0, 0, 1, 2, 3, 4, 5],
            &[0, 0, 1, 2, 3, 4, 5, 6, 7],
            &[3, 0, 1, 2, 3, 4, 5, 6],
            &[0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Holepunch::decode(bad), Err(HolepunchError));
        }
        assert!(Holepunch::decode(&[1, 0, 1, 2, 3, 4, 5, 6]).is_ok());
    }

    proptest! {
        #[test]
        fn messages_come_back(v6: bool, ip: [u8; 16], port: u16, kind in 0..3, code in 1u32..9) {
            let ip: IpAddr = if v6 { ip.into() } else { [ip[0], ip[1], ip[2], ip[3]].into() };
            let address = SocketAddr::new(ip, port);
            let message = match kind {
                0 => Holepunch::Rendezvous(address),
                1 => Holepunch::Connect(address),
                _ => Holepunch::Error(address, PunchError::of_code(code)),
            };
            prop_assert_eq!(Holepunch::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Holepunch::decode(&body);
        }
    }
}
