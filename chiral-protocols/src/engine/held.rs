//! [`Held`]: chunks that stay in memory until they were hashed, for the piece that they lie in and
//! for the file.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Bytes of chunks that are kept; what is beyond that is read back from disk.
const MOST: usize = 8 << 20;

/// Chunks ahead of SHA-256 that are kept for it when they were checked. Those that it comes to later
/// would lie here for nothing: pieces come in any order.
const AHEAD: u32 = 16;

/// Chunks in memory, by index.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Of pieces that have not been checked.
    unchecked: BTreeMap<u32, Bytes>,
    /// Of those that have: SHA-256, which goes from the start of the file, is not there yet.
    checked: BTreeMap<u32, Bytes>,
    /// Where SHA-256 goes on.
    next: u32,
    bytes: usize,
}

impl Held {
    /// Keeps a chunk, if there is room. It goes before those that are checked: of these the
    /// ones go first that SHA-256 comes to last.
    pub(super) fn keep(&mut self, index: u32, bytes: &Bytes) {
        while self.bytes + bytes.len() > MOST
            && let Some((_, last)) = self.checked.pop_last()
        {
            self.bytes -= last.len();
        }
        if self.bytes + bytes.len() <= MOST && !self.unchecked.contains_key(&index) {
            self.bytes += bytes.len();
            self.unchecked.insert(index, bytes.clone());
        }
    }

    /// A chunk that has not been checked.
    pub(super) fn get(&self, index: u32) -> Option<Bytes> {
        self.unchecked.get(&index).cloned()
    }

    /// All pieces that a chunk lies in have passed.
    pub(super) fn passed(&mut self, index: u32) {
        if let Some(bytes) = self.unchecked.remove(&index) {
            if (self.next..self.next.saturating_add(AHEAD)).contains(&index) {
                self.checked.insert(index, bytes);
            } else {
                self.bytes -= bytes.len();
            }
        }
    }

    /// Takes the chunks that SHA-256 goes over next.
    pub(super) fn follow(&mut self, chunks: std::ops::Range<u32>) -> Vec<Option<Bytes>> {
        self.next = chunks.end;
        chunks.map(|index| self.take(index)).collect()
    }

    /// Lets a chunk go.
    pub(super) fn take(&mut self, index: u32) -> Option<Bytes> {
        let taken = self.unchecked.remove(&index);
        let taken = taken.or_else(|| self.checked.remove(&index));
        self.bytes -= taken.as_ref().map_or(0, Bytes::len);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: usize = MOST / 4;

    fn chunk(fill: u8) -> Bytes {
        vec![fill; QUARTER].into()
    }

    #[test]
    fn what_waits_for_its_check_goes_before_what_was_checked() {
        let mut held = Held::default();
        for index in 0..4 {
            held.keep(index, &chunk(index as u8));
        }
        held.keep(4, &chunk(4));
        assert_eq!(held.get(4), None, "there is no room");
        held.passed(3);
        held.passed(0);
        held.keep(5, &chunk(5));
        // The last of those that were checked made room.
        assert_eq!((held.get(5), held.take(3)), (Some(chunk(5)), None));
        assert_eq!((held.take(0), held.take(0)), (Some(chunk(0)), None));
        held.keep(6, &chunk(6));
        assert_eq!(held.get(6), Some(chunk(6)));
    }

    #[test]
    fn what_is_checked_stays_only_just_ahead_of_sha256() {
        let mut held = Held::default();
        let small = Bytes::from_static(b"small");
        for index in [1, AHEAD, AHEAD + 1, AHEAD + 2] {
            held.keep(index, &small);
        }
        assert_eq!(held.follow(0..2), [None, Some(small.clone())]);
        held.passed(AHEAD + 1);
        held.passed(AHEAD + 2);
        assert_eq!(held.get(AHEAD), Some(small.clone()), "not checked yet");
        assert_eq!(held.bytes, 2 * small.len());
        assert_eq!(held.take(AHEAD + 1), Some(small));
        assert_eq!(held.take(AHEAD + 2), None);
    }

    #[test]
    fn room_is_counted_right() {
        let mut held = Held::default();
        for round in 0..3 {
            for index in 0..4 {
                held.keep(index, &chunk(round));
                held.keep(index, &chunk(9));
            }
            held.passed(1);
            for index in 0..4 {
                assert_eq!(held.take(index), Some(chunk(round)));
            }
            assert_eq!(held.bytes, 0);
        }
    }
}
