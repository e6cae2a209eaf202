//! The pool's order and bounds, whatever comes in which order.

use std::collections::{BTreeMap, HashMap};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Signed, TxEip1559, TxEnvelope};
use alloy_primitives::{Address, Signature, TxKind, U256};
use proptest::prelude::*;

use super::*;

const RICH: U256 = U256::from_limbs([0, 1, 0, 0]);

/// A transaction whose signature nobody looks at any more.
fn checked(sender: u8, nonce: u64, price: u128, tip: u128) -> Checked {
    let transaction = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: price,
        max_priority_fee_per_gas: tip.min(price),
        to: TxKind::Call(Address::ZERO),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from(sender), U256::from(1), false);
    let signed = TxEnvelope::from(Signed::new_unhashed(transaction, signature));
    Checked {
        transaction: Recovered::new_unchecked(signed, Address::repeat_byte(sender)),
        size: 100,
        cost: U256::from(21_000 * price),
    }
}

fn account(nonce: u64) -> Basic {
    Basic {
        nonce,
        balance: RICH,
        ..Basic::default()
    }
}

fn limits() -> PoolLimits {
    PoolLimits {
        per_sender: 8,
        total: 12,
        bytes: 1_000,
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_blocks_are_in_order(
        steps in prop::collection::vec((1u8..5, 0u64..12, 8u128..40, 0u128..10), 1..80),
        base_fee in 7u64..20,
    ) {
        let mut pool = Pool::new(limits());
        let mut kept: BTreeMap<(u8, u64), u128> = BTreeMap::new();
        for (sender, nonce, price, tip) in steps {
            if pool.insert(checked(sender, nonce, price, tip), account(2)).is_ok() {
                prop_assert!((2..10).contains(&nonce));
                kept.insert((sender, nonce), price);
            }
            prop_assert!(pool.hashes.len() <= 10);
            prop_assert_eq!(pool.bytes, pool.hashes.len() * 100);
            let queued: usize = pool.senders.values().map(BTreeMap::len).sum();
            prop_assert_eq!(queued, pool.hashes.len());
            prop_assert!(pool.senders.values().all(|queue| !queue.is_empty()));
        }
        let mut candidates = pool.candidates(base_fee, 100, |_| 2);
        let mut next: HashMap<Address, u64> = HashMap::new();
        while let Some(pooled) = candidates.pop() {
            let expected = next.entry(pooled.sender()).or_insert(2);
            prop_assert_eq!(pooled.checked.transaction.nonce(), *expected);
            prop_assert!(pooled.price() >= u128::from(base_fee));
            *expected += 1;
            candidates.accepted(pooled.sender());
        }
        // Whoever has one left is stopped by a gap or by the base fee.
        for (sender, queue) in &pool.senders {
            let stopped = next.get(sender).copied().unwrap_or(2);
            if let Some(pooled) = queue.get(&stopped) {
                prop_assert!(pooled.tip_at(base_fee).is_none());
            }
        }
        let (ready, queued) = pool.counts(|_| 2);
        prop_assert_eq!(ready + queued, pool.hashes.len());
        for sender in 1..5 {
            pool.forget_below(Address::repeat_byte(sender), u64::MAX);
        }
        prop_assert!(pool.hashes.is_empty() && pool.senders.is_empty() && pool.bytes == 0);
    }
}

#[test]
fn a_tenth_more_is_a_tenth_of_both_prices() {
    let mut pool = Pool::new(PoolLimits::default());
    pool.insert(checked(1, 0, 1_000, 100), account(0)).unwrap();
    for (price, tip) in [(1_099, 110), (1_100, 109), (1_000, 100), (999, 999)] {
        let refused = pool.insert(checked(1, 0, price, tip), account(0));
        assert!(refused.is_err(), "{price} {tip}");
    }
    pool.insert(checked(1, 0, 1_100, 110), account(0)).unwrap();
    assert_eq!(pool.hashes.len(), 1);
    assert_eq!(pool.arrived(0).0.len(), 2);
}

#[test]
fn what_waits_for_one_wallet_is_paid_by_its_balance() {
    let mut pool = Pool::new(PoolLimits::default());
    let mut poor = account(0);
    poor.balance = U256::from(21_000 * 25);
    pool.insert(checked(1, 0, 10, 1), poor).unwrap();
    pool.insert(checked(1, 1, 10, 1), poor).unwrap();
    assert!(pool.insert(checked(1, 2, 10, 1), poor).is_err());
    // A replacement takes the place of what it replaces.
    pool.insert(checked(1, 1, 15, 2), poor).unwrap();
    assert!(pool.insert(checked(1, 0, 16, 2), poor).is_err());
}
