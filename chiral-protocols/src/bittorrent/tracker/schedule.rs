//! [`Schedule`]: which tracker is told what, and when. No clock, no socket.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{AnnounceAnswer, AnnounceEvent, Retry, Tiers, TrackerError};
use crate::bittorrent::random::Random;

/// Between two announcements at least, whatever a tracker says, but for events.
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Between two announcements at most.
pub const MAX_INTERVAL: Duration = Duration::from_secs(2 * 3600);
/// Where a tracker says nothing.
pub const USUAL_INTERVAL: Duration = Duration::from_secs(1800);
/// First and longest wait after all trackers have failed.
pub const BACKOFF: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1800));

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announce {
    pub(super) url: String,
    pub(super) event: AnnounceEvent,
}

#[derive(Debug)]
pub(super) struct Schedule {
    tiers: Tiers,
    /// Trackers that have said when to come again, or that they do not want to be asked.
    rests: HashMap<String, Option<Instant>>,
    /// Trackers that know of us, in the order in which they learnt it.
    told: Vec<String>,
    /// Trackers still to be tried in this round, the next one last.
    round: Vec<String>,
    under_way: Option<Announce>,
    /// Completed, and no tracker knows yet.
    completed: bool,
    /// Trackers to be told of the end; `None` before it.
    stopping: Option<Vec<String>>,
    next: Instant,
    /// Before that nothing is asked without an event.
    earliest: Instant,
    rounds_failed: u32,
    shortest: Duration,
}

impl Schedule {
    pub(super) fn new(
        mut tiers: Tiers,
        shortest: Duration,
        random: &mut Random,
        now: Instant,
    ) -> Self {
        tiers.shuffle(random);
        Self {
            tiers,
            rests: HashMap::new(),
            told: Vec::new(),
            round: Vec::new(),
            under_way: None,
            completed: false,
            stopping: None,
            next: now,
            earliest: now,
            rounds_failed: 0,
            shortest,
        }
    }

