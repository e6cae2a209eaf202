//! [`Bans`]: who gave a download of a torrent what the torrent has not, and is not met in its
//! swarm for a while.
//!
//! On the Internet it is the address that counts: a new port, or a new peer id, costs nothing.
//! Honest peers behind the same address are lost to the one torrent for the time. Addresses of
//! this machine and of private networks are those of a tunnel, a proxy or a household: there it is
//! the peer id that counts, and who changes it is found out once more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::http::AddressPolicy;

/// How long it lasts.
const LASTS: Duration = Duration::from_secs(3600);

/// Most that are remembered of a torrent; of more, those that end first go.
const MOST: usize = 500;

/// Who is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    /// Everybody at an IPv4 address, or in an IPv6 /64.
    Network(IpAddr),
    /// One peer at an address that many share.
    Peer(IpAddr, [u8; 20]),
}

impl Who {
    fn of(ip: IpAddr, peer_id: [u8; 20]) -> Self {
        let ip = ip.to_canonical();
        match (AddressPolicy::GlobalOnly.allows(ip), ip) {
            (true, IpAddr::V6(v6)) => {
                let network = v6.to_bits() >> 64 << 64;
                Self::Network(Ipv6Addr::from_bits(network).into())
            }
            (true, ip) => Self::Network(ip),
            (false, ip) => Self::Peer(ip, peer_id),
        }
    }
}

/// Who is not met in a torrent's swarm, and until when.
#[derive(Debug, Default)]
pub(super) struct Bans {
    until: HashMap<Who, Instant>,
}

impl Bans {
    /// Does not meet a peer again for a while.
    pub(super) fn add(&mut self, ip: IpAddr, peer_id: [u8; 20], now: Instant) {
        self.until.retain(|_, until| now < *until);
        if self.until.len() >= MOST
            && let Some(first) = self.until.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first.0;
            self.until.remove(&first);
        }
        self.until.insert(Who::of(ip, peer_id), now + LASTS);
    }

    /// Meets it again from now on.
    pub(super) fn lift(&mut self, ip: IpAddr, peer_id: [u8; 20]) {
        self.until.remove(&Who::of(ip, peer_id));
    }

    /// Whether a peer is not to be met.
    pub(super) fn hold(&self, ip: IpAddr, peer_id: [u8; 20], now: Instant) -> bool {
        let until = self.until.get(&Who::of(ip, peer_id));
        until.is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn on_the_internet_the_address_counts_and_elsewhere_the_peer() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        for at in ["9.9.9.9", "2606:4700::1", "127.0.0.1", "192.168.1.7"] {
            bans.add(ip(at), [1; 20], now);
        }
        for (at, id, held) in [
            ("9.9.9.9", 1, true),
            ("9.9.9.9", 2, true),
            ("::ffff:9.9.9.9", 2, true),
            ("9.9.9.8", 1, false),
            ("2606:4700::ffff:1", 2, true),
            ("2606:4700:0:1::1", 1, false),
            ("127.0.0.1", 1, true),
            ("127.0.0.1", 2, false),
            ("192.168.1.7", 1, true),
            ("192.168.1.7", 2, false),
        ] {
            assert_eq!(bans.hold(ip(at), [id; 20], now), held, "{at} {id}");
        }
        bans.lift(ip("9.9.9.9"), [7; 20]);
        assert!(!bans.hold(ip("9.9.9.9"), [1; 20], now));
        assert!(!bans.hold(ip("127.0.0.1"), [1; 20], now + LASTS));
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        for n in 0..2000u16 {
            let at = IpAddr::from([9, 9, (n >> 8) as u8, n as u8]);
            bans.add(at, [1; 20], now + Duration::from_millis(n.into()));
            assert!(bans.until.len() <= MOST);
            assert!(bans.hold(at, [1; 20], now));
        }
        assert!(!bans.hold(ip("9.9.0.0"), [1; 20], now));
    }
}
