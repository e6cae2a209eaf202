//! Transactions: the bytes that other programs make of the same fields, and strict decoding.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use alloy_primitives::{Address, U256, address, hex, keccak256};
use async_trait::async_trait;
use chiral_chain::{
    CHIRAL_CHAIN_ID, DEV_ACCOUNTS, Fees, MAX_TRANSACTION_BYTES, PrivateKey, SignedTransaction,
    Transaction, TransactionError,
};
use chiral_core::wallet::SignerError;
use chiral_core::{WalletSignature, WalletSigner};
use proptest::prelude::*;

fn legacy() -> Transaction {
    Transaction {
        chain_id: CHIRAL_CHAIN_ID,
        nonce: 0,
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: 20_000_000_000,
        },
        to: Some(address!("742d35Cc6634C0532925a3b8D0C9e0c8b346b983")),
        value: U256::from(10).pow(U256::from(18)),
        input: Default::default(),
    }
}

fn dynamic() -> Transaction {
    Transaction {
        nonce: 7,
        gas_limit: 22_040,
        fees: Fees::Dynamic {
            max_fee_per_gas: 20_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
        },
        to: Some(DEV_ACCOUNTS[1].address),
        value: U256::from(5_000_000_953_674_317_u64),
        input: vec![1, 2].into(),
        ..legacy()
    }
}

fn signer() -> &'static PrivateKey {
    static SIGNER: OnceLock<PrivateKey> = OnceLock::new();
    SIGNER.get_or_init(|| DEV_ACCOUNTS[0].signer())
}

async fn raw(transaction: &Transaction) -> Vec<u8> {
    transaction.sign(signer()).await.unwrap().raw.to_vec()
}

/// `cast mktx` 1.7.1 with key 0 of the development accounts.
#[tokio::test]
async fn transactions_are_those_of_cast_byte_for_byte() {
    let cast = "f86f808504a817c80082520894742d35cc6634c0532925a3b8d0c9e0c8b346b983880de0b6b3a7\
                64000080830303bda010bcbcad5fafdd71b0e1bc102b1942eb515b7473bba6e20635a65d17f5dd\
                fb46a02ad3e755f8c60c36f65f14259ac87d693b50f9472121d1b0786b5c13cf9cecd3";
    let signed = legacy().sign(signer()).await.unwrap();
    assert_eq!(hex::encode(&signed.raw), cast);
    assert_eq!(signed.hash, keccak256(&signed.raw));

    let cast = "02f877830181cd07843b9aca008504a817c8008256189470997970c51812dc3a010c7d01b50e0d\
                17dc79c88711c37970b86a4d820102c080a0aa625ce3eb953df3f9685136649ba560f37b105a80\
                55729c4deed99ccc0b0b7da012ffc4710caff56c473d0ea6f2cab587ef3caab41e35411c22a2ce\
                4ab7de1a2a";
    assert_eq!(hex::encode(raw(&dynamic()).await), cast);
}

#[tokio::test]
async fn legacy_signatures_carry_the_chain_id() {
    // v = 35 + 2 × 98765 + parity: 197565 or 197566.
    for nonce in 0..8 {
        let signed = raw(&Transaction { nonce, ..legacy() }).await;
        let at = signed.windows(3).position(|w| w == [0x83, 0x03, 0x03]);
        let v = signed[at.unwrap() + 3];
        assert!(v == 0xbd || v == 0xbe, "v = 0x0303{v:02x}");
    }
}

#[tokio::test]
async fn what_was_signed_is_decoded_with_its_sender() {
    for transaction in [
        legacy(),
        dynamic(),
        Transaction {
            to: None,
            ..dynamic()
        },
    ] {
        let signed = transaction.sign(signer()).await.unwrap();
        let decoded = SignedTransaction::decode(&signed.raw, CHIRAL_CHAIN_ID).unwrap();
        assert_eq!(decoded, signed);
        assert_eq!(decoded.from, DEV_ACCOUNTS[0].address);
        assert_eq!(decoded.transaction, transaction);
    }
}

#[tokio::test]
async fn transactions_for_another_chain_or_for_any_are_refused() {
    for transaction in [legacy(), dynamic()] {
        let error = SignedTransaction::decode(&raw(&transaction).await, 1).unwrap_err();
        assert!(matches!(
            error,
            TransactionError::WrongChain {
                expected: 1,
                found: CHIRAL_CHAIN_ID
            }
        ));
    }
    // The third transaction that mainnet ever saw, from before EIP-155.
    let frontier = hex!(
        "f86780862d79883d2000825208945df9b87991262f6ba471f09758cde1c0fc1de734827a6980\
         1ca088ff6cf0fefd94db46111149ae4bfc179e9b94721fffd821d38d16464b3f71d0\
         a045e0aff800961cfce805daef7016b9b675c137a6a41a548f7b60a3484c06a33a"
    );
    let error = SignedTransaction::decode(&frontier, 1).unwrap_err();
    assert!(matches!(error, TransactionError::NoChainId), "{error:?}");
}

