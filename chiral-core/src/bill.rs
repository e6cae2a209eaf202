//! Bills, payments and proofs of transfer: what passes from the transfer side to the
//! payment side.

use std::fmt;

use alloy_primitives::{Address, B256, U256};

use crate::merkle::ProofError;
use crate::wallet::WalletSignature;
use crate::{
    ByteRange, ChunkHash, ChunkLayout, ChunkRuns, Cid, MerkleProof, MerkleRoot, PeerId, Price,
    Protocol, RangeSet,
};

/// Id of a bill; it is paid at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BillId(pub B256);

impl BillId {
    /// The id of the bill at one position under an agreement of payer and payee, of which
    /// the hash covers both sides' signed words. Both sides can derive it.
    pub fn derive(agreement: B256, sequence: u32) -> Self {
        let mut bytes = b"chiral/bill/v1".to_vec();
        bytes.extend_from_slice(agreement.as_slice());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        Self(alloy_primitives::keccak256(&bytes))
    }
}

impl fmt::Display for BillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one seeder delivered of one file, as far as this node verified it. Computed from
/// the verifier's ledger, never from what a peer claims; no byte stands on two bills.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bill {
    /// Its id.
    pub id: BillId,
    /// The file.
    pub cid: Cid,
    /// The seeder, if it has an identity.
    pub payee_peer: Option<PeerId>,
    /// Where the payment goes; free deliveries may have none.
    pub payee: Option<Address>,
    /// Verified bytes; none on a bill that is paid before delivery.
    pub ranges: RangeSet,
    /// Bytes paid for: those of the ranges, or those that are to come.
    pub bytes: u64,
    /// Price agreed on before the bytes were sent.
    pub price: Price,
    /// Price times bytes, rounded up once.
    pub amount: U256,
    /// For statistics only.
    pub protocol: Protocol,
}

/// A bill whose amount exceeds 2^256 − 1 wei.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the amount of the bill overflows")]
pub struct AmountOverflow;

impl Bill {
    /// A bill for verified bytes at an agreed price.
    ///
    /// # Errors
    /// [`AmountOverflow`].
    pub fn new(
        id: BillId,
        cid: Cid,
        ranges: RangeSet,
        price: Price,
        protocol: Protocol,
    ) -> Result<Self, AmountOverflow> {
        let bytes = ranges.len();
        let amount = price.cost(bytes).ok_or(AmountOverflow)?;
        Ok(Self {
            id,
            cid,
            payee_peer: None,
            payee: None,
            ranges,
            bytes,
            price,
            amount,
            protocol,
        })
    }

    /// A bill for bytes that are paid before they are delivered.
    ///
    /// # Errors
    /// [`AmountOverflow`].
    pub fn in_advance(
        id: BillId,
        cid: Cid,
        bytes: u64,
        price: Price,
        protocol: Protocol,
    ) -> Result<Self, AmountOverflow> {
        let mut bill = Self::new(id, cid, RangeSet::new(), price, protocol)?;
        bill.bytes = bytes;
        bill.amount = price.cost(bytes).ok_or(AmountOverflow)?;
        Ok(bill)
    }

    /// Says to whom the bill is owed.
    #[must_use]
    pub fn owed_to(mut self, peer: Option<PeerId>, wallet: Option<Address>) -> Self {
        self.payee_peer = peer;
        self.payee = wallet;
        self
    }

    /// Whether nothing is owed.
    pub fn is_free(&self) -> bool {
        self.amount.is_zero()
    }
}

/// A payment for chunks, in the architecture's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkPayment {
    /// Wallet of the downloader.
    pub from: Address,
    /// Wallet of the seeder.
    pub to: Address,
    /// The file.
    pub cid: Cid,
    /// Chunks with at least one byte delivered by this seeder.
    pub chunks_delivered: ChunkRuns,
    /// Verified bytes.
    pub bytes: u64,
    /// Wei.
    pub amount: U256,
    /// For statistics only.
    pub protocol: Protocol,
}

impl ChunkPayment {
    /// The payment that settles a bill; `None` if the bill names no wallet.
    pub fn for_bill(bill: &Bill, from: Address, layout: ChunkLayout) -> Option<Self> {
        let touched = bill
            .ranges
            .iter()
            .flat_map(|range: ByteRange| layout.touched(range));
        Some(Self {
            from,
            to: bill.payee?,
            cid: bill.cid,
            chunks_delivered: ChunkRuns::from_sorted(touched),
            bytes: bill.bytes,
            amount: bill.amount,
            protocol: bill.protocol.clone(),
        })
    }
}

