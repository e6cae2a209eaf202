//! What is expected of a source that owes bytes, and of one that could take them over.

use std::time::Duration;

use chiral_core::ByteRange;

use super::source::{Source, Standing};
use super::{RequestId, Scheduler, SourceId};

/// A source that slowed down just now is expected to get this much faster again; one that has
/// been slow for a while, only so much.
const RECOVERY: f64 = 3.0;
const SLOW_RECOVERY: f64 = 1.5;
/// Seconds after which a source that was never heard of has probably sent nothing.
const UNHEARD: f64 = 0.5;
/// More may have been sent than the rate says.
const CAUTION: f64 = 1.5;
/// What is overdue for so many seconds does not come any more.
const DEAD: f64 = 1.5;
/// What is overdue for so many seconds probably was not sent.
const GIVEN_UP: f64 = 0.5;
/// What was sent has come after so many latencies.
const LATE: f64 = 1.25;
/// After the request in service was stopped it can take so many latencies until the next one
/// brings something: over some protocols that needs a new connection.
const LATENCIES_TO_GO_ON: f64 = 2.0;

/// The source that wants work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thief {
    pub(super) id: SourceId,
    pub(super) pace: f64,
    /// Seconds until a byte of a new request would arrive.
    pub(super) ready: f64,
    pub(super) latency: f64,
    /// Most bytes that it may take.
    pub(super) limit: u64,
}

/// A source that has too much to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub(super) id: SourceId,
    pub(super) pace: f64,
    /// Seconds until it would be done.
    pub(super) finish: f64,
    /// Bytes that it may have sent already.
    pub(super) in_flight: f64,
    /// Whether that is a mere guess: it may have sent everything.
    pub(super) doubtful: bool,
    /// Seconds until all that it has sent until now has come, if it is alive.
    pub(super) resolved: f64,
}

impl Scheduler {
    pub(super) fn thief(&self, now: Duration, id: SourceId, source: &Source) -> Thief {
        let pace = self.pace_or_guess(now, source).max(1.0);
        let latency = source.latency();
        let limit = match source.meter.rate() {
            Some(_) => self.config.max_stretched_request_bytes,
            None => self.config.initial_request_bytes,
        };
        Thief {
            id,
            pace,
            ready: latency.max(source.out as f64 / pace),
            latency,
            limit,
        }
    }

    pub(super) fn victim(&self, now: Duration, id: SourceId, source: &Source) -> Victim {
        let latency = source.latency();
        let pace = self.pace_or_guess(now, source).max(1.0);
        let meter = &source.meter;
        let pace = pace.min(at_most(source).max(1.0));
        let begun = |request: &RequestId| self.requests.get(request).is_some_and(|r| r.started);
        if source.standing == Standing::Held && !source.queue.iter().any(begun) {
            // Nobody knows when it will go on.
            return Victim {
                id,
                pace: 1.0,
                finish: source.out as f64,
                in_flight: 0.0,
                doubtful: false,
                resolved: 0.0,
            };
        }
        // A request that has not begun does so when its round trip is over and what was before
        // it has come; one that should have begun is expected to take as long again as it
        // already is late.
        let head = source
            .queue
            .front()
            .and_then(|head| self.requests.get(head))
            .filter(|head| !head.started);
        let waited = head.map(|head| now.saturating_sub(head.issued).as_secs_f64());
        let cut = source.cut_at;
        let cut = cut.map(|at| now.saturating_sub(at).as_secs_f64());
        let mut wait = match (head, waited) {
            (Some(head), Some(waited)) => {
                let begins = latency - waited;
                let last = meter.last().filter(|last| *last > head.issued);
                let since = last.map(|last| now.saturating_sub(last).as_secs_f64());
                begins.max(since.map_or(-begins, |since| since.min(begins.abs())))
            }
            _ => 0.0,
        };
        if let Some(cut) = cut {
            wait = wait.max(LATENCIES_TO_GO_ON * latency - cut);
        }
        // Likewise one that went silent.
        let silence = source.silence(now).as_secs_f64();
        let usual = 2.0 * (latency + meter.gap());
        let overdue = (silence - usual).max(0.0);
        // What it sent after the last byte that came; or since it was asked; or since it was
        // told to stop what it was sending.
        let sending = (latency + silence).min(waited.unwrap_or(f64::INFINITY));
        let sending = sending.min(cut.unwrap_or(f64::INFINITY));
        Victim {
            id,
            pace,
            finish: wait.max(overdue) + source.out as f64 / pace,
            in_flight: in_flight(source, sending, overdue > 0.0 || sending > UNHEARD, overdue),
            doubtful: overdue < DEAD && (overdue > GIVEN_UP || !meter.is_measured()),
            resolved: latency * LATE,
        }
    }
}

impl Scheduler {
    /// A request is about to be stopped at `end`. If what its source sends now lies behind that,
    /// the source may take longer to go on.
    pub(super) fn note_cut(&mut self, now: Duration, request: RequestId, end: u64) {
        let Some(known) = self.requests.get(&request) else {
            return;
        };
        let id = known.source;
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        if source.queue.front() != Some(&request) {
            return;
        }
        let kept = known.due.within(ByteRange::new(0, end));
        let kept: u64 = kept.map(|run| run.len()).sum();
        let sent = self.victim(now, id, source).in_flight;
        if kept as f64 <= sent
            && sent < known.due.len() as f64
            && let Some(source) = self.sources.get_mut(&id)
        {
            source.cut_at = Some(now);
        }
    }
}

/// The highest rate that a source is expected to have from now on, in bytes per second.
pub(super) fn at_most(source: &Source) -> f64 {
    let meter = &source.meter;
    let slowed = meter
        .recent()
        .map_or(f64::INFINITY, |recent| recent * RECOVERY);
    let slow = meter
        .peak()
        .map_or(f64::INFINITY, |peak| peak * SLOW_RECOVERY);
    slowed.min(slow)
}

/// Bytes that a source may have sent by the time it hears that it need not, late as they may
/// come. Of one whose rate is not known yet that may be all.
fn in_flight(source: &Source, sending: f64, silent: bool, overdue: f64) -> f64 {
    let Some(rate) = source.meter.rate().filter(|_| source.meter.is_measured()) else {
        return if silent { 0.0 } else { source.out as f64 };
    };
    if overdue > GIVEN_UP {
        return 0.0;
    }
    // Of one that has been slow for a while no more than that.
    let rate = source.meter.peak().unwrap_or(rate);
    rate * sending * CAUTION
}
