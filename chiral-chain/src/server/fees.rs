//! `eth_feeHistory`.

use alloy_consensus::Transaction;
use alloy_rpc_types_eth::FeeHistory;

use super::error::RpcError;
use crate::client::{BlockId, ChainError};
use crate::embedded::{Engine, StoredBlock};

/// Blocks that are looked at.
const MAX_BLOCKS: u64 = 1_024;

/// Percentiles that are asked for at once.
const MAX_PERCENTILES: usize = 100;

/// Checks what was asked for.
pub(super) fn check(percentiles: &[f64]) -> Result<(), RpcError> {
    if percentiles.len() > MAX_PERCENTILES {
        let reason = format!("invalid reward percentile: over {MAX_PERCENTILES} of them");
        return Err(RpcError::params(reason));
    }
    let in_range = percentiles
        .iter()
        .all(|percentile| (0.0..=100.0).contains(percentile));
    if !in_range || !percentiles.is_sorted() {
        return Err(RpcError::params(
            "invalid reward percentile: 0 to 100, rising",
        ));
    }
    Ok(())
}

/// What blocks cost, up to `newest` (EIP-1559's companion in the execution API).
pub(super) fn history(
    engine: &Engine,
    count: u64,
    newest: BlockId,
    percentiles: &[f64],
) -> Result<FeeHistory, ChainError> {
    let newest = engine.state_number(newest)?;
    let count = count.min(MAX_BLOCKS).min(newest + 1);
    if count == 0 {
        return Ok(FeeHistory::default());
    }
    let mut history = FeeHistory {
        oldest_block: newest + 1 - count,
        ..FeeHistory::default()
    };
    let mut rewards = Vec::new();
    for number in newest + 1 - count..=newest {
        let Some(block) = engine.block_at(number)? else {
            break;
        };
        let header = &block.header;
        history
            .base_fee_per_gas
            .push(header.base_fee_per_gas.unwrap_or_default().into());
        history
            .gas_used_ratio
            .push(header.gas_used as f64 / header.gas_limit as f64);
        rewards.push(tips(&block, percentiles));
        if number == newest {
            let next = engine.next_base_fee(header).unwrap_or_default();
            history.base_fee_per_gas.push(next.into());
        }
    }
    history.reward = (!percentiles.is_empty()).then_some(rewards);
    Ok(history)
}

/// The tips at these percentiles of a block's gas.
fn tips(block: &StoredBlock, percentiles: &[f64]) -> Vec<u128> {
    let base_fee = block.header.base_fee_per_gas;
    let mut paid: Vec<(u128, u64)> = block
        .transactions
        .iter()
        .enumerate()
        .map(|(index, transaction)| {
            let price = transaction.effective_gas_price(base_fee);
            (
                price.saturating_sub(base_fee.unwrap_or_default().into()),
                block.gas_used(index),
            )
        })
        .collect();
    paid.sort_unstable();
    let at = |percentile: &f64| {
        let threshold = block.header.gas_used as f64 * percentile / 100.0;
        let mut gas = 0;
        let reached = paid.iter().find(|(_, used)| {
            gas += used;
            gas as f64 >= threshold
        });
        reached.or(paid.last()).map_or(0, |(tip, _)| *tip)
    };
    percentiles.iter().map(at).collect()
}
