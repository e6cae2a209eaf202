//! [`Known`]: peers that may be dialled, by who told of them.
//!
//! No origin drowns out the others: each has a limit of its own, and they take turns. Who could
//! not be reached is tried again, ever more seldom, and then not any more before it is told of
//! anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Who told of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::bittorrent) enum Origin {
    /// Somebody in the local network, of himself.
    Local,
    /// A tracker.
    Tracker,
    /// The DHT.
    Dht,
    /// Another peer.
    Exchange,
}

const ORIGINS: usize = 4;

/// Most peers of each origin that wait to be dialled.
const MOST: [usize; ORIGINS] = [100, 1000, 1000, 500];

/// Most peers that are remembered as tried.
const MAX_TRIED: usize = 2000;

/// Pause before a peer is dialled again, doubled each time, and how often that is.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(1800);
const MAX_FAILURES: u32 = 8;

/// Pause before somebody is dialled again who was connected.
const AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Tried {
    failures: u32,
    under_way: bool,
    /// Before that it is not dialled again; `None` for not at all.
    again: Option<Instant>,
}

/// Peers that may be dialled.
#[derive(Debug, Default)]
pub(in crate::bittorrent) struct Known {
    queues: [VecDeque<SocketAddr>; ORIGINS],
    queued: HashSet<SocketAddr>,
    turn: usize,
    tried: HashMap<SocketAddr, Tried>,
}

impl Known {
    /// Somebody told of a peer.
    pub(in crate::bittorrent) fn add(&mut self, origin: Origin, peer: SocketAddr) {
        let queue = &mut self.queues[origin as usize];
        if queue.len() >= MOST[origin as usize] || self.queued.contains(&peer) {
            return;
        }
        if let Some(tried) = self.tried.get(&peer) {
            if tried.under_way || tried.again.is_some() {
                // Its turn comes by itself.
                return;
            }
            // Who was given up gets another chance.
            self.tried.remove(&peer);
        }
        queue.push_back(peer);
        self.queued.insert(peer);
    }

    /// Who is to be dialled next; [`Self::failed`] or [`Self::ended`] is to be told afterwards.
    pub(in crate::bittorrent) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        for _ in 0..ORIGINS {
            let queue = &mut self.queues[self.turn];
            self.turn = (self.turn + 1) % ORIGINS;
            if let Some(peer) = queue.pop_front() {
                self.queued.remove(&peer);
                self.begin(peer, now);
                return Some(peer);
            }
        }
        let due = |tried: &Tried| !tried.under_way && tried.again.is_some_and(|at| at <= now);
        let (peer, tried) = self.tried.iter_mut().find(|(_, tried)| due(tried))?;
        tried.under_way = true;
        Some(*peer)
    }

    fn begin(&mut self, peer: SocketAddr, now: Instant) {
        if self.tried.len() >= MAX_TRIED {
            // Those given up, then those that rest.
            self.tried
                .retain(|_, tried| tried.under_way || tried.again.is_some());
            if self.tried.len() >= MAX_TRIED {
                self.tried.retain(|_, tried| tried.under_way);
            }
        }
        let tried = self.tried.entry(peer).or_insert(Tried {
            failures: 0,
            under_way: false,
            again: Some(now),
        });
        tried.under_way = true;
    }

    /// How many are being dialled.
    pub(in crate::bittorrent) fn under_way(&self) -> usize {
        self.tried.values().filter(|tried| tried.under_way).count()
    }

    /// It could not be reached.
    pub(in crate::bittorrent) fn failed(&mut self, peer: SocketAddr, now: Instant) {
        if let Some(tried) = self.tried.get_mut(&peer) {
            tried.under_way = false;
            tried.failures += 1;
            let pause = PAUSE.saturating_mul(1 << (tried.failures - 1).min(16));
            let more = tried.failures < MAX_FAILURES;
            tried.again = more.then(|| now + pause.min(MAX_PAUSE));
        }
    }

    /// It was reached.
    pub(in crate::bittorrent) fn reached(&mut self, peer: SocketAddr) {
        if let Some(tried) = self.tried.get_mut(&peer) {
            (tried.failures, tried.under_way, tried.again) = (0, false, None);
        }
    }

    /// A connection with it is over; it may be dialled again, if that is of use.
    pub(in crate::bittorrent) fn ended(&mut self, peer: SocketAddr, of_use: bool, now: Instant) {
        if let Some(tried) = self.tried.get_mut(&peer) {
            tried.under_way = false;
            tried.failures += 1;
            let more = of_use && tried.failures < MAX_FAILURES;
            tried.again = more.then_some(now + AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 6881))
    }

    #[test]
    fn origins_take_turns_and_each_has_its_limit() {
        let (mut known, now) = (Known::default(), Instant::now());
        for n in 0..3000 {
            known.add(Origin::Exchange, peer(n));
        }
        known.add(Origin::Tracker, peer(5000));
        known.add(Origin::Tracker, peer(0));
        known.add(Origin::Dht, peer(5001));
        let first: Vec<_> = (0..3).filter_map(|_| known.next(now)).collect();
        assert_eq!(first, [peer(5000), peer(5001), peer(0)]);
        let rest = std::iter::from_fn(|| known.next(now)).count();
        assert_eq!(rest, MOST[Origin::Exchange as usize] - 1);
        assert_eq!(known.under_way(), rest + 3);
    }

    #[test]
    fn who_fails_is_tried_ever_more_seldom_and_then_given_up() {
        let (mut known, mut now) = (Known::default(), Instant::now());
        known.add(Origin::Tracker, peer(1));
        let mut pauses = Vec::new();
        while known.next(now).is_some() {
            known.failed(peer(1), now);
            // To be told of it again changes nothing.
            known.add(Origin::Dht, peer(1));
            let begun = now;
            while known.tried[&peer(1)].again.is_some_and(|again| now < again) {
                assert_eq!(known.next(now), None);
                now += Duration::from_secs(1);
            }
            pauses.push((now - begun).as_secs());
            if pauses.len() == MAX_FAILURES as usize - 1 {
                assert!(known.next(now).is_some());
                known.failed(peer(1), now);
            }
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320]);
        // Told of anew, it gets another chance.
        known.add(Origin::Dht, peer(1));
        assert_eq!(known.next(now), Some(peer(1)));
    }

    #[test]
    fn who_was_connected_is_dialled_again_if_of_use() {
        let (mut known, now) = (Known::default(), Instant::now());
        for (n, of_use) in [(1, true), (2, false)] {
            known.add(Origin::Local, peer(n));
            assert_eq!(known.next(now), Some(peer(n)));
            known.reached(peer(n));
            assert_eq!(known.next(now), None);
            known.ended(peer(n), of_use, now);
        }
        assert_eq!(known.next(now), None);
        assert_eq!(known.next(now + AFTER), Some(peer(1)));
        assert_eq!(known.next(now + AFTER), None);
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let (mut known, now) = (Known::default(), Instant::now());
        for n in 0..5000 {
            known.add(Origin::Tracker, peer(n));
            let next = known.next(now).expect("just added");
            known.failed(next, now);
            assert!(known.tried.len() <= MAX_TRIED);
        }
    }
}
