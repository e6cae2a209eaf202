//! From a password to a key, within bounds: the parameters are a stranger's.

use hmac::Hmac;
use serde::Deserialize;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::KeystoreError;
use super::format::{HexBytes, format};

/// The most that scrypt may take: 128 bytes each of `n × r`, so 1 GiB. geth's are 256 MiB.
const MAX_SCRYPT_BLOCKS: u64 = 1 << 23;
/// The most work: `n × r × p`. geth's is 2^21.
const MAX_SCRYPT_WORK: u64 = 1 << 24;
/// The most rounds of PBKDF2. geth's are 262,144.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// Bytes of a derived key that are used; what a file asks for beyond is not.
const USED_KEY_BYTES: usize = 32;

/// How much it costs to try a password, once when a file is opened and as often as somebody
/// guesses who has stolen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KdfCost {
    /// geth's standard: 256 MiB of memory, about a second.
    #[default]
    Standard,
    /// geth's light one: 4 MiB of memory. For tests, and for the smallest devices.
    Light,
}

impl KdfCost {
    /// scrypt's `n`, `r` and `p`.
    pub(super) const fn scrypt(self) -> (u64, u32, u32) {
        match self {
            Self::Standard => (1 << 18, 8, 1),
            Self::Light => (1 << 12, 8, 6),
        }
    }
}

/// Parameters as in a file; which of the two it is is known by their fields.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum KdfParams {
    Scrypt {
        dklen: u32,
        n: u64,
        r: u32,
        p: u32,
        salt: HexBytes,
    },
    Pbkdf2 {
        dklen: u32,
        c: u32,
        prf: String,
        salt: HexBytes,
    },
}

impl KdfParams {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Scrypt { .. } => "scrypt",
            Self::Pbkdf2 { .. } => "pbkdf2",
        }
    }

    /// The first 32 bytes of the derived key: half for the cipher, half for the check.
    pub(super) fn derive(&self, password: &str) -> Result<DerivedKey, KeystoreError> {
        match self {
            Self::Scrypt {
                dklen,
                n,
                r,
                p,
                salt,
            } => {
                long_enough(*dklen)?;
                scrypt(password, &salt.0, (*n, *r, *p))
            }
            Self::Pbkdf2 {
                dklen,
                c,
                prf,
                salt,
            } => {
                long_enough(*dklen)?;
                if prf != "hmac-sha256" {
                    return Err(format("its PBKDF2 is not with hmac-sha256"));
                }
                pbkdf2(password, &salt.0, *c)
            }
        }
    }
}

pub(super) type DerivedKey = Zeroizing<[u8; USED_KEY_BYTES]>;

pub(super) fn scrypt(
    password: &str,
    salt: &[u8],
    (n, r, p): (u64, u32, u32),
) -> Result<DerivedKey, KeystoreError> {
    if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
        return Err(format("its parameters of scrypt are none"));
    }
    let blocks = n.checked_mul(r.into()).ok_or(KeystoreError::Cost)?;
    let work = blocks.checked_mul(p.into()).ok_or(KeystoreError::Cost)?;
    if blocks > MAX_SCRYPT_BLOCKS || work > MAX_SCRYPT_WORK {
        return Err(KeystoreError::Cost);
    }
    // At most 24, since the work is bounded.
    let log_n = n.trailing_zeros() as u8;
    let params = scrypt::Params::new(log_n, r, p)
        .map_err(|_| format("its parameters of scrypt are none"))?;
    let mut key = DerivedKey::default();
    scrypt::scrypt(password.as_bytes(), salt, &params, key.as_mut())
        .map_err(|_| format("its parameters of scrypt are none"))?;
    Ok(key)
}

fn pbkdf2(password: &str, salt: &[u8], rounds: u32) -> Result<DerivedKey, KeystoreError> {
    match rounds {
        0 => Err(format("its PBKDF2 has no rounds")),
        1..=MAX_PBKDF2_ROUNDS => {
            let mut key = DerivedKey::default();
            pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, rounds, key.as_mut())
                .map_err(|_| format("its parameters of PBKDF2 are none"))?;
            Ok(key)
        }
        _ => Err(KeystoreError::Cost),
    }
}

fn long_enough(dklen: u32) -> Result<(), KeystoreError> {
    // The first bytes of a longer key are those of a key of 32.
    if (dklen as usize) < USED_KEY_BYTES {
        return Err(format("its derived key is shorter than 32 bytes"));
    }
    Ok(())
}
