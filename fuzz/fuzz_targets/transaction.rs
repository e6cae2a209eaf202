//! Transactions from strangers: never a panic, one encoding, and a sender who is nobody else.

#![no_main]

use chiral_chain::{CHIRAL_CHAIN_ID, SignedTransaction, Transaction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    for chain_id in [CHIRAL_CHAIN_ID, 1] {
        let Ok(signed) = SignedTransaction::decode(raw, chain_id) else {
            continue;
        };
        assert_eq!(signed.raw, raw);
        assert_eq!(signed.transaction.chain_id, chain_id);
        let other = Transaction {
            chain_id: chain_id + 1,
            ..signed.transaction.clone()
        };
        assert_ne!(other.signing_digest(), signed.transaction.signing_digest());
        assert!(SignedTransaction::decode(raw, chain_id + 1).is_err());
        let _ = signed.transaction.max_cost();
        assert!(signed.transaction.intrinsic_gas() >= 21_000);
    }
});
