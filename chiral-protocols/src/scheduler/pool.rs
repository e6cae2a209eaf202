//! The bytes that may be assigned now, indexed by how many partial seeders have them.

use std::collections::{BTreeMap, BTreeSet};

use chiral_core::{ByteRange, RangeSet};

use super::SourceId;

/// Most segments that one search for the end of a request looks at.
const MAX_STEPS: usize = 64;

/// A part of the file whose bytes all have the same partial seeders.
#[derive(Debug)]
struct Segment {
    end: u64,
    members: Vec<SourceId>,
    listed: bool,
}

/// Open bytes and the segments that they lie in.
///
/// Segments tile the file. Those with open bytes are listed by (rank, start): in one set for
/// the seeders of the whole file, and in one per partial seeder. The rank is the number of
/// partial seeders, or zero for all when bytes are taken in order. So the first entry of a
/// set is what its seeder should do first, and a change costs O(seeders of the segment).
#[derive(Debug)]
pub(super) struct Pool {
    open: RangeSet,
    segments: BTreeMap<u64, Segment>,
    all: BTreeSet<(u32, u64)>,
    by_source: BTreeMap<SourceId, BTreeSet<(u32, u64)>>,
    ranked: bool,
}

impl Pool {
    pub(super) fn new(size: u64) -> Self {
        let mut segments = BTreeMap::new();
        if size > 0 {
            segments.insert(0, Segment { end: size, members: Vec::new(), listed: false });
        }
        Self {
            open: RangeSet::new(),
            segments,
            all: BTreeSet::new(),
            by_source: BTreeMap::new(),
            ranked: true,
        }
    }

    /// The bytes that may be assigned.
    pub(super) fn open(&self) -> &RangeSet {
        &self.open
    }

    /// Opens bytes.
    pub(super) fn insert(&mut self, range: ByteRange) {
        if self.open.insert(range) > 0 {
            self.refresh(range);
        }
    }

    /// Closes bytes; returns how many were open.
    pub(super) fn remove(&mut self, range: ByteRange) -> u64 {
        let removed = self.open.remove(range);
        if removed > 0 {
            self.refresh(range);
        }
        removed
    }

    /// Whether rare bytes come first; otherwise all rank the same.
    pub(super) fn set_ranked(&mut self, ranked: bool) {
        if self.ranked == ranked {
            return;
        }
        let starts: Vec<u64> = self.all.iter().map(|&(_, start)| start).collect();
        for &start in &starts {
            self.unlist(start);
        }
        self.ranked = ranked;
        for &start in &starts {
            self.relist(start);
        }
    }

    /// A partial seeder has these bytes.
    pub(super) fn cover(&mut self, source: SourceId, range: ByteRange) {
        self.edit(range, |members| {
            if let Err(at) = members.binary_search(&source) {
                members.insert(at, source);
            }
        });
    }

    /// A partial seeder does not have these bytes any more.
    pub(super) fn uncover(&mut self, source: SourceId, range: ByteRange) {
        self.edit(range, |members| {
            if let Ok(at) = members.binary_search(&source) {
                members.remove(at);
            }
        });
        if self.by_source.get(&source).is_some_and(BTreeSet::is_empty) {
            self.by_source.remove(&source);
        }
    }

    /// The partial seeders of the byte at `offset`.
    pub(super) fn members(&self, offset: u64) -> &[SourceId] {
        self.segments.range(..=offset).next_back().map_or(&[], |(_, s)| s.members.as_slice())
    }

    /// Ranges that no partial seeder has, ascending.
    pub(super) fn uncovered(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.segments
            .iter()
            .filter(|(_, s)| s.members.is_empty())
            .map(|(&start, s)| ByteRange::new(start, s.end))
    }

    /// The lowest rank that has something for a seeder; `None` stands for a complete one.
    pub(super) fn best_rank(&self, source: Option<SourceId>) -> Option<u32> {
        self.list(source)?.first().map(|&(rank, _)| rank)
    }

    /// The first open run for the seeder at or after (rank, from), and its rank. The run may
    /// reach beyond what the seeder has.
    pub(super) fn seek(
        &self,
        source: Option<SourceId>,
        rank: u32,
        from: u64,
    ) -> Option<(u32, ByteRange)> {
        let list = self.list(source)?;
        if let Some((&start, segment)) = self.segments.range(..=from).next_back()
            && list.contains(&(rank, start))
            && let Some(run) = self.open.next_run(from)
            && run.start < segment.end
        {
            return Some((rank, run));
        }
        let &(rank, start) = list.range((rank, from.saturating_add(1))..).next()?;
        Some((rank, self.open.next_run(start)?))
    }

    /// The last open run for the seeder that ends at or before `to`. The run may reach
    /// before what the seeder has. Ranks are ignored.
    pub(super) fn seek_back(&self, source: Option<SourceId>, to: u64) -> Option<ByteRange> {
        for &(_, start) in self.list(source)?.range(..(0, to)).rev().take(2) {
            let end = self.segments.get(&start)?.end.min(to);
            if let Some(run) = self.open.prev_run(end)
                && run.end > start
            {
                return Some(run);
            }
        }
        None
    }

