//! What a driver tells the scheduler, and what the scheduler tells the driver.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

/// One connection to one seeder, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// One request to one source; numbers are never used twice by a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Which bytes of the file a source has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All of them.
    Complete,
    /// These only.
    Partial(RangeSet),
}

/// What is known about a source when it comes up.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Where the source can cut the file.
    pub grid: RequestGrid,
    /// Which bytes it has.
    pub coverage: Coverage,
    /// How many requests it takes at once, at least 1. Those behind the first hide latency.
    pub max_requests: usize,
    /// Expected rate in bytes per second, from an earlier meeting with the source.
    pub rate_hint: Option<u64>,
}

impl SourceSpec {
    /// A source of the whole file that serves any byte range, `max_requests` at once.
    pub const fn complete(max_requests: usize) -> Self {
        Self {
            grid: RequestGrid::ANY,
            coverage: Coverage::Complete,
            max_requests,
            rate_hint: None,
        }
    }

    /// The same source, limited to the bytes in `coverage`.
    pub fn with_coverage(mut self, coverage: RangeSet) -> Self {
        self.coverage = Coverage::Partial(coverage);
        self
    }

    /// The same source, cutting the file by `grid`.
    pub fn with_grid(mut self, grid: RequestGrid) -> Self {
        self.grid = grid;
        self
    }

    /// The same source, expected to deliver `rate` bytes per second.
    pub fn with_rate_hint(mut self, rate: u64) -> Self {
        self.rate_hint = Some(rate);
        self
    }
}

/// Which of the bytes that may be asked for now are asked for first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Those that the fewest partial seeders have.
    #[default]
    Rarest,
    /// The lowest: playing while downloading.
    Forward,
    /// The highest: verifying from the end, when only the cid is known.
    Backward,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Worth trying again later: a timeout, a reset connection, a busy server.
    Temporary,
    /// The source does not want to serve this range: it is not asked for it again, and rests.
    Refused,
    /// The source does not have this range: it is not asked for it again, unless it still
    /// lists it a while later.
    Missing,
}

/// Who answers for bytes that proved wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody in particular.
    Nobody,
    /// This source: it is banned.
    Ban(SourceId),
}

/// Why a source rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoteReason {
    /// It owed bytes and sent none for too long.
    Stalled,
    /// Its requests failed.
    Failing,
    /// It refused a request.
    Refused,
    /// What it said of the file turned out wrong.
    Misleading,
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask `source` for `range`, behind what it was asked before.
    Assign {
        /// Number under which to report what becomes of it.
        request: RequestId,
        /// Whom to ask.
        source: SourceId,
        /// What to ask for, on the source's grid.
        range: ByteRange,
    },
    /// Stop the request: its remaining bytes are not needed or were given to others. Nothing
    /// has to be reported about it any more; bytes that still come may be.
    Cancel {
        /// The request to stop.
        request: RequestId,
    },
    /// Only the bytes before `end` are still wanted from the request. A source that sends in
    /// order may stop there; one that cannot stop there may ignore this.
    Truncate {
        /// The request to shorten.
        request: RequestId,
        /// Offset in the file one past the last byte still wanted.
        end: u64,
    },
    /// The source gets no new work until then, unless nobody else has what is wanted. For
    /// information: requests that it loses are cancelled one by one.
    Demote {
        /// The source that rests.
        source: SourceId,
        /// When it will be tried again.
        until: Duration,
        /// Why.
        reason: DemoteReason,
    },
    /// The source must not be used again. All its requests are void.
    Ban {
        /// The banned source.
        source: SourceId,
    },
}

/// What the scheduler thinks of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// In use.
    Active,
    /// Its demotion ended; it has to deliver one small request first.
    Probing,
    /// Resting until then.
    Demoted {
        /// When it will be tried again.
        until: Duration,
    },
    /// Standing still by [`hold`](super::Scheduler::hold).
    Held,
    /// Never used again.
    Banned,
}

/// What a source did so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceStats {
    /// Bytes that nobody had delivered before.
    pub useful_bytes: u64,
    /// Bytes that had already arrived or that nobody wanted.
    pub duplicate_bytes: u64,
    /// Moving average of the rate while it served, in bytes per second.
    pub rate: Option<f64>,
    /// Moving average of the time to the first byte of a request to the idle source.
    pub latency: Option<Duration>,
    /// Bytes that it still owes.
    pub outstanding_bytes: u64,
    /// Requests that it still works on.
    pub outstanding_requests: usize,
    /// What the scheduler thinks of it.
    pub state: SourceState,
}
