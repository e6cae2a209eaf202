//! What somebody is about to read comes before everything else, in order.

use std::time::Duration;

use chiral_core::ByteRange;

use super::ledger::clip;
use super::portion::Portion;
use super::source::{Source, Standing};
use super::{RequestId, Scheduler, SourceId};

/// Most places that can be read from at once.
pub(super) const MAX_READERS: usize = 8;
/// Most sources that are compared for one piece.
const MAX_SWIFT: usize = 16;
/// Most steps of one search for bytes that are open and that the source has.
const MAX_STEPS: usize = 32;
/// A request for bytes that are about to be read takes its source this many seconds at most.
const SLICE: f64 = 0.25;
/// Bytes that are read now are taken from a source that would take more seconds than this,
/// besides its latency and what another one would take.
const SOON: f64 = 0.25;
/// And only if the other one is this many times sooner.
const MUCH_SOONER: f64 = 2.0;

/// What readers mean to the next request of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// It is asked for this.
    Ask(ByteRange),
    /// It has enough to do for them already.
    Busy,
    /// They get what they want sooner from others: it does something else.
    Leave,
    /// Nothing that it has is open and about to be read.
    Nothing,
}

impl Scheduler {
    /// What is about to be read, most urgent first: from each place on, so many bytes are asked
    /// for before all others, the lowest first and in short requests. If what is read first is
    /// expected of a source that will take long, a faster one is asked for it instead, and is
    /// relieved of what it has not begun. An empty slice ends this; bytes beyond the first
    /// 8 ranges, of the file or of the [window](Self::set_window) are ignored.
    ///
    /// May be called whenever a reader moves. Costs O(log n) for each range and source.
    pub fn set_wanted_next(&mut self, now: Duration, ranges: &[ByteRange]) {
        let chunk = self.config.chunk_bytes;
        let size = self.ledger.size;
        // Chunks are checked whole.
        let whole = |range: &ByteRange| {
            let end = range.end.div_ceil(chunk).saturating_mul(chunk);
            clip(ByteRange::new(range.start / chunk * chunk, end), size)
        };
        let ranges: Vec<ByteRange> = ranges
            .iter()
            .filter(|range| !range.is_empty())
            .map(whole)
            .filter(|range| !range.is_empty())
            .take(MAX_READERS)
            .collect();
        let new = ranges != self.ahead;
        self.ahead = ranges;
        self.settle(now);
        if new {
            self.wake_all();
        }
        for range in self.ahead.clone() {
            self.hasten(now, range, true);
        }
    }

    /// When the last bytes of the window hold up the others, sees to it that they come soon.
    pub(super) fn hasten_backwards(&mut self, now: Duration) {
        let Some(last) = self.ledger.wanted.prev_run(self.ledger.window.end) else {
            return;
        };
        let start = (last.end - 1) / self.config.chunk_bytes * self.config.chunk_bytes;
        let claimed = self.ledger.first.within(ByteRange::new(start, last.end));
        if !claimed.is_empty() {
            // A source that is relieved of them is not asked for them alone next time, as for a
            // reader, but for a run that ends with them: taken away from the fastest source,
            // they would come back to it later and later, and never arrive.
            let piece = ByteRange::new(start.max(last.start), last.end);
            self.hasten(now, piece, false);
        }
    }

    /// What to ask the source for on behalf of a reader: of the open bytes that it has, those
    /// nearest to one.
    pub(super) fn pick_ahead(&self, now: Duration, id: SourceId) -> Ahead {
        let Some(source) = self.sources.get(&id).filter(|_| !self.ahead.is_empty()) else {
            return Ahead::Nothing;
        };
        let near = |range: &ByteRange| {
            let run = self.open_ahead(source, *range)?;
            Some((run.start.saturating_sub(range.start), run, range.end))
        };
        let nearest = self.ahead.iter().filter_map(near);
        let Some((distance, run, end)) = nearest.min_by_key(|(distance, _, _)| *distance) else {
            return Ahead::Nothing;
        };
        let chunk = self.config.chunk_bytes;
        let piece = ByteRange::new(run.start, run.end.min(run.start.saturating_add(chunk)));
        let mine = match source.standing {
            Standing::Active => self.eta(now, source, piece.len()),
            _ => f64::INFINITY,
        };
        // Others could deliver everything up to here before this one delivers that.
        let others = self.soonest(now, piece, Some(id));
        let others = others.map(|(_, eta, pace)| eta + distance as f64 / pace);
        if others.is_some_and(|others| mine > SOON + MUCH_SOONER * others) {
            return Ahead::Leave;
        }
        if source.standing != Standing::Active {
            return Ahead::Nothing;
        }
        if self.busy_ahead(now, source) {
            return Ahead::Busy;
        }
        let slice = ((self.pace_or_guess(now, source) * SLICE) as u64).max(chunk);
        let portion = Portion {
            bytes: slice.min(end.saturating_sub(run.start)),
            depth: 0.0,
            least: 0,
            late: false,
            waste: 0,
        };
        match self.fit_first(source.grid, run, portion) {
            Some(ask) => Ahead::Ask(ask),
            None => Ahead::Nothing,
        }
    }

