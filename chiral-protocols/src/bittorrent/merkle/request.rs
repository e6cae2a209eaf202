//! What peers ask each other for, and how much an answer has.

use super::{MerkleError, NodeHash, TreeShape};

/// Limit on the hashes of one request, beside those of its proof. (libtorrent's, too.)
pub const MAX_HASHES: u32 = 8192;

/// Hashes of a layer that are asked for at once. (What all clients ask for.)
const AT_ONCE: u64 = 512;

/// A request for hashes (BEP 52, "hash request").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRequest {
    /// Which file.
    pub pieces_root: NodeHash,
    /// The layer that the hashes are of; 0 has those of blocks.
    pub base_layer: u32,
    /// The first of them.
    pub index: u32,
    /// How many: a power of two.
    pub length: u32,
    /// How many layers above the base layer the proof covers.
    pub proof_layers: u32,
}

impl HashRequest {
    /// All requests for the piece layer of a file, each proven up to the root; none for a file
    /// of one piece or less.
    pub fn piece_layer(
        pieces_root: NodeHash,
        shape: TreeShape,
    ) -> impl Iterator<Item = Self> + use<> {
        let base_layer = shape.piece_layer();
        let width = shape.width(base_layer);
        let length = width.min(AT_ONCE);
        let starts = if width < 2 { 0 } else { shape.pieces() };
        (0..starts)
            .step_by(AT_ONCE as usize)
            .map(move |index| Self {
                pieces_root,
                base_layer,
                index: index as u32,
                length: length as u32,
                proof_layers: shape.root_layer() - base_layer - 1,
            })
    }

    /// The request for the hashes of a piece's blocks, to be checked against the piece's hash
    /// by [`TreeShape::check_blocks`]; `None` if the piece has one block or is not there.
    pub fn blocks_of(pieces_root: NodeHash, shape: TreeShape, piece: u32) -> Option<Self> {
        let layers = shape.piece_layer();
        (layers > 0 && u64::from(piece) < shape.pieces()).then(|| Self {
            pieces_root,
            base_layer: 0,
            index: piece << layers,
            length: 1 << layers,
            proof_layers: layers - 1,
        })
    }

    /// Layers that the requested hashes themselves lead up.
    pub(super) fn own_layers(&self) -> u32 {
        self.length.trailing_zeros()
    }

    /// Hashes of the proof: one for each layer that does not follow from those below.
    pub fn proof_len(&self) -> u32 {
        (self.proof_layers + 1).saturating_sub(self.own_layers())
    }

    /// Hashes in the answer, proof included.
    pub fn answer_len(&self) -> usize {
        (self.length + self.proof_len()) as usize
    }

    /// Whether a tree of this shape can answer.
    ///
    /// # Errors
    /// [`MerkleError::Request`].
    pub fn check(&self, shape: TreeShape) -> Result<(), MerkleError> {
        let fits = self.base_layer < shape.root_layer()
            && self.length.is_power_of_two()
            && self.length <= MAX_HASHES
            && self.index.is_multiple_of(self.length)
            && u64::from(self.index) + u64::from(self.length) <= shape.width(self.base_layer)
            && self.proof_layers < shape.root_layer() - self.base_layer;
        match fits {
            true => Ok(()),
            false => Err(MerkleError::Request),
        }
    }
}

impl TreeShape {
    /// Checks the hashes of a piece's blocks, which answer [`HashRequest::blocks_of`], against
    /// the hash of the piece, and cuts off those of padding.
    ///
    /// # Errors
    /// [`MerkleError`], by case.
    pub fn check_blocks(
        &self,
        piece: u32,
        piece_hash: &NodeHash,
        answer: &[NodeHash],
    ) -> Result<Vec<NodeHash>, MerkleError> {
        let expected = 1 << self.piece_layer();
        if answer.len() != expected {
            let found = answer.len();
            return Err(MerkleError::Count { found, expected });
        }
        let (blocks, zero) = answer.split_at(self.blocks_in(piece.into()) as usize);
        let padded = zero.iter().all(|hash| *hash == [0; 32]);
        if !padded || self.piece_hash(piece.into(), blocks.to_vec())? != *piece_hash {
            return Err(MerkleError::Mismatch);
        }
        Ok(blocks.to_vec())
    }
}
