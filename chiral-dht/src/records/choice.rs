//! Which entries of a set stay where there is no room for all.
//!
//! First one of each neighbourhood of addresses, then the second of each, and so on, so that
//! one network does not crowd out the others. Among equals the smaller entries, and then
//! those that a secret of the storing node prefers: whoever floods a key cannot choose who
//! stays, and each node keeps others. An address is its announcer's word, so that this makes
//! crowding out dearer and not impossible; a reader asks several nodes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol as Part};

use super::RecordKey;
use super::announcement::{Body, Statement, sha256};

/// Bytes of an entry that are not held against it.
const SIZE_CLASS: usize = 512;

/// Whose addresses are near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Neighbourhood {
    /// No address: pointers, withdrawals, and what cannot be read.
    Nowhere,
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
    /// Under one host name, by its hash.
    Name([u8; 8]),
}

/// How the storing node chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chooser<'a> {
    /// Nobody else's.
    pub(super) secret: &'a [u8; 32],
    /// The storing node, whose own entry always stays.
    pub(super) own: PeerId,
    pub(super) key: &'a RecordKey,
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    pub(super) neighbourhood: Neighbourhood,
    pub(super) len: usize,
    /// Held only against replays.
    pub(super) expired: bool,
}

impl Chooser<'_> {
    /// The candidates, those that rather stay first. What is ahead of a candidate stays
    /// ahead if others join: leaving some out early does not change who stays at the end.
    pub(super) fn order(&self, candidates: impl Iterator<Item = Candidate>) -> Vec<PeerId> {
        let mut keyed: Vec<_> = candidates
            .map(|candidate| {
                let own = Reverse(candidate.peer == self.own);
                let class = candidate.len.saturating_sub(1) / SIZE_CLASS;
                let lot = self.lot(&candidate.peer);
                ((own, candidate.expired, class, lot), candidate)
            })
            .collect();
        keyed.sort_unstable_by_key(|(key, _)| *key);
        let mut seen: BTreeMap<(bool, Neighbourhood), usize> = BTreeMap::new();
        let mut ranked: Vec<_> = keyed
            .into_iter()
            .map(|((own, expired, class, lot), candidate)| {
                let near = seen.entry((expired, candidate.neighbourhood)).or_default();
                let rank = *near;
                *near += 1;
                ((own, expired, rank, class, lot), candidate.peer)
            })
            .collect();
        ranked.sort_unstable_by_key(|(key, _)| *key);
        ranked.into_iter().map(|(_, peer)| peer).collect()
    }

    fn lot(&self, peer: &PeerId) -> [u8; 32] {
        let peer = peer.to_bytes();
        // The secret has a fixed length and the peer's multihash says its own.
        sha256(&[&self.secret[..], &peer, &self.key.to_bytes()].concat())
    }
}

/// Where an announcement's first readable address is.
pub(super) fn neighbourhood(body: &Body) -> Neighbourhood {
    let Statement::Serves(service) = &body.statement else {
        return Neighbourhood::Nowhere;
    };
    let addresses = service.endpoints.iter().filter(|served| !served.mirror);
    addresses
        .filter_map(|served| of_address(served.endpoint.as_str()))
        .next()
        .unwrap_or(Neighbourhood::Nowhere)
}

fn of_address(address: &str) -> Option<Neighbourhood> {
    if address.starts_with('/') {
        let address: Multiaddr = address.parse().ok()?;
        return address.iter().find_map(|part| match part {
            Part::Ip4(ip) => Some(v4(ip)),
            Part::Ip6(ip) => Some(v6(ip)),
            Part::Dns(name) | Part::Dns4(name) | Part::Dns6(name) | Part::Dnsaddr(name) => {
                Some(named(&name))
            }
            _ => None,
        });
    }
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    if let Some((literal, _)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return literal.parse().ok().map(v6);
    }
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    match host.parse() {
        Ok(ip) => Some(v4(ip)),
        Err(_) if host.is_empty() => None,
        Err(_) => Some(named(host)),
    }
}

fn v4(ip: Ipv4Addr) -> Neighbourhood {
    let [a, b, c, _] = ip.octets();
    Neighbourhood::V4([a, b, c])
}

fn v6(ip: Ipv6Addr) -> Neighbourhood {
    if let Some(ip) = ip.to_ipv4_mapped() {
        return v4(ip);
    }
    let [a, b, c, d, e, f, ..] = ip.octets();
    Neighbourhood::V6([a, b, c, d, e, f])
}

fn named(host: &str) -> Neighbourhood {
    let hash = sha256(host.to_ascii_lowercase().as_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    Neighbourhood::Name(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_near_each_other_are_one_neighbourhood() {
        let of = |address| of_address(address).unwrap();
        let a = Neighbourhood::V4([192, 0, 2]);
        for address in [
            "http://192.0.2.1:80/x",
            "http://user@192.0.2.77/",
            "/ip4/192.0.2.9/udp/1/quic-v1",
            "192.0.2.200:6881",
            "http://[::ffff:192.0.2.3]/",
        ] {
            assert_eq!(of(address), a, "{address}");
        }
        let b = Neighbourhood::V6([0x20, 1, 0xd, 0xb8, 0, 1]);
        for address in [
            "https://[2001:db8:1::1]:1/",
            "/ip6/2001:db8:1:ffff::2/tcp/1",
        ] {
            assert_eq!(of(address), b, "{address}");
        }
        assert_eq!(
            of("https://Seeds.example/a"),
            of("/dns4/seeds.example/tcp/1")
        );
        assert_ne!(of("https://a.example"), of("https://b.example"));
        for nothing in ["", "http://", "/unix/x", "http://[zz]/"] {
            assert_eq!(of_address(nothing), None, "{nothing}");
        }
    }

    fn peers(number: usize) -> Vec<PeerId> {
        let peer = |index: usize| {
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&index.to_be_bytes());
            let key = Keypair::ed25519_from_bytes(secret).unwrap();
            key.public().to_peer_id()
        };
        (0..number).map(peer).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn leaving_some_out_early_does_not_change_who_stays(
            traits in proptest::collection::vec((0u8..5, 0usize..1100, any::<bool>()), 30),
            split in 0usize..30,
            room in 1usize..12,
            secret: [u8; 32],
        ) {
            let all: Vec<Candidate> = peers(30)
                .into_iter()
                .zip(traits)
                .map(|(peer, (near, len, expired))| Candidate {
                    peer,
                    neighbourhood: Neighbourhood::V4([near, 0, 0]),
                    len,
                    expired,
                })
                .collect();
            let key = RecordKey::Cid(chiral_core::Cid::from_bytes([1; 32]));
            let chooser = Chooser { secret: &secret, own: all[3].peer, key: &key };
            let best = |of: &[Candidate]| -> BTreeSet<PeerId> {
                chooser.order(of.iter().copied()).into_iter().take(room).collect()
            };
            let (early, late) = all.split_at(split);
            let stayed = best(early);
            let later: Vec<Candidate> = early
                .iter()
                .filter(|c| stayed.contains(&c.peer))
                .chain(late)
                .copied()
                .collect();
            prop_assert_eq!(best(&later), best(&all));
            prop_assert!(best(&all).contains(&all[3].peer));
        }
    }
}
