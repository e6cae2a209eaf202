//! The bytes that may be assigned now, indexed by which partial seeders have them.

use std::collections::{BTreeMap, BTreeSet};

use chiral_core::{ByteRange, RangeSet};

use super::SourceId;

/// Most segments that one search for the end of a request looks at.
const MAX_STEPS: usize = 64;
/// Weight of a partial seeder whose rate is unknown.
pub(super) const WEIGHT: u32 = 4;
/// Most segments that are listed anew because a weight changed.
const MAX_RERANKED: usize = 4_096;

/// A part of the file whose bytes all have the same partial seeders.
#[derive(Debug)]
struct Segment {
    end: u64,
    members: Vec<SourceId>,
    /// Under which rank the segment is listed, if it is.
    listed: Option<u32>,
}

/// Open bytes and the segments that they lie in.
///
/// Segments tile the file. Those with open bytes are listed by (rank, start): in one set for
/// the seeders of the whole file, and in one per partial seeder. The rank is the weight of
/// all partial seeders together, or zero for all when bytes are taken in order. So the first
/// entry of a set is what its seeder should do first, and a change costs O(seeders of the
/// segment).
#[derive(Debug)]
pub(super) struct Pool {
    open: RangeSet,
    segments: BTreeMap<u64, Segment>,
    all: BTreeSet<(u32, u64)>,
    by_source: BTreeMap<SourceId, BTreeSet<(u32, u64)>>,
    /// Open bytes of each partial seeder.
    backlog: BTreeMap<SourceId, u64>,
    /// Weights of partial seeders other than [`WEIGHT`].
    weights: BTreeMap<SourceId, u32>,
    ranked: bool,
}

impl Pool {
    pub(super) fn new(size: u64) -> Self {
        let mut segments = BTreeMap::new();
        if size > 0 {
            segments.insert(
                0,
                Segment {
                    end: size,
                    members: Vec::new(),
                    listed: None,
                },
            );
        }
        Self {
            open: RangeSet::new(),
            segments,
            all: BTreeSet::new(),
            by_source: BTreeMap::new(),
            backlog: BTreeMap::new(),
            weights: BTreeMap::new(),
            ranked: true,
        }
    }

    /// The bytes that may be assigned.
    pub(super) fn open(&self) -> &RangeSet {
        &self.open
    }

    /// Opens bytes.
    pub(super) fn insert(&mut self, range: ByteRange) {
        self.count(range, false);
        let added = self.open.insert(range);
        self.count(range, true);
        if added > 0 {
            self.refresh(range);
        }
    }

    /// Closes bytes; returns how many were open.
    pub(super) fn remove(&mut self, range: ByteRange) -> u64 {
        self.count(range, false);
        let removed = self.open.remove(range);
        self.count(range, true);
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
    }

    /// Forgets a seeder that has nothing any more.
    pub(super) fn forget(&mut self, source: SourceId) {
        self.by_source.remove(&source);
        self.backlog.remove(&source);
        self.weights.remove(&source);
    }

    /// How much a partial seeder counts: its segments rank by the sum. Costs O(its segments);
    /// does nothing, and returns so, if there are too many.
    pub(super) fn set_weight(&mut self, source: SourceId, weight: u32) -> bool {
        let Some(list) = self.by_source.get(&source) else {
            return false;
        };
        if list.len() > MAX_RERANKED {
            return false;
        }
        let starts: Vec<u64> = list.iter().map(|&(_, start)| start).collect();
        self.weights.insert(source, weight);
        for start in starts {
            self.unlist(start);
            self.relist(start);
        }
        true
    }

    /// The rank of the byte at `offset`.
    pub(super) fn rank_at(&self, offset: u64) -> u32 {
        if self.ranked {
            self.rank(self.members(offset))
        } else {
            0
        }
    }

    fn rank(&self, members: &[SourceId]) -> u32 {
        let weight = |id| self.weights.get(id).copied().unwrap_or(WEIGHT);
        members.iter().map(weight).fold(0, u32::saturating_add)
    }

    /// The partial seeders of the byte at `offset`.
    pub(super) fn members(&self, offset: u64) -> &[SourceId] {
        self.segments
            .range(..=offset)
            .next_back()
            .map_or(&[], |(_, s)| s.members.as_slice())
    }

