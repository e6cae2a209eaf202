//! [`Pex`]: peers tell each other of peers (BEP 11).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::handshake::ExtensionError;
use super::read;
use crate::bittorrent::bencode::{DictWriter, Value};

/// Most peers that one message may add, and most that it may drop, of each address family;
/// further ones are not read, and not written.
pub const MAX_PEX_PEERS: usize = 50;

/// A peer that somebody is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PexPeer {
    /// Where it listens.
    pub address: SocketAddr,
    /// It prefers encryption.
    pub encryption: bool,
    /// It has everything, or wants nothing.
    pub seed: bool,
    /// It speaks uTP.
    pub utp: bool,
    /// It can be reached through holepunching.
    pub holepunch: bool,
    /// It accepts connections: somebody reached it.
    pub reachable: bool,
}

impl PexPeer {
    /// Of whom nothing else is known.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            encryption: false,
            seed: false,
            utp: false,
            holepunch: false,
            reachable: false,
        }
    }

    fn flags(&self) -> u8 {
        u8::from(self.encryption)
            | u8::from(self.seed) << 1
            | u8::from(self.utp) << 2
            | u8::from(self.holepunch) << 3
            | u8::from(self.reachable) << 4
    }

    fn with_flags(mut self, flags: u8) -> Self {
        self.encryption = flags & 1 != 0;
        self.seed = flags & 2 != 0;
        self.utp = flags & 4 != 0;
        self.holepunch = flags & 8 != 0;
        self.reachable = flags & 16 != 0;
        self
    }
}

/// A message of `ut_pex`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pex {
    /// Peers that the sender is connected to by now.
    pub added: Vec<PexPeer>,
    /// Peers that it is not connected to any more.
    pub dropped: Vec<SocketAddr>,
}

impl Pex {
    /// The body of the message: at most [`MAX_PEX_PEERS`] of each.
    pub fn encode(&self) -> Vec<u8> {
        let (mut v4, mut flags4, mut v6, mut flags6) = (vec![], vec![], vec![], vec![]);
        for peer in &self.added {
            let (to, flags) = match peer.address.ip() {
                IpAddr::V4(_) => (&mut v4, &mut flags4),
                IpAddr::V6(_) => (&mut v6, &mut flags6),
            };
            if flags.len() < MAX_PEX_PEERS {
                put(to, peer.address);
                flags.push(peer.flags());
            }
        }
        let (mut gone4, mut gone6) = (vec![], vec![]);
        for address in &self.dropped {
            let to = match address.ip() {
                IpAddr::V4(_) => &mut gone4,
                IpAddr::V6(_) => &mut gone6,
            };
            if to.len() < MAX_PEX_PEERS * if address.is_ipv4() { 6 } else { 18 } {
                put(to, *address);
            }
        }
        DictWriter::new()
            .bytes("added", &v4)
            .bytes("added.f", &flags4)
            .bytes("added6", &v6)
            .bytes("added6.f", &flags6)
            .bytes("dropped", &gone4)
            .bytes("dropped6", &gone6)
            .finish()
    }

    /// Reads one. Peers without a port, or with an address that nobody has, are left out.
    ///
    /// # Errors
    /// [`ExtensionError`] for what is no dictionary, and lists that end amid an address.
    pub fn decode(body: &[u8]) -> Result<Self, ExtensionError> {
        let what = "peer exchange";
        let pex = read(body, |dict, _| {
            let mut pex = Self::default();
            for (list, flags, v6) in [("added", "added.f", false), ("added6", "added6.f", true)] {
                let flags = dict.bytes_of(flags).unwrap_or_default();
                for (at, address) in addresses(dict, list, v6)?.into_iter().enumerate() {
                    if is_somebody(address) {
                        let flags = flags.get(at).copied().unwrap_or(0);
                        pex.added.push(PexPeer::new(address).with_flags(flags));
                    }
                }
            }
            for (list, v6) in [("dropped", false), ("dropped6", true)] {
                pex.dropped.extend(addresses(dict, list, v6)?);
            }
            Some(pex)
        });
        pex.ok_or(ExtensionError { what })
    }
}

fn put(to: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => to.extend(ip.octets()),
        IpAddr::V6(ip) => to.extend(ip.octets()),
    }
    to.extend(address.port().to_be_bytes());
}