#[tokio::test]
async fn the_twin_with_the_higher_s_is_no_transaction() {
    for transaction in [legacy(), dynamic()] {
        let mut raw = raw(&transaction).await;
        let at = raw.len() - 65;
        assert_eq!(
            (raw[at - 1], raw[at + 32]),
            (0xa0, 0xa0),
            "two full scalars"
        );
        let mut bytes = [0; 65];
        bytes[..32].copy_from_slice(&raw[at..at + 32]);
        bytes[32..64].copy_from_slice(&raw[at + 33..]);
        let twin = chiral_core::conformance::wallet::high_s_twin(bytes);
        raw[at + 33..].copy_from_slice(&twin[32..64]);
        // Parity flips with it: 0xbd ↔ 0xbe, 0x80 ↔ 0x01.
        let parity = at - 2;
        raw[parity] = match raw[parity] {
            0xbd => 0xbe,
            0xbe => 0xbd,
            0x80 => 0x01,
            _ => 0x80,
        };
        let error = SignedTransaction::decode(&raw, CHIRAL_CHAIN_ID).unwrap_err();
        assert!(matches!(error, TransactionError::Signature), "{error:?}");
    }
}

#[tokio::test]
async fn other_bytes_are_refused_by_kind() {
    let good = raw(&legacy()).await;
    let mut trailing = good.clone();
    trailing.push(0);
    let mut large = good.clone();
    large.resize(MAX_TRANSACTION_BYTES + 1, 0);
    let decode = |raw: &[u8]| SignedTransaction::decode(raw, CHIRAL_CHAIN_ID).unwrap_err();
    for bad in [&[][..], &good[..40], &trailing, &[0x80], &[2], &[0xc0]] {
        assert!(
            matches!(decode(bad), TransactionError::Encoding),
            "{bad:02x?}"
        );
    }
    assert!(matches!(decode(&large), TransactionError::TooLarge { .. }));
    for ty in [0, 3, 4, 0x7f] {
        let error = decode(&[ty, 0xc0]);
        assert!(matches!(error, TransactionError::UnsupportedType(found) if found == ty));
    }
    // A nonce written with a zero before it: the same number, another hash.
    let at = good.iter().position(|byte| *byte == 0x80).unwrap();
    let mut padded = good.clone();
    padded[at] = 0;
    assert!(matches!(decode(&padded), TransactionError::Encoding));
}

/// Signs everything with somebody else's key.
#[derive(Debug)]
struct Impostor(PrivateKey);

#[async_trait]
impl WalletSigner for Impostor {
    fn address(&self) -> Address {
        DEV_ACCOUNTS[5].address
    }

    async fn sign(&self, digest: alloy_primitives::B256) -> Result<WalletSignature, SignerError> {
        self.0.sign(digest).await
    }
}

#[tokio::test]
async fn what_no_node_would_take_is_not_signed() {
    let large = Transaction {
        input: vec![0; MAX_TRANSACTION_BYTES - 50].into(),
        ..legacy()
    };
    let error = large.sign(signer()).await.unwrap_err();
    assert!(matches!(error, TransactionError::TooLarge { .. }));

    let fees = Fees::Dynamic {
        max_fee_per_gas: 1,
        max_priority_fee_per_gas: 2,
    };
    let error = Transaction { fees, ..legacy() }.sign(signer()).await;
    assert!(matches!(error.unwrap_err(), TransactionError::PriorityFee));

    let impostor = Impostor(DEV_ACCOUNTS[0].signer());
    let error = legacy().sign(&impostor).await.unwrap_err();
    assert!(matches!(error, TransactionError::ForeignSignature { .. }));
}

#[test]
fn the_greatest_cost_is_value_and_all_gas_at_the_highest_price() {
    let cost = dynamic().max_cost().unwrap();
    assert_eq!(
        cost,
        U256::from(5_000_000_953_674_317_u64) + U256::from(22_040 * 20_000_000_000_u64)
    );
    let value = U256::MAX;
    assert_eq!(Transaction { value, ..legacy() }.max_cost(), None);
    assert_eq!(dynamic().intrinsic_gas(), 21_032);
}

prop_compose! {
    fn transactions()(
        chain_id in prop_oneof![Just(CHIRAL_CHAIN_ID), 1..u64::MAX],
        nonce: u64,
        gas_limit: u64,
        price: u128,
        tip: Option<u128>,
        to: Option<[u8; 20]>,
        value: [u8; 32],
        shift in 0usize..256,
        input in prop::collection::vec(any::<u8>(), 0..300),
    ) -> Transaction {
        let fees = match tip {
            None => Fees::Legacy { gas_price: price },
            Some(tip) => Fees::Dynamic {
                max_fee_per_gas: price.max(tip),
                max_priority_fee_per_gas: price.min(tip),
            },
        };
        Transaction {
            chain_id,
            nonce,
            gas_limit,
            fees,
            to: to.map(Address::from),
            value: U256::from_be_bytes(value) >> shift,
            input: input.into(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_transaction_comes_back(transaction in transactions()) {
        let signed = futures_util::FutureExt::now_or_never(transaction.sign(signer()))
            .unwrap()
            .unwrap();
        let decoded = SignedTransaction::decode(&signed.raw, transaction.chain_id).unwrap();
        prop_assert_eq!(decoded, signed);
    }

    #[test]
    fn a_changed_byte_is_another_transaction_or_none(
        transaction in transactions(),
        at: prop::sample::Index,
        flip in 1u8..,
    ) {
        let signed = futures_util::FutureExt::now_or_never(transaction.sign(signer()))
            .unwrap()
            .unwrap();
        let mut raw = signed.raw.to_vec();
        let at = at.index(raw.len());
        raw[at] ^= flip;
        if let Ok(decoded) = SignedTransaction::decode(&raw, transaction.chain_id) {
            prop_assert_ne!(decoded.from, signed.from);
            prop_assert_ne!(decoded.hash, signed.hash);
            prop_assert_eq!(decoded.raw, raw);
        }
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = SignedTransaction::decode(&raw, CHIRAL_CHAIN_ID);
    }
}
