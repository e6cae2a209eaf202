//! The hash trees of BitTorrent v2 (BEP 52): SHA-256 over blocks of 16 KiB, one tree for each
//! file.
//!
//! A tree has a power of two of leaves; those past the end of the file are zero. The nodes
//! that cover one piece each are the *piece layer*. A file of one piece or less has a root
//! only. Layers are counted from the leaves, which are layer 0.
//!
//! [`HashRequest`] is what peers ask each other for; [`FileTree::answer`] makes the answer and
//! [`PieceLayer::add`] checks one.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

mod request;
mod tree;

pub use request::{HashRequest, MAX_HASHES};
pub use tree::{FileTree, PieceLayer};

/// A node of a tree.
pub type NodeHash = [u8; 32];

/// Bytes under a leaf.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// Layers of the highest tree: 2^62 bytes.
const MAX_LAYERS: usize = 49;

/// Why hashes do not form a tree, or not that of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MerkleError {
    /// Too many or too few hashes for the file or the request.
    #[error("{found} hashes, expected {expected}")]
    Count {
        /// Hashes found.
        found: usize,
        /// Hashes expected.
        expected: usize,
    },
    /// They do not lead to the root, or to the piece.
    #[error("hashes do not lead to the root")]
    Mismatch,
    /// A request that no tree of this shape can answer.
    #[error("a request for hashes that the file does not have")]
    Request,
    /// The hashes of blocks are needed for the answer, and were not given.
    #[error("hashes of blocks are needed")]
    BlocksNeeded,
}

impl MerkleError {
    /// The same hashes are as wrong the next time.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The leaf over the bytes of a block.
pub fn block_hash(block: &[u8]) -> NodeHash {
    Sha256::digest(block).into()
}

/// The node over two others.
pub fn parent(left: &NodeHash, right: &NodeHash) -> NodeHash {
    Sha256::new()
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The node on a layer under which all leaves are zero.
pub fn padding(layer: u32) -> NodeHash {
    static PADDING: OnceLock<Vec<NodeHash>> = OnceLock::new();
    let all = PADDING.get_or_init(|| {
        std::iter::successors(Some([0; 32]), |below| Some(parent(below, below)))
            .take(MAX_LAYERS)
            .collect()
    });
    all[(layer as usize).min(MAX_LAYERS - 1)]
}

/// Folds neighbours of a layer until `layers` higher, where one is left. What is missing on
/// the right is padding; there must be no more than 2^layers.
pub fn fold(layer: u32, mut hashes: Vec<NodeHash>, layers: u32) -> NodeHash {
    for layer in layer..layer + layers {
        hashes = above(layer, &hashes);
    }
    hashes
        .first()
        .copied()
        .unwrap_or_else(|| padding(layer + layers))
}

/// The layer above these hashes of a layer.
fn above(layer: u32, hashes: &[NodeHash]) -> Vec<NodeHash> {
    let fill = padding(layer);
    hashes
        .chunks(2)
        .map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&fill)))
        .collect()
}

/// How the tree of a file of known length looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeShape {
    len: u64,
    piece_length: u32,
}

impl TreeShape {
    /// Of a file of `len` bytes; `None` if it is empty, for then it has no tree, or longer than
    /// 2^62 bytes, or if the piece length is not a power of two of at least 16 KiB.
    pub fn new(len: u64, piece_length: u32) -> Option<Self> {
        let piece = piece_length.is_power_of_two() && piece_length >= BLOCK_LEN;
        let file = len > 0 && len <= 1 << 62;
        (piece && file).then_some(Self { len, piece_length })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: an empty file has no tree.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Blocks of 16 KiB, the last one short.
    pub fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK_LEN.into())
    }

    /// Pieces, the last one short.
    pub fn pieces(&self) -> u64 {
        self.len.div_ceil(self.piece_length.into())
    }

    /// The layer of the root.
    pub fn root_layer(&self) -> u32 {
        self.blocks().next_power_of_two().trailing_zeros()
    }

    /// The layer on which a node covers a piece; that of the root if the file is one piece or
    /// less.
    pub fn piece_layer(&self) -> u32 {
        (self.piece_length / BLOCK_LEN)
            .trailing_zeros()
            .min(self.root_layer())
    }

    /// Nodes on a layer, padding included: a power of two.
    pub fn width(&self, layer: u32) -> u64 {
        1 << self.root_layer().saturating_sub(layer)
    }

    /// Nodes on a layer that cover something of the file.
    fn filled(&self, layer: u32) -> u64 {
        self.blocks().div_ceil(1 << layer)
    }

    /// Blocks in a piece.
    pub fn blocks_in(&self, piece: u64) -> u64 {
        let each = u64::from(self.piece_length / BLOCK_LEN);
        self.blocks().saturating_sub(piece * each).min(each)
    }

    /// The hash of a piece from those of its blocks.
    ///
    /// # Errors
    /// [`MerkleError::Count`] if it has not as many.
    pub fn piece_hash(&self, piece: u64, blocks: Vec<NodeHash>) -> Result<NodeHash, MerkleError> {
        let expected = self.blocks_in(piece) as usize;
        if blocks.len() != expected || expected == 0 {
            let found = blocks.len();
            return Err(MerkleError::Count { found, expected });
        }
        Ok(fold(0, blocks, self.piece_layer()))
    }
}

#[cfg(test)]
mod tests;
