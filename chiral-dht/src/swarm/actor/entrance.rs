//! [`Entrance`]: how a node gets into its network, and back into it.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::DialOpts;
use tokio::time::Instant;

use super::dial_at;
use crate::swarm::data_dir::PeerStore;

/// Pauses between attempts while nobody is known: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Remembered peers that are dialled in one attempt.
const PEERS_AT_ONCE: usize = 8;

/// With fewer connections, remembered peers are dialled, so that topics are heard.
const ENOUGH_CONNECTIONS: usize = 3;

/// How often that is looked at.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(30);

/// Dials the ways into the network, as long as nobody is known.
#[derive(Debug)]
pub(super) struct Entrance {
    bootstrap: Vec<Multiaddr>,
    next: Option<Instant>,
    pause: Duration,
    /// Where among the remembered peers the next attempt begins.
    offset: usize,
}

impl Entrance {
    pub(super) fn new(bootstrap: Vec<Multiaddr>) -> Self {
        Self {
            bootstrap,
            next: None,
            pause: FIRST_PAUSE,
            offset: 0,
        }
    }

    /// What is to be dialled now.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        known: usize,
        connected: usize,
        peers: &PeerStore,
    ) -> Vec<DialOpts> {
        if self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        if known > 0 {
            self.pause = FIRST_PAUSE;
            self.next = Some(now + CONNECTIONS_EVERY);
            if connected >= ENOUGH_CONNECTIONS {
                return Vec::new();
            }
            return self.remembered(peers);
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        let mut dials: Vec<DialOpts> = self.bootstrap.iter().cloned().map(Into::into).collect();
        dials.extend(self.remembered(peers));
        dials
    }

    fn remembered(&mut self, peers: &PeerStore) -> Vec<DialOpts> {
        let number = peers.iter().count();
        if number == 0 {
            return Vec::new();
        }
        let first = self.offset % number;
        self.offset = first + PEERS_AT_ONCE;
        let from_first = peers.iter().skip(first).chain(peers.iter().take(first));
        from_first
            .take(PEERS_AT_ONCE)
            .map(|(peer, addresses)| dial_at(*peer, addresses.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[tokio::test(start_paused = true)]
    async fn the_ways_in_are_tried_at_growing_pauses_until_somebody_is_known() {
        let mut entrance = Entrance::new(vec!["/ip4/1.2.3.4/tcp/1".parse().unwrap()]);
        let peers = PeerStore::default();
        let start = Instant::now();
        let mut at = Vec::new();
        for tick in 0..200u32 {
            let now = start + Duration::from_millis(200) * tick;
            if !entrance.tick(now, 0, 0, &peers).is_empty() {
                at.push(200 * tick);
            }
        }
        assert_eq!(at, [0, 600, 1600, 3600, 7600, 15_600, 31_600]);
        let later = start + Duration::from_secs(1000);
        assert!(entrance.tick(later, 1, 1, &peers).is_empty());
        let later = later + CONNECTIONS_EVERY;
        assert_eq!(entrance.tick(later, 0, 0, &peers).len(), 1, "lost again");
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_peers_are_tried_in_turn() {
        let mut entrance = Entrance::new(Vec::new());
        let mut peers = PeerStore::default();
        for port in 1..=PEERS_AT_ONCE * 2 {
            let address = format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap();
            peers.seen(PeerId::random(), vec![address]);
        }
        let mut tried = std::collections::HashSet::new();
        let mut now = Instant::now();
        for _ in 0..2 {
            let dials = entrance.tick(now, 0, 0, &peers);
            assert_eq!(dials.len(), PEERS_AT_ONCE);
            tried.extend(dials.iter().filter_map(DialOpts::get_peer_id));
            now += LAST_PAUSE;
        }
        assert_eq!(tried.len(), PEERS_AT_ONCE * 2);
    }
}
