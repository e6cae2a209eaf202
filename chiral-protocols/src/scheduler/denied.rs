//! A source says that it lacks what it lists as its own: its "no" counts for a while.
//!
//! Without this, a source that answers at once that it lacks a range, and at once that it has
//! everything, is asked for the same range for ever, as fast as it answers.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};

use super::source::Source;
use super::{Coverage, Scheduler, SchedulerConfig, SourceId};

/// Doublings after which the time does not get longer.
const MAX_DOUBLINGS: u32 = 16;

/// What a source lately said that it lacks. At most as many fragments as it was asked for.
#[derive(Debug, Default)]
pub(super) struct Denied {
    ranges: RangeSet,
    /// The part of it that the source lists as its own since it said so.
    listed: RangeSet,
    /// Until when its list is not believed about any of this.
    until: Option<Duration>,
    /// How often it contradicted itself, once for each such time.
    contradictions: u32,
    contradicted: bool,
}

impl Denied {
    /// The source lacks `range`, it says. What it says while a time runs ends with that time.
    pub(super) fn add(&mut self, now: Duration, range: ByteRange, config: &SchedulerConfig) {
        self.ranges.insert(range);
        if self.until.is_none() {
            let doublings = self.contradictions.min(MAX_DOUBLINGS);
            let rest = config.failure_demotion.saturating_mul(1 << doublings);
            self.until = Some(now.saturating_add(rest.min(config.max_demotion)));
        }
    }

    /// The source lists `coverage`, instead of what it listed before or besides it; what it is
    /// not believed is taken out.
    pub(super) fn correct(&mut self, coverage: &mut RangeSet, besides: bool) {
        if !besides {
            self.listed = RangeSet::new();
        }
        let listed: Vec<_> = coverage.iter().collect();
        for run in listed {
            for denied in self.ranges.within(run) {
                coverage.remove(denied);
                self.listed.insert(denied);
            }
        }
        if !self.listed.is_empty() && !std::mem::replace(&mut self.contradicted, true) {
            self.contradictions = self.contradictions.saturating_add(1);
        }
    }

    /// The source is not to be asked for `range`, whatever it lists.
    pub(super) fn unlist(&mut self, range: ByteRange) {
        self.listed.remove(range);
    }

    /// When it is over.
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Whether the source ever contradicted itself: then it is asked for a chunk at a time, so
    /// that it says of each whether it has it.
    pub(super) fn is_contradictory(&self) -> bool {
        self.contradictions > 0
    }

    /// If it is over by now: what the source lists is believed again, and that is this.
    fn end(&mut self, now: Duration) -> Option<RangeSet> {
        self.until.filter(|at| *at <= now)?;
        self.until = None;
        self.contradicted = false;
        self.ranges = RangeSet::new();
        Some(std::mem::take(&mut self.listed))
    }
}

impl Scheduler {
    /// What a source lists is believed again if it is time.
    pub(super) fn believe(&mut self, now: Duration, id: SourceId) {
        let Some(Source {
            denied, coverage, ..
        }) = self.sources.get_mut(&id)
        else {
            return;
        };
        let Some(listed) = denied.end(now) else {
            return;
        };
        // What a source of everything lacks makes it one of a part.
        if let Coverage::Partial(set) = coverage {
            for run in listed.iter() {
                set.insert(run);
                self.ledger.pool.cover(id, run);
            }
        }
        self.touch(id);
        self.wake(id);
    }
}
