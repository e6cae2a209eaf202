//! Sources come, go, and change what they have.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};

use super::ledger::clip;
use super::source::Source;
use super::{Action, Blame, Coverage, Scheduler, SourceId, SourceSpec, SourceState};

/// Most runs of bytes of one partial seeder that are known at a time, and of all together. A
/// seeder of every other chunk is known in full up to 32 GiB.
pub(super) const MAX_RUNS: usize = 1 << 16;
pub(super) const MAX_RUNS_OF_ALL: usize = 1 << 20;

impl Scheduler {
    /// A source can be used. One that was up under this id goes down first; a banned one is
    /// ignored.
    pub fn source_up(&mut self, now: Duration, id: SourceId, spec: SourceSpec) {
        if self.banned.contains_key(&id) {
            return;
        }
        self.source_down(now, id);
        let mut source = Source::new(spec);
        if let Coverage::Partial(set) = &mut source.coverage {
            self.bound(id, set);
            for run in set.iter() {
                self.ledger.pool.cover(id, run);
            }
        }
        self.sources.insert(id, source);
        self.touch(id);
        self.wake(id);
    }

    /// A source is gone. Its outstanding bytes are free again.
    pub fn source_down(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let queue: Vec<_> = source.queue.iter().copied().collect();
        for request in queue {
            self.end_request(now, request, false);
        }
        self.unlist(id);
        if let Some(source) = self.sources.remove(&id)
            && let Coverage::Partial(set) = &source.coverage
        {
            for run in set.iter() {
                self.ledger.pool.uncover(id, run);
            }
        }
        self.ledger.pool.forget(id);
        self.ghosts.retain(|(_, owner, _)| *owner != id);
        self.wake_all();
    }

    /// A source now has exactly these bytes, it says. Outstanding requests stay. Of what it
    /// lately [said](super::FailureKind::Missing) that it lacks it is not believed for a while,
    /// longer each time. Of a very scattered list only the first 65,536 runs with bytes that are
    /// still missing are kept, and fewer if many sources have such lists: the rest becomes known
    /// when the driver lists it again. Costs O(fragments of both sets);
    /// [`coverage_added`](Self::coverage_added) is cheaper.
    pub fn coverage_changed(&mut self, _now: Duration, id: SourceId, mut coverage: RangeSet) {
        self.bound(id, &mut coverage);
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.denied.correct(&mut coverage, false);
        let old = std::mem::replace(&mut source.coverage, Coverage::Partial(coverage.clone()));
        let old = match old {
            Coverage::Complete => RangeSet::new(),
            Coverage::Partial(set) => set,
        };
        for run in without(&old, &coverage).iter() {
            self.ledger.pool.uncover(id, run);
        }
        for run in without(&coverage, &old).iter() {
            self.ledger.pool.cover(id, run);
        }
        self.touch(id);
        self.wake(id);
        self.wake_all();
    }

    /// A partial seeder got more bytes. Costs O(log n).
    pub fn coverage_added(&mut self, _now: Duration, id: SourceId, range: ByteRange) {
        let range = clip(range, self.ledger.size);
        if let Some(source) = self.sources.get_mut(&id)
            && let Coverage::Partial(set) = &mut source.coverage
            && set.fragments() < MAX_RUNS
        {
            let mut added = RangeSet::from(range);
            source.denied.correct(&mut added, true);
            let mut fresh = 0;
            for run in added.iter() {
                fresh += set.insert(run);
                self.ledger.pool.cover(id, run);
            }
            if fresh > 0 {
                self.wake(id);
            }
        }
    }

    /// How many runs a source may list.
    fn room_for_runs(&self, id: SourceId) -> usize {
        let others = self.sources.iter().filter(|(other, _)| **other != id);
        let runs = others.map(|(_, source)| match &source.coverage {
            Coverage::Complete => 0,
            Coverage::Partial(set) => set.fragments(),
        });
        let taken: usize = runs.sum();
        MAX_RUNS_OF_ALL.saturating_sub(taken).clamp(1, MAX_RUNS)
    }

    /// Cuts what a source lists to the file, and to as many runs as may be known of it.
    fn bound(&self, id: SourceId, coverage: &mut RangeSet) {
        coverage.remove(ByteRange::new(self.ledger.size, u64::MAX));
        let room = self.room_for_runs(id);
        if coverage.fragments() <= room {
            return;
        }
        let missing = |run: &ByteRange| self.ledger.wanted.within(*run).next().is_some();
        let kept = coverage.iter().filter(missing).take(room).collect();
        *coverage = kept;
    }

    /// A source is not to be asked for these bytes again.
    pub(super) fn uncover(&mut self, id: SourceId, range: ByteRange) {
        let size = self.ledger.size;
        self.touch(id);
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.denied.unlist(range);
        match &mut source.coverage {
            Coverage::Partial(set) => {
                set.remove(range);
                self.ledger.pool.uncover(id, range);
            }
            Coverage::Complete => {
                let mut set = RangeSet::from(ByteRange::new(0, size));
                set.remove(range);
                for run in set.iter() {
                    self.ledger.pool.cover(id, run);
                }
                source.coverage = Coverage::Partial(set);
            }
        }
    }

    /// Never uses a source again. Its outstanding bytes are free again, and what still comes
    /// from it is ignored.
    pub fn ban(&mut self, now: Duration, id: SourceId) {
        if let Some(mut stats) = self.source_stats(id)
            && !self.banned.contains_key(&id)
        {
            self.source_down(now, id);
            stats.state = SourceState::Banned;
            (stats.outstanding_bytes, stats.outstanding_requests) = (0, 0);
            self.banned.insert(id, stats);
            self.actions.push_back(Action::Ban { source: id });
        }
    }

    /// Bytes that had arrived proved wrong: they are wanted again, from anyone.
    pub fn invalidate(&mut self, now: Duration, range: ByteRange, blame: Blame) {
        if let Blame::Ban(id) = blame {
            self.ban(now, id);
        }
        let range = clip(range, self.ledger.size);
        self.rehold_within(range);
        if self.ledger.want(range) {
            self.wake_all();
        }
    }
}

/// `a` without `b`.
fn without(a: &RangeSet, b: &RangeSet) -> RangeSet {
    let mut rest = a.clone();
    for run in b.iter() {
        rest.remove(run);
    }
    rest
}