    /// Whether there are no partial seeders.
    pub(super) fn is_covered_by_all(&self) -> bool {
        self.by_source.is_empty()
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
        let rank = self.rank(self.members(start));
        let mut end = start;
        for (_, segment) in self
            .segments
            .range(..=start)
            .next_back()
            .into_iter()
            .chain(self.segments.range(start.saturating_add(1)..))
            .take(MAX_STEPS)
        {
            let worse = self.rank(&segment.members) > rank;
            if worse && end >= start.saturating_add(free) {
                break;
            }
            end = if !worse {
                segment.end
            } else {
                segment.end.min(start.saturating_add(free))
            };
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
        list.into_iter()
            .flatten()
            .take(most)
            .map(|&(_, start)| start)
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
        self.count(range, false);
        let starts: Vec<u64> = self
            .segments
            .range(range.start..range.end)
            .map(|(&start, _)| start)
            .collect();
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
        self.count(range, true);
    }

    /// Adds the open bytes of `range` to the backlogs of their seeders, or takes them off.
    fn count(&mut self, range: ByteRange, add: bool) {
        if range.is_empty() {
            return;
        }
        let first = self
            .segments
            .range(..=range.start)
            .next_back()
            .map_or(0, |(&start, _)| start);
        for (&start, segment) in self.segments.range(first..range.end) {
            let Some(part) = ByteRange::new(start, segment.end).intersection(range) else {
                continue;
            };
            if segment.members.is_empty() {
                continue;
            }
            let bytes: u64 = self.open.within(part).map(|run| run.len()).sum();
            for member in segment.members.iter().filter(|_| bytes > 0) {
                let backlog = self.backlog.entry(*member).or_default();
                *backlog = if add {
                    *backlog + bytes
                } else {
                    backlog.saturating_sub(bytes)
                };
            }
        }
    }

    /// Open bytes that a partial seeder has.
    pub(super) fn backlog(&self, source: SourceId) -> u64 {
        self.backlog.get(&source).copied().unwrap_or(0)
    }

    /// Lists the segments of `range` that have open bytes, and no others.
    fn refresh(&mut self, range: ByteRange) {
        let first = self
            .segments
            .range(..=range.start)
            .next_back()
            .map_or(0, |(&start, _)| start);
        let starts: Vec<u64> = self
            .segments
            .range(first..range.end)
            .map(|(&start, _)| start)
            .collect();
        for start in starts {
            self.relist(start);
        }
    }

    fn relist(&mut self, start: u64) {
        let Some(segment) = self.segments.get(&start) else {
            return;
        };
        let open = self
            .open
            .next_run(start)
            .is_some_and(|run| run.start < segment.end);
        if !open {
            self.unlist(start);
        } else if segment.listed.is_none() {
            let rank = if self.ranked {
                self.rank(&segment.members)
            } else {
                0
            };
            let Some(segment) = self.segments.get_mut(&start) else {
                return;
            };
            segment.listed = Some(rank);
            self.all.insert((rank, start));
            for member in &segment.members {
                self.by_source
                    .entry(*member)
                    .or_default()
                    .insert((rank, start));
            }
        }
    }

    fn unlist(&mut self, start: u64) {
        let Some(segment) = self.segments.get_mut(&start) else {
            return;
        };
        let Some(rank) = segment.listed.take() else {
            return;
        };
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
        self.segments.insert(
            at,
            Segment {
                end,
                members,
                listed: None,
            },
        );
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
        assert_eq!(pool.best_rank(None), Some(WEIGHT));
        assert_eq!(
            pool.seek(Some(b), WEIGHT, 0),
            Some((WEIGHT, ByteRange::new(600, 1_000)))
        );
        assert_eq!(
            pool.seek(Some(a), WEIGHT, 500),
            Some((2 * WEIGHT, ByteRange::new(400, 1_000)))
        );
        pool.remove(ByteRange::new(600, 1_000));
        assert_eq!(
            pool.seek(Some(b), 0, 0),
            Some((2 * WEIGHT, ByteRange::new(400, 600)))
        );
        pool.set_ranked(false);
        assert_eq!(pool.seek_back(Some(a), 500), Some(ByteRange::new(0, 500)));
        pool.uncover(a, ByteRange::new(0, 600));
        pool.uncover(b, ByteRange::new(400, 1_000));
        assert_eq!(pool.segments.len(), 1);
        assert_eq!(
            pool.uncovered().collect::<Vec<_>>(),
            [ByteRange::new(0, 1_000)]
        );
    }
}
