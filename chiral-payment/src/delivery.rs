//! [`DeliveryProof`]: what a third party checks without the file, the chain or either side:
//! that two wallets agreed, that one says which chunks came from the other, and that the other
//! says it was paid for them.
//!
//! It is a file: the tag `chirldlv`, a version, and an ABI-encoded struct. One proof has one
//! encoding.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolValue;
use chiral_core::bill::TransferProofError;
use chiral_core::{
    BillId, ByteRange, ChunkHash, ChunkLayout, Cid, MerkleProof, MerkleRoot, RangeSet,
    TransferProof, TreeHash, WalletSignature, WalletSigner,
};

use crate::messages::{ChainFacts, Message, Policy, Quote, Signed, agreement};
use crate::receipt::Receipt;

/// Longest file.
pub const MAX_FILE: usize = 64 << 20;

/// Chunks in one of the transfer proofs: with those before them, within what a Merkle proof
/// may name.
const CHUNKS: usize = 2000;

/// First bytes of the file.
const MAGIC: [u8; 8] = *b"chirldlv";

const VERSION: u8 = 1;

mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        struct Transfer {
            bytes32 root;
            uint64 size;
            uint32[] indices;
            bytes32[] hashesBefore;
            bytes32[] hashes;
            bytes32[] nodes;
            uint64 timestamp;
            bytes signature;
        }

        struct Delivery {
            uint64 chainId;
            bytes32 genesis;
            address batchPay;
            bytes accept;
            uint32 sequence;
            bytes receipt;
            Transfer[] transfers;
        }
    }
}

/// Why a file proves no delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The bytes are no proof of delivery, or one of a later version.
    #[error("not a proof of delivery: {what}")]
    Malformed {
        /// What does not hold.
        what: &'static str,
    },
    /// The words do not belong together, or are not of whom they name.
    #[error("the proof contradicts itself: {what}")]
    Contradiction {
        /// What does not hold.
        what: &'static str,
    },
    /// The chunks are not proven.
    #[error(transparent)]
    Transfer(#[from] TransferProofError),
}

impl DeliveryError {
    /// Whether the same call may succeed later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Words of both sides about one bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryProof {
    /// On which chain they were said.
    pub chain: ChainFacts,
    /// The buyer's acceptance with the seeder's quote, as it was sent.
    pub accept: bytes::Bytes,
    /// Position of the bill under the agreement.
    pub sequence: u32,
    /// The seeder's receipt.
    pub receipt: Signed<Receipt>,
    /// The chunks, each proof signed by the buyer; none for what was paid in advance.
    pub transfers: Vec<TransferProof>,
}

/// What a proof shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The bill.
    pub bill: BillId,
    /// The file.
    pub cid: Cid,
    /// Who paid, and says what came.
    pub payer: Address,
    /// Who was paid, and says so.
    pub payee: Address,
    /// What was agreed on.
    pub quote: Quote,
    /// Bytes paid for.
    pub bytes: u64,
    /// Wei.
    pub amount: U256,
    /// The transaction, as the payee says: whether the chain has it is not shown here.
    pub transaction: B256,
    /// When the payee saw it: seconds since 1970 (UTC).
    pub time: u64,
    /// Root of the file, and how many of its chunks are proven to be among what came.
    pub chunks: Option<(MerkleRoot, u64)>,
}

impl DeliveryProof {
    /// Proofs for the chunks that hold at least one byte of `ranges`, each signed by the buyer.
    /// `hashes` are those of all chunks of the file.
    ///
    /// # Errors
    /// [`TransferProofError`] if they do not fit; the signer's failure.
    pub async fn transfers(
        layout: ChunkLayout,
        hashes: &[ChunkHash],
        ranges: &RangeSet,
        signer: &dyn WalletSigner,
        now: u64,
    ) -> Result<Vec<TransferProof>, MakeError> {
        let touched = ranges.iter().flat_map(|range| layout.touched(range));
        let mut indices: Vec<u32> = touched.collect();
        indices.dedup();
        let mut transfers = Vec::new();
        for part in indices.chunks(CHUNKS) {
            let mut proof = TransferProof::new(layout, hashes, part, now)?;
            proof.signature = Some(signer.sign(proof.digest()).await?);
            transfers.push(proof);
        }
        Ok(transfers)
    }

