//! A block with everything that is known of it, and its encoding on disk.

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, ReceiptEnvelope, Transaction, TxEnvelope};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::{Decodable, Encodable};

use crate::client::BlockRef;

/// A block, who sent its transactions, and what became of them. All three lists are of one
/// length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlock {
    pub(crate) hash: B256,
    pub(crate) header: Header,
    pub(crate) total_difficulty: U256,
    pub(crate) transactions: Vec<TxEnvelope>,
    pub(crate) senders: Vec<Address>,
    pub(crate) receipts: Vec<ReceiptEnvelope>,
}

impl StoredBlock {
    pub(super) fn new(
        header: Header,
        total_difficulty: U256,
        transactions: Vec<Recovered<TxEnvelope>>,
        receipts: Vec<ReceiptEnvelope>,
    ) -> Self {
        let (transactions, senders) = transactions.into_iter().map(Recovered::into_parts).unzip();
        let hash = header.hash_slow();
        Self {
            hash,
            header,
            total_difficulty,
            transactions,
            senders,
            receipts,
        }
    }

    /// Number and hash.
    pub(crate) fn id(&self) -> BlockRef {
        BlockRef {
            number: self.header.number,
            hash: self.hash,
        }
    }

    /// The block as it is on the wire: header, transactions, no uncles.
    #[cfg(feature = "server")]
    pub(crate) fn rlp(&self) -> Vec<u8> {
        let body = alloy_consensus::BlockBody {
            transactions: self.transactions.clone(),
            ommers: Vec::<Header>::new(),
            withdrawals: None,
        };
        alloy_rlp::encode(alloy_consensus::Block::new(self.header.clone(), body))
    }

    /// Gas that the transaction at `index` used alone.
    pub(crate) fn gas_used(&self, index: usize) -> u64 {
        let up_to = |index: usize| self.receipts[index].cumulative_gas_used();
        up_to(index) - index.checked_sub(1).map_or(0, up_to)
    }

    /// The contract that the transaction at `index` made; none if it failed or made none.
    pub(crate) fn created(&self, index: usize) -> Option<Address> {
        let transaction = &self.transactions[index];
        let made = transaction.is_create() && self.receipts[index].status();
        made.then(|| self.senders[index].create(transaction.nonce()))
    }

    /// How many logs come before those of the transaction at `index`.
    #[cfg(feature = "server")]
    pub(crate) fn logs_before(&self, index: usize) -> usize {
        self.receipts[..index]
            .iter()
            .map(|receipt| receipt.logs().len())
            .sum()
    }

    /// What a store keeps beside the header.
    pub(super) fn encode_body(&self) -> Vec<u8> {
        let transactions: Vec<Bytes> = self
            .transactions
            .iter()
            .map(|tx| tx.encoded_2718().into())
            .collect();
        let receipts: Vec<Bytes> = self
            .receipts
            .iter()
            .map(|receipt| receipt.encoded_2718().into())
            .collect();
        let fields: [&dyn Encodable; 4] = [
            &self.total_difficulty,
            &self.senders,
            &transactions,
            &receipts,
        ];
        let payload_length = fields.iter().map(|field| field.length()).sum();
        let mut out = Vec::new();
        alloy_rlp::Header {
            list: true,
            payload_length,
        }
        .encode(&mut out);
        for field in fields {
            field.encode(&mut out);
        }
        out
    }

    /// The block of a header and what [`StoredBlock::encode_body`] made.
    pub(super) fn decode(header: &[u8], body: &[u8]) -> alloy_rlp::Result<Self> {
        let header = Header::decode(&mut &*header)?;
        let mut body = alloy_rlp::Header::decode_bytes(&mut &*body, true)?;
        let total_difficulty = U256::decode(&mut body)?;
        let senders = Vec::<Address>::decode(&mut body)?;
        let transactions = Vec::<Bytes>::decode(&mut body)?
            .iter()
            .map(|raw| TxEnvelope::decode_2718_exact(raw))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| alloy_rlp::Error::Custom("a transaction"))?;
        let receipts = Vec::<Bytes>::decode(&mut body)?
            .iter()
            .map(|raw| ReceiptEnvelope::decode_2718_exact(raw))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| alloy_rlp::Error::Custom("a receipt"))?;
        if senders.len() != transactions.len() || receipts.len() != transactions.len() {
            return Err(alloy_rlp::Error::Custom("lists of different lengths"));
        }
        let hash = header.hash_slow();
        Ok(Self {
            hash,
            header,
            total_difficulty,
            transactions,
            senders,
            receipts,
        })
    }
}
