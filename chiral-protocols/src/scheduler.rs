//! Decides which source of a download is asked for which bytes, and when.
//!
//! A [`Scheduler`] is a state machine without clock, sockets or randomness. A driver reports
//! what happens (sources come and go, bytes arrive, requests fail) together with the time
//! since the start, then drains [`Scheduler::poll`] and does what the actions say, and calls
//! [`Scheduler::tick`] no later than [`Scheduler::next_deadline`].
//!
//! It works in bytes, so sources whose grids do not divide each other combine. Each source
//! gets work in proportion to its measured rate. When nothing is left to hand out, an idle
//! source takes the tail of whatever is expected to end last. Bytes are asked for twice only
//! when that is the sole way to finish sooner, and only for a small part of the file.
//!
//! ```
//! use std::time::Duration;
//! use chiral_core::ByteRange;
//! use chiral_protocols::scheduler::{Action, Scheduler, SchedulerConfig, SourceId, SourceSpec};
//!
//! let mut scheduler = Scheduler::new(SchedulerConfig::default(), 1_000_000);
//! scheduler.want(ByteRange::new(0, 1_000_000));
//! scheduler.source_up(Duration::ZERO, SourceId(7), SourceSpec::complete(2));
//! let mut now = Duration::ZERO;
//! while !scheduler.is_complete() {
//!     now += Duration::from_millis(100);
//!     while let Some(action) = scheduler.poll(now) {
//!         if let Action::Assign { request, range, .. } = action {
//!             scheduler.arrived(now, request, range);
//!             scheduler.completed(now, request);
//!         }
//!     }
//! }
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

mod ahead;
mod arrivals;
mod assign;
mod budget;
mod claims;
mod config;
mod denied;
mod health;
mod index;
mod ledger;
mod messages;
mod meter;
mod peers;
mod place;
mod pool;
mod portion;
mod source;
mod steal;
#[cfg(test)]
mod tests;
mod twice;
mod victim;
mod whole;
mod windowed;

pub use config::SchedulerConfig;
pub use messages::{
    Action, Blame, Coverage, DemoteReason, FailureKind, Order, RequestId, SourceId, SourceSpec,
    SourceState, SourceStats,
};

use budget::Budget;
use index::Index;
use ledger::{Ledger, clip};
use source::{Request, Source};
use whole::Whole;

/// Assigns the wanted bytes of one file to the sources that have them.
///
/// Every `now` is the time since some start of the driver's choice and should not decrease.
/// Reports about unknown requests or sources, and ranges outside the file or the request, are
/// ignored or cut.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    ledger: Ledger,
    order: Order,
    paused: bool,
    sources: BTreeMap<SourceId, Source>,
    index: Index,
    banned: BTreeMap<SourceId, SourceStats>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    /// Ranges to be fetched whole from one source, by start; disjoint.
    held: BTreeMap<u64, Whole>,
    /// Requests that ended lately: their bytes may still be on the way.
    ghosts: VecDeque<(RequestId, SourceId, ByteRange)>,
    actions: VecDeque<Action>,
    /// Sources that may have room for work.
    hungry: VecDeque<SourceId>,
    /// Where sources of each coarse grid go on, so that different grids keep apart.
    cursors: Vec<(RequestGrid, u64)>,
    /// What readers want next, most urgent first; at most `ahead::MAX_READERS`.
    ahead: Vec<ByteRange>,
    budget: Budget,
}

impl Scheduler {
    /// A scheduler for a file of `size` bytes of which nothing is wanted yet.
    pub fn new(config: SchedulerConfig, size: u64) -> Self {
        Self {
            config: config.sane(),
            ledger: Ledger::new(size),
            order: Order::default(),
            paused: false,
            sources: BTreeMap::new(),
            index: Index::default(),
            banned: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            held: BTreeMap::new(),
            ghosts: VecDeque::new(),
            actions: VecDeque::new(),
            hungry: VecDeque::new(),
            cursors: Vec::new(),
            ahead: Vec::new(),
            budget: Budget::default(),
        }
    }

