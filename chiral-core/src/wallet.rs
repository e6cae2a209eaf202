//! Wallets: secp256k1 signatures as Ethereum uses them. Signing is behind a trait;
//! verifying is a function.

use std::fmt;

use alloy_primitives::{Address, B256, keccak256};
use async_trait::async_trait;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar};

use tables::Table;

mod tables;

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
/// of one wallet. If they come again and again it is more than twice as fast once more: multiples of
/// the key are kept then, of eight keys in a process, 1 MiB in all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WalletKey {
    point: AffinePoint,
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
            point: *key.as_affine(),
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
        let address = self.address.as_slice();
        let number = address.iter().take(2);
        let number = number.fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.verify_with(
            tables::of(&self.point, number).as_deref(),
            digest,
            signature,
        )
    }

    /// The same, with the key's multiples if they are at hand.
    fn verify_with(
        &self,
        table: Option<&Table>,
        digest: B256,
        signature: &WalletSignature,
    ) -> bool {
        let Ok(r_s) = Signature::from_slice(&signature.0[..64]) else {
            return false;
        };
        let (r, s) = r_s.split_scalars();
        let hash = <Scalar as Reduce<k256::U256>>::reduce_bytes(&FieldBytes::from(digest.0));
        let inverse = *s.invert_vartime();
        let (of_generator, of_key) = (hash * inverse, *r * inverse);
        let point = match table {
            Some(table) => table.sum(&of_generator, &of_key),
            None => ProjectivePoint::lincomb(
                &ProjectivePoint::GENERATOR,
                &of_generator,
                &ProjectivePoint::from(self.point),
                &of_key,
            ),
        };
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

    /// Signs a 32-byte digest. The same digest may be signed any number of times, and what is
    /// signed is not always sent: a promise may be signed while it is written down, and is thrown
    /// away if that fails.
    ///
    /// # Errors
    /// [`SignerError`].
    async fn sign(&self, digest: B256) -> Result<WalletSignature, SignerError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::SigningKey;
    use k256::ecdsa::signature::hazmat::PrehashVerifier;
    use proptest::prelude::*;

    /// What k256 itself says, and the recovery bit as a contract uses it.
    fn expected(key: &VerifyingKey, digest: B256, signature: &WalletSignature) -> bool {
        let right = Signature::from_slice(&signature.0[..64])
            .is_ok_and(|r_s| key.verify_prehash(digest.as_slice(), &r_s).is_ok());
        let point = key.to_encoded_point(false);
        let address = Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
        right && signature.signer(digest) == Some(address)
    }

    fn signed(secret: u8, digest: B256) -> (VerifyingKey, WalletKey, WalletSignature) {
        let key = SigningKey::from_slice(&[secret; 32]).unwrap();
        let (r_s, recovery) = key.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&r_s.to_bytes());
        bytes[64] = recovery.to_byte();
        let signature = WalletSignature::from_bytes(bytes).unwrap();
        let wallet = WalletKey::recover(digest, &signature).unwrap();
        (*key.verifying_key(), wallet, signature)
    }

    /// Order of the group, and half of it.
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    const HALF: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";

    fn number() -> impl Strategy<Value = Option<[u8; 32]>> {
        let of = |hex: &str| {
            let bytes: B256 = hex.parse().unwrap();
            alloy_primitives::U256::from_be_bytes(bytes.0)
        };
        let near = [alloy_primitives::U256::ZERO, of(HALF), of(ORDER)];
        let near = (
            proptest::sample::select(near.to_vec()),
            0u64..4,
            any::<bool>(),
        );
        let near = near.prop_map(|(at, by, up)| {
            let by = alloy_primitives::U256::from(by);
            let number = if up {
                at.wrapping_add(by)
            } else {
                at.wrapping_sub(by)
            };
            Some(number.to_be_bytes())
        });
        prop_oneof![4 => Just(None), 1 => any::<[u8; 32]>().prop_map(Some), 1 => near]
    }

    proptest! {
        #[test]
        fn a_table_accepts_what_k256_accepts_and_nothing_else(
            secret in 1..=200u8, other in 1..=200u8, digest: [u8; 32], wrong_key: bool,
            r in number(), s in number(), bit in proptest::option::of(any::<u8>()),
            flipped in proptest::option::of(0..65 * 8usize),
        ) {
            let digest = B256::from(digest);
            let (mut key, mut wallet, mut signature) = signed(secret, digest);
            if wrong_key {
                (key, wallet, _) = signed(other, digest);
            }
            // Past the check of the form, which refuses most of them.
            if let Some(r) = r {
                signature.0[..32].copy_from_slice(&r);
            }
            if let Some(s) = s {
                signature.0[32..64].copy_from_slice(&s);
            }
            if let Some(bit) = bit {
                signature.0[64] = bit % 2;
            }
            if let Some(flipped) = flipped.filter(|at| *at < 64 * 8) {
                signature.0[flipped / 8] ^= 1 << (flipped % 8);
            }
            let expected = expected(&key, digest, &signature);
            let table = Table::new(&wallet.point);
            // One with a high s has no [`WalletSignature`]: k256 refuses it, and so does its form.
            let formed = WalletSignature::from_bytes(signature.0).is_ok();
            for table in [None, Some(&table)] {
                let said = wallet.verify_with(table, digest, &signature);
                prop_assert_eq!(formed && said, expected);
            }
            prop_assert_eq!(
                wallet.verify_with(None, digest, &signature),
                wallet.verify_with(Some(&table), digest, &signature)
            );
        }
    }

    #[test]
    fn the_hundredth_signature_of_a_key_is_checked_as_the_first() {
        for round in 0..200u8 {
            let digest = B256::repeat_byte(round);
            let (_, wallet, mut signature) = signed(201, digest);
            assert!(wallet.verify(digest, &signature));
            assert!(!wallet.verify(B256::repeat_byte(round.wrapping_add(1)), &signature));
            signature.0[64] ^= 1;
            assert!(!wallet.verify(digest, &signature));
        }
    }
}
