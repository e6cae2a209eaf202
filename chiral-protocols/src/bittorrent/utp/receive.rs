//! [`Receiver`]: puts what arrives into its order.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};

use super::RECEIVE_BUFFER;
use super::packet::{MAX_SACK, ahead};

/// How far ahead of its turn a packet may come: as far as can be acknowledged selectively.
const MAX_EARLY: usize = MAX_SACK * 8;

#[derive(Debug)]
pub(super) struct Receiver {
    /// The last number up to which all is there.
    acknowledged: u16,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// What came before its turn, by how many numbers.
    early: BTreeMap<u16, Bytes>,
    early_bytes: usize,
    /// The number of the last packet.
    end: Option<u16>,
}

impl Receiver {
    /// Nothing up to this number is data.
    pub(super) fn new(acknowledged: u16) -> Self {
        Self {
            acknowledged,
            ready: VecDeque::new(),
            ready_bytes: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            end: None,
        }
    }

    pub(super) fn acknowledged(&self) -> u16 {
        self.acknowledged
    }

    /// How many bytes there is room for.
    pub(super) fn window(&self) -> usize {
        RECEIVE_BUFFER.saturating_sub(self.ready_bytes + self.early_bytes)
    }

    /// Whether all has come.
    pub(super) fn is_at_end(&self) -> bool {
        self.end == Some(self.acknowledged)
    }

    /// Whether something can be read, if only the end.
    pub(super) fn is_readable(&self) -> bool {
        self.ready_bytes > 0 || self.is_at_end()
    }

    /// Takes a packet of data, or the last one.
    pub(super) fn take(&mut self, sequence: u16, payload: Bytes, last: bool) {
        let turn = ahead(sequence, self.acknowledged.wrapping_add(1));
        let Ok(turn) = usize::try_from(turn) else {
            return;
        };
        let behind_end = self.end.is_some_and(|end| ahead(sequence, end) > 0);
        let fits = payload.len() <= self.window();
        if turn > MAX_EARLY || behind_end || !fits || self.early.contains_key(&sequence) {
            return;
        }
        if last && self.end.is_none() {
            self.end = Some(sequence);
            self.early.retain(|other, _| ahead(*other, sequence) < 0);
            self.early_bytes = self.early.values().map(Bytes::len).sum();
        }
        if turn > 0 {
            self.early_bytes += payload.len();
            self.early.insert(sequence, payload);
            return;
        }
        self.accept(payload);
        while let Some(next) = self.early.remove(&self.acknowledged.wrapping_add(1)) {
            self.early_bytes -= next.len();
            self.accept(next);
        }
    }

    fn accept(&mut self, payload: Bytes) {
        self.acknowledged = self.acknowledged.wrapping_add(1);
        if !payload.is_empty() {
            self.ready_bytes += payload.len();
            self.ready.push_back(payload);
        }
    }

    /// Which packets came before their turn, as bits from the one after the next on.
    pub(super) fn selective(&self) -> Vec<u8> {
        let mut bits = Vec::new();
        let first = self.acknowledged.wrapping_add(2);
        for sequence in self.early.keys() {
            let Ok(at) = usize::try_from(ahead(*sequence, first)) else {
                continue;
            };
            if at / 8 < MAX_SACK {
                if bits.len() <= at / 8 {
                    bits.resize((at / 32 + 1) * 4, 0);
                }
                bits[at / 8] |= 1 << (at % 8);
            }
        }
        bits
    }

    /// Moves what can be read into a buffer. Returns how much.
    pub(super) fn read(&mut self, mut room: usize, mut put: impl FnMut(&[u8])) -> usize {
        let mut read = 0;
        while let Some(next) = self.ready.front_mut() {
            let part = next.len().min(room);
            if part == 0 {
                break;
            }
            put(&next[..part]);
            next.advance(part);
            if next.is_empty() {
                self.ready.pop_front();
            }
            room -= part;
            read += part;
        }
        self.ready_bytes -= read;
        read
    }

    /// Forgets what nobody will read.
    pub(super) fn discard(&mut self) {
        self.ready.clear();
        self.ready_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(receiver: &mut Receiver) -> Vec<u8> {
        let mut out = Vec::new();
        receiver.read(usize::MAX, |part| out.extend_from_slice(part));
        out
    }

    #[test]
    fn order_is_restored_and_gaps_are_told() {
        let mut receiver = Receiver::new(65_534);
        let data = |byte: u8| Bytes::copy_from_slice(&[byte]);
        receiver.take(1, data(3), false);
        receiver.take(35, data(9), false);
        // Next is 65535; the one after that is bit 0.
        assert_eq!(receiver.selective(), [0b10, 0, 0, 0, 0b1000, 0, 0, 0]);
        receiver.take(65_535, data(1), false);
        assert_eq!(read(&mut receiver), [1]);
        receiver.take(65_535, data(7), false);
        receiver.take(0, data(2), false);
        assert_eq!(read(&mut receiver), [2, 3]);
        assert_eq!((receiver.acknowledged(), receiver.is_at_end()), (1, false));
        receiver.take(2, Bytes::new(), true);
        assert!(receiver.is_at_end() && receiver.is_readable());
        // What lies behind the end is nothing.
        receiver.take(3, data(4), false);
        assert!(read(&mut receiver).is_empty());
        assert_eq!(receiver.window(), RECEIVE_BUFFER);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut receiver = Receiver::new(0);
        let data = Bytes::from(vec![0; 60_000]);
        for sequence in 2..3000 {
            receiver.take(sequence, data.clone(), false);
        }
        for sequence in 1..3000 {
            receiver.take(sequence, data.clone(), false);
        }
        let held = receiver.ready_bytes + receiver.early_bytes;
        assert!(held <= RECEIVE_BUFFER && receiver.window() < 60_000);
        let mut receiver = Receiver::new(0);
        for sequence in 2..u16::MAX {
            receiver.take(sequence, Bytes::from_static(b"x"), false);
        }
        assert!(receiver.early.len() <= MAX_EARLY);
        assert!(receiver.selective().len() <= MAX_SACK);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same(first in any::<u16>(), order in Just((0..60_u16).collect::<Vec<_>>()).prop_shuffle()) {
            let mut receiver = Receiver::new(first);
            let mut out = Vec::new();
            for n in order {
                let sequence = first.wrapping_add(n + 1);
                let byte = u8::try_from(n).unwrap();
                receiver.take(sequence, vec![byte; 3].into(), n == 59);
                out.extend(read(&mut receiver));
            }
            let expected: Vec<u8> = (0..60).flat_map(|n| [n; 3]).collect();
            prop_assert_eq!(out, expected);
            prop_assert!(receiver.is_at_end());
        }
    }
}
