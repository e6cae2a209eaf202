//! Half-open byte ranges, sets of them, and the grids that protocols cut files by.

use std::collections::BTreeMap;
use std::fmt;

/// A half-open range of bytes, `start..end`. Empty when `start == end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset one past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// A range from its two ends. An inverted pair gives the empty range at `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            end: if end < start { start } else { end },
        }
    }

    /// Number of bytes in the range.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `offset` lies inside the range.
    pub const fn contains(&self, offset: u64) -> bool {
        self.start <= offset && offset < self.end
    }

    /// Whether every byte of `other` lies inside the range; true for an empty `other`.
    pub const fn covers(&self, other: ByteRange) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The bytes that both ranges hold, if any.
    pub fn intersection(&self, other: ByteRange) -> Option<ByteRange> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(ByteRange { start, end })
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl From<std::ops::Range<u64>> for ByteRange {
    fn from(range: std::ops::Range<u64>) -> Self {
        Self::new(range.start, range.end)
    }
}

/// A set of bytes, kept as disjoint, non-adjacent, sorted ranges.
///
/// Every operation costs O(log n) plus the number of ranges that it touches, n being the
/// number of ranges in the set.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of bytes in the set.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether the set holds no byte.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Number of disjoint ranges in the set.
    pub fn fragments(&self) -> usize {
        self.ranges.len()
    }

    /// Adds a range; returns how many of its bytes were new.
    pub fn insert(&mut self, range: ByteRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut absorbed = 0;
        // A range that begins at or before ours and reaches it is merged, then all that
        // begin inside or right behind it.
        if let Some((&s, &e)) = self.ranges.range(..=start).next_back()
            && e >= start
        {
            start = s;
            end = end.max(e);
            absorbed += e - s;
            self.ranges.remove(&s);
        }
        while let Some((&s, &e)) = self.ranges.range(start..=end).next() {
            end = end.max(e);
            absorbed += e - s;
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
        let added = (end - start) - absorbed;
        self.bytes += added;
        added
    }

    /// Removes a range; returns how many bytes were taken out.
    pub fn remove(&mut self, range: ByteRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let mut removed = 0;
        if let Some((&s, &e)) = self.ranges.range(..range.start).next_back()
            && e > range.start
        {
            self.ranges.insert(s, range.start);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            removed += e.min(range.end) - range.start;
        }
        while let Some((&s, &e)) = self.ranges.range(range.start..range.end).next() {
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            removed += e.min(range.end) - s;
        }
        self.bytes -= removed;
        removed
    }

    /// Whether every byte of `range` is in the set.
    pub fn covers(&self, range: ByteRange) -> bool {
        range.is_empty()
            || self
                .ranges
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, &e)| e >= range.end)
    }

    /// Whether the byte at `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        self.ranges
            .range(..=offset)
            .next_back()
            .is_some_and(|(_, &e)| e > offset)
    }

    /// The first run of set bytes that begins at or after `from`, cut to begin there.
    pub fn next_run(&self, from: u64) -> Option<ByteRange> {
        if let Some((_, &e)) = self.ranges.range(..=from).next_back()
            && e > from
        {
            return Some(ByteRange::new(from, e));
        }
        self.ranges
            .range(from..)
            .next()
            .map(|(&s, &e)| ByteRange::new(s, e))
    }

    /// The last run of set bytes that ends at or before `to`, cut to end there.
    pub fn prev_run(&self, to: u64) -> Option<ByteRange> {
        self.ranges
            .range(..to)
            .next_back()
            .map(|(&s, &e)| ByteRange::new(s, e.min(to)))
    }

    /// The bytes of `range` that are in the set, as runs in ascending order.
    pub fn within(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + '_ {
        let first = self
            .ranges
            .range(..range.start)
            .next_back()
            .and_then(|(&s, &e)| ByteRange::new(s, e).intersection(range));
        let end = range.end.max(range.start);
        let rest = self
            .ranges
            .range(range.start..end)
            .filter_map(move |(&s, &e)| ByteRange::new(s, e).intersection(range));
        first.into_iter().chain(rest)
    }

    /// All runs in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&s, &e)| ByteRange::new(s, e))
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<ByteRange> for RangeSet {
    fn from(range: ByteRange) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(iter: I) -> Self {
        let mut set = Self::new();
        for range in iter {
            set.insert(range);
        }
        set
    }
}

/// Where a source can cut a file: multiples of `part` bytes, and inside each part
/// multiples of `block` bytes (the last block of a part may be short).
///
/// HTTP serves any byte (`part` unbounded, `block` 1); ed2k has parts of 9,728,000 bytes
/// in blocks of 184,320; a torrent has pieces in blocks of 16 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestGrid {
    part: u64,
    block: u64,
}

