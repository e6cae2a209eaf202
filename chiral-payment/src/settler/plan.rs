//! Which waiting bills go into which transactions. No clock, no socket.

use alloy_primitives::U256;
use bytes::Bytes;
use chiral_core::BillId;

use super::record::BillRecord;
use crate::contracts::batch_pay::{Leg, MAX_LEGS, pay};

/// The least gas that paying a bill takes.
pub(super) const LEAST_GAS: u64 = 21_000;

/// A bill that waits.
pub(super) type Waiting = (BillId, BillRecord);

/// Bills of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) bills: Vec<Waiting>,
    /// Through the contract, or one plain transfer.
    pub(super) batch: bool,
}

impl Group {
    /// Wei that are sent.
    pub(super) fn value(&self) -> U256 {
        let amounts = self.bills.iter().map(|(_, record)| record.amount);
        amounts.fold(U256::ZERO, U256::saturating_add)
    }

    /// Calldata.
    pub(super) fn input(&self) -> Bytes {
        let leg = |(bill, record): &Waiting| Leg {
            nonce: record.leg_nonce,
            bill: bill.0,
            to: record.payee,
            amount: record.amount.saturating_to(),
            meta: record.meta.clone().into(),
        };
        match self.batch {
            true => pay(self.bills.iter().map(leg).collect()),
            false => self.bills[0].1.meta.clone(),
        }
    }

    /// Takes half of the bills, if there are several.
    pub(super) fn halved(mut self) -> Option<Self> {
        let half = self.bills.len() / 2;
        self.bills.truncate(half);
        (half > 0).then_some(self)
    }
}

/// What can be paid, and what cannot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) groups: Vec<Group>,
    /// Bills that `available` does not cover beside those before them.
    pub(super) short: Vec<BillId>,
}

/// Puts waiting bills into transactions, in their order: several into one where there is a
/// batch contract, and a bill that was reverted before into the contract in any case, where
/// its payee cannot refuse it. Each transaction is checked again when its gas is known.
pub(super) fn plan(
    waiting: Vec<Waiting>,
    has_contract: bool,
    available: U256,
    gas_price: u128,
) -> Plan {
    let gas = U256::from(LEAST_GAS) * U256::from(gas_price);
    let mut plan = Plan::default();
    let mut left = available;
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for waiting in waiting {
        // Many share the gas of a batch: only the first is asked for it here.
        let first = together.is_empty() || !has_contract || waiting.1.is_call();
        let least = waiting.1.amount.saturating_add(match first {
            true => gas,
            false => U256::ZERO,
        });
        match left.checked_sub(least) {
            None => plan.short.push(waiting.0),
            Some(rest) => {
                left = rest;
                // What a leg's field cannot hold.
                let fits = waiting.1.amount <= U256::from(u128::MAX) && !waiting.1.is_call();
                match has_contract && fits {
                    true => together.push(waiting),
                    false => alone.push(waiting),
                }
            }
        }
    }
    for bills in together.chunks(MAX_LEGS) {
        let batch = bills.len() > 1 || bills[0].1.failures > 0;
        let bills = bills.to_vec();
        plan.groups.push(Group { bills, batch });
    }
    for bill in alone {
        let (bills, batch) = (vec![bill], false);
        plan.groups.push(Group { bills, batch });
    }
    plan
}

#[cfg(test)]
mod tests;