    /// Checks everything that can be checked without file and chain.
    ///
    /// # Errors
    /// [`DeliveryError`], by case. Never passes on doubt.
    pub fn verify(&self) -> Result<Delivery, DeliveryError> {
        let fails = |what| Err(DeliveryError::Contradiction { what });
        let chain = &self.chain;
        let Ok(Message::Accept { accept, quote }) = Message::decode(&self.accept) else {
            return Err(DeliveryError::Malformed {
                what: "the acceptance",
            });
        };
        let (payer, payee) = (accept.body.payer, quote.body.payee);
        let receipt = &self.receipt.body;
        let bill = BillId::derive(agreement(&quote, &accept, chain), self.sequence);
        let least = quote.body.pricing().least(receipt.bytes);
        match () {
            () if quote.body.chain != *chain => return fails("the quote is for another chain"),
            () if !quote.is_by(payee, chain) => return fails("the quote is not the payee's"),
            () if quote.body.payer != payer => return fails("the quote is for another payer"),
            () if accept.body.quote != quote.digest(chain) => {
                return fails("another quote was accepted");
            }
            () if !accept.is_by(payer, chain) => return fails("the payer did not accept"),
            () if receipt.bill != bill => return fails("the receipt is for another bill"),
            () if receipt.payer != payer || receipt.payee != payee => {
                return fails("the receipt names other wallets");
            }
            () if receipt.cid != quote.body.cid => return fails("the receipt is for another file"),
            () if !self.receipt.is_by(payee, chain) => {
                return fails("the receipt is not the payee's");
            }
            () if least.is_none_or(|least| receipt.amount < least) => {
                return fails("the amount is too small for the bytes");
            }
            () => {}
        }
        let chunks = self.chunks(payer, receipt)?;
        if chunks.is_none() && quote.body.policy != Policy::PayFirst {
            return fails("no chunk is proven");
        }
        Ok(Delivery {
            bill,
            cid: receipt.cid,
            payer,
            payee,
            bytes: receipt.bytes,
            amount: receipt.amount,
            transaction: receipt.transaction,
            time: receipt.time,
            chunks,
            quote: quote.body,
        })
    }

    /// Checks the proofs of chunks.
    fn chunks(
        &self,
        payer: Address,
        receipt: &Receipt,
    ) -> Result<Option<(MerkleRoot, u64)>, DeliveryError> {
        let fails = |what| Err(DeliveryError::Contradiction { what });
        let Some(first) = self.transfers.first() else {
            return Ok(None);
        };
        let layout = ChunkLayout::new(first.size).map_err(TransferProofError::from)?;
        let (mut count, mut bytes, mut last) = (0u64, 0u64, None);
        for transfer in &self.transfers {
            let same = (transfer.root, transfer.size) == (first.root, first.size);
            if transfer.cid != receipt.cid || !same {
                return fails("chunks of another file");
            }
            transfer.verify_signed_by(payer)?;
            for &(index, ..) in &transfer.chunks {
                if last.is_some_and(|last| last >= index) {
                    return fails("a chunk is named twice, or out of order");
                }
                last = Some(index);
                count += 1;
                let range: ByteRange = layout.range(index);
                bytes = bytes.saturating_add(range.len());
            }
        }
        match receipt.bytes <= bytes {
            true => Ok(Some((first.root, count))),
            false => fails("more bytes than the chunks have"),
        }
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let word = |hash: &ChunkHash| B256::from(*hash.as_bytes());
        let transfer = |transfer: &TransferProof| sol::Transfer {
            root: B256::from(*transfer.root.as_bytes()),
            size: transfer.size,
            indices: transfer.chunks.iter().map(|chunk| chunk.0).collect(),
            hashesBefore: transfer.chunks.iter().map(|chunk| word(&chunk.1)).collect(),
            hashes: transfer.chunks.iter().map(|chunk| word(&chunk.2)).collect(),
            nodes: transfer
                .proof
                .nodes()
                .iter()
                .map(|node| B256::from(*node.as_bytes()))
                .collect(),
            timestamp: transfer.timestamp,
            signature: transfer
                .signature
                .as_ref()
                .map(|signature| signature.as_bytes().to_vec())
                .unwrap_or_default()
                .into(),
        };
        let body = sol::Delivery {
            chainId: self.chain.chain_id,
            genesis: self.chain.genesis,
            batchPay: self.chain.batch_pay,
            accept: self.accept.to_vec().into(),
            sequence: self.sequence,
            receipt: Message::Receipt(self.receipt.clone())
                .encode()
                .to_vec()
                .into(),
            transfers: self.transfers.iter().map(transfer).collect(),
        };
        [&MAGIC[..], &[VERSION], &body.abi_encode()].concat()
    }

