//! The tree over chunk hashes, its sealed root, and strict proofs.
//!
//! `leaf = SHA-256(0x00 ‖ chunk_hash)`, `node = SHA-256(0x01 ‖ left ‖ right)`, a lone node is
//! promoted: the Merkle Tree Hash of RFC 9162 §2.1 over the chunk hashes. The
//! [`MerkleRoot`] seals it together with the file's size, so that the number of leaves is
//! never a peer's to choose.
//!
//! `rs_merkle` does the folding. Stock, it accepts padded proofs, and proofs for another
//! number of leaves; what is checked around it here is what makes it strict.

use rs_merkle::{Hasher, MerkleProof as RsProof, MerkleTree};
use sha2::{Digest, Sha256};

use crate::chunk::ChunkLayout;
use crate::{CHUNK_SIZE, ChunkHash, MerkleRoot, TreeHash};

/// Domain of the sealed root.
const SEAL_TAG: &[u8] = b"chiral/file/v1";

/// Limit on the number of leaves proven by one proof.
pub const MAX_PROOF_LEAVES: usize = 4096;

/// Why a Merkle proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No leaf, or more than [`MAX_PROOF_LEAVES`].
    #[error("a proof needs 1 to {MAX_PROOF_LEAVES} leaves, not {found}")]
    LeafCount {
        /// Number of leaves offered.
        found: usize,
    },
    /// Indices must rise strictly and lie inside the file.
    #[error("leaf {index} is out of order, repeated or past the end ({count} leaves)")]
    Index {
        /// The refused index.
        index: u32,
        /// Number of leaves in the tree.
        count: u32,
    },
    /// A proof has exactly the nodes that the path needs.
    #[error("proof has {found} nodes, expected {expected}")]
    Length {
        /// Nodes found.
        found: usize,
        /// Nodes that the indices need.
        expected: usize,
    },
    /// The proof leads to another root.
    #[error("proof does not lead to the root")]
    Root,
}

#[derive(Clone)]
struct Rfc9162;

impl Hasher for Rfc9162 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        match right {
            Some(right) => Sha256::new()
                .chain_update([1])
                .chain_update(left)
                .chain_update(right)
                .finalize()
                .into(),
            None => *left,
        }
    }
}

/// The leaf of a chunk hash.
pub fn leaf(hash: ChunkHash) -> TreeHash {
    TreeHash::from_bytes(
        Sha256::new()
            .chain_update([0])
            .chain_update(hash.as_bytes())
            .finalize()
            .into(),
    )
}

/// Merkle Tree Hash over chunk hashes (RFC 9162 §2.1); of none, SHA-256 of nothing.
pub fn tree_hash(hashes: &[ChunkHash]) -> TreeHash {
    let leaves: Vec<_> = hashes.iter().map(|hash| leaf(*hash)).collect();
    fold(&leaves)
}

/// Folds nodes of one level, all but the last of which are complete subtrees, to the node
/// above them all. Of none, SHA-256 of nothing.
pub fn fold(nodes: &[TreeHash]) -> TreeHash {
    match MerkleTree::<Rfc9162>::from_leaves(&raw(nodes)).root() {
        Some(root) => TreeHash::from_bytes(root),
        None => TreeHash::from_bytes(Sha256::digest(b"").into()),
    }
}

/// The sealed root of a file of `size` bytes with this tree.
pub fn seal(size: u64, tree: TreeHash) -> MerkleRoot {
    MerkleRoot::from_bytes(
        Sha256::new()
            .chain_update([2])
            .chain_update(SEAL_TAG)
            .chain_update(size.to_be_bytes())
            .chain_update((CHUNK_SIZE as u32).to_be_bytes())
            .chain_update(tree.as_bytes())
            .finalize()
            .into(),
    )
}

/// A proof that some chunk hashes are the leaves at their indices: the missing siblings,
/// level by level from the leaves up, left to right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MerkleProof {
    nodes: Vec<TreeHash>,
}

impl MerkleProof {
    /// A proof from its nodes, in order. Nothing is checked before [`MerkleProof::verify`].
    pub fn from_nodes(nodes: Vec<TreeHash>) -> Self {
        Self { nodes }
    }

