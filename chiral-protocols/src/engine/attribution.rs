//! Who delivered what that passed: the ledger that bills are made from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use chiral_core::transfer::SourceReport;
use chiral_core::{ChunkLayout, PeerOffer, RangeSet};

use super::Delivered;
use super::assembly::Contributions;
use crate::scheduler::SourceId;

#[derive(Clone, Debug)]
struct Entry {
    offer: PeerOffer,
    ranges: RangeSet,
    received: u64,
    first_byte: Option<Duration>,
    last_byte: Option<Duration>,
    banned: Option<String>,
}

/// One entry for each connection that ever took part.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    entries: BTreeMap<SourceId, Entry>,
    /// Whether somebody has more than one.
    returned: bool,
}

impl Attribution {
    /// A source takes part.
    pub(super) fn join(&mut self, id: SourceId, offer: PeerOffer) {
        self.returned |= self.entries.values().any(|entry| entry.offer == offer);
        self.entries.entry(id).or_insert(Entry {
            offer,
            ranges: RangeSet::new(),
            received: 0,
            first_byte: None,
            last_byte: None,
            banned: None,
        });
    }

    /// Bytes came from a source, whatever they are worth.
    pub(super) fn received(&mut self, id: SourceId, bytes: u64, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.received += bytes;
            entry.first_byte.get_or_insert(now);
            entry.last_byte = Some(now);
        }
    }

    /// A chunk passed. Each chunk is reported once in a run, and what was proven in an
    /// earlier run is not fetched again, so no byte is counted twice.
    pub(super) fn proven(&mut self, from: &Contributions) {
        for (range, id) in from {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.ranges.insert(*range);
            }
        }
    }

    /// A source is out for good.
    pub(super) fn banned(&mut self, id: SourceId, reason: String) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.banned.get_or_insert(reason);
        }
    }

    /// Whether a source has been put out.
    pub(super) fn is_banned(&self, id: SourceId) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|entry| entry.banned.is_some())
    }

    /// Bytes received from all sources.
    pub(super) fn total_received(&self) -> u64 {
        self.entries.values().map(|entry| entry.received).sum()
    }

    /// Whoever was put out and came back, since that was taken back, is one source to others.
    fn merged(&self) -> Vec<Cow<'_, Entry>> {
        let mut merged: Vec<Cow<'_, Entry>> = Vec::new();
        for entry in self.entries.values() {
            let same = |other: &&mut Cow<'_, Entry>| self.returned && other.offer == entry.offer;
            let Some(earlier) = merged.iter_mut().find(same) else {
                merged.push(Cow::Borrowed(entry));
                continue;
            };
            let earlier = earlier.to_mut();
            for range in entry.ranges.iter() {
                earlier.ranges.insert(range);
            }
            earlier.received += entry.received;
            earlier.first_byte = earlier.first_byte.or(entry.first_byte);
            earlier.last_byte = entry.last_byte.or(earlier.last_byte);
            earlier.banned = entry.banned.clone();
        }
        merged
    }

    pub(super) fn reports(&self, layout: Option<ChunkLayout>) -> Vec<SourceReport> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.merged()
            .iter()
            .map(|entry| SourceReport {
                source: entry.offer.endpoint.as_str().to_owned(),
                protocol: entry.offer.protocol.clone(),
                bytes: entry.ranges.len(),
                chunks: layout.map_or(0, |layout| chunks_touched(layout, &entry.ranges)),
                wasted: entry.received.saturating_sub(entry.ranges.len()),
                first_byte_ms: entry.first_byte.map(millis),
                last_byte_ms: entry.last_byte.map(millis),
                banned: entry.banned.clone(),
            })
            .collect()
    }

    pub(super) fn delivered(&self) -> Vec<Delivered> {
        self.merged()
            .into_iter()
            .filter(|entry| !entry.ranges.is_empty())
            .map(|entry| entry.into_owned())
            .map(|Entry { offer, ranges, .. }| Delivered { offer, ranges })
            .collect()
    }
}

fn chunks_touched(layout: ChunkLayout, ranges: &RangeSet) -> u32 {
    let mut count = 0;
    let mut next = 0;
    for range in ranges.iter() {
        let touched = layout.touched(range);
        count += touched.end - touched.start.max(next).min(touched.end);
        next = touched.end;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::ByteRange;

    #[test]
    fn a_chunk_touched_twice_counts_once() {
        let layout = ChunkLayout::new(262_144 * 4).unwrap();
        let ranges = [(0, 10), (20, 30), (262_140, 262_150), (786_432, 786_433)]
            .into_iter()
            .map(|(a, b)| ByteRange::new(a, b))
            .collect();
        assert_eq!(chunks_touched(layout, &ranges), 3);
    }
}
