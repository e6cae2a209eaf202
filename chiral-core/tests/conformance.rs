//! The suites run against the fakes that live beside them, and those fakes against
//! published vectors.
#![cfg(feature = "conformance")]

use alloy_primitives::{address, b256, hex, keccak256};
use chiral_core::WalletSigner;
use chiral_core::conformance::wallet::{self, FixedKeySigner};
use futures_util::FutureExt;

#[test]
fn the_fixed_key_signer_passes_the_suite_of_wallets() {
    for signer in [FixedKeySigner::numbered(1), FixedKeySigner::new([0x46; 32])] {
        wallet::run(&signer)
            .now_or_never()
            .expect("it signs without waiting");
    }
}

#[test]
fn addresses_are_those_of_the_published_keys() {
    let expected = address!("7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    assert_eq!(FixedKeySigner::numbered(1).address(), expected);
    // The key of EIP-155's example.
    let expected = address!("9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
    assert_eq!(FixedKeySigner::new([0x46; 32]).address(), expected);
}

/// The example in EIP-155: what is hashed, the hash, `r` and `s` of its signed transaction;
/// `v` is 37, thus bit 0.
#[test]
fn the_signature_is_that_of_eip_155() {
    let encoded = hex!(
        "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080"
    );
    let digest = keccak256(encoded);
    let printed = b256!("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
    assert_eq!(digest, printed);
    let signer = FixedKeySigner::new([0x46; 32]);
    let signature = signer.sign(digest).now_or_never().unwrap().unwrap();
    let r = hex!("28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276");
    let s = hex!("67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83");
    assert_eq!(signature.as_bytes()[..], [&r[..], &s[..], &[0]].concat());
}
