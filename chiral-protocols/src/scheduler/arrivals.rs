//! Bytes arrive, and requests end.

use std::collections::BTreeSet;
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};

use super::ledger::clip;
use super::source::Standing;
use super::{Action, FailureKind, RequestId, Scheduler, SourceId};

/// How many ended requests are remembered for bytes that were still on the way.
const MAX_GHOSTS: usize = 256;
/// After this many delivered requests past stalls and failures are forgotten.
const FORGIVEN_AFTER: u32 = 8;

impl Scheduler {
    /// Bytes arrived on a request, in any order. Returns how many of them were still wanted:
    /// the others need not be stored.
    pub fn arrived(&mut self, now: Duration, request: RequestId, range: ByteRange) -> u64 {
        let range = clip(range, self.ledger.size);
        let Some(known) = self.requests.get_mut(&request) else {
            return self.arrived_late(now, request, range);
        };
        let Some(range) = range.intersection(known.range) else {
            return 0;
        };
        let id = known.source;
        let issued = (!std::mem::replace(&mut known.started, true)).then_some(known.issued);
        known.last = now;
        let due = known.due.remove(range);
        if let Some(source) = self.sources.get_mut(&id) {
            source.out -= due;
            (source.robbed_at, source.robbed) = (None, 0);
            if issued.is_some() {
                source.cut_at = None;
            }
            // How long a source took that stood still says nothing of it.
            let issued = issued.filter(|_| source.standing != Standing::Held);
            source.meter.arrived(now, range.len(), issued);
            if let Some(weight) = source.new_weight()
                && self.ledger.pool.set_weight(id, weight)
            {
                source.weight = weight;
            }
        }
        self.touch(id);
        self.credit(now, Some(request), id, range)
    }

    /// The source says that it finished a request; what did not arrive is free again.
    pub fn completed(&mut self, now: Duration, request: RequestId) {
        let Some(known) = self.requests.get(&request) else {
            return;
        };
        if !known.started && !known.claim.is_empty() {
            self.failed(now, request, FailureKind::Temporary);
        } else {
            self.finish(now, request);
        }
    }

    /// The driver stopped a request for a reason of its own: what did not arrive is free again,
    /// and nothing is held against the source.
    pub fn withdrawn(&mut self, now: Duration, request: RequestId) {
        self.end_request(now, request, false);
    }

    /// Books bytes from a source; returns how many were wanted.
    fn credit(
        &mut self,
        now: Duration,
        request: Option<RequestId>,
        id: SourceId,
        range: ByteRange,
    ) -> u64 {
        let mut touched = BTreeSet::new();
        let mut fresh = 0;
        for part in self.not_held_for_others(range, request).iter() {
            let (new, losses) = self.ledger.arrive(part);
            fresh += new;
            for (lost, holder) in losses {
                if let Some(holding) = self.requests.get_mut(&holder) {
                    holding.claim.remove(lost);
                    touched.insert(holder);
                }
            }
        }
        if let Some(source) = self.sources.get_mut(&id) {
            source.useful += fresh;
            source.duplicate += range.len() - fresh;
        }
        self.budget.spend(range.len() - fresh);
        if let Some(request) = request {
            touched.remove(&request);
            match self.requests.get(&request) {
                Some(known) if known.due.is_empty() => self.finish(now, request),
                Some(known) if known.claim.is_empty() => self.end_request(now, request, true),
                _ => {}
            }
        }
        for holder in touched {
            self.shorten(now, holder);
        }
        self.wake(id);
        fresh
    }

