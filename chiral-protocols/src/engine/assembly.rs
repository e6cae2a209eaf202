//! Chunks put together from pieces that may come from several sources, in any order.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use chiral_core::{ByteRange, ChunkLayout, RangeSet, VerifiedChunk};

use crate::scheduler::SourceId;

/// Who delivered which bytes of a chunk.
pub(super) type Contributions = Vec<(ByteRange, SourceId)>;

/// A chunk of which all bytes have come.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) index: u32,
    pub(super) bytes: Bytes,
    pub(super) from: Contributions,
    /// What whoever delivered it found, if all of it came in one: good for these bytes alone.
    pub(super) checked: Option<VerifiedChunk>,
}

impl Assembled {
    /// Nobody has looked at it.
    pub(super) fn unchecked(index: u32, bytes: Bytes, from: Contributions) -> Self {
        Self {
            index,
            bytes,
            from,
            checked: None,
        }
    }

    /// With what is known of the piece that made it whole, which may be a part of it.
    pub(super) fn checked(mut self, checked: Option<VerifiedChunk>) -> Self {
        self.checked = checked;
        self
    }
}

#[derive(Debug, Default)]
struct Open {
    parts: Vec<(u64, Bytes, SourceId)>,
    have: RangeSet,
}

/// The chunks that are begun and not whole.
#[derive(Debug)]
pub(super) struct Assemblies {
    layout: ChunkLayout,
    open: BTreeMap<u32, Open>,
}

impl Assemblies {
    pub(super) fn new(layout: ChunkLayout) -> Self {
        Self {
            layout,
            open: BTreeMap::new(),
        }
    }

    /// Takes a piece that lies within one chunk. Bytes that are there already are ignored.
    pub(super) fn add(&mut self, offset: u64, bytes: Bytes, source: SourceId) -> Option<Assembled> {
        let index = ChunkLayout::chunk_at(offset);
        let whole = self.layout.range(index);
        let piece = ByteRange::new(offset, offset + bytes.len() as u64);
        if piece == whole && !self.open.contains_key(&index) {
            let from = vec![(whole, source)];
            return Some(Assembled::unchecked(index, bytes, from));
        }
        let open = self.open.entry(index).or_default();
        let mut at = piece.start;
        while at < piece.end {
            let taken = open.have.next_run(at).filter(|run| run.start < piece.end);
            let end = taken.map_or(piece.end, |run| run.start);
            if at < end {
                let part = bytes.slice((at - offset) as usize..(end - offset) as usize);
                open.parts.push((at, part, source));
                open.have.insert(ByteRange::new(at, end));
            }
            at = taken.map_or(piece.end, |run| run.end);
        }
        if !open.have.covers(whole) {
            return None;
        }
        let mut parts = self.open.remove(&index)?.parts;
        parts.sort_by_key(|(offset, ..)| *offset);
        let mut buffer = BytesMut::with_capacity(whole.len() as usize);
        let mut from: Contributions = Vec::new();
        for (offset, bytes, source) in parts {
            let end = offset + bytes.len() as u64;
            match from.last_mut() {
                Some((range, last)) if *last == source && range.end == offset => range.end = end,
                _ => from.push((ByteRange::new(offset, end), source)),
            }
            buffer.extend_from_slice(&bytes);
        }
        Some(Assembled::unchecked(index, buffer.freeze(), from))
    }

    /// Throws away what a source sent for chunks that are not whole; answers which bytes
    /// must be fetched again.
    pub(super) fn discard(&mut self, source: SourceId) -> Vec<ByteRange> {
        let mut lost = Vec::new();
        for open in self.open.values_mut() {
            open.parts.retain(|(offset, bytes, from)| {
                let range = ByteRange::new(*offset, offset + bytes.len() as u64);
                if *from == source {
                    open.have.remove(range);
                    lost.push(range);
                }
                *from != source
            });
        }
        self.open.retain(|_, open| !open.parts.is_empty());
        lost
    }

    /// Throws away what has come of one chunk.
    pub(super) fn forget(&mut self, index: u32) {
        self.open.remove(&index);
    }
}

/// The one source of a chunk, if it came whole from one.
pub(super) fn sole(from: &Contributions) -> Option<SourceId> {
    let (_, first) = from.first()?;
    from.iter()
        .all(|(_, source)| source == first)
        .then_some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_with_overlaps_make_the_chunk() {
        let layout = ChunkLayout::new(262_144 + 10).unwrap();
        let mut assemblies = Assemblies::new(layout);
        let data: Vec<u8> = (0..10).collect();
        let at = 262_144;
        let bytes = |r: std::ops::Range<usize>| Bytes::copy_from_slice(&data[r]);
        assert!(assemblies.add(at + 2, bytes(2..5), SourceId(1)).is_none());
        assert!(assemblies.add(at + 8, bytes(8..10), SourceId(2)).is_none());
        assert!(assemblies.add(at + 2, bytes(2..5), SourceId(2)).is_none());
        let done = assemblies.add(at, bytes(0..10), SourceId(3)).unwrap();
        assert_eq!((done.index, &done.bytes[..]), (1, &data[..]));
        let from: Vec<_> = done
            .from
            .iter()
            .map(|(r, s)| (r.start - at, r.end - at, s.0))
            .collect();
        assert_eq!(from, [(0, 2, 3), (2, 5, 1), (5, 8, 3), (8, 10, 2)]);
        assert_eq!(sole(&done.from), None);
    }

    #[test]
    fn what_a_banned_source_sent_is_wanted_again() {
        let mut assemblies = Assemblies::new(ChunkLayout::new(100).unwrap());
        assert!(
            assemblies
                .add(0, Bytes::from(vec![1; 40]), SourceId(1))
                .is_none()
        );
        assert!(
            assemblies
                .add(40, Bytes::from(vec![2; 40]), SourceId(2))
                .is_none()
        );
        assert_eq!(assemblies.discard(SourceId(1)), [ByteRange::new(0, 40)]);
        assert!(
            assemblies
                .add(80, Bytes::from(vec![2; 20]), SourceId(2))
                .is_none()
        );
        let done = assemblies
            .add(0, Bytes::from(vec![2; 40]), SourceId(2))
            .unwrap();
        assert_eq!(sole(&done.from), Some(SourceId(2)));
        assert_eq!(done.bytes, vec![2; 100]);
    }
}
