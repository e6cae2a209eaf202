//! The suite of [`WalletSigner`], and [`FixedKeySigner`], the fake that other suites and
//! tests sign with.

use std::fmt;

use alloy_primitives::{Address, B256, U256, keccak256};
use async_trait::async_trait;
use futures_util::future::join_all;
use k256::ecdsa::SigningKey;

use crate::wallet::{SignatureError, SignerError, WalletKey, verify};
use crate::{WalletSignature, WalletSigner};

/// Order of the group of secp256k1.
const ORDER: U256 = U256::from_be_bytes([
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
]);

/// A wallet for tests, with its key in plain memory. Signs deterministically (RFC 6979).
pub struct FixedKeySigner {
    key: SigningKey,
    address: Address,
}

impl FixedKeySigner {
    /// The wallet with this secret key.
    ///
    /// # Panics
    /// If the secret is zero or not below the order of the group.
    pub fn new(secret: [u8; 32]) -> Self {
        let key = SigningKey::from_slice(&secret).expect("a secret between zero and the order");
        let point = key.verifying_key().to_encoded_point(false);
        let address = Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
        Self { key, address }
    }

    /// The wallet with this number as its key, for tests that need several.
    ///
    /// # Panics
    /// If `number` is zero.
    pub fn numbered(number: u64) -> Self {
        Self::new(U256::from(number).to_be_bytes())
    }
}

impl fmt::Debug for FixedKeySigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedKeySigner")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl WalletSigner for FixedKeySigner {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, digest: B256) -> Result<WalletSignature, SignerError> {
        let signed = self.key.sign_prehash_recoverable(digest.as_slice());
        let (signature, recovery) = signed.map_err(|error| SignerError::Backend(error.into()))?;
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        WalletSignature::from_bytes(bytes).map_err(|error| SignerError::Backend(error.into()))
    }
}

/// Runs the suite against a wallet that is ready to sign.
pub async fn run(signer: &dyn WalletSigner) {
    the_address_is_stable(signer).await;
    signatures_lead_back_to_the_wallet(signer).await;
    signatures_have_one_form(signer).await;
    signatures_hold_for_nothing_else(signer).await;
    signing_at_once_does_not_mix_up_digests(signer).await;
}

/// The address is not zero and does not change by signing.
pub async fn the_address_is_stable(signer: &dyn WalletSigner) {
    let address = signer.address();
    assert!(!address.is_zero(), "the zero address is nobody's wallet");
    sign(signer, digest(0)).await;
    assert_eq!(signer.address(), address, "the address changed");
}

/// The signer's address is recovered from every signature, whatever the digest.
pub async fn signatures_lead_back_to_the_wallet(signer: &dyn WalletSigner) {
    let extremes = [B256::ZERO, B256::repeat_byte(0xff), B256::with_last_byte(1)];
    for digest in extremes.into_iter().chain((0..16).map(digest)) {
        let signature = sign(signer, digest).await;
        assert_eq!(
            signature.signer(digest),
            Some(signer.address()),
            "over {digest}"
        );
        assert!(
            verify(signer.address(), digest, &signature),
            "{signature:?} over {digest}"
        );
    }
}

/// The lower `s`, recovery bit 0 or 1; the twin with the higher `s` is no signature.
pub async fn signatures_have_one_form(signer: &dyn WalletSigner) {
    for digest in (0..16).map(digest) {
        let bytes = *sign(signer, digest).await.as_bytes();
        let again = WalletSignature::from_bytes(bytes);
        assert!(again.is_ok(), "{bytes:?} is not accepted as a signature");
        let s = U256::from_be_slice(&bytes[32..64]);
        assert!(
            !s.is_zero() && s <= ORDER / U256::from(2),
            "s is not the lower one: {s}"
        );
        assert!(bytes[64] <= 1, "the recovery bit is {}", bytes[64]);
        assert_eq!(
            WalletSignature::from_bytes(high_s_twin(bytes)),
            Err(SignatureError),
            "the twin with the higher s makes two signatures of one"
        );
    }
}

/// A signature is not one over another digest, by another wallet, or by the zero address;
/// neither is one with a bit changed.
pub async fn signatures_hold_for_nothing_else(signer: &dyn WalletSigner) {
    let (digest, other) = (digest(0), digest(1));
    let signature = sign(signer, digest).await;
    let address = signer.address();
    assert!(
        !verify(address, other, &signature),
        "it verifies over another digest"
    );
    assert!(
        !verify(Address::ZERO, digest, &signature),
        "the zero address signs nothing"
    );
    let stranger = FixedKeySigner::new([0x5a; 32]).address();
    assert_ne!(stranger, address, "test the suite's own key with another");
    assert!(
        !verify(stranger, digest, &signature),
        "it verifies for another wallet"
    );
    let key = WalletKey::recover(digest, &signature).expect("a key that made it");
    assert_eq!(key.address(), address);
    assert!(key.verify(digest, &signature) && !key.verify(other, &signature));
    let next = sign(signer, other).await;
    assert!(key.verify(other, &next), "the key of all its signatures");
    for index in 0..65 {
        let mut bytes = *signature.as_bytes();
        bytes[index] ^= 1;
        let Ok(changed) = WalletSignature::from_bytes(bytes) else {
            continue;
        };
        let holds = verify(address, digest, &changed) || key.verify(digest, &changed);
        assert!(!holds, "it verifies with byte {index} changed");
    }
}

/// Signatures asked for together belong each to its own digest.
pub async fn signing_at_once_does_not_mix_up_digests(signer: &dyn WalletSigner) {
    let signed = join_all((0..32).map(|i| sign(signer, digest(i)))).await;
    for (signature, index) in signed.iter().zip(0..) {
        assert!(
            verify(signer.address(), digest(index), signature),
            "signature {index} is another's"
        );
    }
}

/// The same signature with the higher `s` and the other recovery bit: what EIP-2 rules out.
pub fn high_s_twin(mut bytes: [u8; 65]) -> [u8; 65] {
    let s = ORDER - U256::from_be_slice(&bytes[32..64]);
    bytes[32..64].copy_from_slice(&s.to_be_bytes::<32>());
    bytes[64] ^= 1;
    bytes
}

fn digest(number: u64) -> B256 {
    keccak256(number.to_be_bytes())
}

async fn sign(signer: &dyn WalletSigner, digest: B256) -> WalletSignature {
    let result = signer.sign(digest).await;
    result.unwrap_or_else(|error| panic!("{signer:?} did not sign: {error}"))
}
