//! [`PieceHasher`]: a piece checked from memory, as its bytes arrive.
//!
//! Bytes are hashed when their turn comes; what arrives before its turn waits, in memory, and
//! is at most one piece. Padding is hashed without being fed. What passes is a
//! [`VerifiedPiece`], which nothing else makes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use sha1::Digest as _;
use sha2::Digest as _;

use super::merkle::{BLOCK_LEN, NodeHash, fold};

/// What a piece is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedPiece {
    /// SHA-1 over the piece (version 1).
    V1([u8; 20]),
    /// The node of the file's tree over the piece (version 2), with its layer.
    V2(NodeHash, u32),
    /// Both: a piece that fits one alone is wrong.
    Hybrid([u8; 20], NodeHash, u32),
}

impl ExpectedPiece {
    fn v1(&self) -> Option<[u8; 20]> {
        match self {
            Self::V1(hash) | Self::Hybrid(hash, ..) => Some(*hash),
            Self::V2(..) => None,
        }
    }

    fn v2(&self) -> Option<(NodeHash, u32)> {
        match self {
            Self::V2(hash, layer) | Self::Hybrid(_, hash, layer) => Some((*hash, *layer)),
            Self::V1(_) => None,
        }
    }
}

/// Why bytes were not taken, or a piece did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// Bytes past the end of the piece, in padding, or none.
    #[error("{length} bytes at {begin} do not fit piece {piece}")]
    Range {
        /// The piece.
        piece: u32,
        /// Where in it they should begin.
        begin: u32,
        /// How many there are.
        length: usize,
    },
    /// Bytes that are there already.
    #[error("bytes at {begin} of piece {piece} are there already")]
    Duplicate {
        /// The piece.
        piece: u32,
        /// Where in it they begin.
        begin: u32,
    },
    /// Bytes are missing.
    #[error("{missing} bytes of piece {piece} are missing")]
    Incomplete {
        /// The piece.
        piece: u32,
        /// How many.
        missing: u32,
    },
    /// Nothing is known to check the piece against: it is past the end, or its tree is missing.
    #[error("nothing is known to check piece {piece} against")]
    Unknown {
        /// The piece.
        piece: u32,
    },
    /// As much is held in memory as may be.
    #[error("{limit} bytes of pieces that are not complete")]
    Full {
        /// Bytes that may be held.
        limit: u64,
    },
    /// The bytes are not those of the torrent.
    #[error("piece {piece} does not have its hash")]
    Mismatch {
        /// The piece.
        piece: u32,
    },
}

impl PieceError {
    /// Whether the same call may succeed when more bytes have come, or pieces were completed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Incomplete { .. } | Self::Full { .. })
    }
}

/// A piece whose bytes have been checked. Made only by [`PieceHasher::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPiece {
    piece: u32,
    blocks: Vec<NodeHash>,
}

impl VerifiedPiece {
    /// Its number.
    pub fn piece(&self) -> u32 {
        self.piece
    }

    /// Hashes of its blocks in the tree of its file; none if the torrent is of version 1.
    pub fn blocks(&self) -> &[NodeHash] {
        &self.blocks
    }
}

/// Checks one piece. Holds what came before its turn, and no more than the piece.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    piece: u32,
    len: u32,
    /// In order, apart from each other.
    padding: Vec<Range<u32>>,
    expected: ExpectedPiece,
    /// Everything before has been hashed.
    next: u32,
    waiting: BTreeMap<u32, Bytes>,
    sha1: sha1::Sha1,
    leaf: sha2::Sha256,
    leaves: Vec<NodeHash>,
    /// Bytes in `leaf`.
    filled: u32,
}

impl PieceHasher {
    /// For a piece of `len` bytes, of which those of `padding` are zero and not fed.
    /// ([`Metainfo::hasher`](super::metainfo::Metainfo::hasher) makes the right one.)
    pub fn new(
        piece: u32,
        len: u32,
        mut padding: Vec<Range<u32>>,
        expected: ExpectedPiece,
    ) -> Self {
        padding.retain(|range| range.start < range.end && range.end <= len);
        padding.sort_by_key(|range| range.start);
        let mut hasher = Self {
            piece,
            len,
            padding,
            expected,
            next: 0,
            waiting: BTreeMap::new(),
            sha1: sha1::Sha1::new(),
            leaf: sha2::Sha256::new(),
            leaves: Vec::new(),
            filled: 0,
        };
        hasher.advance();
        hasher
    }

    /// The piece.
    pub fn piece(&self) -> u32 {
        self.piece
    }

    /// Takes bytes of the piece, of any length and in any order. Costs their hashing once their
    /// turn has come.
    ///
    /// # Errors
    /// [`PieceError::Range`] and [`PieceError::Duplicate`]: nothing was taken.
    pub fn feed(&mut self, begin: u32, bytes: Bytes) -> Result<(), PieceError> {
        let (piece, length) = (self.piece, bytes.len());
        let wrong = PieceError::Range {
            piece,
            begin,
            length,
        };
        let end = u32::try_from(length)
            .ok()
            .and_then(|len| begin.checked_add(len));
        let Some(end) = end.filter(|end| *end <= self.len && begin < *end) else {
            return Err(wrong);
        };
        let before = self.waiting.range(..end).next_back();
        let overlaps = before.is_some_and(|(at, held)| at + held.len() as u32 > begin);
        if begin < self.next || overlaps {
            // Padding that has been hashed is no place for bytes either.
            return match self.in_padding(begin, end) {
                true => Err(wrong),
                false => Err(PieceError::Duplicate { piece, begin }),
            };
        }
        if self.in_padding(begin, end) {
            return Err(wrong);
        }
        self.waiting.insert(begin, bytes);
        self.advance();
        Ok(())
    }