    fn arrived_late(&mut self, now: Duration, request: RequestId, range: ByteRange) -> u64 {
        let Some(&(_, id, asked)) = self
            .ghosts
            .iter()
            .rev()
            .find(|(ghost, _, _)| *ghost == request)
        else {
            return 0;
        };
        let Some(range) = range.intersection(asked) else {
            return 0;
        };
        if let Some(source) = self.sources.get_mut(&id)
            && let Standing::Demoted { since, .. } = source.standing
            && source.queue.is_empty()
        {
            // It was slower than it was thought to be, not dead.
            let last = source
                .meter
                .last()
                .unwrap_or(source.busy_since)
                .max(source.busy_since);
            source.meter.was_silent(now.saturating_sub(last));
            source.standing = Standing::Demoted {
                since,
                until: now,
                lone_until: now,
            };
        }
        if let Some(source) = self.sources.get_mut(&id)
            && !source.queue.is_empty()
        {
            // What it sends in vain tells of its rate, too.
            source.meter.arrived(now, range.len(), None);
        }
        self.touch(id);
        self.credit(now, None, id, range)
    }

    /// A request is over: it delivered all it had to, or its source says so.
    fn finish(&mut self, now: Duration, request: RequestId) {
        let Some(known) = self.requests.get(&request) else {
            return;
        };
        let delivered = known.started && known.claim.is_empty();
        let id = known.source;
        if let Some(source) = self.sources.get_mut(&id)
            && delivered
        {
            source.good += 1;
            if source.good >= FORGIVEN_AFTER {
                (source.stalls, source.failures) = (0, 0);
            }
            if source.standing == Standing::Probing {
                source.standing = Standing::Active;
            }
            self.touch(id);
        }
        self.end_request(now, request, false);
    }

    /// Forgets a request; its bytes that nobody else holds are free again.
    pub(super) fn end_request(&mut self, now: Duration, request: RequestId, cancel: bool) {
        if cancel {
            self.note_cut(now, request, 0);
        }
        let Some(known) = self.requests.remove(&request) else {
            return;
        };
        if let Some(source) = self.sources.get_mut(&known.source) {
            if source.queue.front() == Some(&request) {
                source.head_since = now;
            }
            source.queue.retain(|queued| *queued != request);
            source.out -= known.due.len();
            if source.queue.is_empty() {
                source.meter.idle(now);
            }
        }
        self.ghosts.push_back((request, known.source, known.range));
        if self.ghosts.len() > MAX_GHOSTS {
            self.ghosts.pop_front();
        }
        let mut freed = false;
        match known.whole {
            Some(start) => {
                self.rehold(start, &known.claim);
                freed = !known.claim.is_empty();
            }
            None => {
                for run in known.claim.iter() {
                    freed |= self.ledger.release(run, request);
                }
            }
        }
        if cancel {
            self.actions.push_back(Action::Cancel { request });
        }
        self.touch(known.source);
        self.wake(known.source);
        if freed {
            self.wake_all();
        }
    }

    /// After a request lost claims to others: stops it if nothing is left, or tells its
    /// source where to stop.
    pub(super) fn shorten(&mut self, now: Duration, request: RequestId) {
        let size = self.ledger.size;
        let Some(known) = self.requests.get(&request) else {
            return;
        };
        let Some(last) = known.claim.prev_run(u64::MAX) else {
            return self.end_request(now, request, true);
        };
        let id = known.source;
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let end = source.grid.ceil(last.end, size);
        if known
            .due
            .prev_run(u64::MAX)
            .is_some_and(|run| run.end > end)
        {
            self.note_cut(now, request, end);
        }
        let (Some(known), Some(source)) =
            (self.requests.get_mut(&request), self.sources.get_mut(&id))
        else {
            return;
        };
        let saved = known.due.remove(ByteRange::new(end, u64::MAX));
        if saved > 0 {
            source.out -= saved;
            self.touch(id);
            self.actions.push_back(Action::Truncate { request, end });
        }
    }

    /// The part of `range` that does not belong to a chunk which another request, or none
    /// yet, fetches whole.
    pub(super) fn not_held_for_others(
        &self,
        range: ByteRange,
        request: Option<RequestId>,
    ) -> RangeSet {
        let mut own = RangeSet::from(range);
        for start in self.held_within(range) {
            if let Some(whole) = self.held.get(&start)
                && (whole.request.is_none() || whole.request != request)
            {
                own.remove(whole.range);
            }
        }
        own
    }
}
