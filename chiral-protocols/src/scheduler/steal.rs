//! Work for a source that found no open bytes: part of what another one is expected to
//! finish last, or, where nothing can be taken away, the same bytes once more.

use std::time::Duration;

use chiral_core::ByteRange;

use super::assign::FINE_CUT;
use super::meter::span;
use super::source::{Source, Standing};
use super::victim::{Thief, Victim};
use super::{Order, RequestId, Scheduler, SourceId};

/// Most sources whose work is considered in one decision.
const MAX_VICTIMS: usize = 8;
/// Most requests of one source that are considered, from its last one back.
pub(super) const MAX_REQUESTS: usize = 8;
/// A steal has to save this many seconds, and this part of the thief's latency.
const MIN_GAIN: f64 = 0.04;
const MIN_GAIN_LATENCIES: f64 = 0.75;
/// An idle source looks again after this part of the time that the others still need.
const LOOK_AGAIN_PART: f64 = 0.125;
const LOOK_AGAIN: (f64, f64) = (0.01, 0.1);
/// Most sources among which the nearest one of the whole file is looked for.
const MAX_NEAR: usize = 4;

/// Most sources from which work is taken before it has to be.
const MAX_EARLY: usize = 4;
/// What would take the thief less than this part of the time that is left can wait.
const EARLY: f64 = 0.03;

/// A source that lost all it had before it brought a byte takes nothing over for so many latencies.
const REST_LATENCIES: f64 = 4.0;
/// Each further time it rests so many seconds longer, twice as many as the time before: two that
/// bring nothing could take the same bytes from each other for ever, and others would not get them.
const REST_AGAIN: f64 = 0.025;
const MAX_REST_DOUBLINGS: u32 = 10;

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
        if let Some(robbed) = source.robbed_at {
            let again = source.robbed.saturating_sub(1).min(MAX_REST_DOUBLINGS);
            let again = REST_AGAIN * f64::from((1 << again) - 1);
            let rest = span(REST_LATENCIES * source.latency() + again);
            let over = robbed.saturating_add(rest);
            if over > now {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.look_at = Some(over);
                }
                self.touch(id);
                return false;
            }
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
        let least = self.config.min_steal_bytes;
        let worth_it = match self.is_held_up() {
            true => self.in_time(now, id, source, least) == Some(self.ledger.window.end),
            false => !self.comes_late(thief),
        };
        for victim in victims {
            if victim.finish <= thief.ready || !worth_it {
                break;
            }
            if self.steal_from(now, thief, victim) || (proven && self.ask_again(now, thief, victim))
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

    /// Takes work for a source that could do open bytes from one that will be the last to finish,
    /// if it takes this one long, too: a fast source can still do that at the end. Where sources
    /// have parts of the file, a slow one may be the only one that can.
    pub(super) fn steal_early(&mut self, now: Duration, id: SourceId) -> bool {
        if self.order != Order::Rarest || self.ledger.pool.is_covered_by_all() {
            return false;
        }
        let left = (self.ledger.pool.open().len() + self.ledger.first.len()) as f64;
        let all = left / self.index.busy_pace().max(1.0);
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        if source.standing != Standing::Active || source.pace(now).is_none() {
            return false;
        }
        let thief = self.thief(now, id, source);
        let last = self.index.last().filter(|other| *other != id);
        let late: Vec<Victim> = last
            .take(MAX_EARLY)
            .filter_map(|other| Some(self.victim(now, other, self.sources.get(&other)?)))
            .filter(|victim| victim.finish > all && victim.finish > thief.ready && !victim.doubtful)
            .collect();
        self.index.count(0, late.len() as u64);
        let open = self.ledger.pool.best_rank(source.list(id));
        late.into_iter().any(|victim| {
            // What more sources could do comes later, whoever was asked for it.
            if open.is_some_and(|open| self.last_rank(victim.id).is_none_or(|last| last > open)) {
                return false;
            }
            let together = victim.pace * thief.pace / (victim.pace + thief.pace);
            let even = (victim.finish - thief.ready) * together;
            even / thief.pace > EARLY * all && self.steal_from(now, thief, victim)
        })
    }

    /// The rank of the last bytes that a source was asked for.
    fn last_rank(&self, id: SourceId) -> Option<u32> {
        let last = self.sources.get(&id)?.queue.back()?;
        let run = self.requests.get(last)?.claim.prev_run(u64::MAX)?;
        Some(self.ledger.pool.rank_at(run.end - 1))
    }

    /// Whether nearer sources will have delivered everything before the first byte from this
    /// one: what it took, they could not take any more.
    fn comes_late(&self, thief: Thief) -> bool {
        let rate = self.index.busy_pace();
        let left = (self.ledger.pool.open().len() + self.ledger.first.len()) as f64;
        let near = self.index.swiftest().take(MAX_NEAR);
        let near = near.filter_map(|id| self.sources.get(&id));
        let Some(nearest) = near.filter(|s| s.is_complete()).map(Source::latency).next() else {
            return false;
        };
        thief.latency > left / rate.max(1.0) + 2.0 * nearest + MIN_GAIN
    }

    fn steal_from(&mut self, now: Duration, thief: Thief, victim: Victim) -> bool {
        let Some(source) = self.sources.get(&victim.id) else {
            return false;
        };
        let out = source.out as f64;
        // Both finish together if the thief takes this much.
        let together = victim.pace * thief.pace / (victim.pace + thief.pace);
        let even = (victim.finish - thief.ready) * together;
        let movable = (out - victim.in_flight).max(0.0);
        let mut most = even.min(movable).min(thief.limit as f64);
        if victim.doubtful {
            most = most.min(self.budget(now, false) as f64);
        }
        let gain = most / victim.pace;
        if most < self.config.min_steal_bytes as f64
            || gain < MIN_GAIN + MIN_GAIN_LATENCIES * thief.latency
        {
            return false;
        }
        let Some(source) = self.sources.get(&victim.id) else {
            return false;
        };
        let last = source.queue.iter().rev().take(MAX_REQUESTS);
        let queue: Vec<RequestId> = last.copied().collect();
        let taken = queue
            .into_iter()
            .find_map(|r| self.take_tail(now, thief, r, most as u64));
        if let Some(bytes) = taken {
            if victim.doubtful {
                self.take_risk(now, victim, 0.0, bytes);
            }
            self.doubt(now, victim.id);
        }
        taken.is_some()
    }

    /// Whether a request was made in this very moment: moving it on at once could go round
    /// in circles.
    pub(super) fn is_new(&self, now: Duration, request: RequestId) -> bool {
        self.requests
            .get(&request)
            .is_none_or(|known| known.issued >= now)
    }

    /// Moves up to `most` bytes from the end of a request to the thief; returns how many.
    fn take_tail(
        &mut self,
        now: Duration,
        thief: Thief,
        request: RequestId,
        most: u64,
    ) -> Option<u64> {
        if self.is_new(now, request) {
            return None;
        }
        let ask = self.tail(thief.id, request, most)?;
        if ask.len() < self.config.min_steal_bytes {
            return None;
        }
        if let Some(known) = self.requests.get_mut(&request) {
            known.claim.remove(ask);
        }
        self.ledger.release(ask, request);
        self.shorten(now, request);
        self.assign(now, thief.id, ask);
        Some(ask.len())
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
}
