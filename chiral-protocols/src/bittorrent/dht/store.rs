//! `PeerStore`: the peers that others announced to us.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::bittorrent::random::Random;

/// Most torrents that peers are kept of.
pub const MAX_TORRENTS: usize = 4000;
/// Most peers of a torrent, for each address family.
pub const MAX_PEERS: usize = 200;
/// Most torrents that one address may be a peer of.
pub const MAX_TORRENTS_PER_IP: usize = 64;
/// How long an announcement holds.
pub const EXPIRY: Duration = Duration::from_secs(30 * 60);

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct PeerStore {
    torrents: HashMap<[u8; 20], Vec<Peer>>,
    /// How many entries each address has.
    of_ip: HashMap<IpAddr, usize>,
}

impl PeerStore {
    /// Whether it was kept.
    pub(super) fn insert(
        &mut self,
        info_hash: [u8; 20],
        address: SocketAddr,
        now: Instant,
    ) -> bool {
        let until = now + EXPIRY;
        let full = self.torrents.len() >= MAX_TORRENTS;
        let peers = match self.torrents.get_mut(&info_hash) {
            Some(peers) => peers,
            None if full => return false,
            None => self.torrents.entry(info_hash).or_default(),
        };
        if let Some(known) = peers.iter_mut().find(|peer| peer.address == address) {
            known.until = until;
            return true;
        }
        let entries = self.of_ip.entry(address.ip()).or_default();
        let kept = *entries < MAX_TORRENTS_PER_IP;
        if kept {
            *entries += 1;
            let of_family = |peer: &Peer| peer.address.is_ipv4() == address.is_ipv4();
            if peers.iter().filter(|peer| of_family(peer)).count() >= MAX_PEERS {
                // The one that was heard of longest ago makes room.
                let all = peers.iter().enumerate().filter(|(_, peer)| of_family(peer));
                if let Some((at, _)) = all.min_by_key(|(_, peer)| peer.until) {
                    let gone = peers.swap_remove(at);
                    release(&mut self.of_ip, gone.address.ip());
                }
            }
            peers.push(Peer { address, until });
        }
        if peers.is_empty() {
            self.torrents.remove(&info_hash);
        }
        kept
    }

    /// Some peers of a torrent, of one address family, by chance.
    pub(super) fn some(
        &self,
        info_hash: &[u8; 20],
        v4: bool,
        most: usize,
        now: Instant,
        random: &mut Random,
    ) -> Vec<SocketAddr> {
        let peers = self.torrents.get(info_hash).into_iter().flatten();
        let of_family = peers.filter(|peer| peer.address.is_ipv4() == v4 && peer.until > now);
        let mut found: Vec<_> = of_family.map(|peer| peer.address).collect();
        random.shuffle(&mut found);
        found.truncate(most);
        found
    }

    /// Forgets what does not hold any more.
    pub(super) fn expire(&mut self, now: Instant) {
        let of_ip = &mut self.of_ip;
        self.torrents.retain(|_, peers| {
            peers.retain(|peer| {
                let holds = peer.until > now;
                if !holds {
                    release(of_ip, peer.address.ip());
                }
                holds
            });
            !peers.is_empty()
        });
    }

    pub(super) fn torrents(&self) -> usize {
        self.torrents.len()
    }
}

fn release(of_ip: &mut HashMap<IpAddr, usize>, ip: IpAddr) {
    if let Some(count) = of_ip.get_mut(&ip) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            of_ip.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: usize) -> SocketAddr {
        let [.., a, b] = n.to_be_bytes();
        SocketAddr::from(([10, 0, a, b], 1))
    }

    fn hash(n: usize) -> [u8; 20] {
        let mut out = [0; 20];
        out[..8].copy_from_slice(&n.to_be_bytes());
        out
    }

    #[test]
    fn the_store_keeps_within_its_limits() {
        let (now, mut random) = (Instant::now(), Random::from_seed([1; 32]));
        let mut store = PeerStore::default();
        for n in 0..MAX_PEERS + 50 {
            let later = now + Duration::from_millis(n as u64);
            assert!(store.insert(hash(0), at(n), later));
        }
        let kept = store.some(&hash(0), true, 1000, now, &mut random);
        assert_eq!(kept.len(), MAX_PEERS);
        assert!(!kept.contains(&at(0)) && kept.contains(&at(MAX_PEERS + 49)));
        assert_eq!(store.some(&hash(0), true, 50, now, &mut random).len(), 50);
        // One address, however busy, has its share only.
        let kept = (1..200)
            .filter(|n| store.insert(hash(*n), at(9999), now))
            .count();
        assert_eq!(kept, MAX_TORRENTS_PER_IP);
        for n in 0..MAX_TORRENTS + 10 {
            store.insert(hash(n), at(n % 60000), now);
        }
        assert_eq!(store.torrents(), MAX_TORRENTS);
        store.expire(now + EXPIRY + Duration::from_secs(1));
        assert_eq!((store.torrents(), store.of_ip.len()), (0, 0));
    }

    #[test]
    fn peers_of_the_other_family_are_not_given() {
        let (now, mut random) = (Instant::now(), Random::from_seed([1; 32]));
        let mut store = PeerStore::default();
        store.insert(hash(1), "[2606:4700::1]:9".parse().unwrap(), now);
        assert!(store.some(&hash(1), true, 9, now, &mut random).is_empty());
        assert_eq!(store.some(&hash(1), false, 9, now, &mut random).len(), 1);
        let late = now + EXPIRY;
        assert!(store.some(&hash(1), false, 9, late, &mut random).is_empty());
    }
}
