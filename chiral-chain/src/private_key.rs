//! [`PrivateKey`]: a wallet whose secret is in the memory of this process.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::{Address, B256, hex, keccak256};
use async_trait::async_trait;
use chiral_core::wallet::SignerError;
use chiral_core::{WalletSignature, WalletSigner};
use k256::ecdsa::SigningKey;
use zeroize::Zeroizing;

/// A secp256k1 secret key, and the wallet that it is.
///
/// The secret is wiped from memory when this is dropped, and no `Debug` shows it. Signatures
/// are deterministic (RFC 6979).
pub struct PrivateKey {
    // Wipes itself when dropped.
    key: SigningKey,
    address: Address,
}

/// Why something is no private key. What was given is not repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateKeyError {
    /// The text is not 64 hex digits.
    #[error("a private key is 64 hex digits, with or without 0x before them")]
    Form,
    /// Zero, or not below the order of the group.
    #[error("the number is not a secp256k1 private key")]
    Range,
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Randomness,
}

impl PrivateKeyError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Randomness)
    }
}

impl PrivateKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`PrivateKeyError::Randomness`].
    pub fn random() -> Result<Self, PrivateKeyError> {
        let mut secret = Zeroizing::new([0; 32]);
        loop {
            getrandom::fill(secret.as_mut()).map_err(|_| PrivateKeyError::Randomness)?;
            // Out of range once in 2^128.
            if let Ok(key) = Self::from_bytes(&secret) {
                return Ok(key);
            }
        }
    }

    /// The key with this secret, big-endian.
    ///
    /// # Errors
    /// [`PrivateKeyError::Range`].
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, PrivateKeyError> {
        let key = SigningKey::from_slice(secret).map_err(|_| PrivateKeyError::Range)?;
        let point = key.verifying_key().to_encoded_point(false);
        let address = Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
        Ok(Self { key, address })
    }

    /// Reads 64 hex digits, with or without `0x` before them.
    ///
    /// # Errors
    /// [`PrivateKeyError::Form`], [`PrivateKeyError::Range`].
    pub fn from_hex(text: &str) -> Result<Self, PrivateKeyError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut secret = Zeroizing::new([0; 32]);
        // A second `0x` would be taken off by the decoder.
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PrivateKeyError::Form);
        }
        hex::decode_to_slice(digits, secret.as_mut()).map_err(|_| PrivateKeyError::Form)?;
        Self::from_bytes(&secret)
    }

    /// The wallet.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The secret, big-endian, for whoever stores it. Wiped when dropped.
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }
}

impl FromStr for PrivateKey {
    type Err = PrivateKeyError;

    fn from_str(text: &str) -> Result<Self, PrivateKeyError> {
        Self::from_hex(text)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl WalletSigner for PrivateKey {
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[tokio::test]
    async fn keeps_the_contract_of_wallets() {
        chiral_core::conformance::wallet::run(&PrivateKey::from_hex(HEX).unwrap()).await;
        chiral_core::conformance::wallet::run(&PrivateKey::random().unwrap()).await;
    }

    #[test]
    fn texts_that_are_no_key_are_refused() {
        let key = PrivateKey::from_hex(&format!("0x{HEX}")).unwrap();
        assert_eq!(
            key.address().to_string(),
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
        );
        assert_eq!(hex::encode(*key.to_secret_bytes()), HEX);
        for bad in [
            "",
            "0x",
            &HEX[1..],
            &format!("{HEX}0"),
            &format!(" {HEX}"),
            &format!("0x0x{}", &HEX[4..]),
            &format!("0x{}", &HEX[2..]),
            &HEX.replace('a', "g"),
        ] {
            assert_eq!(
                PrivateKey::from_hex(bad).unwrap_err(),
                PrivateKeyError::Form
            );
        }
        for bad in [[0; 32], [0xff; 32]] {
            let error = PrivateKey::from_bytes(&bad).unwrap_err();
            assert_eq!(error, PrivateKeyError::Range);
        }
    }

    #[test]
    fn debug_shows_the_wallet_and_not_the_secret() {
        let text = format!("{:?}", PrivateKey::from_hex(HEX).unwrap());
        assert!(text.contains("0xf39f"), "{text}");
        assert!(!text.contains(&HEX[..8]), "{text}");
    }

    #[test]
    fn random_keys_differ() {
        let (a, b) = (PrivateKey::random().unwrap(), PrivateKey::random().unwrap());
        assert_ne!(a.address(), b.address());
    }
}
