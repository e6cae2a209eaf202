//! One source as the scheduler sees it, and one request to it.

use std::collections::VecDeque;
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

use super::denied::Denied;
use super::index::Entry;
use super::meter::Meter;
use super::{Coverage, RequestId, SourceId, SourceSpec, SourceState, SourceStats};

/// Latency in seconds that is assumed until it was measured.
pub(super) const ASSUMED_LATENCY: f64 = 0.2;
/// Seconds of silence, on top of the source's own habits, that do not slow a prediction.
const GRACE: f64 = 0.1;

/// Whether a source gets work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Active,
    /// One small request at a time until one is delivered.
    Probing,
    /// No work before `until`, or before `lone_until` if nobody else has what is wanted.
    Demoted {
        since: Duration,
        until: Duration,
        lone_until: Duration,
    },
    /// No work until it is released.
    Held,
}

/// A source that is up.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) grid: RequestGrid,
    pub(super) coverage: Coverage,
    /// What it said that it lacks although it listed it.
    pub(super) denied: Denied,
    pub(super) max_requests: usize,
    /// How far before the end of the window it is given anything, in a download from the end.
    pub(super) reach: u64,
    pub(super) meter: Meter,
    /// Its requests, oldest first.
    pub(super) queue: VecDeque<RequestId>,
    /// Bytes that its requests still have to bring, wanted or not.
    pub(super) out: u64,
    pub(super) standing: Standing,
    pub(super) stalls: u32,
    pub(super) failures: u32,
    /// Requests delivered since the last stall or failure.
    pub(super) good: u32,
    /// Whether it is in the queue of those to be given work.
    pub(super) hungry: bool,
    /// Whether it changed since its entry in the index was made.
    pub(super) dirty: bool,
    pub(super) entry: Entry,
    /// When to look for work again although nothing happened.
    pub(super) look_at: Option<Duration>,
    /// When it last got a request while it had none.
    pub(super) busy_since: Duration,
    /// When its oldest request became the oldest.
    pub(super) head_since: Duration,
    /// When the request that it was working on was stopped or shortened, until the next begins.
    pub(super) cut_at: Option<Duration>,
    /// When it last lost all that it had, if it brought nothing since, and how often that was.
    pub(super) robbed_at: Option<Duration>,
    pub(super) robbed: u32,
    /// How much it counts among partial seeders.
    pub(super) weight: u32,
    pub(super) useful: u64,
    pub(super) duplicate: u64,
}

impl Source {
    pub(super) fn new(spec: SourceSpec) -> Self {
        Self {
            grid: spec.grid,
            coverage: spec.coverage,
            denied: Denied::default(),
            max_requests: spec.max_requests.max(1),
            reach: u64::MAX,
            meter: Meter::new(spec.rate_hint),
            queue: VecDeque::new(),
            out: 0,
            standing: Standing::Active,
            stalls: 0,
            failures: 0,
            good: 0,
            hungry: false,
            dirty: false,
            entry: Entry::default(),
            look_at: None,
            busy_since: Duration::ZERO,
            head_since: Duration::ZERO,
            cut_at: None,
            robbed_at: None,
            robbed: 0,
            weight: super::pool::WEIGHT,
            useful: 0,
            duplicate: 0,
        }
    }

    /// Under which name the pool lists the source's bytes.
    pub(super) fn list(&self, id: SourceId) -> Option<SourceId> {
        matches!(self.coverage, Coverage::Partial(_)).then_some(id)
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.coverage, Coverage::Complete)
    }

    pub(super) fn is_demoted(&self) -> bool {
        matches!(self.standing, Standing::Demoted { .. } | Standing::Held)
    }

    pub(super) fn covers(&self, range: ByteRange) -> bool {
        match &self.coverage {
            Coverage::Complete => true,
            Coverage::Partial(set) => set.covers(range),
        }
    }

    /// The first run at or after the start of `range` that the source has.
    pub(super) fn first_of(&self, range: ByteRange) -> Option<ByteRange> {
        match &self.coverage {
            Coverage::Complete => Some(range),
            Coverage::Partial(set) => set.next_run(range.start),
        }
    }

    /// What the source has of `range`, from its first byte on.
    pub(super) fn head_of(&self, range: ByteRange) -> ByteRange {
        match &self.coverage {
            Coverage::Complete => range,
            Coverage::Partial(set) => {
                let end = set
                    .next_run(range.start)
                    .filter(|run| run.start == range.start);
                ByteRange::new(
                    range.start,
                    end.map_or(range.start, |run| run.end.min(range.end)),
                )
            }
        }
    }

    /// What the source has of `range`, up to its last byte.
    pub(super) fn tail_of(&self, range: ByteRange) -> ByteRange {
        match &self.coverage {
            Coverage::Complete => range,
            Coverage::Partial(set) => {
                let run = set.prev_run(range.end).filter(|run| run.end == range.end);
                ByteRange::new(
                    run.map_or(range.end, |run| run.start.max(range.start)),
                    range.end,
                )
            }
        }
    }

    /// Seconds from asking to the first byte, measured or assumed.
    pub(super) fn latency(&self) -> f64 {
        self.meter.latency().unwrap_or(ASSUMED_LATENCY)
    }

    /// For how long the source has owed bytes without sending any.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        if self.queue.is_empty() {
            return Duration::ZERO;
        }
        now.saturating_sub(
            self.meter
                .last()
                .map_or(self.busy_since, |l| l.max(self.busy_since)),
        )
    }

    /// The rate to count on from now, in bytes per second: what was measured, less the longer
    /// the source has been silent.
    pub(super) fn pace(&self, now: Duration) -> Option<f64> {
        let rate = self.meter.rate()?;
        let silence = self.silence(now).as_secs_f64();
        let grace = self.quiet_after();
        Some(rate * (grace / silence.max(1e-9)).min(1.0))
    }

    /// Seconds of silence after which a source that owes bytes is slower than expected.
    pub(super) fn quiet_after(&self) -> f64 {
        2.0 * self.meter.gap() + self.latency() + GRACE
    }

    /// What it should count, if that differs much from what it does: its rate in powers of
    /// two of 32 KiB/s, the rate of an unknown one being four of them.
    pub(super) fn new_weight(&self) -> Option<u32> {
        let units = (self.meter.rate()? / f64::from(32 << 10)).clamp(1.0, 1e6) as u32;
        let weight = 1 << units.ilog2();
        let factor = weight.max(self.weight) / weight.min(self.weight).max(1);
        (!self.is_complete() && factor >= 4).then_some(weight)
    }

    pub(super) fn stats(&self) -> SourceStats {
        SourceStats {
            useful_bytes: self.useful,
            duplicate_bytes: self.duplicate,
            rate: self.meter.rate(),
            latency: self.meter.latency().map(super::meter::span),
            outstanding_bytes: self.out,
            outstanding_requests: self.queue.len(),
            state: match self.standing {
                Standing::Active => SourceState::Active,
                Standing::Probing => SourceState::Probing,
                Standing::Demoted { until, .. } => SourceState::Demoted { until },
                Standing::Held => SourceState::Held,
            },
        }
    }
}

/// A request that a source works on.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceId,
    /// What was asked for.
    pub(super) range: ByteRange,
    /// What it still has to bring, wanted or not; nothing beyond where it was truncated.
    pub(super) due: RangeSet,
    /// Its share of the ledger; part of `due`.
    pub(super) claim: RangeSet,
    pub(super) issued: Duration,
    pub(super) started: bool,
    /// When it last brought a byte.
    pub(super) last: Duration,
    /// Start of the held range that it fetches whole.
    pub(super) whole: Option<u64>,
}