    /// The first part of a run that no reader is about to read.
    pub(super) fn clear_of_readers(&self, mut run: ByteRange) -> ByteRange {
        // Twice, for ranges that overlap or touch in any order.
        for range in self.ahead.iter().chain(&self.ahead) {
            if range.contains(run.start) {
                run = ByteRange::new(range.end.min(run.end), run.end);
            }
        }
        for range in &self.ahead {
            if run.contains(range.start) && range.start > run.start {
                run.end = range.start;
            }
        }
        run
    }

    /// Whether the source has as much to do for readers as hides its latency.
    fn busy_ahead(&self, now: Duration, source: &Source) -> bool {
        let queue = source.queue.iter();
        let mut ahead: u64 = 0;
        for known in queue.filter_map(|request| self.requests.get(request)) {
            let reading = |range: &ByteRange| range.contains(known.range.start);
            if self.ahead.iter().any(reading) {
                ahead += known.due.len();
            }
        }
        let pace = self.pace_or_guess(now, source);
        let enough = pace * (2.0 * source.latency() + SLICE);
        ahead as f64 >= enough.max(2.0 * self.config.chunk_bytes as f64)
    }

    /// Whether the last bytes of a moving window are in a run and had better come from another
    /// source: by the measure by which [`hasten_backwards`](Self::hasten_backwards) would take
    /// them away from this one again.
    pub(super) fn is_for_others(
        &self,
        now: Duration,
        id: SourceId,
        source: &Source,
        run: ByteRange,
    ) -> bool {
        let chunk = self.config.chunk_bytes;
        if !self.is_windowed() || run.end.saturating_add(chunk) <= self.ledger.window.end {
            return false;
        }
        let piece = ByteRange::new(run.start.max(run.end.saturating_sub(chunk)), run.end);
        let mine = self.eta(now, source, piece.len());
        let others = self.soonest(now, piece, Some(id));
        others.is_some_and(|(_, eta, _)| mine > SOON + MUCH_SOONER * eta)
    }

    /// The first run that begins in `range`, is open, and that the source has.
    fn open_ahead(&self, source: &Source, range: ByteRange) -> Option<ByteRange> {
        // A cell that begins before the range counts, too, if it is open.
        let mut at = source.grid.floor(range.start);
        for _ in 0..MAX_STEPS {
            let open = self.ledger.pool.open().next_run(at)?;
            let own = source.first_of(open)?;
            if own.start >= range.end {
                return None;
            }
            at = own.start;
            if let Some(run) = own.intersection(open) {
                if source.grid.shrink(run, self.ledger.size).is_some() {
                    return Some(run);
                }
                at = run.end;
            }
        }
        None
    }

    /// Seconds until the source would have delivered a new request of so many bytes.
    fn eta(&self, now: Duration, source: &Source, bytes: u64) -> f64 {
        let pace = self.pace_or_guess(now, source).max(1.0);
        source.latency().max(source.out as f64 / pace) + bytes as f64 / pace
    }