/// Proof that chunks belong to a file, which a third party checks without the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferProof {
    /// The file.
    pub cid: Cid,
    /// Sealed root.
    pub root: MerkleRoot,
    /// Size in bytes, sealed by the root.
    pub size: u64,
    /// The chunks, rising, each with the hashes before and after it.
    pub chunks: Vec<(u32, ChunkHash, ChunkHash)>,
    /// One proof for all leaves named: the chunks and their predecessors.
    pub proof: MerkleProof,
    /// Seconds since 1970 (UTC).
    pub timestamp: u64,
    /// Signature of whoever makes the statement, over [`TransferProof::digest`].
    pub signature: Option<WalletSignature>,
}

/// Why a proof of transfer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferProofError {
    /// The size is over the limit of the format.
    #[error(transparent)]
    Size(#[from] crate::chunk::FileTooLarge),
    /// Two neighbouring chunks disagree on the hash between them, chunk 0 does not begin at
    /// SHA-256's initial value, or the last does not end at the cid.
    #[error("the hashes around chunk {index} contradict the file")]
    Chain {
        /// The chunk.
        index: u32,
    },
    /// The leaves do not lead to the root.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The signature is missing or not the signer's.
    #[error("the proof is not signed by {signer}")]
    Signature {
        /// Who should have signed.
        signer: Address,
    },
}

impl TransferProof {
    /// Makes an unsigned proof for the chunks at `indices` (rising) of a file of which all
    /// hashes are known.
    ///
    /// # Errors
    /// [`TransferProofError::Proof`] for indices that do not fit.
    pub fn new(
        layout: ChunkLayout,
        hashes: &[ChunkHash],
        indices: &[u32],
        timestamp: u64,
    ) -> Result<Self, TransferProofError> {
        let leaves = leaf_indices(indices.iter().copied());
        let proof = MerkleProof::prove(hashes, &leaves)?;
        let before = |index: u32| match index.checked_sub(1) {
            None => crate::chain::INITIAL,
            Some(at) => hashes[at as usize],
        };
        let chunks = indices
            .iter()
            .map(|&i| (i, before(i), hashes[i as usize]))
            .collect();
        let cid = hashes
            .last()
            .map_or(crate::chain::EMPTY_CID, |hash| hash.into_cid());
        let root = crate::merkle::seal(layout.size(), crate::merkle::tree_hash(hashes));
        let size = layout.size();
        Ok(Self {
            cid,
            root,
            size,
            chunks,
            proof,
            timestamp,
            signature: None,
        })
    }

    /// Checks that the chunk hashes belong to the file that root and size seal. Whether
    /// root and cid belong together is shown only if the last chunk is among them.
    ///
    /// # Errors
    /// [`TransferProofError`], by case.
    pub fn verify(&self) -> Result<(), TransferProofError> {
        let layout = ChunkLayout::new(self.size)?;
        let mut leaves: Vec<(u32, ChunkHash)> = Vec::new();
        for &(index, before, after) in &self.chunks {
            let fits = match index.checked_sub(1) {
                None => before == crate::chain::INITIAL,
                Some(previous) => match leaves.last() {
                    Some(&(at, hash)) if at == previous => hash == before,
                    _ => {
                        leaves.push((previous, before));
                        true
                    }
                },
            };
            let ends = !layout.is_last(index) || after == ChunkHash::from(self.cid);
            if !fits || !ends {
                return Err(TransferProofError::Chain { index });
            }
            leaves.push((index, after));
        }
        Ok(self.proof.verify(self.root, layout, &leaves)?)
    }

    /// What is signed: Keccak-256 over a tagged, length-prefixed encoding of all fields but
    /// the signature, so that no two proofs share signed bytes.
    pub fn digest(&self) -> B256 {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"chiral/transfer-proof/v1");
        bytes.extend_from_slice(self.cid.as_bytes());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u64).to_be_bytes());
        for (index, before, after) in &self.chunks {
            bytes.extend_from_slice(&index.to_be_bytes());
            bytes.extend_from_slice(before.as_bytes());
            bytes.extend_from_slice(after.as_bytes());
        }
        bytes.extend_from_slice(&(self.proof.nodes().len() as u64).to_be_bytes());
        for node in self.proof.nodes() {
            bytes.extend_from_slice(node.as_bytes());
        }
        alloy_primitives::keccak256(&bytes)
    }

    /// As [`TransferProof::verify`], and the statement is `signer`'s.
    ///
    /// # Errors
    /// [`TransferProofError`], by case.
    pub fn verify_signed_by(&self, signer: Address) -> Result<(), TransferProofError> {
        self.verify()?;
        match &self.signature {
            Some(signature) if crate::wallet::verify(signer, self.digest(), signature) => Ok(()),
            _ => Err(TransferProofError::Signature { signer }),
        }
    }
}

/// The leaves that prove these chunks: each chunk and the one before it.
fn leaf_indices(chunks: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut leaves: Vec<u32> = chunks
        .flat_map(|index| [index.checked_sub(1).unwrap_or(index), index])
        .collect();
    leaves.dedup();
    leaves
}

#[cfg(test)]
mod tests;
