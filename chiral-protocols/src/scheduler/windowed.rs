//! Backwards in a moving window: who should bring which part of it.
//!
//! Nothing beyond the window may be asked for before its last bytes have come. So a part goes to
//! a source that brings it by the time at which it is needed: the last bytes to the swiftest, what
//! lies before them to those from which it takes longer, and to the farthest nothing, if the
//! others fill the window.

use std::time::Duration;

use chiral_core::ByteRange;

use super::meter::span;
use super::source::Source;
use super::{Scheduler, SourceId};

/// Most sources among which the window is shared out.
const MAX_NEAR: usize = 16;
/// A part may come so many times later than from the swiftest source, and so many seconds.
const SLACK: f64 = 1.3;
const SLACK_SECONDS: f64 = 0.005;
/// Round trips' worth of bytes that a source may have outstanding.
const SHARE: f64 = 1.5;
/// How long a source is not tried again, in latencies, and at least.
const RESTS: f64 = 16.0;
const UNTRIED: Duration = Duration::from_secs(2);
/// A request takes this part of the window at most, so that several share it.
const LARGEST_PART: u64 = 4;

impl Scheduler {
    /// Bytes per second that can go through the window, and how many of them come from this
    /// source: each takes up as many as its round trip has seconds, and the swiftest sources
    /// come first.
    fn through_window(&self, now: Duration, of: SourceId) -> (f64, f64) {
        let (mut room, mut sum, mut own) = (self.ledger.window.len() as f64, 0.0, 0.0);
        for id in self.index.swiftest().take(MAX_NEAR) {
            let Some(source) = self.sources.get(&id) else {
                continue;
            };
            let latency = source.latency().max(1e-3);
            let rate = self.pace_or_guess(now, source).min(room / latency);
            sum += rate;
            room -= rate * latency;
            if id == of {
                own = rate;
            }
        }
        self.index.count(0, MAX_NEAR as u64);
        (sum, own)
    }

    /// How long a request should be that shares the window with others.
    pub(super) fn part_of_window(&self, source: &Source, pace: f64) -> u64 {
        let window = self.ledger.window.len();
        let behind = source.max_requests.saturating_sub(1).max(1) as f64;
        let hidden = 1.5 * pace * source.latency() / behind;
        let chunk = self.config.chunk_bytes;
        (hidden as u64).clamp(chunk, (window / LARGEST_PART).max(chunk))
    }

    /// The last place in the window at which a request for so many bytes would come in time, or
    /// `None` if there is none. All of it if no rates are known.
    pub(super) fn in_time(
        &self,
        now: Duration,
        id: SourceId,
        source: &Source,
        bytes: u64,
    ) -> Option<u64> {
        let window = self.ledger.window;
        let Some(pace) = source.pace(now) else {
            return self.to_be_tried(now, source, bytes);
        };
        let pace = pace.max(1.0);
        let eta = source.latency().max(source.out as f64 / pace) + bytes as f64 / pace;
        let piece = ByteRange::new(window.end.saturating_sub(bytes), window.end);
        let soonest = self.soonest(now, piece, Some(id));
        let Some((_, soonest, _)) = soonest.filter(|(_, soonest, _)| *soonest < eta) else {
            return Some(window.end);
        };
        let (through, own) = self.through_window(now, id);
        // No more than its part: the window is full of what nearer sources bring sooner.
        if source.out as f64 >= SHARE * own * source.latency() + bytes as f64 {
            return None;
        }
        let late = eta - SLACK * soonest - SLACK_SECONDS;
        let distance = (late * through).max(0.0);
        let last = window.end.saturating_sub(distance as u64);
        (last > window.start).then_some(last)
    }

    /// Where a source is tried that brought nothing so far: anywhere while no rates are known,
    /// and then where the others come last. One that lost it again is left alone for a while.
    fn to_be_tried(&self, now: Duration, source: &Source, bytes: u64) -> Option<u64> {
        let window = self.ledger.window;
        if self.index.swiftest().next().is_none() {
            return Some(window.end);
        }
        let rest = UNTRIED.max(span(RESTS * source.latency()));
        let rests = |robbed: Duration| robbed.saturating_add(rest) > now;
        if source.robbed_at.is_some_and(rests) {
            return None;
        }
        Some(window.start.saturating_add(bytes).min(window.end))
    }
}
