//! [`History`]: how fast peers were, as far as that can still be counted on. No clock.

use std::collections::BTreeMap;
use std::time::Duration;

use chiral_core::{CHUNK_SIZE, Endpoint, PeerId, PeerOffer, Protocol};

/// Time after which what was measured counts half: three days.
pub const HALF_LIFE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Most peers that are remembered. Of more, what counts least goes.
pub const MAX_PEERS: usize = 4096;

/// Most protocols that are remembered.
const MAX_PROTOCOLS: usize = 64;

/// Seconds of service beyond which more of it does not make an average steadier.
const MAX_SECONDS: f64 = 120.0;

/// What counts for less than so many seconds of service is as good as unknown.
const MIN_SECONDS: f64 = 0.01;

/// A chunk counts for so many seconds at least, in however short a time a fast peer sent it.
const CHUNK_SECONDS: f64 = 0.25;

/// Seconds of service for which the average of a peer's protocol stands in.
const PRIOR_SECONDS: f64 = 1.0;

/// A stall or failure counts as so many seconds without any byte.
const FAILURE_SECONDS: f64 = 2.0;

/// A rate that no peer has, in bytes per second.
const MAX_RATE: f64 = 1e12;

/// Who was measured: a peer wherever it serves, or a place where somebody unknown does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A peer, by its id.
    Peer(PeerId),
    /// A place.
    Place(Endpoint),
}

impl Who {
    /// Whoever made an offer.
    pub fn of(offer: &PeerOffer) -> Self {
        match &offer.peer {
            Some(peer) => Self::Peer(peer.clone()),
            None => Self::Place(offer.endpoint.clone()),
        }
    }
}

/// An average and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Bytes per second.
    pub rate: f64,
    /// Seconds of service that it rests on, as they count at `at`.
    pub seconds: f64,
    /// When it was measured last, from 1970 (UTC).
    pub at: Duration,
}

impl Measured {
    /// Seconds that it counts for now.
    fn seconds(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.seconds * 0.5f64.powf(age)
    }

    fn add(&mut self, now: Duration, rate: f64, seconds: f64) {
        let before = self.seconds(now);
        let sum = before + seconds;
        if sum > 0.0 {
            self.rate = (self.rate * before + rate * seconds) / sum;
        }
        self.seconds = sum.min(MAX_SECONDS);
        self.at = self.at.max(now);
    }

    /// As far as it makes sense.
    fn sane(self, now: Duration) -> Option<Self> {
        let finite = self.rate.is_finite() && self.seconds.is_finite();
        (finite && self.rate >= 0.0 && self.seconds > 0.0).then_some(Self {
            rate: self.rate.min(MAX_RATE),
            seconds: self.seconds.min(MAX_SECONDS),
            at: self.at.min(now),
        })
    }
}

/// The rates of peers and of protocols. What is old counts less and less, and then nothing.
/// Every `now` is the time since 1970 (UTC).
#[derive(Debug, Default)]
pub struct History {
    peers: BTreeMap<(Protocol, Who), Measured>,
    protocols: BTreeMap<Protocol, Measured>,
}

impl History {
    /// Nothing is known of anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// A peer delivered `bytes` at `rate` bytes per second while it served. If it was we who
    /// held it up, it could have been faster: then it counts only if it is more than was known.
    pub fn record(
        &mut self,
        now: Duration,
        offer: &PeerOffer,
        bytes: u64,
        rate: f64,
        held_up: bool,
    ) {
        if bytes == 0 || !rate.is_finite() || rate <= 0.0 {
            return;
        }
        let rate = rate.min(MAX_RATE);
        let least = CHUNK_SECONDS * (bytes as f64 / CHUNK_SIZE as f64).min(1.0);
        let seconds = (bytes as f64 / rate).clamp(least, MAX_SECONDS);
        if held_up
            && self
                .expected(now, offer)
                .is_some_and(|known| known as f64 >= rate)
        {
            return;
        }
        self.add(now, offer, rate, seconds);
    }