    /// Adds bytes to those still needed. Bytes that already are stay as they are.
    pub fn want(&mut self, range: ByteRange) {
        let range = clip(range, self.ledger.size);
        self.rehold_within(range);
        let before = self.ledger.wanted.len();
        if self.ledger.want(range) {
            self.budget.want(self.ledger.wanted.len() - before);
            self.wake_all();
        }
    }

    /// Allows assignment inside `window` only; initially that is the whole file. What is
    /// outstanding stays so. A cell of a coarse grid may stick out of the window.
    pub fn set_window(&mut self, window: ByteRange) {
        if self.ledger.set_window(window) {
            self.wake_all();
        }
    }

    /// In [`Order::Backward`], gives a source nothing that begins farther than so many bytes
    /// before the end of the window.
    pub fn set_reach(&mut self, id: SourceId, reach: u64) {
        if let Some(source) = self.sources.get_mut(&id)
            && std::mem::replace(&mut source.reach, reach) < reach
        {
            self.wake(id);
        }
    }

    /// Chooses which bytes of the window are assigned first.
    pub fn set_order(&mut self, order: Order) {
        self.order = order;
        self.ledger.pool.set_ranked(order == Order::Rarest);
    }

    /// Stops assigning. What is outstanding goes on.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Assigns again.
    pub fn resume(&mut self) {
        self.paused = false;
        self.wake_all();
    }

    /// The next thing for the driver to do, if any. Ends with `None` after finitely many.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        if !self.paused && self.actions.is_empty() {
            self.wake_due(now);
            if self.is_windowed() {
                self.hasten_backwards(now);
            }
            while let Some(id) = self.hungry.pop_front() {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.hungry = false;
                    source.look_at = None;
                    self.touch(id);
                }
                self.settle(now);
                if self.feed(now, id) {
                    self.wake(id);
                    break;
                }
            }
            self.settle(now);
        }
        self.actions.pop_front()
    }

    /// Whether bytes are taken from the end of a window that moves.
    fn is_windowed(&self) -> bool {
        self.order == Order::Backward && self.ledger.window.len() < self.ledger.size
    }

    /// Whether there is more beyond that window, which cannot be asked for yet.
    fn is_held_up(&self) -> bool {
        let first = self.ledger.wanted.next_run(0);
        self.is_windowed() && first.is_some_and(|first| first.start < self.ledger.window.start)
    }

    /// Whether every wanted byte arrived.
    pub fn is_complete(&self) -> bool {
        self.ledger.wanted.is_empty()
    }

    /// The bytes still needed, outstanding ones included.
    pub fn missing(&self) -> &RangeSet {
        &self.ledger.wanted
    }

    /// Wanted bytes that no source that is up has, or may be asked for.
    ///
    /// Costs O(fragments) unless a source of the whole file is up.
    pub fn unserved(&self) -> RangeSet {
        let mut unserved = RangeSet::new();
        if !self.sources.values().any(Source::is_complete) {
            for gap in self.ledger.pool.uncovered() {
                for run in self.ledger.wanted.within(gap) {
                    unserved.insert(run);
                }
            }
        }
        for whole in self.held.values() {
            if self
                .sources
                .iter()
                .any(|(id, source)| whole.suits(*id, source, self.ledger.size))
            {
                unserved.remove(whole.range);
            } else {
                unserved.insert(whole.range);
            }
        }
        unserved
    }

    /// Whether some wanted bytes are [unserved](Self::unserved).
    pub fn is_starved(&self) -> bool {
        !self.unserved().is_empty()
    }

    /// What a source did so far; `None` if it is down or never was up.
    pub fn source_stats(&self, id: SourceId) -> Option<SourceStats> {
        self.banned
            .get(&id)
            .copied()
            .or_else(|| self.sources.get(&id).map(Source::stats))
    }

    /// Lets a source ask for work at the next poll.
    fn wake(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id)
            && !source.hungry
        {
            source.hungry = true;
            self.hungry.push_back(id);
            self.index.waiting.remove(&id);
        }
    }

    /// Lets the sources that found nothing to do ask again.
    fn wake_all(&mut self) {
        while let Some(id) = self.index.waiting.pop_first() {
            self.wake(id);
        }
    }
}
