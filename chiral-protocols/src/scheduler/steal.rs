//! Work for a source that found no open bytes: part of what another one is expected to
//! finish last, or, where nothing can be taken away, the same bytes once more.

use std::time::Duration;

use chiral_core::ByteRange;

use super::assign::FINE_CUT;
use super::source::{Source, Standing};
use super::{RequestId, Scheduler, SourceId};

/// Most sources whose work is considered in one decision.
const MAX_VICTIMS: usize = 8;
/// Most requests of one source that are considered, from its last one back.
const MAX_REQUESTS: usize = 8;
/// A steal has to save this many seconds, and this part of the thief's latency.
const MIN_GAIN: f64 = 0.04;
const MIN_GAIN_LATENCIES: f64 = 0.75;
/// Doubling bytes has to promise to get them this many times sooner.
const DOUBLE_GAIN: f64 = 2.0;
/// And to save this many seconds at least.
const DOUBLE_MIN_GAIN: f64 = 0.05;
/// Bytes that may be doubled in any download, however small.
const DOUBLE_FLOOR: u64 = 64 << 10;
/// One doubling may cost this part of what is left for all.
const BUDGET_PARTS: u64 = 6;
/// A source that slowed down just now is expected to get this much faster again.
const RECOVERY: f64 = 3.0;
/// Seconds after which a source that was never heard of has probably sent nothing.
const UNHEARD: f64 = 0.5;
/// More may have been sent than the mean rate says.
const CAUTION: f64 = 1.2;
/// What is overdue for so many seconds does not come any more.
const DEAD: f64 = 1.5;
/// What is overdue for so many seconds probably was not sent.
const GIVEN_UP: f64 = 0.5;
/// How long a new source is left alone.
const CONNECTING: Duration = Duration::from_secs(2);
/// An idle source looks again after this part of the time that the others still need.
const LOOK_AGAIN_PART: f64 = 0.125;
const LOOK_AGAIN: (f64, f64) = (0.01, 0.1);
/// Most sources among which the nearest one of the whole file is looked for.
const MAX_NEAR: usize = 4;

/// The source that wants work.
#[derive(Clone, Copy, Debug)]
struct Thief {
    id: SourceId,
    pace: f64,
    /// Seconds until a byte of a new request would arrive.
    ready: f64,
    latency: f64,
    /// Most bytes that it may take.
    limit: u64,
}

/// A source that has too much to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    id: SourceId,
    pace: f64,
    /// Seconds until it would be done.
    pub(super) finish: f64,
    /// Bytes that it probably sent already.
    in_flight: f64,
    /// Whether that is a mere guess: it may have sent everything.
    doubtful: bool,
}

impl Scheduler {
    /// Takes work for an idle source from others. Returns whether it got any.
    pub(super) fn steal(&mut self, now: Duration, id: SourceId) -> bool {
        // A source that is only being tried, or was never heard of, takes nothing over.
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        if source.standing != Standing::Active {
            return false;
        }
        let proven = source.meter.last().is_some();
        if self.take_whole(now, id) {
            return true;
        }
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        let thief = self.thief(now, id, source);
        let victims: Vec<Victim> = self
            .index
            .last()
            .filter(|other| *other != id)
            .take(MAX_VICTIMS)
            .filter_map(|other| Some(self.victim(now, other, self.sources.get(&other)?)))
            .collect();
        self.index.count(0, victims.len() as u64);
        let Some(last) = victims.first().map(|victim| victim.finish) else {
            return false;
        };
        let worth_it = !self.comes_late(thief);
        for victim in victims {
            if victim.finish <= thief.ready || !worth_it {
                break;
            }
            if self.steal_from(now, thief, victim)
                || (proven && self.take_over(now, thief, victim))
                || (proven && self.double(now, thief, victim))
            {
                return true;
            }
        }
        let wait = (last * LOOK_AGAIN_PART).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
        if let Some(source) = self.sources.get_mut(&id) {
            source.look_at = Some(now + Duration::from_secs_f64(wait));
        }
        self.touch(id);
        false
    }

