//! What nodes answer, as far as it is needed, and its way into the types of
//! [`crate::client`].
//!
//! Not `alloy-rpc-types-eth`: its blocks hold only the transaction types of Ethereum itself,
//! so that one block with a rollup's deposit, or with a type that comes later, could not be
//! read at all.

use alloy_primitives::{Address, B256, Bytes, U64, U128, U256, hex};
use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::protocol;
use crate::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainError, LogEntry, LogFilter, TransactionInfo,
    TransactionReceipt,
};

/// Topics of a log at most.
const MAX_TOPICS: usize = 4;

#[derive(Deserialize)]
pub(super) struct WireHead {
    number: U64,
    hash: B256,
}

impl From<WireHead> for BlockRef {
    fn from(head: WireHead) -> Self {
        Self {
            number: head.number.to(),
            hash: head.hash,
        }
    }
}

/// The newest head with what fees depend on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireFeeHead {
    pub(super) base_fee_per_gas: Option<U128>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireFeeHistory {
    /// Of the blocks asked for, and of the one after them.
    pub(super) base_fee_per_gas: Vec<U128>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireBlock {
    number: Option<U64>,
    hash: Option<B256>,
    parent_hash: B256,
    timestamp: U64,
    base_fee_per_gas: Option<U128>,
    gas_limit: U64,
    transactions: Vec<WireTransaction>,
}

impl WireBlock {
    pub(super) fn into_info(self, asked: BlockId) -> Result<BlockInfo, ChainError> {
        let id = match (self.number, self.hash) {
            (Some(number), Some(hash)) => BlockRef {
                number: number.to(),
                hash,
            },
            // What is not yet a block has no hash.
            (number, _) if asked == BlockId::Pending => BlockRef {
                number: number.unwrap_or_default().to(),
                hash: B256::ZERO,
            },
            _ => return Err(protocol("a block without number or hash")),
        };
        let as_asked = match asked {
            BlockId::Number(number) => id.number == number,
            BlockId::Hash(hash) => id.hash == hash,
            BlockId::Latest | BlockId::Pending => true,
        };
        if !as_asked {
            return Err(protocol("another block than was asked for"));
        }
        Ok(BlockInfo {
            id,
            parent: self.parent_hash,
            timestamp: self.timestamp.to(),
            base_fee: self.base_fee_per_gas.map(|fee| fee.to()),
            gas_limit: self.gas_limit.to(),
            transactions: self.transactions.into_iter().map(Into::into).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireTransaction {
    pub(super) hash: B256,
    from: Address,
    to: Option<Address>,
    value: U256,
    nonce: U64,
    input: Bytes,
    chain_id: Option<U64>,
    v: Option<U256>,
    block_hash: Option<B256>,
    block_number: Option<U64>,
}

impl From<WireTransaction> for TransactionInfo {
    fn from(tx: WireTransaction) -> Self {
        // Old nodes leave the chain id of a legacy transaction in `v` (EIP-155).
        let from_v = || -> Option<u64> {
            let chain_id: U256 = tx.v?.checked_sub(U256::from(35))? >> 1;
            chain_id.try_into().ok()
        };
        Self {
            hash: tx.hash,
            from: tx.from,
            to: tx.to,
            value: tx.value,
            nonce: tx.nonce.to(),
            chain_id: tx.chain_id.map(|id| id.to()).or_else(from_v),
            block: tx
                .block_number
                .zip(tx.block_hash)
                .map(|(number, hash)| BlockRef {
                    number: number.to(),
                    hash,
                }),
            input: tx.input.0,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireReceipt {
    transaction_hash: B256,
    block_hash: B256,
    block_number: U64,
    status: U64,
    gas_used: U64,
    effective_gas_price: U128,
    contract_address: Option<Address>,
    logs: Vec<WireLog>,
}

impl WireReceipt {
    pub(super) fn into_receipt(self, asked: B256) -> Result<TransactionReceipt, ChainError> {
        if self.transaction_hash != asked {
            return Err(protocol("another receipt than was asked for"));
        }
        let block = BlockRef {
            number: self.block_number.to(),
            hash: self.block_hash,
        };
        let logs: Vec<LogEntry> = self
            .logs
            .into_iter()
            .map(LogEntry::try_from)
            .collect::<Result<_, _>>()?;
        let own = |log: &LogEntry| log.transaction == asked && log.block == block;
        if !logs.iter().all(own) {
            return Err(protocol("a receipt with another transaction's log"));
        }
        Ok(TransactionReceipt {
            transaction: asked,
            block,
            succeeded: self.status == U64::from(1),
            gas_used: self.gas_used.to(),
            effective_gas_price: self.effective_gas_price.to(),
            contract: self.contract_address,
            logs,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireLog {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    transaction_hash: Option<B256>,
    block_hash: Option<B256>,
    block_number: Option<U64>,
    log_index: Option<U64>,
}

impl TryFrom<WireLog> for LogEntry {
    type Error = ChainError;

    fn try_from(log: WireLog) -> Result<Self, ChainError> {
        let incomplete = || protocol("a log without its place");
        if log.topics.len() > MAX_TOPICS {
            return Err(protocol("a log with more than four topics"));
        }
        Ok(Self {
            address: log.address,
            topics: log.topics,
            data: log.data.0,
            transaction: log.transaction_hash.ok_or_else(incomplete)?,
            block: BlockRef {
                number: log.block_number.ok_or_else(incomplete)?.to(),
                hash: log.block_hash.ok_or_else(incomplete)?,
            },
            index: log.log_index.ok_or_else(incomplete)?.to(),
        })
    }
}

/// A block as `eth_getBlockByNumber` and state queries name it (EIP-1898).
pub(super) fn block_param(block: BlockId) -> Value {
    match block {
        BlockId::Latest => json!("latest"),
        BlockId::Pending => json!("pending"),
        BlockId::Number(number) => json!(quantity(number)),
        BlockId::Hash(hash) => json!({ "blockHash": hash }),
    }
}

pub(super) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

pub(super) fn call_param(call: &CallRequest) -> Value {
    let mut param = json!({
        "from": call.from,
        "value": call.value,
        // geth's old and new name for it: whoever knows one ignores the other.
        "data": hex::encode_prefixed(&call.input),
    });
    if let Some(to) = call.to {
        param["to"] = json!(to);
    }
    if let Some(gas) = call.gas {
        param["gas"] = json!(quantity(gas));
    }
    param
}

pub(super) fn filter_param(filter: &LogFilter) -> Value {
    let mut param = json!({
        "fromBlock": quantity(filter.from_block),
        "toBlock": quantity(filter.to_block),
        "topics": filter.topics,
    });
    if let Some(address) = filter.address {
        param["address"] = json!(address);
    }
    param
}

/// Whether a log is one that was asked for.
pub(super) fn is_asked_for(log: &LogEntry, filter: &LogFilter) -> bool {
    (filter.from_block..=filter.to_block).contains(&log.block.number)
        && filter.address.is_none_or(|address| address == log.address)
        && filter.topics.iter().enumerate().all(|(place, wanted)| {
            wanted.is_none_or(|wanted| log.topics.get(place) == Some(&wanted))
        })
}
