//! Who gets a place in the routing table.
//!
//! An attacker with one network's addresses could fill the buckets that matter for a key. So
//! each bucket takes few peers of one network; addresses that are not global are not
//! counted, since there a network is one's own.

use std::collections::HashSet;
use std::net::IpAddr;

use libp2p::kad::{self, store::RecordStore};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::address_policy::AddressPolicy;

/// Peers of one network in one bucket.
const MAX_PER_NETWORK: usize = 2;

/// A /24 of IPv4, a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

fn network(address: &Multiaddr) -> Option<Network> {
    let ip: IpAddr = match address.iter().next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    if !AddressPolicy::GLOBAL.allows_ip(ip) {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Network::V4([a, b, c])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, ..] = ip.octets();
            Network::V6([a, b, c, d, e, f])
        }
    })
}

fn networks<'a>(addresses: impl IntoIterator<Item = &'a Multiaddr>) -> HashSet<Network> {
    addresses.into_iter().filter_map(network).collect()
}

/// Whether a peer may be in its bucket at these addresses.
pub(super) fn has_place<S: RecordStore + Send + 'static>(
    kad: &mut kad::Behaviour<S>,
    peer: &PeerId,
    addresses: &[Multiaddr],
) -> bool {
    let wanted = networks(addresses);
    if wanted.is_empty() {
        return true;
    }
    let Some(bucket) = kad.kbucket(*peer) else {
        return true;
    };
    let others: Vec<HashSet<Network>> = bucket
        .iter()
        .filter(|entry| entry.node.key.preimage() != peer)
        .map(|entry| networks(entry.node.value.iter()))
        .collect();
    wanted.iter().all(|network| {
        let holders = others.iter().filter(|other| other.contains(network));
        holders.count() < MAX_PER_NETWORK
    })
}

/// Forgets where else a peer in the table said that it was: these addresses are all that holds.
/// A peer that names others again and again would have a list without an end.
pub(super) fn forget_others<S: RecordStore + Send + 'static>(
    kad: &mut kad::Behaviour<S>,
    peer: &PeerId,
    addresses: &[Multiaddr],
) {
    let known = kad.kbucket(*peer).and_then(|bucket| {
        let mut entries = bucket.iter();
        let entry = entries.find(|entry| entry.node.key.preimage() == peer)?;
        Some(entry.node.value.iter().cloned().collect::<Vec<_>>())
    });
    let holds = |known: &Multiaddr| {
        let mut full = addresses.iter().map(|it| it.clone().with_p2p(*peer));
        full.any(|full| full.as_ref() == Ok(known))
    };
    for address in known.unwrap_or_default() {
        if !holds(&address) {
            kad.remove_address(peer, &address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::kad::store::MemoryStore;

    #[test]
    fn a_bucket_takes_few_peers_of_one_network() {
        let local = PeerId::random();
        let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
        // Half of all peers share the first bucket.
        let mut admitted = 0;
        for host in 0..40 {
            let peer = PeerId::random();
            let addresses = [format!("/ip4/8.8.8.{host}/tcp/1").parse().unwrap()];
            if has_place(&mut kad, &peer, &addresses) {
                kad.add_address(&peer, addresses[0].clone());
                admitted += 1;
                let again = has_place(&mut kad, &peer, &addresses);
                assert!(again, "who has a place keeps it");
            }
        }
        for bucket in kad.kbuckets() {
            assert!(bucket.num_entries() <= MAX_PER_NETWORK);
        }
        assert!(admitted < 40);
        for (address, place) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip4/8.8.9.1/tcp/1", true),
            ("/memory/1", true),
        ] {
            let peer = PeerId::random();
            let found = has_place(&mut kad, &peer, &[address.parse().unwrap()]);
            assert_eq!(found, place, "{address}");
        }
    }

    #[test]
    fn of_a_peer_that_moves_on_and_on_the_last_addresses_are_known() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
        let address = |port: u16| -> Multiaddr {
            let text = format!("/ip4/8.8.8.8/tcp/{port}");
            text.parse().unwrap()
        };
        for round in 1..100 {
            let addresses = [address(round), address(round + 1)];
            for address in &addresses {
                kad.add_address(&peer, address.clone());
            }
            forget_others(&mut kad, &peer, &addresses);
            let bucket = kad.kbucket(peer).unwrap();
            let entry = bucket.iter().next().expect("it stays in the table");
            let known: Vec<_> = entry.node.value.iter().cloned().collect();
            let full = addresses.map(|address| address.with_p2p(peer).unwrap());
            assert_eq!(known, full);
        }
    }
}