    /// Whether nearer sources will have delivered everything before the first byte from this
    /// one: what it took, they could not take any more.
    fn comes_late(&self, thief: Thief) -> bool {
        let rate = self.index.pace();
        let left = (self.ledger.pool.open().len() + self.ledger.first.len()) as f64;
        let near = self.index.swiftest().take(MAX_NEAR);
        let near = near.filter_map(|id| self.sources.get(&id));
        let Some(nearest) = near.filter(|s| s.is_complete()).map(Source::latency).next() else {
            return false;
        };
        thief.latency > left / rate.max(1.0) + 2.0 * nearest + MIN_GAIN
    }

    fn thief(&self, now: Duration, id: SourceId, source: &Source) -> Thief {
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
        let pace = self.pace_or_guess(now, source).max(1.0);
        let slowed = source
            .meter
            .recent()
            .map_or(f64::INFINITY, |recent| recent * RECOVERY);
        let pace = pace.min(slowed.max(1.0));
        let begun = |request: &RequestId| self.requests.get(request).is_some_and(|r| r.started);
        if source.standing == Standing::Held && !source.queue.iter().any(begun) {
            // Nobody knows when it will go on.
            return Victim {
                id,
                pace: 1.0,
                finish: source.out as f64,
                in_flight: 0.0,
                doubtful: false,
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
        let wait = match (head, waited) {
            (Some(head), Some(waited)) => {
                let begins = source.latency() - waited;
                let last = source.meter.last().filter(|last| *last > head.issued);
                let since = last.map(|last| now.saturating_sub(last).as_secs_f64());
                begins.max(since.map_or(-begins, |since| since.min(begins.abs())))
            }
            _ => 0.0,
        };
        // Likewise one that went silent.
        let usual = 2.0 * (source.latency() + source.meter.gap());
        let overdue = (source.silence(now).as_secs_f64() - usual).max(0.0);
        Victim {
            id,
            pace,
            finish: wait.max(overdue) + source.out as f64 / pace,
            in_flight: in_flight(source, waited, overdue),
            doubtful: overdue < DEAD && (overdue > GIVEN_UP || !source.meter.is_measured()),
        }
    }

    fn steal_from(&mut self, now: Duration, thief: Thief, victim: Victim) -> bool {
        let Some(source) = self.sources.get(&victim.id) else {
            return false;
        };
        // Both finish together if the thief takes this much.
        let together = victim.pace * thief.pace / (victim.pace + thief.pace);
        let even = (victim.finish - thief.ready) * together;
        let movable = (source.out as f64 - victim.in_flight).max(0.0);
        let mut most = even.min(movable).min(thief.limit as f64);
        if victim.doubtful {
            most = most.min(self.budget() as f64);
        }
        let gain = most / victim.pace;
        if most < self.config.min_steal_bytes as f64
            || gain < MIN_GAIN + MIN_GAIN_LATENCIES * thief.latency
        {
            return false;
        }
        let queue: Vec<RequestId> = source
            .queue
            .iter()
            .rev()
            .take(MAX_REQUESTS)
            .copied()
            .collect();
        let taken = queue
            .into_iter()
            .any(|r| self.take_tail(now, thief, r, most as u64, victim.doubtful));
        if taken {
            self.doubt(now, victim.id);
        }
        taken
    }

    /// Whether a request was made in this very moment: moving it on at once could go round
    /// in circles.
    pub(super) fn is_new(&self, now: Duration, request: RequestId) -> bool {
        self.requests
            .get(&request)
            .is_none_or(|known| known.issued >= now)
    }

    /// Moves up to `most` bytes from the end of a request to the thief.
    fn take_tail(
        &mut self,
        now: Duration,
        thief: Thief,
        request: RequestId,
        most: u64,
        doubtful: bool,
    ) -> bool {
        if self.is_new(now, request) {
            return false;
        }
        let Some(ask) = self.tail(thief.id, request, most) else {
            return false;
        };
        if ask.len() < self.config.min_steal_bytes {
            return false;
        }
        if let Some(known) = self.requests.get_mut(&request) {
            known.claim.remove(ask);
        }
        self.ledger.release(ask, request);
        self.shorten(now, request);
        let made = self.assign(now, thief.id, ask);
        if doubtful {
            self.take_risk(made, ask.len());
        }
        true
    }

    /// The last run of a request that the thief can take, at most about `most` bytes of it.
    fn tail(&self, thief: SourceId, request: RequestId, most: u64) -> Option<ByteRange> {
        let size = self.ledger.size;
        let known = self.requests.get(&request)?;
        if known.whole.is_some() {
            return None;
        }
        let run = known
            .claim
            .prev_run(u64::MAX)?
            .intersection(self.ledger.window)?;
        let (source, owner) = (self.sources.get(&thief)?, self.sources.get(&known.source)?);
        let chunk = self.config.chunk_bytes;
        let wish = run.end.saturating_sub(most);
        let unit = match most {
            0..FINE_CUT => 1,
            _ if most < 4 * chunk => FINE_CUT,
            _ => chunk,
        };
        let cut = wish.div_ceil(unit).saturating_mul(unit).max(run.start);
        // What is left of a request that has not begun is not worth its while.
        let cut = if !known.started && cut - run.start < run.len() / 4 {
            run.start
        } else {
            cut
        };
        // The owner can stop at its own cuts only, or not begin.
        let stop = |at: u64| match known.claim.next_run(0) {
            Some(first) if at <= first.start => at,
            _ => owner.grid.ceil(at, size).min(run.end),
        };
        let tail = source.tail_of(ByteRange::new(stop(cut), run.end));
        let ask = source
            .grid
            .shrink(tail, size)
            .filter(|ask| ask.end == run.end)?;
        let ask = ByteRange::new(stop(ask.start), ask.end);
        let on_grid = source.grid.floor(ask.start) == ask.start;
        (on_grid && !ask.is_empty() && self.ledger.second.is_free(ask)).then_some(ask)
    }

    /// Moves all that is left of a request to the thief, where the victim could not stop at
    /// the right place or would take too long even for the rest. What the victim already
    /// sent and has not arrived comes twice.
    fn take_over(&mut self, now: Duration, thief: Thief, victim: Victim) -> bool {
        let Some((request, run, ask, cost)) = self.remainder(now, thief, victim) else {
            return false;
        };
        if !worth_doubling(thief, victim, ask) {
            return false;
        }
        if let Some(known) = self.requests.get_mut(&request) {
            known.claim.remove(run);
        }
        self.ledger.release(run, request);
        self.shorten(now, request);
        self.assign_twice(now, thief.id, ask, cost);
        self.doubt(now, victim.id);
        true
    }

    /// The last request of the victim that the thief can take over: its remaining bytes, what
    /// the thief would ask for, and how much of that probably comes twice.
    fn remainder(
        &self,
        now: Duration,
        thief: Thief,
        victim: Victim,
    ) -> Option<(RequestId, ByteRange, ByteRange, u64)> {
        let (source, owner) = (self.sources.get(&thief.id)?, self.sources.get(&victim.id)?);
        // One that never sent a byte may be connecting; until then its bytes are doubled.
        if owner.meter.last().is_none() && owner.silence(now) < CONNECTING {
            return None;
        }
        let budget = self.budget();
        let mut before = owner.out;
        let requests = owner.queue.iter().rev().take(MAX_REQUESTS);
        for (request, known) in requests.filter_map(|id| Some((*id, self.requests.get(id)?))) {
            before = before.saturating_sub(known.due.len());
            if known.whole.is_some() || self.is_new(now, request) {
                continue;
            }
            let run = known.claim.prev_run(u64::MAX);
            let Some(run) = run.and_then(|run| run.intersection(self.ledger.window)) else {
                continue;
            };
            let ask = source.grid.expand(run, self.ledger.size);
            let sent = (victim.in_flight as u64).saturating_sub(before);
            let cost = sent.min(run.len()) + (ask.len() - run.len());
            let fits = run.len() <= thief.limit && cost <= budget && source.covers(ask);
            if fits && !self.holds_some(thief.id, run) {
                return Some((request, run, ask, cost));
            }
        }
        None
    }

    /// Whether some of `range` was asked of the source.
    fn holds_some(&self, id: SourceId, range: ByteRange) -> bool {
        let holders = [&self.ledger.first, &self.ledger.second];
        let mut parts = holders.into_iter().flat_map(|layer| layer.within(range));
        parts.any(|(_, holder)| self.requests.get(&holder).is_some_and(|r| r.source == id))
    }

    /// Asks for `ask` and claims its free bytes, and as a second holder the others.
    fn assign_twice(&mut self, now: Duration, id: SourceId, ask: ByteRange, risk: u64) {
        let request = self.assign(now, id, ask);
        self.take_risk(request, risk);
        for part in self.not_held_for_others(ask, Some(request)).iter() {
            let second = self.ledger.take_second(part, request);
            if let Some(known) = self.requests.get_mut(&request) {
                for run in second.iter() {
                    known.claim.insert(run);
                }
            }
        }
    }

    /// Notes that a request may bring so many bytes for the second time.
    fn take_risk(&mut self, request: RequestId, bytes: u64) {
        if let Some(known) = self.requests.get_mut(&request) {
            known.risk += bytes;
            self.doubled += bytes;
        }
    }

    /// Bytes that may be asked for twice now. Only a part of what is left of the whole, so that
    /// many small ones go on after a few large ones.
    fn budget(&self) -> u64 {
        let whole = self.wanted_ever / 1_000 * u64::from(self.config.duplicate_permille);
        let spent = self.doubled + self.duplicate;
        let parts = u64::from(self.index.busy()).clamp(1, BUDGET_PARTS);
        let left = whole.saturating_sub(spent) / parts;
        left.max(DOUBLE_FLOOR.saturating_sub(spent))
    }

    /// Asks the thief for bytes that the victim was asked for, too, if it is much sooner and
    /// not too many bytes were doubled before.
    fn double(&mut self, now: Duration, thief: Thief, victim: Victim) -> bool {
        let budget = self.budget().min(thief.limit);
        let Some(ask) = self.doubled_range(thief, victim, budget) else {
            return false;
        };
        if !worth_doubling(thief, victim, ask) {
            return false;
        }
        self.assign_twice(now, thief.id, ask, ask.len());
        true
    }

    /// The first run of the victim's work that nobody was asked for twice.
    fn doubled_range(&self, thief: Thief, victim: Victim, budget: u64) -> Option<ByteRange> {
        let size = self.ledger.size;
        let source = self.sources.get(&thief.id)?;
        let owner = self.sources.get(&victim.id)?;
        owner
            .queue
            .iter()
            .rev()
            .take(MAX_REQUESTS)
            .find_map(|request| {
                let known = self
                    .requests
                    .get(request)
                    .filter(|known| known.whole.is_none())?;
                let run = known.claim.next_run(0)?.intersection(self.ledger.window)?;
                let run = ByteRange::new(run.start, run.end.min(run.start.saturating_add(budget)));
                let ask = source.grid.expand(run, size);
                let single = !ask.is_empty() && self.ledger.second.is_free(ask);
                (single && ask.len() <= budget && source.covers(ask)).then_some(ask)
            })
    }
}

/// Bytes that a source may have sent by the time it hears that it need not, late as they may
/// come. Of one whose rate is not known yet that may be all.
fn in_flight(source: &Source, waited: Option<f64>, overdue: f64) -> f64 {
    if !source.meter.is_measured() {
        let silent = overdue > 0.0 || waited.is_some_and(|waited| waited > UNHEARD);
        return if silent { 0.0 } else { source.out as f64 };
    }
    if overdue > GIVEN_UP {
        return 0.0;
    }
    let rate = source.meter.rate().unwrap_or(0.0);
    rate * (source.latency().min(waited.unwrap_or(f64::INFINITY)) + overdue) * CAUTION
}

/// Whether the thief would deliver `ask` so much sooner that asking twice is justified.
fn worth_doubling(thief: Thief, victim: Victim, ask: ByteRange) -> bool {
    let mine = thief.ready + ask.len() as f64 / thief.pace;
    mine * DOUBLE_GAIN <= victim.finish && mine + DOUBLE_MIN_GAIN <= victim.finish
}
