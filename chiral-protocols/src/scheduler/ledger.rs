//! Where each wanted byte is: open, parked outside the window, claimed, or held back.

use chiral_core::{ByteRange, RangeSet};

use super::RequestId;
use super::claims::Claims;
use super::pool::Pool;

/// The accounts of one download.
///
/// Every wanted byte is in exactly one of `pool`, `parked`, `first` and the held ranges that
/// the [`Scheduler`](super::Scheduler) keeps. A byte in `second` is also in `first`, with
/// another holder.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) size: u64,
    pub(super) window: ByteRange,
    pub(super) wanted: RangeSet,
    pub(super) pool: Pool,
    pub(super) parked: RangeSet,
    pub(super) first: Claims,
    pub(super) second: Claims,
}

impl Ledger {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            window: ByteRange::new(0, size),
            wanted: RangeSet::new(),
            pool: Pool::new(size),
            parked: RangeSet::new(),
            first: Claims::default(),
            second: Claims::default(),
        }
    }

    /// Makes bytes wanted; those that were not become free. Returns whether any did.
    pub(super) fn want(&mut self, range: ByteRange) -> bool {
        let mut missing = RangeSet::from(range);
        for run in self.wanted.within(range) {
            missing.remove(run);
        }
        for run in missing.iter() {
            self.wanted.insert(run);
            self.free(run);
        }
        !missing.is_empty()
    }

    /// Makes bytes wanted without freeing them: they are held back for one source.
    pub(super) fn hold(&mut self, range: ByteRange) -> Vec<(ByteRange, RequestId)> {
        self.wanted.insert(range);
        self.pool.remove(range);
        self.parked.remove(range);
        let mut losses = self.first.remove(range);
        losses.extend(self.second.remove(range));
        losses
    }

    /// Puts wanted bytes where the window says.
    pub(super) fn free(&mut self, range: ByteRange) {
        if let Some(inside) = range.intersection(self.window) {
            self.pool.insert(inside);
        }
        self.parked.insert(ByteRange::new(
            range.start,
            range.end.min(self.window.start),
        ));
        self.parked
            .insert(ByteRange::new(range.start.max(self.window.end), range.end));
    }

    /// Moves the window; returns whether it changed. Costs O(fragments that enter or leave).
    pub(super) fn set_window(&mut self, window: ByteRange) -> bool {
        let window = clip(window, self.size);
        let old = std::mem::replace(&mut self.window, window);
        for gone in difference(old, window) {
            let runs: Vec<ByteRange> = self.pool.open().within(gone).collect();
            for run in runs {
                self.pool.remove(run);
                self.parked.insert(run);
            }
        }
        for new in difference(window, old) {
            let runs: Vec<ByteRange> = self.parked.within(new).collect();
            for run in runs {
                self.parked.remove(run);
                self.pool.insert(run);
            }
        }
        window != old
    }

    /// Bytes of `range` that no request holds.
    pub(super) fn free_in(&self, range: ByteRange) -> u64 {
        let open: u64 = self.pool.open().within(range).map(|run| run.len()).sum();
        let parked: u64 = self.parked.within(range).map(|run| run.len()).sum();
        open + parked
    }

    /// Gives all free bytes of `range` to a request; returns them.
    pub(super) fn take(&mut self, range: ByteRange, holder: RequestId) -> RangeSet {
        let free: RangeSet = self
            .pool
            .open()
            .within(range)
            .chain(self.parked.within(range))
            .collect();
        for run in free.iter() {
            self.pool.remove(run);
            self.parked.remove(run);
            self.first.insert(run, holder);
        }
        free
    }

    /// Gives the bytes of `range` that another request holds alone to a second one too.
    pub(super) fn take_second(&mut self, range: ByteRange, holder: RequestId) -> RangeSet {
        let mut taken = RangeSet::new();
        for (part, other) in self.first.within(range) {
            if other != holder && self.second.is_free(part) {
                self.second.insert(part, holder);
                taken.insert(part);
            }
        }
        taken
    }

    /// A request gives bytes back. Those that nobody else holds become free; returns whether
    /// any did.
    pub(super) fn release(&mut self, range: ByteRange, holder: RequestId) -> bool {
        self.second.remove_from(range, holder);
        let mut freed = false;
        for part in self.first.remove_from(range, holder) {
            let mut alone = RangeSet::from(part);
            for (shared, heir) in self.second.remove(part) {
                self.first.insert(shared, heir);
                alone.remove(shared);
            }
            for run in alone.iter() {
                freed = true;
                self.free(run);
            }
        }
        freed
    }

    /// Bytes arrived. Returns how many were wanted, and which requests they were taken from.
    pub(super) fn arrive(&mut self, range: ByteRange) -> (u64, Vec<(ByteRange, RequestId)>) {
        let fresh = self.wanted.remove(range);
        if fresh == 0 {
            return (0, Vec::new());
        }
        self.pool.remove(range);
        self.parked.remove(range);
        let mut losses = self.first.remove(range);
        losses.extend(self.second.remove(range));
        (fresh, losses)
    }
}

/// The part of `range` that lies inside a file of `size` bytes.
pub(super) fn clip(range: ByteRange, size: u64) -> ByteRange {
    ByteRange::new(range.start.min(size), range.end.min(size))
}

/// `a` without `b`.
fn difference(a: ByteRange, b: ByteRange) -> [ByteRange; 2] {
    match a.intersection(b) {
        None => [a, ByteRange::default()],
        Some(both) => [
            ByteRange::new(a.start, both.start),
            ByteRange::new(both.end, a.end),
        ],
    }
}