    /// Which source in use would deliver `piece` first if it were asked for that before
    /// everything else, in how many seconds, and at what pace.
    pub(super) fn soonest(
        &self,
        now: Duration,
        piece: ByteRange,
        but: Option<SourceId>,
    ) -> Option<(SourceId, f64, f64)> {
        let size = self.ledger.size;
        let able = self.index.swiftest().filter(|id| Some(*id) != but);
        let able = able.take(MAX_SWIFT).filter_map(|id| {
            self.index.count(0, 1);
            let source = self.sources.get(&id)?;
            let covers = source.covers(source.grid.expand(piece, size));
            covers.then_some((id, source))
        });
        able.map(|(id, source)| {
            let pace = self.pace_or_guess(now, source).max(1.0);
            (id, source.latency() + piece.len() as f64 / pace, pace)
        })
        .min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Sees to it that the first missing bytes of what is about to be read come soon. If
    /// `anew`, a source may be asked once more, and sooner, for what it has to bring itself.
    fn hasten(&mut self, now: Duration, range: ByteRange, anew: bool) {
        let Some(first) = self.ledger.wanted.within(range).next() else {
            return;
        };
        let chunk = self.config.chunk_bytes;
        let end = (first.start / chunk + 1).saturating_mul(chunk);
        let piece = ByteRange::new(first.start, first.end.min(end));
        let Some((fastest, eta, _)) = self.soonest(now, piece, None) else {
            return;
        };
        let patience = SOON + MUCH_SOONER * eta;
        let holders: Vec<(ByteRange, RequestId)> = self.ledger.first.within(piece);
        let claimed = !holders.is_empty();
        for (part, holder) in holders {
            let Some(owner) = self.requests.get(&holder).map(|known| known.source) else {
                continue;
            };
            let own = owner == fastest;
            let left = self.until(now, holder, part.end);
            let slow = (anew || !own) && left > patience && !self.is_new(now, holder);
            if slow && (anew || self.may_come_twice(now, holder, part)) {
                self.give_back_from(now, holder, part.start);
                self.robbed(now, owner);
            }
        }
        let open: u64 = self.ledger.pool.open().within(piece).map(|r| r.len()).sum();
        let busy = self.sources.get(&fastest).is_some_and(|source| {
            source.queue.len() >= source.max_requests || self.eta(now, source, 0) > patience
        });
        if open > 0 && busy {
            self.relieve(now, fastest);
        }
        if open > 0 || claimed {
            self.wake_all();
        }
    }

    /// A source lost to a faster one what it was asked for. If it brought nothing yet, it rests.
    fn robbed(&mut self, now: Duration, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id)
            && source.queue.is_empty()
            && source.meter.rate().is_none()
        {
            source.robbed_at = Some(now);
        }
    }

    /// Whether `part` can be taken away from a request although its source may have sent it.
    fn may_come_twice(&mut self, now: Duration, holder: RequestId, part: ByteRange) -> bool {
        let Some(id) = self.requests.get(&holder).map(|known| known.source) else {
            return false;
        };
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        let victim = self.victim(now, id, source);
        let cost = part.len().min(victim.in_flight as u64);
        if cost > self.budget(now, false) {
            return false;
        }
        self.take_risk(now, victim, 0.0, cost);
        true
    }

    /// Seconds until a request will have brought its bytes before `end`, after all that its
    /// source was asked for before.
    fn until(&self, now: Duration, request: RequestId, end: u64) -> f64 {
        let Some(known) = self.requests.get(&request) else {
            return 0.0;
        };
        let Some(source) = self.sources.get(&known.source) else {
            return f64::INFINITY;
        };
        if source.is_demoted() {
            return f64::INFINITY;
        }
        let mut bytes = 0;
        for queued in &source.queue {
            let Some(other) = self.requests.get(queued) else {
                continue;
            };
            if *queued == request {
                let due = other.due.within(ByteRange::new(0, end));
                bytes += due.map(|run| run.len()).sum::<u64>();
                break;
            }
            bytes += other.due.len();
        }
        let wait = if known.started { 0.0 } else { source.latency() };
        wait + bytes as f64 / self.pace_or_guess(now, source).max(1.0)
    }

    /// Takes everything from `start` on away from a request.
    fn give_back_from(&mut self, now: Duration, request: RequestId, start: u64) {
        let Some(known) = self.requests.get_mut(&request) else {
            return;
        };
        if known.whole.is_some() {
            return;
        }
        let lost: Vec<ByteRange> = known
            .claim
            .within(ByteRange::new(start, u64::MAX))
            .collect();
        for run in lost {
            if let Some(known) = self.requests.get_mut(&request) {
                known.claim.remove(run);
            }
            self.ledger.release(run, request);
        }
        self.shorten(now, request);
    }

    /// Takes from a source the requests that it has not begun and that no reader waits for.
    fn relieve(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let idle = |request: &&RequestId| {
            self.requests.get(request).is_some_and(|known| {
                !known.started
                    && known.whole.is_none()
                    && known.issued < now
                    && !self
                        .ahead
                        .iter()
                        .any(|range| range.intersection(known.range).is_some())
            })
        };
        let requests: Vec<RequestId> = source.queue.iter().filter(idle).copied().collect();
        for request in requests {
            self.end_request(now, request, true);
        }
    }
}