    /// Takes the bytes whose turn it is, and hashes them where they are; nothing is kept of them.
    ///
    /// # Errors
    /// [`PieceError::Range`] and [`PieceError::Duplicate`] as [`feed`](Self::feed) answers them;
    /// bytes before their turn are copied and wait.
    pub fn feed_slice(&mut self, begin: u32, bytes: &[u8]) -> Result<(), PieceError> {
        let is_next = begin == self.next && self.waiting.is_empty() && !bytes.is_empty();
        let end = u32::try_from(bytes.len())
            .ok()
            .and_then(|len| begin.checked_add(len))
            .filter(|end| is_next && *end <= self.len && !self.in_padding(begin, *end));
        if end.is_none() {
            return self.feed(begin, Bytes::copy_from_slice(bytes));
        }
        self.hash(bytes, false);
        self.advance();
        Ok(())
    }

    fn in_padding(&self, begin: u32, end: u32) -> bool {
        self.padding
            .iter()
            .any(|pad| pad.start < end && begin < pad.end)
    }

    /// What is still to be fed, in order.
    pub fn lacks(&self) -> Vec<Range<u32>> {
        let mut lacks = Vec::new();
        let mut at = self.next;
        let held = self.waiting.iter();
        let held = held.map(|(start, bytes)| *start..start + bytes.len() as u32);
        let pads = self.padding.iter().cloned();
        let mut known: Vec<_> = held.chain(pads).filter(|range| range.end > at).collect();
        known.sort_by_key(|range| range.start);
        for range in known {
            if range.start > at {
                lacks.push(at..range.start);
            }
            at = at.max(range.end);
        }
        if at < self.len {
            lacks.push(at..self.len);
        }
        lacks
    }

    /// Whether all bytes are there.
    pub fn is_complete(&self) -> bool {
        self.next == self.len
    }

    /// Bytes that wait for their turn.
    pub fn waiting(&self) -> u32 {
        self.waiting.values().map(|bytes| bytes.len() as u32).sum()
    }

    /// Hashes everything whose turn has come.
    fn advance(&mut self) {
        loop {
            let next = self.next;
            if let Some(bytes) = self.waiting.remove(&next) {
                self.hash(&bytes, false);
            } else if let Some(end) = self.padding_at(next) {
                const ZEROS: [u8; 4096] = [0; 4096];
                while self.next < end {
                    let part = (end - self.next).min(ZEROS.len() as u32);
                    self.hash(&ZEROS[..part as usize], true);
                }
            } else {
                return;
            }
        }
    }

    fn padding_at(&self, at: u32) -> Option<u32> {
        let covers = |pad: &&Range<u32>| pad.start <= at && at < pad.end;
        self.padding.iter().find(covers).map(|pad| pad.end)
    }

    /// Padding belongs to no file, so it is in no file's tree.
    fn hash(&mut self, mut bytes: &[u8], padding: bool) {
        self.next += bytes.len() as u32;
        if self.expected.v1().is_some() {
            self.sha1.update(bytes);
        }
        if self.expected.v2().is_none() || padding {
            return;
        }
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min((BLOCK_LEN - self.filled) as usize));
            self.leaf.update(now);
            self.filled += now.len() as u32;
            bytes = rest;
            if self.filled == BLOCK_LEN {
                self.end_leaf();
            }
        }
    }

    fn end_leaf(&mut self) {
        self.leaves.push(self.leaf.finalize_reset().into());
        self.filled = 0;
    }

    /// Ends the piece.
    ///
    /// # Errors
    /// [`PieceError::Incomplete`], [`PieceError::Mismatch`].
    pub fn finish(mut self) -> Result<VerifiedPiece, PieceError> {
        let piece = self.piece;
        if !self.is_complete() {
            let missing = self.lacks().iter().map(|range| range.len() as u32).sum();
            return Err(PieceError::Incomplete { piece, missing });
        }
        if self.filled > 0 {
            self.end_leaf();
        }
        let fits_v1 = match self.expected.v1() {
            Some(hash) => <[u8; 20]>::from(self.sha1.finalize()) == hash,
            None => true,
        };
        let fits_v2 = match self.expected.v2() {
            Some((hash, layer)) => {
                let room = self.leaves.len() as u64 <= 1 << layer.min(48);
                room && fold(0, self.leaves.clone(), layer.min(48)) == hash
            }
            None => true,
        };
        match fits_v1 && fits_v2 {
            true => Ok(VerifiedPiece {
                piece,
                blocks: self.leaves,
            }),
            false => Err(PieceError::Mismatch { piece }),
        }
    }
}

#[cfg(test)]
mod tests;