    /// A peer stalled or failed.
    pub fn failed(&mut self, now: Duration, offer: &PeerOffer) {
        // A stranger's first failure says nothing of its rate.
        let key = (offer.protocol.clone(), Who::of(offer));
        if self.peers.contains_key(&key) {
            self.add(now, offer, 0.0, FAILURE_SECONDS);
        }
    }

    fn add(&mut self, now: Duration, offer: &PeerOffer, rate: f64, seconds: f64) {
        let nothing = Measured {
            rate: 0.0,
            seconds: 0.0,
            at: now,
        };
        let protocol = &offer.protocol;
        if self.protocols.contains_key(protocol) || self.protocols.len() < MAX_PROTOCOLS {
            let average = self.protocols.entry(protocol.clone());
            average.or_insert(nothing).add(now, rate, seconds);
        }
        let key = (protocol.clone(), Who::of(offer));
        if !self.peers.contains_key(&key) {
            self.make_room(now);
        }
        self.peers
            .entry(key)
            .or_insert(nothing)
            .add(now, rate, seconds);
    }

    /// Costs O(peers) when there are as many as may be.
    fn make_room(&mut self, now: Duration) {
        if self.peers.len() < MAX_PEERS {
            return;
        }
        let counts = |(_, a): &(&_, &Measured), (_, b): &(&_, &Measured)| {
            a.seconds(now).total_cmp(&b.seconds(now))
        };
        let least = self.peers.iter().min_by(counts).map(|(key, _)| key.clone());
        if let Some(key) = least {
            self.peers.remove(&key);
        }
    }

    /// Bytes per second to expect of whoever made an offer; `None` of a stranger, and of
    /// whoever has not been met for long.
    pub fn expected(&self, now: Duration, offer: &PeerOffer) -> Option<u64> {
        let own = self.peers.get(&(offer.protocol.clone(), Who::of(offer)))?;
        let seconds = own.seconds(now);
        if seconds < MIN_SECONDS {
            return None;
        }
        let usual = self.of_protocol(now, &offer.protocol);
        let (usual, prior) = match usual {
            Some(rate) => (rate as f64, PRIOR_SECONDS),
            None => (0.0, 0.0),
        };
        Some(((own.rate * seconds + usual * prior) / (seconds + prior)) as u64)
    }

    /// Bytes per second that peers have over this protocol on average, if any were met lately.
    pub fn of_protocol(&self, now: Duration, protocol: &Protocol) -> Option<u64> {
        let average = self.protocols.get(protocol)?;
        (average.seconds(now) >= MIN_SECONDS).then_some(average.rate as u64)
    }

    /// All that is known of peers, to be kept.
    pub fn peers(&self) -> impl Iterator<Item = (&Protocol, &Who, &Measured)> {
        let peers = self.peers.iter();
        peers.map(|((protocol, who), measured)| (protocol, who, measured))
    }

    /// All that is known of protocols, to be kept.
    pub fn protocols(&self) -> impl Iterator<Item = (&Protocol, &Measured)> {
        self.protocols.iter()
    }

    /// Puts back what was kept of a peer; what makes no sense is left out.
    pub fn restore_peer(&mut self, now: Duration, protocol: Protocol, who: Who, kept: Measured) {
        if self.peers.len() < MAX_PEERS
            && let Some(kept) = kept.sane(now)
        {
            self.peers.insert((protocol, who), kept);
        }
    }