    /// How far from `start` a request may reach, up to `limit`: through bytes that rank no
    /// worse than the first, or for at least `free` bytes whatever their rank.
    pub(super) fn reach(&self, start: u64, limit: u64, free: u64) -> u64 {
        if !self.ranked {
            return limit;
        }
        let rank = self.members(start).len();
        let mut end = start;
        for (_, segment) in self
            .segments
            .range(..=start)
            .next_back()
            .into_iter()
            .chain(self.segments.range(start.saturating_add(1)..))
            .take(MAX_STEPS)
        {
            if segment.members.len() > rank && end >= start.saturating_add(free) {
                break;
            }
            let within = segment.members.len() <= rank;
            end = if within { segment.end } else { segment.end.min(start.saturating_add(free)) };
            if end >= limit || end < segment.end {
                break;
            }
        }
        end.min(limit)
    }

    /// Up to `most` listed segments of a seeder, the rarest first.
    pub(super) fn rarest(
        &self,
        source: Option<SourceId>,
        most: usize,
    ) -> impl Iterator<Item = u64> + '_ {
        let list = self.list(source);
        list.into_iter().flatten().take(most).map(|&(_, start)| start)
    }

    fn list(&self, source: Option<SourceId>) -> Option<&BTreeSet<(u32, u64)>> {
        match source {
            None => Some(&self.all),
            Some(id) => self.by_source.get(&id),
        }
    }

    /// Changes the members of exactly the bytes in `range`.
    fn edit(&mut self, range: ByteRange, change: impl Fn(&mut Vec<SourceId>)) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> =
            self.segments.range(range.start..range.end).map(|(&start, _)| start).collect();
        for &start in &starts {
            self.unlist(start);
            if let Some(segment) = self.segments.get_mut(&start) {
                change(&mut segment.members);
            }
            self.relist(start);
        }
        for start in starts.into_iter().chain([range.end]) {
            self.merge(start);
        }
    }

    /// Lists the segments of `range` that have open bytes, and no others.
    fn refresh(&mut self, range: ByteRange) {
        let first = self.segments.range(..=range.start).next_back().map_or(0, |(&start, _)| start);
        let starts: Vec<u64> =
            self.segments.range(first..range.end).map(|(&start, _)| start).collect();
        for start in starts {
            self.relist(start);
        }
    }

    fn relist(&mut self, start: u64) {
        let Some(segment) = self.segments.get_mut(&start) else {
            return;
        };
        let open = self.open.next_run(start).is_some_and(|run| run.start < segment.end);
        if !open {
            self.unlist(start);
        } else if !segment.listed {
            segment.listed = true;
            let rank = if self.ranked { segment.members.len() as u32 } else { 0 };
            self.all.insert((rank, start));
            for member in &segment.members {
                self.by_source.entry(*member).or_default().insert((rank, start));
            }
        }
    }

    fn unlist(&mut self, start: u64) {
        let Some(segment) = self.segments.get_mut(&start) else {
            return;
        };
        if !std::mem::take(&mut segment.listed) {
            return;
        }
        let rank = if self.ranked { segment.members.len() as u32 } else { 0 };
        self.all.remove(&(rank, start));
        for member in &segment.members {
            if let Some(list) = self.by_source.get_mut(member) {
                list.remove(&(rank, start));
            }
        }
    }

    fn split(&mut self, at: u64) {
        let Some((&start, segment)) = self.segments.range_mut(..at).next_back() else {
            return;
        };
        if segment.end <= at {
            return;
        }
        let (end, members) = (segment.end, segment.members.clone());
        self.unlist(start);
        if let Some(segment) = self.segments.get_mut(&start) {
            segment.end = at;
        }
        self.segments.insert(at, Segment { end, members, listed: false });
        self.relist(start);
        self.relist(at);
    }

    fn merge(&mut self, at: u64) {
        let Some((&before, left)) = self.segments.range(..at).next_back() else {
            return;
        };
        let Some(right) = self.segments.get(&at) else {
            return;
        };
        if left.members != right.members {
            return;
        }
        let end = right.end;
        self.unlist(before);
        self.unlist(at);
        self.segments.remove(&at);
        if let Some(left) = self.segments.get_mut(&before) {
            left.end = end;
        }
        self.relist(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_bytes_are_listed_first_and_segments_merge_again() {
        let (a, b) = (SourceId(1), SourceId(2));
        let mut pool = Pool::new(1_000);
        pool.insert(ByteRange::new(0, 1_000));
        pool.cover(a, ByteRange::new(0, 600));
        pool.cover(b, ByteRange::new(400, 1_000));
        assert_eq!(pool.best_rank(None), Some(1));
        assert_eq!(pool.seek(Some(b), 1, 0), Some((1, ByteRange::new(600, 1_000))));
        assert_eq!(pool.seek(Some(a), 1, 500), Some((2, ByteRange::new(400, 1_000))));
        pool.remove(ByteRange::new(600, 1_000));
        assert_eq!(pool.seek(Some(b), 0, 0), Some((2, ByteRange::new(400, 600))));
        pool.set_ranked(false);
        assert_eq!(pool.seek_back(Some(a), 500), Some(ByteRange::new(0, 500)));
        pool.uncover(a, ByteRange::new(0, 600));
        pool.uncover(b, ByteRange::new(400, 1_000));
        assert_eq!(pool.segments.len(), 1);
        assert_eq!(pool.uncovered().collect::<Vec<_>>(), [ByteRange::new(0, 1_000)]);
    }
}
