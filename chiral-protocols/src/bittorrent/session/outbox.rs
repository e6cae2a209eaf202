//! [`Outbox`]: what is to be written, small messages together and blocks as they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::bittorrent::wire::{Block, Message, piece_header};

/// Bytes from which on nothing more is answered, and so read.
const FULL: usize = 1 << 20;

/// Bytes below which another block is put in.
const LOW: usize = 512 << 10;

/// What is to be written. Blocks are not copied.
#[derive(Debug, Default)]
pub struct Outbox {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Outbox {
    /// Adds a message.
    pub(super) fn push(&mut self, message: &Message) {
        let before = self.tail.len();
        message.encode(&mut self.tail);
        self.len += self.tail.len() - before;
    }

    /// Adds a block.
    pub(super) fn push_block(&mut self, block: Block, data: Bytes) {
        let header = piece_header(block);
        self.tail.extend_from_slice(&header);
        self.len += header.len() + data.len();
        self.parts.push_back(self.tail.split().freeze());
        self.parts.push_back(data);
    }

    /// Whether so much waits that the peer must read before it is answered more.
    pub fn is_full(&self) -> bool {
        self.len >= FULL
    }

    /// Whether there is room for another block.
    pub fn has_room(&self) -> bool {
        self.len < LOW
    }

    /// Makes all of it visible to [`Buf`].
    pub fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
    }

    /// Takes all of it out, in one piece.
    pub fn take(&mut self) -> BytesMut {
        let mut all = BytesMut::with_capacity(self.len);
        for part in self.parts.drain(..) {
            all.extend_from_slice(&part);
        }
        all.extend_from_slice(&self.tail.split());
        self.len = 0;
        all
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What was [sealed](Outbox::seal).
impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.len - self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, part) in out.iter_mut().zip(&self.parts) {
            *slot = IoSlice::new(part);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while count > 0 {
            // No more is advanced over than there is.
            let Some(first) = self.parts.front_mut() else {
                return;
            };
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.parts.pop_front();
        }
    }
}
