//! Which addresses may be dialled, and where a redirect may lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses the client dials for an offer. Checked after the name was resolved, on
/// the very address that is then dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressPolicy {
    /// Any: for offers that the user named, and for networks of one's own.
    #[default]
    Any,
    /// Addresses of the public internet only: for offers that strangers announced.
    GlobalOnly,
    /// Addresses of the public internet, and of these networks: for offers announced in a
    /// network of one's own.
    GlobalAnd {
        /// Private networks (RFC 1918, RFC 4193, RFC 6598).
        private: bool,
        /// This machine.
        loopback: bool,
    },
}

impl AddressPolicy {
    /// Whether an address may be dialled.
    #[must_use]
    pub fn allows(self, ip: IpAddr) -> bool {
        match (self, scope(ip)) {
            (Self::Any, _) | (_, Scope::Global) => true,
            (Self::GlobalAnd { private, .. }, Scope::Private) => private,
            (Self::GlobalAnd { loopback, .. }, Scope::Loopback) => loopback,
            (Self::GlobalOnly | Self::GlobalAnd { .. }, _) => false,
        }
    }
}

/// Which addresses are dialled for one offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) all: AddressPolicy,
    /// For offers that strangers announced: what these may lead to.
    pub(super) announced: Option<AddressPolicy>,
}

impl Reach {
    pub(super) fn allows(self, ip: IpAddr) -> bool {
        let announced = self.announced.is_none_or(|policy| policy.allows(ip));
        announced && self.all.allows(ip)
    }

    /// Whether there is nothing that it forbids.
    pub(super) fn is_any(self) -> bool {
        let any = AddressPolicy::Any;
        self.all == any && self.announced.is_none_or(|policy| policy == any)
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Private,
    LinkLocal,
    Loopback,
    /// Not for hosts, or another address in disguise.
    Reserved,
}

/// Whether a server that reaches as far as `from` may send us on to `to`: outward always,
/// else only within its own scope, and never to an address in disguise.
pub(super) fn may_follow(from: Scope, to: IpAddr) -> bool {
    match scope(to) {
        Scope::Global => true,
        Scope::Reserved => false,
        inner => inner == from,
    }
}

pub(super) fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    match ip.octets() {
        [127, ..] => Scope::Loopback,
        [169, 254, ..] => Scope::LinkLocal,
        // 100.64/10 is the carriers' shared space (RFC 6598).
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Scope::Private,
        [0 | 224..=255, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Scope::Reserved,
        _ => Scope::Global,
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    if ip.is_loopback() {
        return Scope::Loopback;
    }
    match ip.segments() {
        [0xfe80..=0xfebf, ..] => Scope::LinkLocal,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Scope::Private,
        // IPv4-mapped and -compatible, NAT64, Teredo, 6to4: they lead to some IPv4 address.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => {
            Scope::Reserved
        }
        [0x2001, 0xdb8, ..] | [0xff00..=0xffff, ..] | [0x100, ..] => Scope::Reserved,
        _ => Scope::Global,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        for (text, expected) in [
            ("8.8.8.8", Scope::Global),
            ("172.15.0.1", Scope::Global),
            ("172.32.0.1", Scope::Global),
            ("2606:4700::1111", Scope::Global),
            ("127.8.9.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("10.0.0.1", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("192.168.1.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("fd00::1", Scope::Private),
            ("169.254.169.254", Scope::LinkLocal),
            ("fe80::1", Scope::LinkLocal),
            ("0.0.0.0", Scope::Reserved),
            ("224.0.0.1", Scope::Reserved),
            ("255.255.255.255", Scope::Reserved),
            ("::", Scope::Reserved),
            ("::ffff:127.0.0.1", Scope::Reserved),
            ("::ffff:8.8.8.8", Scope::Reserved),
            ("::127.0.0.1", Scope::Reserved),
            ("64:ff9b::7f00:1", Scope::Reserved),
            ("2002:7f00:1::", Scope::Reserved),
            ("2001::1", Scope::Reserved),
            ("ff02::1", Scope::Reserved),
        ] {
            assert_eq!(scope(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn a_redirect_never_leads_further_in() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (from, to, allowed) in [
            ("8.8.8.8", "1.1.1.1", true),
            ("127.0.0.1", "1.1.1.1", true),
            ("127.0.0.1", "127.0.0.2", true),
            ("10.0.0.1", "192.168.0.1", true),
            ("8.8.8.8", "127.0.0.1", false),
            ("8.8.8.8", "10.0.0.1", false),
            ("8.8.8.8", "169.254.169.254", false),
            ("8.8.8.8", "::1", false),
            ("8.8.8.8", "::ffff:10.0.0.1", false),
            ("8.8.8.8", "64:ff9b::a00:1", false),
            ("10.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "10.0.0.1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", false),
            ("8.8.8.8", "0.0.0.0", false),
        ] {
            assert_eq!(
                may_follow(scope(ip(from)), ip(to)),
                allowed,
                "{from} -> {to}"
            );
        }
        assert!(AddressPolicy::Any.allows(ip("10.0.0.1")));
        assert!(!AddressPolicy::GlobalOnly.allows(ip("10.0.0.1")));
        assert!(AddressPolicy::GlobalOnly.allows(ip("9.9.9.9")));
    }

    #[test]
    fn announced_offers_lead_only_where_they_may() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let near = |private, loopback| AddressPolicy::GlobalAnd { private, loopback };
        for (text, private, loopback) in [
            ("10.0.0.1", true, false),
            ("fd00::1", true, false),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("0.0.0.0", false, false),
            ("::ffff:127.0.0.1", false, false),
        ] {
            assert_eq!(near(true, false).allows(ip(text)), private, "{text}");
            assert_eq!(near(false, true).allows(ip(text)), loopback, "{text}");
            let both = near(true, true).allows(ip(text));
            assert_eq!(both, private || loopback, "{text}");
            let (all, announced) = (AddressPolicy::Any, Some(near(false, true)));
            assert_eq!(Reach { all, announced }.allows(ip(text)), loopback);
            let named = Reach {
                all,
                announced: None,
            };
            assert!(named.allows(ip(text)));
            let all = AddressPolicy::GlobalOnly;
            assert!(!Reach { all, announced }.allows(ip(text)));
        }
        assert!(near(false, false).allows(ip("9.9.9.9")));
    }
}
