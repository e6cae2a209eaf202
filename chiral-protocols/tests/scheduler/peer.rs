//! A simulated seeder: what it has, and how fast it sends over time.

use chiral_core::{ByteRange, RangeSet, RequestGrid};

use crate::rng::Rng;

/// A seeder. Times are in seconds since the start, rates in bytes per second.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) up_at: f64,
    pub(crate) down_at: f64,
    /// Round trip.
    pub(crate) latency: f64,
    /// (from, rate), the last one for ever.
    pub(crate) profile: Vec<(f64, f64)>,
    pub(crate) grid: RequestGrid,
    /// What it has; `None` for everything.
    pub(crate) coverage: Option<RangeSet>,
    pub(crate) depth: usize,
    /// How likely each piece is to be sent again, and to come that much later.
    pub(crate) loss: f64,
}

impl Peer {
    pub(crate) fn steady(rng: &mut Rng, rate: f64) -> Self {
        Self {
            up_at: 0.0,
            down_at: f64::INFINITY,
            latency: rng.log_between(0.005, 0.3),
            profile: vec![(0.0, rate)],
            grid: RequestGrid::ANY,
            coverage: None,
            depth: rng.int(2, 8) as usize,
            loss: 0.0,
        }
    }

    /// When `bytes` are sent that are begun at `from`.
    pub(crate) fn sent_at(&self, from: f64, bytes: f64) -> f64 {
        let mut left = bytes;
        for (index, &(start, rate)) in self.profile.iter().enumerate() {
            let end = self
                .profile
                .get(index + 1)
                .map_or(f64::INFINITY, |next| next.0);
            if end <= from {
                continue;
            }
            let begin = start.max(from);
            if rate > 0.0 && left <= (end - begin) * rate {
                return begin + left / rate;
            }
            left -= if rate > 0.0 {
                (end - begin) * rate
            } else {
                0.0
            };
        }
        f64::INFINITY
    }

    /// Bytes that it can send from `from` to `to`, being up or not.
    pub(crate) fn sends(&self, from: f64, to: f64) -> f64 {
        let mut sum = 0.0;
        for (index, &(start, rate)) in self.profile.iter().enumerate() {
            let end = self
                .profile
                .get(index + 1)
                .map_or(f64::INFINITY, |next| next.0);
            sum += (end.min(to) - start.max(from)).max(0.0) * rate;
        }
        sum
    }

    /// Bytes that it can deliver until `to`.
    pub(crate) fn capacity(&self, to: f64) -> f64 {
        self.sends(self.up_at, to.min(self.down_at))
    }

    /// The same peer as it appears from afar: it begins after one round trip, and those in
    /// which what is outstanding triples from 512 KiB to what hides the latency; when it goes,
    /// what it sent in the last round trip is lost.
    pub(crate) fn seen_from_afar(&self) -> Self {
        let rate = self.profile.iter().map(|step| step.1).fold(0.0, f64::max);
        let hides = 2.0 * rate * self.latency / (512.0 * 1024.0);
        let trips = 1.0 + hides.max(1.0).ln() / 3f64.ln();
        let mut peer = self.clone();
        peer.up_at += trips * self.latency;
        peer.down_at -= self.latency;
        peer
    }

    /// When it stops sending while it is up, each time with its round trip.
    pub(crate) fn stalls(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let steps = self
            .profile
            .iter()
            .filter(|step| step.1 == 0.0 && step.0 < self.down_at);
        steps.map(|step| (step.0, self.latency))
    }

    pub(crate) fn covers(&self, range: ByteRange) -> bool {
        self.coverage.as_ref().is_none_or(|set| set.covers(range))
    }
}

/// The earliest time at which `bytes` can have been sent.
///
/// Without partial seeders: when the capacities add up. With them: the same for every set of
/// seeders and the bytes that only they have (max-flow min-cut; at most 12 partial seeders).
pub(crate) fn ideal(peers: &[Peer], size: u64) -> f64 {
    let demands = demands(peers, size);
    let partial: Vec<&Peer> = peers.iter().filter(|p| p.coverage.is_some()).collect();
    let complete: Vec<&Peer> = peers.iter().filter(|p| p.coverage.is_none()).collect();
    let enough = |time: f64| {
        let base: f64 = complete.iter().map(|p| p.capacity(time)).sum();
        let capacity: Vec<f64> = partial.iter().map(|p| p.capacity(time)).collect();
        (0..1usize << partial.len()).all(|set| {
            // Bytes that nobody outside the set and the complete seeders has.
            let bytes: f64 = demands
                .iter()
                .filter(|(who, _)| who & !set == 0)
                .map(|(_, b)| *b as f64)
                .sum();
            let within: f64 = capacity
                .iter()
                .enumerate()
                .filter(|(i, _)| set >> i & 1 == 1)
                .map(|(_, c)| c)
                .sum();
            bytes <= base + within + 0.5
        })
    };
    let (mut low, mut high) = (0.0, 1.0);
    while !enough(high) {
        high *= 2.0;
        assert!(high < 1e9, "the scenario cannot complete");
    }
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if enough(middle) {
            high = middle
        } else {
            low = middle
        }
    }
    high
}

/// Bytes by the set of partial seeders that have them.
fn demands(peers: &[Peer], size: u64) -> Vec<(usize, u64)> {
    let sets: Vec<&RangeSet> = peers.iter().filter_map(|p| p.coverage.as_ref()).collect();
    let mut cuts = vec![0, size];
    for set in &sets {
        cuts.extend(set.iter().flat_map(|run| [run.start, run.end]));
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut demands: Vec<(usize, u64)> = Vec::new();
    for pair in cuts.windows(2) {
        let who = (0..sets.len())
            .filter(|&i| sets[i].contains(pair[0]))
            .map(|i| 1 << i)
            .sum();
        match demands.iter_mut().find(|(known, _)| *known == who) {
            Some((_, bytes)) => *bytes += pair[1] - pair[0],
            None => demands.push((who, pair[1] - pair[0])),
        }
    }
    demands
}

/// Bytes per second that steady peers can deliver while no more than `window` bytes are asked
/// for and have not arrived: each byte per second takes up as many as its round trip has
/// seconds, so the nearest peers come first.
pub(crate) fn through_window(peers: &[Peer], window: u64) -> f64 {
    let mut near: Vec<&Peer> = peers.iter().collect();
    near.sort_by(|a, b| a.latency.total_cmp(&b.latency));
    let (mut room, mut sum) = (window as f64, 0.0);
    for peer in near {
        let rate = peer.profile[0].1.min(room / peer.latency);
        room -= rate * peer.latency;
        sum += rate;
    }
    sum
}