impl RequestGrid {
    /// Any byte range may be asked for.
    pub const ANY: Self = Self {
        part: u64::MAX,
        block: 1,
    };

    /// Cuts at multiples of `unit` bytes. A zero is taken as 1.
    pub const fn every(unit: u64) -> Self {
        Self {
            part: u64::MAX,
            block: if unit == 0 { 1 } else { unit },
        }
    }

    /// Cuts at multiples of `part`, and at multiples of `block` inside each part. A zero is
    /// taken as 1, and a block longer than its part as the whole part.
    pub const fn parts(part: u64, block: u64) -> Self {
        let part = if part == 0 { 1 } else { part };
        let block = if block == 0 { 1 } else { block };
        Self {
            part,
            block: if block > part { part } else { block },
        }
    }

    /// Length in bytes of a full cell: the smallest thing that can be asked for.
    pub const fn cell(&self) -> u64 {
        self.block
    }

    /// The last cut at or before `offset`.
    pub const fn floor(&self, offset: u64) -> u64 {
        let part_start = offset / self.part * self.part;
        part_start + (offset - part_start) / self.block * self.block
    }

    /// The first cut at or after `offset`, in a file of `size` bytes.
    pub const fn ceil(&self, offset: u64, size: u64) -> u64 {
        let floor = self.floor(offset);
        if floor == offset {
            return offset;
        }
        let part_start = offset / self.part * self.part;
        let mut next = floor.saturating_add(self.block);
        let part_end = part_start.saturating_add(self.part);
        if next > part_end {
            next = part_end;
        }
        if next > size { size } else { next }
    }

    /// The smallest range on the grid that covers `range`, in a file of `size` bytes.
    pub const fn expand(&self, range: ByteRange, size: u64) -> ByteRange {
        ByteRange::new(self.floor(range.start), self.ceil(range.end, size))
    }

    /// The largest range on the grid inside `range`, in a file of `size` bytes; the end of
    /// the file counts as a cut.
    pub fn shrink(&self, range: ByteRange, size: u64) -> Option<ByteRange> {
        let start = self.ceil(range.start, size);
        let end = if range.end >= size {
            size
        } else {
            self.floor(range.end)
        };
        (start < end).then_some(ByteRange { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grid_cuts_parts_that_blocks_do_not_divide() {
        let grid = RequestGrid::parts(9_728_000, 184_320);
        let size = 20_000_000;
        assert_eq!(grid.floor(9_727_999), 52 * 184_320);
        assert_eq!(grid.ceil(52 * 184_320 + 1, size), 9_728_000);
        assert_eq!(grid.floor(9_728_001), 9_728_000);
        assert_eq!(grid.ceil(19_999_999, size), size);
        assert_eq!(
            grid.shrink(ByteRange::new(1, 9_728_000), size),
            Some(ByteRange::new(184_320, 9_728_000))
        );
        assert_eq!(
            RequestGrid::ANY.expand(ByteRange::new(3, 5), 9),
            ByteRange::new(3, 5)
        );
    }

    proptest! {
        #[test]
        fn range_set_agrees_with_a_set_of_bytes(
            ops in proptest::collection::vec((any::<bool>(), 0u64..64, 0u64..24), 0..40)
        ) {
            let mut set = RangeSet::new();
            let mut model = [false; 96];
            for (add, start, len) in ops {
                let range = ByteRange::new(start, start + len);
                let mut changed = 0;
                for byte in &mut model[start as usize..(start + len) as usize] {
                    if *byte != add { changed += 1; *byte = add; }
                }
                let got = if add { set.insert(range) } else { set.remove(range) };
                prop_assert_eq!(got, changed);
            }
            prop_assert_eq!(set.len(), model.iter().filter(|b| **b).count() as u64);
            for offset in 0..96u64 {
                prop_assert_eq!(set.contains(offset), model[offset as usize]);
                let next = (offset as usize..96).find(|&i| model[i]).map(|i| i as u64);
                prop_assert_eq!(set.next_run(offset).map(|r| r.start), next);
                let prev = (0..offset as usize).rev().find(|&i| model[i]).map(|i| i as u64 + 1);
                prop_assert_eq!(set.prev_run(offset).map(|r| r.end), prev);
            }
            let runs: Vec<_> = set.iter().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            let clipped: u64 = set.within(ByteRange::new(10, 50)).map(|r| r.len()).sum();
            prop_assert_eq!(clipped, model[10..50].iter().filter(|b| **b).count() as u64);
        }
    }
}
