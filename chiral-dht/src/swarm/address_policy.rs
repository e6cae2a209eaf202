//! [`AddressPolicy`]: which addresses are dialled, and which are told to others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Which addresses are dialled when strangers name them, and announced when they are ours.
///
/// Whoever may make a node dial what it likes can make it knock at its own private network.
/// So only global addresses are taken, unless more is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// Addresses of this machine, and of this process (`/memory/…`).
    pub loopback: bool,
    /// Private, link-local and shared ranges.
    pub private: bool,
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Loopback,
    Private,
    Global,
    /// Unspecified, multicast, documentation, reserved: never dialled.
    Nowhere,
}

impl AddressPolicy {
    /// Global addresses only.
    pub const GLOBAL: Self = Self {
        loopback: false,
        private: false,
    };

    /// Whether an IP address may be dialled or announced.
    pub fn allows_ip(&self, ip: IpAddr) -> bool {
        match reach(ip) {
            Reach::Global => true,
            Reach::Loopback => self.loopback,
            Reach::Private => self.private,
            Reach::Nowhere => false,
        }
    }

    /// Whether a multiaddr may be dialled or announced. Of a DNS name, what it resolves to
    /// is asked for again when it is dialled; a relayed address is none to dial.
    pub fn allows(&self, address: &Multiaddr) -> bool {
        if is_relayed(address) {
            return false;
        }
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) => self.allows_ip(ip.into()),
            Some(Protocol::Ip6(ip)) => self.allows_ip(ip.into()),
            Some(Protocol::Memory(_)) => self.loopback,
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
                self.loopback || !is_local_name(&name)
            }
            Some(Protocol::Dnsaddr(_)) => true,
            _ => false,
        }
    }

    /// This policy, and what an address chosen by the user implies: whoever names a loopback
    /// address as the way into the network wants a network on this machine.
    #[must_use]
    pub fn widened_by(mut self, chosen: &Multiaddr) -> Self {
        let reach = match chosen.iter().next() {
            Some(Protocol::Ip4(ip)) => reach(ip.into()),
            Some(Protocol::Ip6(ip)) => reach(ip.into()),
            Some(Protocol::Memory(_)) => Reach::Loopback,
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name))
                if is_local_name(&name) =>
            {
                Reach::Loopback
            }
            _ => Reach::Global,
        };
        self.loopback |= reach == Reach::Loopback;
        self.private |= reach == Reach::Private;
        self
    }
}

/// Whether a connection over this address goes through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => reach_v4(ip),
            None => reach_v6(ip),
        },
    }
}

/// By the registry of special-purpose addresses (RFC 6890 and its updates).
fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Reach::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (169, 254, _) | (100, 64..=127, _) => {
            Reach::Private
        }
        (0, ..)
        | (192, 0, 0 | 2)
        | (198, 18 | 19, _)
        | (198, 51, 100)
        | (203, 0, 113)
        | (224.., ..) => Reach::Nowhere,
        _ => Reach::Global,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let parts = ip.segments();
    if ip.is_loopback() {
        Reach::Loopback
    } else if matches!(parts[0], 0xfc00..=0xfdff | 0xfe80..=0xfebf) {
        Reach::Private
    } else if (0x2000..=0x3fff).contains(&parts[0]) && !(parts[0] == 0x2001 && parts[1] == 0xdb8) {
        Reach::Global
    } else {
        Reach::Nowhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: AddressPolicy, address: &str) -> bool {
        policy.allows(&address.parse().unwrap())
    }

    #[test]
    fn only_global_addresses_are_allowed_unless_more_is() {
        let loopback = AddressPolicy {
            loopback: true,
            ..AddressPolicy::GLOBAL
        };
        let private = AddressPolicy {
            private: true,
            ..AddressPolicy::GLOBAL
        };
        for (address, by) in [
            ("/ip4/8.8.8.8/tcp/1", [true, true, true]),
            ("/ip6/2606:4700::1/udp/1/quic-v1", [true, true, true]),
            ("/dns4/example.org/tcp/1", [true, true, true]),
            ("/ip4/127.0.0.1/tcp/1", [false, true, false]),
            ("/ip6/::1/tcp/1", [false, true, false]),
            ("/ip6/::ffff:127.0.0.1/tcp/1", [false, true, false]),
            ("/dns/localhost/tcp/1", [false, true, false]),
            ("/memory/7", [false, true, false]),
            ("/ip4/192.168.1.1/tcp/1", [false, false, true]),
            ("/ip4/169.254.169.254/tcp/80", [false, false, true]),
            ("/ip6/fe80::1/tcp/1", [false, false, true]),
            ("/ip4/0.0.0.0/tcp/1", [false; 3]),
            ("/ip4/203.0.113.1/tcp/1", [false; 3]),
            ("/ip4/239.1.1.1/udp/1/quic-v1", [false; 3]),
            ("/ip6/2001:db8::1/tcp/1", [false; 3]),
            (
                "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit",
                [false; 3],
            ),
        ] {
            let found = [AddressPolicy::GLOBAL, loopback, private].map(|p| allowed(p, address));
            assert_eq!(found, by, "{address}");
        }
    }

    #[test]
    fn what_the_user_chose_widens_the_policy() {
        for (address, loopback, private) in [
            ("/ip4/127.0.0.1/tcp/1", true, false),
            ("/dns4/localhost/tcp/1", true, false),
            ("/ip4/10.0.0.1/tcp/1", false, true),
            ("/ip4/8.8.8.8/tcp/1", false, false),
            ("/dns4/example.org/tcp/1", false, false),
        ] {
            let policy = AddressPolicy::GLOBAL.widened_by(&address.parse().unwrap());
            assert_eq!(policy, AddressPolicy { loopback, private }, "{address}");
        }
    }
}
