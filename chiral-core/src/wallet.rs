//! Wallets: secp256k1 signatures as Ethereum uses them. Signing is behind a trait;
//! verifying is a function.

use std::fmt;

use alloy_primitives::{Address, B256, keccak256};
use async_trait::async_trait;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::{FieldBytes, ProjectivePoint, Scalar};

/// A signature `r ‖ s ‖ recovery bit` over a 32-byte digest; always with the lower of the
/// two possible `s` (EIP-2), so that a statement has one signature and not two.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalletSignature([u8; 65]);

/// The bytes are no signature, or one with the higher `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a low-s secp256k1 signature with recovery bit 0 or 1")]
pub struct SignatureError;

impl WalletSignature {
    /// Checks the form of 65 bytes.
    ///
    /// # Errors
    /// [`SignatureError`] for zero or overlong scalars, a high `s`, or another recovery bit.
    pub fn from_bytes(bytes: [u8; 65]) -> Result<Self, SignatureError> {
        let signature = Signature::from_slice(&bytes[..64]).map_err(|_| SignatureError)?;
        if bytes[64] > 1 || signature.normalize_s().is_some() {
            return Err(SignatureError);
        }
        Ok(Self(bytes))
    }

    /// The 65 bytes.
    pub const fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    /// The wallet that made this signature over `digest`, if any did.
    pub fn signer(&self, digest: B256) -> Option<Address> {
        let signature = Signature::from_slice(&self.0[..64]).ok()?;
        let recovery = RecoveryId::from_byte(self.0[64])?;
        let key =
            VerifyingKey::recover_from_prehash(digest.as_slice(), &signature, recovery).ok()?;
        let point = key.to_encoded_point(false);
        Some(Address::from_slice(
            &keccak256(&point.as_bytes()[1..])[12..],
        ))
    }
}

impl fmt::Debug for WalletSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WalletSignature(0x")?;
        crate::identity::write_hex(&self.0, f)?;
        f.write_str(")")
    }
}

/// Whether `signature` over `digest` is `signer`'s. The zero address signs nothing.
pub fn verify(signer: Address, digest: B256, signature: &WalletSignature) -> bool {
    !signer.is_zero() && signature.signer(digest) == Some(signer)
}

/// A wallet's public key, learnt from a signature. Checking against it is more than twice as
/// fast as [`verify`], which has to find the key each time: for whoever sees many signatures
/// of one wallet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WalletKey {
    point: ProjectivePoint,
    address: Address,
}

impl WalletKey {
    /// The key that made `signature` over `digest`, if any did.
    pub fn recover(digest: B256, signature: &WalletSignature) -> Option<Self> {
        let (r_s, recovery) = (
            Signature::from_slice(&signature.0[..64]).ok()?,
            RecoveryId::from_byte(signature.0[64])?,
        );
        let key = VerifyingKey::recover_from_prehash(digest.as_slice(), &r_s, recovery).ok()?;
        let encoded = key.to_encoded_point(false);
        Some(Self {
            point: ProjectivePoint::from(*key.as_affine()),
            address: Address::from_slice(&keccak256(&encoded.as_bytes()[1..])[12..]),
        })
    }

    /// The wallet.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether `signature` over `digest` is this wallet's: exactly what [`verify`] says. The
    /// recovery bit is checked too, since a contract finds the key by it.
    pub fn verify(&self, digest: B256, signature: &WalletSignature) -> bool {
        let Ok(r_s) = Signature::from_slice(&signature.0[..64]) else {
            return false;
        };
        let (r, s) = r_s.split_scalars();
        let hash = <Scalar as Reduce<k256::U256>>::reduce_bytes(&FieldBytes::from(digest.0));
        let inverse = *s.invert_vartime();
        let (of_generator, of_key) = (hash * inverse, *r * inverse);
        let point = ProjectivePoint::lincomb(
            &ProjectivePoint::GENERATOR,
            &of_generator,
            &self.point,
            &of_key,
        );
        // The identity has the x coordinate zero, which no signature has. An x beyond the
        // order, which recovery bits 2 and 3 stand for, is not equal to any r either.
        let point = point.to_affine();
        point.x() == r.to_bytes() && point.y_is_odd().unwrap_u8() == signature.0[64]
    }
}

impl fmt::Debug for WalletKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WalletKey").field(&self.address).finish()
    }
}

/// Why a wallet did not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The wallet is locked or its owner refused.
    #[error("wallet {wallet} is not available for signing")]
    Unavailable {
        /// The wallet.
        wallet: Address,
    },
    /// A remote or hardware signer failed.
    #[error("signer failed")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SignerError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// A wallet that signs. What is signed is a digest that already names its domain (chain,
/// contract, kind of statement); the signer adds nothing.
#[async_trait]
pub trait WalletSigner: Send + Sync + fmt::Debug + 'static {
    /// The wallet.
    fn address(&self) -> Address;

    /// Signs a 32-byte digest. The same digest may be signed any number of times.
    ///
    /// # Errors
    /// [`SignerError`].
    async fn sign(&self, digest: B256) -> Result<WalletSignature, SignerError>;
}
