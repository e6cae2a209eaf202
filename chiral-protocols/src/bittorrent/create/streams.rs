//! Streams of bytes cut into pieces and hashed.

use sha1::Digest as _;
use sha2::Digest as _;

use super::super::merkle::{BLOCK_LEN, NodeHash, fold};

/// SHA-1 over each piece of a stream.
#[derive(Debug, Clone)]
pub(super) struct PieceStream {
    piece_length: u32,
    filled: u32,
    sha1: sha1::Sha1,
    hashes: Vec<u8>,
}

impl PieceStream {
    pub(super) fn new(piece_length: u32) -> Self {
        Self {
            piece_length,
            filled: 0,
            sha1: sha1::Sha1::new(),
            hashes: Vec::new(),
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (self.piece_length - self.filled) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.sha1.update(now);
            self.filled += now.len() as u32;
            bytes = rest;
            if self.filled == self.piece_length {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        self.hashes.extend_from_slice(&self.sha1.finalize_reset());
        self.filled = 0;
    }

    /// Bytes to the end of the piece; none at its start.
    pub(super) fn to_boundary(&self) -> u32 {
        match self.filled {
            0 => 0,
            filled => self.piece_length - filled,
        }
    }

    /// Hashes, one after the other.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.end_piece();
        }
        self.hashes
    }
}

/// The piece layer of a file's tree.
#[derive(Debug, Clone)]
pub(super) struct TreeStream {
    piece_blocks: usize,
    filled: u32,
    leaf: sha2::Sha256,
    /// Of the piece that is not ended.
    leaves: Vec<NodeHash>,
    layer: Vec<NodeHash>,
}

impl TreeStream {
    pub(super) fn new(piece_length: u32) -> Self {
        Self {
            piece_blocks: (piece_length / BLOCK_LEN) as usize,
            filled: 0,
            leaf: sha2::Sha256::new(),
            leaves: Vec::new(),
            layer: Vec::new(),
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (BLOCK_LEN - self.filled) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.leaf.update(now);
            self.filled += now.len() as u32;
            bytes = rest;
            if self.filled == BLOCK_LEN {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.leaves.push(self.leaf.finalize_reset().into());
        self.filled = 0;
        if self.leaves.len() == self.piece_blocks {
            self.end_piece(self.piece_blocks);
        }
    }

    fn end_piece(&mut self, leaves: usize) {
        let layers = leaves.next_power_of_two().trailing_zeros();
        let leaves = std::mem::take(&mut self.leaves);
        self.layer.push(fold(0, leaves, layers));
    }

    /// The piece layer; of a file of one piece or less, its root. Nothing of an empty file.
    pub(super) fn finish(mut self) -> Vec<NodeHash> {
        if self.filled > 0 {
            self.leaves.push(self.leaf.finalize_reset().into());
        }
        if !self.leaves.is_empty() {
            // A file of one piece has a tree no higher than it needs.
            let leaves = match self.layer.is_empty() {
                true => self.leaves.len(),
                false => self.piece_blocks,
            };
            self.end_piece(leaves);
        }
        self.layer
    }
}
