//! What the chain has, as JSON-RPC shows it.

use std::sync::Arc;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_primitives::{Sealed, U256};
use alloy_rpc_types_eth::{Block, BlockTransactions, Header, Log, Transaction, TransactionReceipt};
use serde::Serialize;
use serde_json::Value;

use super::error::{INTERNAL_ERROR, RpcError};
use crate::embedded::{Found, FoundLog, StoredBlock};

/// JSON of anything.
pub(super) fn json(value: impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))
}

/// A number, as EIP-1474 writes quantities.
pub(super) fn quantity(number: impl TryInto<U256>) -> Value {
    let number = number.try_into().unwrap_or(U256::MAX);
    Value::String(format!("{number:#x}"))
}

/// A block, with its transactions or only their hashes.
pub(super) fn block(block: &StoredBlock, full: bool) -> Result<Value, RpcError> {
    let transactions = if full {
        let all = (0..block.transactions.len()).map(|index| mined(block, index));
        BlockTransactions::Full(all.collect())
    } else {
        let hashes = block
            .transactions
            .iter()
            .map(|transaction| *transaction.tx_hash());
        BlockTransactions::Hashes(hashes.collect())
    };
    let header = Header::from_consensus(
        Sealed::new_unchecked(block.header.clone(), block.hash),
        Some(block.total_difficulty),
        Some(U256::from(block.rlp().len())),
    );
    json(Block {
        header,
        uncles: Vec::new(),
        transactions,
        withdrawals: None,
    })
}

/// A transaction, wherever it is.
pub(super) fn transaction(found: &Found) -> Result<Value, RpcError> {
    json(match found {
        Found::Mined(block, index) => mined(block, *index),
        Found::Waiting(pooled) => {
            let transaction = &pooled.checked.transaction;
            Transaction {
                effective_gas_price: Some(transaction.max_fee_per_gas()),
                inner: transaction.clone(),
                block_hash: None,
                block_number: None,
                transaction_index: None,
                block_timestamp: None,
            }
        }
    })
}

/// The transaction at a position of a block.
pub(super) fn mined(block: &StoredBlock, index: usize) -> Transaction {
    let transaction: &TxEnvelope = &block.transactions[index];
    let price = transaction.effective_gas_price(block.header.base_fee_per_gas);
    Transaction {
        effective_gas_price: Some(price),
        inner: Recovered::new_unchecked(transaction.clone(), block.senders[index]),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        transaction_index: Some(index as u64),
        block_timestamp: None,
    }
}

/// The receipt of the transaction at a position of a block.
pub(super) fn receipt(block: &StoredBlock, index: usize) -> Result<Value, RpcError> {
    let transaction = &block.transactions[index];
    let mut log_index = block.logs_before(index) as u64;
    let inner = block.receipts[index].clone().map_logs(|inner| {
        let log = Log {
            inner,
            block_hash: Some(block.hash),
            block_number: Some(block.header.number),
            block_timestamp: None,
            transaction_hash: Some(*transaction.tx_hash()),
            transaction_index: Some(index as u64),
            log_index: Some(log_index),
            removed: false,
        };
        log_index += 1;
        log
    });
    json(TransactionReceipt {
        inner,
        transaction_hash: *transaction.tx_hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: block.gas_used(index),
        effective_gas_price: transaction.effective_gas_price(block.header.base_fee_per_gas),
        blob_gas_used: None,
        blob_gas_price: None,
        from: block.senders[index],
        to: transaction.to(),
        contract_address: block.created(index),
    })
}

/// All receipts of a block.
pub(super) fn receipts(block: &Arc<StoredBlock>) -> Result<Value, RpcError> {
    (0..block.transactions.len())
        .map(|index| receipt(block, index))
        .collect()
}

/// Logs.
pub(super) fn logs(found: Vec<FoundLog>) -> Result<Value, RpcError> {
    let logs: Vec<Log> = found
        .into_iter()
        .map(|found| Log {
            inner: found.log,
            block_hash: Some(found.block.hash),
            block_number: Some(found.block.header.number),
            block_timestamp: None,
            transaction_hash: Some(*found.block.transactions[found.transaction].tx_hash()),
            transaction_index: Some(found.transaction as u64),
            log_index: Some(found.index),
            removed: false,
        })
        .collect();
    json(logs)
}
