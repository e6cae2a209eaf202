//! What can be said of a transaction without its sender's account.

use alloy_consensus::transaction::{Recovered, SignerRecoverable};
use alloy_consensus::{Transaction, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::U256;

use crate::client::{ChainError, RefusalKind};
use crate::spec::{ChainSpec, Rules};
use crate::transaction::{MAX_TRANSACTION_BYTES, intrinsic_gas};

/// The base fee never falls below this (EIP-1559: an eighth of less is nothing), so a
/// transaction that offers less is never mined.
const LEAST_BASE_FEE: u128 = 7;

/// Gas for naming an account beforehand (EIP-2930).
const ACCESS_LIST_ADDRESS_GAS: u64 = 2_400;

/// Gas for naming a slot beforehand (EIP-2930).
const ACCESS_LIST_SLOT_GAS: u64 = 1_900;

/// A transaction that may go to the pool.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) transaction: Recovered<TxEnvelope>,
    /// Bytes that it has on the wire.
    pub(crate) size: usize,
    /// The most wei that it can take from its sender.
    pub(crate) cost: U256,
}

/// A refusal.
pub(super) fn refused(kind: RefusalKind, reason: impl Into<String>) -> ChainError {
    ChainError::Refused {
        kind,
        reason: reason.into(),
    }
}

/// Decodes and checks what somebody sent.
pub(super) fn check(spec: &ChainSpec, raw: &[u8]) -> Result<Checked, ChainError> {
    let other = |reason: String| refused(RefusalKind::Other, reason);
    if raw.len() > MAX_TRANSACTION_BYTES {
        return Err(other(format!(
            "oversized data: transaction size {}, limit {MAX_TRANSACTION_BYTES}",
            raw.len()
        )));
    }
    let transaction = TxEnvelope::decode_2718_exact(raw)
        .map_err(|error| other(format!("invalid transaction: {error}")))?;
    let supported = match transaction {
        TxEnvelope::Legacy(_) => true,
        TxEnvelope::Eip2930(_) | TxEnvelope::Eip1559(_) => spec.rules >= Rules::London,
        _ => false,
    };
    if !supported {
        return Err(other("transaction type not supported".to_owned()));
    }
    match transaction.chain_id() {
        None => {
            let reason = "only replay-protected (EIP-155) transactions allowed over RPC";
            return Err(other(reason.to_owned()));
        }
        Some(id) if id != spec.chain_id => {
            return Err(other(format!(
                "invalid chain id for signer: have {id} want {}",
                spec.chain_id
            )));
        }
        Some(_) => {}
    }
    let gas = transaction.gas_limit();
    if gas > spec.gas_limit {
        return Err(other("exceeds block gas limit".to_owned()));
    }
    let needed = needed_gas(&transaction);
    if gas < needed {
        return Err(other(format!(
            "intrinsic gas too low: gas {gas}, minimum needed {needed}"
        )));
    }
    let price = transaction.max_fee_per_gas();
    if transaction
        .max_priority_fee_per_gas()
        .is_some_and(|tip| tip > price)
    {
        return Err(other(
            "max priority fee per gas higher than max fee per gas".to_owned(),
        ));
    }
    if spec.rules >= Rules::London && price < LEAST_BASE_FEE {
        let reason =
            format!("transaction underpriced: {price} wei per gas, at least {LEAST_BASE_FEE}");
        return Err(refused(RefusalKind::Underpriced, reason));
    }
    let cost = (U256::from(gas) * U256::from(price)).checked_add(transaction.value());
    let cost = cost.ok_or_else(|| {
        refused(
            RefusalKind::Funds,
            "insufficient funds for gas * price + value: overflow",
        )
    })?;
    // EIP-2 is part of it: the higher s is refused.
    let transaction = transaction
        .try_into_recovered()
        .map_err(|_| other("invalid sender: the signature is not valid".to_owned()))?;
    Ok(Checked {
        transaction,
        size: raw.len(),
        cost,
    })
}

fn needed_gas(transaction: &TxEnvelope) -> u64 {
    let base = intrinsic_gas(transaction.input(), transaction.is_create());
    let Some(list) = transaction.access_list() else {
        return base;
    };
    let slots: usize = list.0.iter().map(|item| item.storage_keys.len()).sum();
    base.saturating_add(ACCESS_LIST_ADDRESS_GAS.saturating_mul(list.0.len() as u64))
        .saturating_add(ACCESS_LIST_SLOT_GAS.saturating_mul(slots as u64))
}