    /// What is to be done now. Then [`succeeded`](Self::succeeded) or
    /// [`failed`](Self::failed) has to be called.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Announce> {
        if self.under_way.is_some() {
            return None;
        }
        let announce = if let Some(left) = &mut self.stopping {
            let url = left.pop()?;
            let event = AnnounceEvent::Stopped;
            Announce { url, event }
        } else {
            if self.round.is_empty() {
                if now < self.next {
                    return None;
                }
                self.begin_round(now);
            }
            let Some(url) = self.round.pop() else {
                self.exhausted(now);
                return None;
            };
            let event = if !self.told.contains(&url) {
                AnnounceEvent::Started
            } else if self.completed {
                AnnounceEvent::Completed
            } else {
                AnnounceEvent::None
            };
            Announce { url, event }
        };
        self.under_way = Some(announce.clone());
        Some(announce)
    }

    /// When to call [`poll`](Self::poll) again; `None` if that is pointless before something
    /// is told.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.under_way.is_some() {
            return None;
        }
        match &self.stopping {
            Some(left) => (!left.is_empty()).then_some(now),
            None if self.tiers.is_empty() => None,
            None if self.round.is_empty() => Some(self.next),
            None => Some(now),
        }
    }

    pub(super) fn succeeded(&mut self, answer: &AnnounceAnswer, now: Instant) {
        let Some(done) = self.under_way.take() else {
            return;
        };
        if self.stopping.is_some() {
            return;
        }
        if !self.told.contains(&done.url) {
            self.told.push(done.url.clone());
        }
        self.tiers.worked(&done.url);
        self.rests.remove(&done.url);
        self.round.clear();
        self.rounds_failed = 0;
        let said = match answer.interval {
            Duration::ZERO => USUAL_INTERVAL,
            said => said,
        };
        let least = answer.min_interval.unwrap_or(Duration::ZERO);
        let least = least.clamp(self.shortest, MAX_INTERVAL);
        self.next = now + said.clamp(least, MAX_INTERVAL);
        self.earliest = now + least;
        let completed_is_told = done.event == AnnounceEvent::Completed;
        self.completed &= !completed_is_told;
        if self.completed {
            // It became complete before this tracker knew of us: it has to hear both.
            self.next = now;
        }
    }

    pub(super) fn failed(&mut self, error: &TrackerError, now: Instant) {
        let Some(done) = self.under_way.take() else {
            return;
        };
        match error {
            TrackerError::Refused { retry, .. } => match retry {
                Retry::Unsaid => {}
                Retry::After(wait) => {
                    let wait = (*wait).clamp(self.shortest, 24 * MAX_INTERVAL);
                    self.rests.insert(done.url, Some(now + wait));
                }
                Retry::Never => {
                    self.rests.insert(done.url, None);
                }
            },
            error if !error.is_retryable() => {
                self.rests.insert(done.url, None);
            }
            _ => {}
        }
        if self.round.is_empty() && self.stopping.is_none() {
            self.exhausted(now);
        }
    }

    /// The transfer is complete; only to be said if it was not when it began.
    pub(super) fn complete(&mut self, now: Instant) {
        self.completed = true;
        self.next = now;
    }

    /// More peers are wanted: as soon as the tracker allows.
    pub(super) fn hurry(&mut self) {
        self.next = self.next.min(self.earliest);
    }

    /// The transfer has ended: whoever knows of us is told.
    pub(super) fn stop(&mut self) {
        self.stopping = Some(std::mem::take(&mut self.told));
        self.round.clear();
        self.under_way = None;
    }

    fn begin_round(&mut self, now: Instant) {
        self.rests
            .retain(|_, until| until.is_none_or(|until| now < until));
        let able = self
            .tiers
            .iter()
            .filter(|url| !self.rests.contains_key(*url));
        self.round = able.map(str::to_owned).collect();
        self.round.reverse();
    }

    fn exhausted(&mut self, now: Instant) {
        let doubled = BACKOFF.0 * 2_u32.saturating_pow(self.rounds_failed.min(8));
        self.rounds_failed = self.rounds_failed.saturating_add(1);
        self.next = now + doubled.min(BACKOFF.1);
        self.earliest = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(urls: &[&str], now: Instant) -> Schedule {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        let mut random = Random::from_seed([1; 32]);
        Schedule::new(Tiers::each(&urls), MIN_INTERVAL, &mut random, now)
    }

    fn answer(interval: u64, min: Option<u64>) -> AnnounceAnswer {
        AnnounceAnswer {
            interval: Duration::from_secs(interval),
            min_interval: min.map(Duration::from_secs),
            ..AnnounceAnswer::default()
        }
    }

    fn next(s: &mut Schedule, now: Instant) -> Option<(String, AnnounceEvent)> {
        s.poll(now).map(|announce| (announce.url, announce.event))
    }

    fn asks(url: &str, event: AnnounceEvent) -> Option<(String, AnnounceEvent)> {
        Some((url.to_owned(), event))
    }

    use AnnounceEvent::{Completed, None as Nothing, Started, Stopped};

    #[test]
    fn a_transfer_is_told_from_its_start_to_its_end() {
        let now = Instant::now();
        let mut s = schedule(&["a"], now);
        assert_eq!(next(&mut s, now), asks("a", Started));
        assert_eq!(next(&mut s, now), None);
        s.succeeded(&answer(1800, None), now);
        assert_eq!(s.poll_timeout(now), Some(now + 1800 * SECOND));
        assert_eq!(next(&mut s, now + 1799 * SECOND), None);
        let now = now + 1800 * SECOND;
        assert_eq!(next(&mut s, now), asks("a", Nothing));
        s.succeeded(&answer(1800, None), now);
        s.complete(now + SECOND);
        assert_eq!(next(&mut s, now + SECOND), asks("a", Completed));
        s.succeeded(&answer(1800, None), now + SECOND);
        assert_eq!(next(&mut s, now + 2 * SECOND), None);
        s.stop();
        assert_eq!(next(&mut s, now), asks("a", Stopped));
        s.succeeded(&answer(1800, None), now);
        assert_eq!((next(&mut s, now), s.poll_timeout(now)), (None, None));
    }

    #[test]
    fn intervals_are_kept_within_limits() {
        let now = Instant::now();
        for (interval, min, expected) in [
            (0, None, 1800),
            (1, None, 60),
            (100, Some(200), 200),
            (1_000_000, None, 7200),
            (300, Some(1_000_000), 7200),
        ] {
            let mut s = schedule(&["a"], now);
            s.poll(now).unwrap();
            s.succeeded(&answer(interval, min), now);
            assert_eq!(s.poll_timeout(now), Some(now + expected * SECOND));
        }
        // In a hurry, the least interval holds nevertheless.
        let mut s = schedule(&["a"], now);
        s.poll(now).unwrap();
        s.succeeded(&answer(1800, Some(300)), now);
        s.hurry();
        assert_eq!(s.poll_timeout(now), Some(now + 300 * SECOND));
    }

    #[test]
    fn the_next_tracker_is_asked_when_one_fails() {
        let now = Instant::now();
        let mut s = schedule(&["a", "b", "c"], now);
        assert_eq!(next(&mut s, now), asks("a", Started));
        s.failed(&TrackerError::Timeout, now);
        assert_eq!(next(&mut s, now), asks("b", Started));
        s.succeeded(&answer(100, None), now);
        assert_eq!(next(&mut s, now), None);
        // The next round begins with the first tier again, which has not heard of us.
        let now = now + 100 * SECOND;
        assert_eq!(next(&mut s, now), asks("a", Started));
        s.failed(&TrackerError::Timeout, now);
        assert_eq!(next(&mut s, now), asks("b", Nothing));
        s.succeeded(&answer(100, None), now);
        s.stop();
        assert_eq!(next(&mut s, now), asks("b", Stopped));
    }

    #[test]
    fn after_a_failed_round_the_waits_grow() {
        let mut now = Instant::now();
        let mut s = schedule(&["a"], now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            s.poll(now).unwrap();
            s.failed(&TrackerError::Timeout, now);
            s.hurry();
            let due = s.poll_timeout(now).unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1800, 1800]);
    }

    #[test]
    fn who_does_not_want_to_be_asked_is_not() {
        let now = Instant::now();
        let refused = |retry| TrackerError::Refused {
            reason: String::new(),
            retry,
        };
        let mut s = schedule(&["a", "b"], now);
        s.poll(now).unwrap();
        s.failed(&refused(Retry::Never), now);
        s.poll(now).unwrap();
        s.failed(&refused(Retry::After(600 * SECOND)), now);
        assert_eq!(next(&mut s, now + 100 * SECOND), None);
        assert_eq!(next(&mut s, now + 601 * SECOND), asks("b", Started));
        let mut s = schedule(&["x"], now);
        s.poll(now).unwrap();
        s.failed(&TrackerError::Address, now);
        for hours in 0..100 {
            assert_eq!(next(&mut s, now + hours * 3600 * SECOND), None);
        }
        assert_eq!(schedule(&[], now).poll_timeout(now), None);
    }

    #[test]
    fn whoever_completes_before_a_tracker_knows_tells_both() {
        let now = Instant::now();
        let mut s = schedule(&["a"], now);
        s.complete(now);
        assert_eq!(next(&mut s, now), asks("a", Started));
        s.succeeded(&answer(1800, None), now);
        assert_eq!(next(&mut s, now), asks("a", Completed));
        s.succeeded(&answer(1800, None), now);
        assert_eq!(next(&mut s, now), None);
    }
}
