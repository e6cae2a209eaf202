//! The same bytes once more, where nothing can be taken away from the source that has them.

use std::time::Duration;

use chiral_core::ByteRange;

use super::meter::span;
use super::source::Source;
use super::steal::MAX_REQUESTS;
use super::victim::{Thief, Victim};
use super::{RequestId, Scheduler, SourceId};

/// Doubling bytes has to promise to get them this many times sooner.
const DOUBLE_GAIN: f64 = 2.0;
/// And to save this many seconds at least.
const DOUBLE_MIN_GAIN: f64 = 0.05;
/// How long a new source is left alone.
const CONNECTING: Duration = Duration::from_secs(2);

/// Bytes that the victim may have sent and that the thief is asked for nevertheless.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// The thief gets all that is left of a request, and the victim need not send it.
    Instead {
        request: RequestId,
        run: ByteRange,
        ask: ByteRange,
        /// How much of it probably comes twice.
        cost: u64,
    },
    /// Both are asked.
    Besides(ByteRange),
}

impl Scheduler {
    /// Asks the thief for bytes that the victim may have sent, if it is much sooner and not too
    /// many came twice before.
    pub(super) fn ask_again(&mut self, now: Duration, thief: Thief, victim: Victim) -> bool {
        let budget = (self.budget(now, false), self.budget(now, true));
        let Some(again) = self.again(now, thief, victim, budget) else {
            return false;
        };
        match again {
            Again::Instead {
                request,
                run,
                ask,
                cost,
            } => {
                if let Some(known) = self.requests.get_mut(&request) {
                    known.claim.remove(run);
                }
                self.ledger.release(run, request);
                self.shorten(now, request);
                self.assign_twice(now, thief.id, ask);
                self.take_risk(now, victim, 0.0, cost);
                self.doubt(now, victim.id);
            }
            Again::Besides(ask) => {
                self.assign_twice(now, thief.id, ask);
                let mine = thief.ready + ask.len() as f64 / thief.pace;
                self.take_risk(now, victim, mine, ask.len());
            }
        }
        true
    }

    /// What to ask the thief for of what the victim was asked for: the last request that it can
    /// take over, where the victim could not stop at the right place or would take too long even
    /// for the rest; or else the first run of one that nobody was asked for twice.
    fn again(
        &self,
        now: Duration,
        thief: Thief,
        victim: Victim,
        (budget, besides_budget): (u64, u64),
    ) -> Option<Again> {
        let (source, owner) = (self.sources.get(&thief.id)?, self.sources.get(&victim.id)?);
        // One that never sent a byte may be connecting; until then nothing is taken over.
        let connecting = owner.meter.last().is_none() && owner.silence(now) < CONNECTING;
        let mut before = owner.out;
        let mut besides = None;
        for request in owner.queue.iter().rev().take(MAX_REQUESTS) {
            let Some(known) = self.requests.get(request) else {
                continue;
            };
            before = before.saturating_sub(known.due.len());
            if known.whole.is_some() {
                continue;
            }
            let sent = (victim.in_flight as u64).saturating_sub(before);
            if !connecting && !self.is_new(now, *request) {
                let last = known.claim.prev_run(u64::MAX);
                let instead = last.and_then(|run| {
                    let run = run.intersection(self.ledger.window)?;
                    let ask = source.grid.expand(run, self.ledger.size);
                    let cost = sent.min(run.len()) + (ask.len() - run.len());
                    let fits = run.len() <= thief.limit && cost <= budget && source.covers(ask);
                    let good = fits && worth_it(thief, victim, ask);
                    (good && !self.holds_some(thief.id, run)).then_some(Again::Instead {
                        request: *request,
                        run,
                        ask,
                        cost,
                    })
                });
                if instead.is_some() {
                    return instead;
                }
            }
            if besides.is_none()
                && let Some(first) = known.claim.next_run(0)
            {
                besides = self.besides(source, first, besides_budget.min(thief.limit));
            }
        }
        let besides = besides.filter(|ask| worth_it(thief, victim, *ask));
        besides.map(Again::Besides)
    }

    /// The part of a run that a source can be asked for besides its owner.
    fn besides(&self, source: &Source, run: ByteRange, most: u64) -> Option<ByteRange> {
        let run = run.intersection(self.ledger.window)?;
        let least = run.len().min(self.config.min_steal_bytes);
        let run = ByteRange::new(run.start, run.end.min(run.start.saturating_add(most)));
        if run.len() < least {
            return None;
        }
        let ask = source.grid.expand(run, self.ledger.size);
        let single = !ask.is_empty() && self.ledger.second.is_free(ask);
        (single && ask.len() <= most && source.covers(ask)).then_some(ask)
    }

    /// Whether some of `range` was asked of the source.
    fn holds_some(&self, id: SourceId, range: ByteRange) -> bool {
        let holders = [&self.ledger.first, &self.ledger.second];
        let mut parts = holders.into_iter().flat_map(|layer| layer.within(range));
        parts.any(|(_, holder)| self.requests.get(&holder).is_some_and(|r| r.source == id))
    }

    /// Asks for `ask` and claims its free bytes, and as a second holder the others.
    fn assign_twice(&mut self, now: Duration, id: SourceId, ask: ByteRange) {
        let request = self.assign(now, id, ask);
        for part in self.not_held_for_others(ask, Some(request)).iter() {
            let second = self.ledger.take_second(part, request);
            if let Some(known) = self.requests.get_mut(&request) {
                for run in second.iter() {
                    known.claim.insert(run);
                }
            }
        }
    }

    /// Notes that what the victim sends in the next seconds may come for the second time.
    pub(super) fn take_risk(&mut self, now: Duration, victim: Victim, seconds: f64, bytes: u64) {
        let until = now.saturating_add(span(victim.resolved + seconds));
        self.budget.risk(until, bytes);
    }
}

/// Whether the thief would deliver `ask` so much sooner that asking twice is justified.
fn worth_it(thief: Thief, victim: Victim, ask: ByteRange) -> bool {
    let mine = thief.ready + ask.len() as f64 / thief.pace;
    mine * DOUBLE_GAIN <= victim.finish && mine + DOUBLE_MIN_GAIN <= victim.finish
}
