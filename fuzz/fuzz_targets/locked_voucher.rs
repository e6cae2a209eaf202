//! The payer's side of locks, under any order of promises, keys, expiries and claims: it never
//! owes more than it deposited, never takes a promise back, and has one lock at a time.
#![no_main]

use alloy_primitives::{Address, B256};
use chiral_payment::channel::cipher::key_hash;
use chiral_payment::channel::payer::PayerChannel;
use chiral_payment::channel::voucher::Share;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut channel =
        PayerChannel::new(B256::ZERO, Address::repeat_byte(1), 60, B256::ZERO, 10_000);
    channel.opened(10_000);
    for step in bytes.chunks_exact(4) {
        let (kind, which, more, time) = (step[0], step[1], step[2], step[3]);
        let agreement = B256::repeat_byte(which % 4);
        let before = channel.share(agreement);
        let share = Share {
            agreement,
            bytes: before.bytes.saturating_add(u64::from(more)),
            amount: before.amount.saturating_add(u128::from(more)),
        };
        let key = B256::repeat_byte(which);
        let (promised, free, locked) = (channel.promised(), channel.free(), channel.lock().copied());
        let failed = match kind % 6 {
            0 => channel.pay(share).is_err(),
            1 => channel
                .lock_up(share, key_hash(&key), u64::from(time))
                .is_err(),
            2 => channel.unlock(key).is_err(),
            3 => channel.redeem().is_err(),
            4 => {
                channel.expire(u64::from(time), u128::from(more) * 40);
                false
            }
            _ => {
                channel.forget(agreement);
                false
            }
        };
        assert!(channel.promised() >= promised, "a promise is kept");
        if failed {
            assert_eq!((channel.promised(), channel.free()), (promised, free));
            assert_eq!(channel.lock().copied(), locked);
        }
        let owed = channel.lock().map_or(0, |lock| lock.voucher.cumulative);
        assert!(channel.promised().max(owed) <= 10_000, "no more than the deposit");
        assert_eq!(channel.free(), 10_000 - channel.promised().max(owed));
        if let (Some(before), Some(after)) = (locked, channel.lock()) {
            assert_eq!(before.voucher, after.voucher, "one lock at a time");
        }
    }
});