    /// Reads a file that anybody may have written. Nothing is verified here.
    ///
    /// # Errors
    /// [`DeliveryError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DeliveryError> {
        let malformed = |what| DeliveryError::Malformed { what };
        if bytes.len() > MAX_FILE {
            return Err(malformed("too long"));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(malformed("its tag"))?;
        let body = match rest.split_first() {
            Some((&VERSION, body)) => body,
            _ => return Err(malformed("its version")),
        };
        let body = sol::Delivery::abi_decode_validate(body).map_err(|_| malformed("its form"))?;
        let Ok(Message::Receipt(receipt)) = Message::decode(&body.receipt) else {
            return Err(malformed("the receipt"));
        };
        let cid = receipt.body.cid;
        let transfers = body.transfers.into_iter();
        let proof = Self {
            chain: ChainFacts {
                chain_id: body.chainId,
                genesis: body.genesis,
                batch_pay: body.batchPay,
            },
            accept: body.accept.to_vec().into(),
            sequence: body.sequence,
            transfers: transfers
                .map(|transfer| read(cid, transfer))
                .collect::<Result<_, _>>()?,
            receipt,
        };
        match proof.encode() == bytes {
            true => Ok(proof),
            false => Err(malformed("not in the one encoding")),
        }
    }
}

fn read(cid: Cid, transfer: sol::Transfer) -> Result<TransferProof, DeliveryError> {
    let malformed = |what| DeliveryError::Malformed { what };
    let count = transfer.indices.len();
    if transfer.hashesBefore.len() != count || transfer.hashes.len() != count {
        return Err(malformed("the hashes of chunks"));
    }
    let signature: [u8; 65] = transfer.signature[..]
        .try_into()
        .map_err(|_| malformed("a signature"))?;
    let signature = WalletSignature::from_bytes(signature);
    let hash = |word: B256| ChunkHash::from_bytes(word.0);
    let chunks = transfer.indices.into_iter();
    let hashes = transfer.hashesBefore.into_iter().zip(transfer.hashes);
    let nodes = transfer.nodes.into_iter();
    Ok(TransferProof {
        cid,
        root: MerkleRoot::from_bytes(transfer.root.0),
        size: transfer.size,
        chunks: chunks
            .zip(hashes)
            .map(|(index, (before, after))| (index, hash(before), hash(after)))
            .collect(),
        proof: MerkleProof::from_nodes(nodes.map(|node| TreeHash::from_bytes(node.0)).collect()),
        timestamp: transfer.timestamp,
        signature: Some(signature.map_err(|_| malformed("a signature"))?),
    })
}

/// Why a proof was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The hashes are not those of the file, or do not fit the bill.
    #[error(transparent)]
    Transfer(#[from] TransferProofError),
    /// The wallet did not sign.
    #[error(transparent)]
    Signer(#[from] chiral_core::wallet::SignerError),
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] crate::JournalError),
    /// This node never made that bill.
    #[error("no such bill was made here")]
    UnknownBill,
    /// The seeder has given no receipt for it.
    #[error("the seeder has given no receipt for the bill")]
    NoReceipt,
    /// The hashes are of another file.
    #[error("the hashes are those of another file")]
    OtherFile,
}

impl MakeError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_retryable(),
            Self::NoReceipt => true,
            _ => false,
        }
    }
}

impl crate::Payments {
    /// The proof of what one bill of this node was for, for a third party. `layout` and
    /// `hashes` are those of the whole file.
    ///
    /// # Errors
    /// [`MakeError`].
    pub async fn delivery_proof(
        &self,
        bill: BillId,
        layout: ChunkLayout,
        hashes: &[ChunkHash],
    ) -> Result<DeliveryProof, MakeError> {
        let (journal, wallet) = (self.journal(), self.wallet());
        DeliveryProof::of_journal(journal, self.facts(), &**wallet, bill, layout, hashes).await
    }
}

impl DeliveryProof {
    /// As [`Payments::delivery_proof`](crate::Payments::delivery_proof), from a journal alone.
    ///
    /// # Errors
    /// [`MakeError`].
    pub async fn of_journal(
        journal: &crate::Journal,
        chain: ChainFacts,
        signer: &dyn WalletSigner,
        bill: BillId,
        layout: ChunkLayout,
        hashes: &[ChunkHash],
    ) -> Result<Self, MakeError> {
        let found = journal.read(move |step| crate::agent::store::spending(step, bill));
        let owed = found.await?.ok_or(MakeError::UnknownBill)?;
        let receipt = owed
            .receipt
            .as_ref()
            .and_then(|message| match Message::decode(message) {
                Ok(Message::Receipt(receipt)) => Some(receipt),
                _ => None,
            });
        let receipt = receipt.ok_or(MakeError::NoReceipt)?;
        let cid = hashes
            .last()
            .map_or(chiral_core::chain::EMPTY_CID, |hash| hash.into_cid());
        if cid != owed.bill.cid {
            return Err(MakeError::OtherFile);
        }
        let now = receipt.body.time;
        Ok(Self {
            chain,
            transfers: Self::transfers(layout, hashes, &owed.bill.ranges, signer, now).await?,
            accept: owed.accept,
            sequence: owed.sequence,
            receipt,
        })
    }
}