    /// The nodes.
    pub fn nodes(&self) -> &[TreeHash] {
        &self.nodes
    }

    /// Proves the leaves at `indices` of a file with these chunk hashes.
    ///
    /// Costs one hash per chunk of the file.
    ///
    /// # Errors
    /// [`ProofError::LeafCount`] and [`ProofError::Index`].
    pub fn prove(hashes: &[ChunkHash], indices: &[u32]) -> Result<Self, ProofError> {
        let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        check_indices(indices.iter().copied(), indices.len(), count)?;
        let leaves: Vec<_> = hashes.iter().map(|hash| leaf(*hash)).collect();
        Ok(Self {
            nodes: siblings(&leaves, indices),
        })
    }

    /// Checks that each `(index, hash)` is a chunk of the file that `root` seals at `size`
    /// bytes. The number of leaves follows from the size.
    ///
    /// # Errors
    /// [`ProofError`], by case. Never passes on doubt.
    pub fn verify(
        &self,
        root: MerkleRoot,
        layout: ChunkLayout,
        leaves: &[(u32, ChunkHash)],
    ) -> Result<(), ProofError> {
        let indices: Vec<u32> = leaves.iter().map(|(index, _)| *index).collect();
        let nodes: Vec<_> = leaves.iter().map(|(_, hash)| leaf(*hash)).collect();
        let tree = climb(&self.nodes, &indices, &nodes, layout.count())?;
        if seal(layout.size(), tree) == root {
            Ok(())
        } else {
            Err(ProofError::Root)
        }
    }
}

/// The siblings that prove the nodes at `indices` (rising, in range) of one level.
pub(crate) fn siblings(level: &[TreeHash], indices: &[u32]) -> Vec<TreeHash> {
    let tree = MerkleTree::<Rfc9162>::from_leaves(&raw(level));
    let indices: Vec<usize> = indices.iter().map(|index| *index as usize).collect();
    tree.proof(&indices)
        .proof_hashes()
        .iter()
        .copied()
        .map(TreeHash::from_bytes)
        .collect()
}

/// The node above a level of `count` nodes, from some of them and their siblings.
pub(crate) fn climb(
    siblings: &[TreeHash],
    indices: &[u32],
    nodes: &[TreeHash],
    count: u32,
) -> Result<TreeHash, ProofError> {
    check_indices(indices.iter().copied(), nodes.len(), count)?;
    let expected = siblings_needed(indices, count);
    if siblings.len() != expected {
        return Err(ProofError::Length {
            found: siblings.len(),
            expected,
        });
    }
    let indices: Vec<usize> = indices.iter().map(|index| *index as usize).collect();
    RsProof::<Rfc9162>::new(raw(siblings))
        .root(&indices, &raw(nodes), count as usize)
        .map(TreeHash::from_bytes)
        .map_err(|_| ProofError::Root)
}

fn check_indices(
    indices: impl Iterator<Item = u32>,
    found: usize,
    count: u32,
) -> Result<(), ProofError> {
    if found == 0 || found > MAX_PROOF_LEAVES {
        return Err(ProofError::LeafCount { found });
    }
    let mut least = 0;
    for index in indices {
        if index < least || index >= count {
            return Err(ProofError::Index { index, count });
        }
        least = index + 1;
    }
    Ok(())
}

/// How many siblings a proof for these indices has: at each level, those next to a known
/// node and not known themselves. A lone last node has none.
fn siblings_needed(indices: &[u32], count: u32) -> usize {
    let mut known: Vec<u32> = indices.to_vec();
    let mut width = count;
    let mut needed = 0;
    while width > 1 {
        let mut above: Vec<u32> = Vec::with_capacity(known.len());
        let mut at = 0;
        while at < known.len() {
            let index = known[at];
            if index.is_multiple_of(2) && known.get(at + 1) == Some(&(index + 1)) {
                at += 1;
            } else if index ^ 1 < width {
                needed += 1;
            }
            above.push(index / 2);
            at += 1;
        }
        known = above;
        width = width.div_ceil(2);
    }
    needed
}

fn raw(nodes: &[TreeHash]) -> Vec<[u8; 32]> {
    nodes.iter().map(|node| *node.as_bytes()).collect()
}

#[cfg(test)]
mod tests;
