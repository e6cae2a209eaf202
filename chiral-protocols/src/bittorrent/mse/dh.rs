//! Diffie-Hellman over the 768-bit group of the standard. Exponentiation takes the same time
//! for every secret.

use std::fmt;

use crypto_bigint::modular::constant_mod::{Residue, ResidueParams};
use crypto_bigint::{Encoding, U192, U768, impl_modulus};

use super::MseError;

/// Bytes of a public key.
pub const DH_LEN: usize = 96;

/// Bits of a private key.
const SECRET_BITS: usize = 160;

impl_modulus!(
    Prime,
    U768,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563"
);

type Number = Residue<Prime, { U768::LIMBS }>;

/// A private key.
pub struct DhSecret(U192);

impl fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhSecret(..)")
    }
}

impl DhSecret {
    /// Out of random bytes.
    pub fn new(random: [u8; 20]) -> Self {
        let mut bytes = [0; 24];
        bytes[4..].copy_from_slice(&random);
        Self(U192::from_be_bytes(bytes))
    }

    fn raise(&self, base: &U768) -> [u8; DH_LEN] {
        let power = Number::new(base).pow_bounded_exp(&self.0, SECRET_BITS);
        power.retrieve().to_be_bytes()
    }

    /// The public key.
    pub fn public(&self) -> [u8; DH_LEN] {
        self.raise(&U768::from_u8(2))
    }

    /// What both sides have in common.
    ///
    /// # Errors
    /// [`MseError::Key`] for 0, 1, -1 and what is not below the prime: with those, anybody
    /// would know it.
    pub fn shared(&self, public: &[u8; DH_LEN]) -> Result<[u8; DH_LEN], MseError> {
        let public = U768::from_be_bytes(*public);
        let last = Prime::MODULUS.wrapping_sub(&U768::ONE);
        if public <= U768::ONE || public >= last {
            return Err(MseError::Key);
        }
        Ok(self.raise(&public))
    }
}
