//! A side that says whatever it likes to an honest one.

use alloy_primitives::B256;
use chiral_payment::channel::cipher::key_hash;
use chiral_payment::channel::voucher::Share;
use chiral_payment::channel::{LockedVoucher, Voucher};
use chiral_payment::contracts::ChannelState;
use proptest::prelude::*;

use crate::world::{DEPOSIT, Ends, LOCK, PRICE, Sign, agreement, share};

fn some_share() -> impl Strategy<Value = Share> {
    let amount = prop_oneof![0..12 * PRICE, Just(u128::MAX), any::<u128>()];
    (0u8..3, 0u64..12, amount).prop_map(|(of, bytes, amount)| Share {
        agreement: B256::repeat_byte(0xa9 + of),
        bytes,
        amount,
    })
}

/// What a hostile buyer may sign and say.
#[derive(Clone, Debug)]
enum Word {
    Voucher(Share, u128, bool),
    Lock(Share, u128, u8, u64),
    Time(u64),
    Leave,
    Close,
}

fn word() -> impl Strategy<Value = Word> {
    let sum = || prop_oneof![0..12 * PRICE, Just(u128::MAX), any::<u128>()];
    prop_oneof![
        4 => (some_share(), sum(), any::<bool>()).prop_map(|(s, c, its)| Word::Voucher(s, c, its)),
        4 => (some_share(), sum(), 0u8..4, 0..2 * LOCK)
            .prop_map(|(s, c, key, expiry)| Word::Lock(s, c, key, expiry)),
        1 => (0..2 * LOCK).prop_map(Word::Time),
        1 => Just(Word::Leave),
        1 => Just(Word::Close),
    ]
}

proptest! {
    /// Whatever a buyer signs: what the seller takes for paid can be claimed, and a key is told
    /// for a lock that can be.
    #[test]
    fn no_buyer_gets_a_key_or_credit_for_less_than_it_signed(
        words in proptest::collection::vec(word(), 1..40),
    ) {
        let mut ends = Ends::new();
        let id = ends.payer.id();
        for word in words {
            match word {
                Word::Voucher(share, cumulative, its) => {
                    let context = if its { share.context() } else { B256::ZERO };
                    let voucher = Voucher { channel: id, cumulative, context };
                    let before = ends.payee.clone();
                    match ends.payee.take(share, voucher.signed()) {
                        Ok(_) => prop_assert!(its && cumulative <= DEPOSIT),
                        Err(_) => prop_assert_eq!(&ends.payee, &before),
                    }
                }
                Word::Lock(share, cumulative, key, expiry) => {
                    let key = B256::repeat_byte(key);
                    let told = B256::repeat_byte(1);
                    let locked = LockedVoucher {
                        channel: id,
                        cumulative,
                        context: share.context(),
                        key_hash: key_hash(&key),
                        expiry: ends.time + expiry,
                    };
                    let (before, earliest) = (ends.payee.clone(), ends.time + LOCK / 2);
                    match ends.payee.take_lock(share, locked.signed(), told, earliest) {
                        Ok(_) => {
                            // What is told is worth it: the claim would be good now.
                            prop_assert_eq!(key, told);
                            prop_assert!(cumulative <= DEPOSIT);
                            let lock = ends.payee.lock().unwrap();
                            prop_assert!(lock.voucher.body().expiry > ends.time);
                            let sums = before.claimable() + share.amount
                                - before.share(share.agreement).amount;
                            if before.lock().is_none() {
                                prop_assert!(ends.payee.claimable() >= sums.min(cumulative));
                            }
                        }
                        Err(_) => prop_assert_eq!(&ends.payee, &before),
                    }
                }
                Word::Time(seconds) => ends.pass(seconds),
                Word::Leave => {
                    let paid = ends.payee.paid();
                    if let Some(left) = ends.payee.leave() {
                        prop_assert!(left >= paid.min(left));
                        prop_assert!(!ends.payee.is_open());
                    }
                }
                Word::Close => ends.start_close(),
            }
            // What counts as paid can be had: no agreement was given more than was signed.
            let shares = (0..3u8).map(|of| ends.payee.share(B256::repeat_byte(0xa9 + of)).amount);
            let sum = shares.fold(0u128, u128::saturating_add);
            prop_assert!(sum <= ends.payee.paid(), "{sum} of {}", ends.payee.paid());
            prop_assert!(ends.payee.paid() <= DEPOSIT);
        }
        let held = ends.payee.paid();
        if ends.payee.is_open() {
            prop_assert!(ends.settle() >= held);
        }
    }

    /// Whatever a seller answers, the buyer promises what it decided to, and no more.
    #[test]
    fn no_seller_gets_more_than_the_buyer_decided(
        answers in proptest::collection::vec((0u8..4, 0u8..3, any::<u128>(), 0u64..700), 1..40),
    ) {
        let mut ends = Ends::new();
        let (mut decided, mut chunks) = (0u64, 0u64);
        for (number, (what, key, claimed, seconds)) in answers.into_iter().enumerate() {
            match what {
                // The buyer wants the next chunk's key.
                0 => {
                    let hash = key_hash(&B256::repeat_byte(number as u8));
                    let expiry = ends.time + LOCK;
                    if ends.payer.lock_up(share(decided + 1), hash, expiry).is_ok() {
                        chunks = decided + 1;
                    }
                }
                // The seller shows some key.
                1 => {
                    let key = B256::repeat_byte(key);
                    let fits = ends.payer.lock().is_some_and(|lock| {
                        lock.voucher.key_hash == key_hash(&key)
                    });
                    prop_assert_eq!(ends.payer.unlock(key).is_ok(), fits);
                }
                2 => {
                    let opened = ends.payer.lock().is_some_and(|lock| lock.key.is_some());
                    let redeemed = ends.payer.redeem();
                    prop_assert_eq!(redeemed.is_ok(), opened);
                    if redeemed.is_ok() {
                        decided = chunks;
                    }
                }
                // The chain shows whatever the seller could bring it to: a claim of what was
                // signed.
                _ => {
                    let locked = ends.payer.lock().map(|lock| lock.voucher.cumulative);
                    let most = locked.unwrap_or(0).max(ends.payer.promised());
                    let claimed = ends.chain.claimed.max(claimed % (most + 1));
                    ends.chain = ChannelState { claimed, ..ends.chain };
                    ends.time += seconds;
                    ends.buyer_looks();
                    decided = ends.payer.share(agreement()).bytes;
                }
            }
            let locked = ends.payer.lock().map_or(0, |lock| lock.voucher.cumulative);
            prop_assert!(ends.payer.promised() <= u128::from(decided) * PRICE);
            prop_assert!(locked <= u128::from(decided + 1) * PRICE);
            prop_assert!(ends.payer.promised().max(locked) <= DEPOSIT);
        }
    }
}