fn addresses(dict: Value<'_, '_>, key: &str, v6: bool) -> Option<Vec<SocketAddr>> {
    let bytes = dict.bytes_of(key).unwrap_or_default();
    let width = if v6 { 18 } else { 6 };
    if !bytes.len().is_multiple_of(width) {
        return None;
    }
    let address = |entry: &[u8]| {
        let (ip, port) = entry.split_at(width - 2);
        let ip: IpAddr = if v6 {
            Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap_or_default()).into()
        } else {
            Ipv4Addr::from(<[u8; 4]>::try_from(ip).unwrap_or_default()).into()
        };
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    };
    Some(
        bytes
            .chunks_exact(width)
            .take(MAX_PEX_PEERS)
            .map(address)
            .collect(),
    )
}

fn is_somebody(address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

/// What one peer has been told, so that it is told what is new.
#[derive(Debug, Default)]
pub struct PexSender {
    told: BTreeSet<SocketAddr>,
}

impl PexSender {
    /// What to tell a peer of those connected now; nothing if that is nothing new. What does
    /// not fit waits for the next message.
    pub fn update(&mut self, connected: &[PexPeer]) -> Option<Pex> {
        let now: BTreeSet<_> = connected.iter().map(|peer| peer.address).collect();
        let dropped: Vec<_> = self
            .told
            .difference(&now)
            .copied()
            .take(MAX_PEX_PEERS)
            .collect();
        let new = |peer: &&PexPeer| !self.told.contains(&peer.address);
        let added: Vec<_> = connected
            .iter()
            .filter(new)
            .copied()
            .take(MAX_PEX_PEERS)
            .collect();
        for address in &dropped {
            self.told.remove(address);
        }
        self.told.extend(added.iter().map(|peer| peer.address));
        (!added.is_empty() || !dropped.is_empty()).then_some(Pex { added, dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u16) -> PexPeer {
        PexPeer::new(SocketAddr::from((
            [10, 0, (n >> 8) as u8, n as u8],
            1000 + n,
        )))
    }

    #[test]
    fn a_message_has_at_most_fifty_and_the_rest_follows() {
        let connected: Vec<_> = (0..120).map(peer).collect();
        let mut sender = PexSender::default();
        let mut told = Vec::new();
        for expected in [50, 50, 20] {
            let pex = sender.update(&connected).unwrap();
            assert_eq!(pex.added.len(), expected);
            told.extend(Pex::decode(&pex.encode()).unwrap().added);
        }
        assert_eq!(told, connected);
        assert_eq!(sender.update(&connected), None);
        let pex = sender.update(&connected[..60]).unwrap();
        assert_eq!((pex.added.len(), pex.dropped.len()), (0, 50));
        assert_eq!(sender.update(&connected[..60]).unwrap().dropped.len(), 10);
        assert_eq!(sender.update(&connected[..60]), None);
    }

    #[test]
    fn broken_lists_are_refused_and_nobodies_left_out() {
        for bad in [
            &b"d5:added5:abcdee"[..],
            b"d6:added66:abcdefe",
            b"d7:dropped1:ae",
            b"le",
        ] {
            assert!(Pex::decode(bad).is_err());
        }
        let nobody = b"d5:added18:\0\0\0\0\x1a\xe1\xe0\0\0\x01\x1a\xe1\x0a\0\0\x01\0\0e";
        assert_eq!(Pex::decode(nobody), Ok(Pex::default()));
        assert_eq!(Pex::decode(b"d5:addedi3ee"), Ok(Pex::default()));
        let mut long = b"d5:added60000:".to_vec();
        long.extend([1; 60_000]);
        long.push(b'e');
        assert_eq!(Pex::decode(&long).unwrap().added.len(), MAX_PEX_PEERS);
    }

    proptest! {
        #[test]
        fn messages_come_back(ports in proptest::collection::vec((1u16.., 0u8..32, any::<bool>()), 0..40)) {
            let mut pex = Pex::default();
            for (port, flags, v6) in ports {
                let ip: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
                let address = SocketAddr::new(ip, port);
                pex.added.push(PexPeer::new(address).with_flags(flags));
                pex.dropped.push(address);
            }
            let v6 = |peer: &PexPeer| peer.address.is_ipv6();
            pex.added.sort_by_key(v6);
            pex.dropped.sort_by_key(SocketAddr::is_ipv6);
            prop_assert_eq!(Pex::decode(&pex.encode()), Ok(pex));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pex::decode(&body);
        }
    }
}
