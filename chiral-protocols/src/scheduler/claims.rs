//! Which request holds which byte.

use std::collections::BTreeMap;

use chiral_core::ByteRange;

use super::RequestId;

/// Disjoint byte ranges, each held by one request. Operations cost O(log n) plus the ranges
/// that they touch.
#[derive(Debug, Default)]
pub(super) struct Claims {
    spans: BTreeMap<u64, (u64, RequestId)>,
    bytes: u64,
}

impl Claims {
    /// Number of bytes held.
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Gives `range`, which nobody holds, to a request.
    pub(super) fn insert(&mut self, range: ByteRange, holder: RequestId) {
        if !range.is_empty() {
            self.spans.insert(range.start, (range.end, holder));
            self.bytes += range.len();
        }
    }

    /// What is held of `range`, ascending, cut to it.
    pub(super) fn within(&self, range: ByteRange) -> Vec<(ByteRange, RequestId)> {
        let mut found = Vec::new();
        if range.is_empty() {
            return found;
        }
        let first = self.spans.range(..range.start).next_back();
        let rest = self.spans.range(range.start..range.end);
        for (&start, &(end, holder)) in first.into_iter().chain(rest) {
            if let Some(part) = ByteRange::new(start, end).intersection(range) {
                found.push((part, holder));
            }
        }
        found
    }

    /// Whether nobody holds any byte of `range`.
    pub(super) fn is_free(&self, range: ByteRange) -> bool {
        range.is_empty()
            || self
                .spans
                .range(..range.end)
                .next_back()
                .is_none_or(|(_, &(end, _))| end <= range.start)
    }

    /// Takes `range` away from whoever holds parts of it; returns those parts.
    pub(super) fn remove(&mut self, range: ByteRange) -> Vec<(ByteRange, RequestId)> {
        let found = self.within(range);
        for &(part, holder) in &found {
            self.cut(part, holder);
        }
        found
    }

    /// Takes `range` away from one request; returns the parts that it held.
    pub(super) fn remove_from(&mut self, range: ByteRange, holder: RequestId) -> Vec<ByteRange> {
        let mut parts = Vec::new();
        for (part, other) in self.within(range) {
            if other == holder {
                self.cut(part, holder);
                parts.push(part);
            }
        }
        parts
    }

    /// Removes `part`, which lies inside one span.
    fn cut(&mut self, part: ByteRange, holder: RequestId) {
        let Some((&start, &(end, _))) = self.spans.range(..=part.start).next_back() else {
            return;
        };
        self.spans.remove(&start);
        if start < part.start {
            self.spans.insert(start, (part.start, holder));
        }
        if part.end < end {
            self.spans.insert(part.end, (end, holder));
        }
        self.bytes -= part.len();
    }
}
