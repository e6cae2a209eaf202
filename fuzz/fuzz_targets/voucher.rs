//! Vouchers in any order, for any share, some with a signature that was tampered with. Whatever
//! comes, the payee credits no more than was signed, and claims no more than the deposit.
#![no_main]

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use alloy_primitives::{Address, B256};
use chiral_chain::PrivateKey;
use chiral_core::{WalletSignature, WalletSigner};
use chiral_payment::channel::payee::PayeeChannel;
use chiral_payment::channel::voucher::{ChannelDomain, Proven, Share, Voucher};
use chiral_payment::contracts::ChannelState;
use libfuzzer_sys::fuzz_target;

static DOMAIN: LazyLock<ChannelDomain> =
    LazyLock::new(|| ChannelDomain::new(98_765, Address::repeat_byte(0xc4)));
static PAYER: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::from_bytes(&[7; 32]).expect("a key"));

/// A key in memory signs without waiting.
fn sign(digest: B256) -> WalletSignature {
    let mut signing = pin!(PAYER.sign(digest));
    match signing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(signature)) => signature,
        _ => panic!("a key in memory signs at once"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let state = ChannelState {
        payer: PAYER.address(),
        deposit: 20_000,
        ..ChannelState::default()
    };
    let mut channel = PayeeChannel::new(B256::ZERO, &state);
    let mut signed = 0;
    for step in bytes.chunks_exact(6).take(64) {
        let share = Share {
            agreement: B256::repeat_byte(step[0] % 3),
            bytes: u64::from(step[1]),
            amount: u128::from(step[2]) * 100,
        };
        let voucher = Voucher {
            channel: B256::repeat_byte(u8::from(step[5] == 0xff)),
            cumulative: u128::from(step[3]) * 100,
            context: share.context(),
        };
        let mut signature = *sign(voucher.digest(&DOMAIN)).as_bytes();
        // Every second one is as it was signed.
        let tampered = step[4] >= 128;
        if tampered {
            signature[usize::from(step[4]) % 65] ^= 1 << (step[5] % 8);
        }
        let Ok(signature) = WalletSignature::from_bytes(signature) else {
            continue;
        };
        let proven = Proven::learn(voucher, signature, channel.payer(), &DOMAIN);
        assert_eq!(proven.is_none(), tampered, "only what was signed is proven");
        let Some((proven, _)) = proven else { continue };
        let before = channel.clone();
        match channel.take(share, proven) {
            Ok(_) => signed = signed.max(voucher.cumulative),
            Err(_) => assert_eq!(channel, before, "what is refused changes nothing"),
        }
        assert!(channel.paid() == signed && signed <= channel.deposit());
        let credited = (0..3).map(|n| channel.share(B256::repeat_byte(n)).amount);
        assert!(credited.sum::<u128>() <= signed);
        assert!(channel.claimable() <= channel.deposit());
    }
});