    /// Puts back what was kept of a protocol; what makes no sense is left out.
    pub fn restore_protocol(&mut self, now: Duration, protocol: Protocol, kept: Measured) {
        if self.protocols.len() < MAX_PROTOCOLS
            && let Some(kept) = kept.sane(now)
        {
            self.protocols.insert(protocol, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const MB: f64 = 1e6;

    fn offer(place: &str) -> PeerOffer {
        PeerOffer::new(Protocol::Http, Endpoint::new(place).unwrap())
    }

    #[test]
    fn the_faster_peer_is_expected_to_be_faster_and_time_takes_that_away() {
        let mut history = History::new();
        let (fast, slow) = (offer("fast"), offer("slow"));
        assert_eq!(history.expected(NOW, &fast), None);
        history.record(NOW, &fast, 100_000_000, 10.0 * MB, false);
        history.record(NOW, &slow, 10_000_000, MB, false);
        let at = |history: &History, offer: &PeerOffer, days: u64| {
            let now = NOW + Duration::from_secs(days * 86_400);
            history.expected(now, offer).unwrap_or(0) as f64
        };
        assert!(at(&history, &fast, 0) > 9.0 * MB);
        assert!(at(&history, &slow, 0) < 1.6 * MB);
        // Months later both are worth the average, and in the end nothing.
        let (fast_later, slow_later) = (at(&history, &fast, 15), at(&history, &slow, 15));
        assert!(
            fast_later < 7.0 * MB && slow_later > 4.0 * MB,
            "{fast_later} {slow_later}"
        );
        assert_eq!(at(&history, &fast, 365), 0.0);
    }

    #[test]
    fn what_is_new_outweighs_what_is_old() {
        let mut history = History::new();
        let a = offer("a");
        history.record(NOW, &a, 600_000_000, 10.0 * MB, false);
        let later = NOW + HALF_LIFE * 6;
        history.record(later, &a, 10_000_000, MB, false);
        let expected = history.expected(later, &a).unwrap() as f64;
        assert!(expected < 2.5 * MB, "{expected}");
    }

    #[test]
    fn failures_count_and_a_rate_that_we_held_up_only_if_it_is_more() {
        let mut history = History::new();
        let a = offer("a");
        history.failed(NOW, &a);
        assert_eq!(history.expected(NOW, &a), None);
        history.record(NOW, &a, 10_000_000, 5.0 * MB, true);
        let before = history.expected(NOW, &a).unwrap();
        history.record(NOW, &a, 10_000_000, MB, true);
        assert_eq!(history.expected(NOW, &a), Some(before));
        history.record(NOW, &a, 10_000_000, 10.0 * MB, true);
        assert!(history.expected(NOW, &a).unwrap() > before);
        history.failed(NOW, &a);
        assert!(history.expected(NOW, &a).unwrap() < before);
    }

    #[test]
    fn a_peer_is_known_wherever_it_serves_and_protocols_have_averages() {
        let mut history = History::new();
        let peer = PeerId::from_bytes(&[1]).unwrap();
        history.record(
            NOW,
            &offer("a").with_peer(peer.clone()),
            1_000_000,
            MB,
            false,
        );
        assert!(history.expected(NOW, &offer("b").with_peer(peer)).is_some());
        assert!(history.expected(NOW, &offer("a")).is_none());
        assert!(history.of_protocol(NOW, &Protocol::Http).is_some());
        assert_eq!(history.of_protocol(NOW, &Protocol::BitTorrent), None);
    }

    #[test]
    fn a_peer_that_was_done_in_no_time_is_remembered_as_well() {
        let mut history = History::new();
        history.record(NOW, &offer("a"), 1_000_000, 1e9, false);
        assert_eq!(history.expected(NOW, &offer("a")), Some(1_000_000_000));
    }

    #[test]
    fn only_so_many_are_remembered_and_nonsense_is_not() {
        let mut history = History::new();
        let steady = offer("steady");
        history.record(NOW, &steady, 100_000_000, MB, false);
        for n in 0..MAX_PEERS + 50 {
            history.record(NOW, &offer(&n.to_string()), 200_000, MB, false);
        }
        assert_eq!(history.peers().count(), MAX_PEERS);
        assert!(history.expected(NOW, &steady).is_some());
        let mut history = History::new();
        for rate in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            history.record(NOW, &steady, 1_000, rate, false);
            let (seconds, at) = (rate, NOW);
            let who = Who::of(&steady);
            history.restore_peer(NOW, Protocol::Http, who, Measured { rate, seconds, at });
        }
        assert_eq!(history.peers().count(), 0);
        let (rate, seconds, at) = (1e300, 1e300, NOW * 2);
        let who = Who::of(&steady);
        history.restore_peer(NOW, Protocol::Http, who, Measured { rate, seconds, at });
        assert_eq!(history.expected(NOW, &steady), Some(MAX_RATE as u64));
    }
}
