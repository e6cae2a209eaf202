//! The JSON of a keystore file, and what is encrypted in it (AES-128-CTR, with a Keccak-256
//! over half of the derived key and the ciphertext as check).

use aes::Aes128;
use alloy_primitives::{Address, hex, keccak256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use zeroize::Zeroizing;

use super::kdf::{self, DerivedKey, KdfParams};
use super::{KdfCost, KeystoreError};
use crate::{PrivateKey, PrivateKeyError};

const VERSION: u64 = 3;
const CIPHER: &str = "aes-128-ctr";

/// A file.
#[derive(Deserialize)]
pub(super) struct Keystore {
    version: u64,
    #[serde(default, deserialize_with = "address_without_prefix")]
    pub(super) address: Option<Address>,
    // The capital letter is geth's of 2015.
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: HexBytes,
    kdf: String,
    kdfparams: KdfParams,
    mac: HexBytes,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: HexBytes,
}

/// Bytes as hex digits.
pub(super) struct HexBytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

fn address_without_prefix<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Address>, D::Error> {
    let Some(HexBytes(bytes)) = Option::deserialize(deserializer)? else {
        return Ok(None);
    };
    Address::try_from(&bytes[..])
        .map(Some)
        .map_err(serde::de::Error::custom)
}

pub(super) fn format(reason: &'static str) -> KeystoreError {
    KeystoreError::Format { reason }
}

pub(super) fn parse(text: &[u8]) -> Result<Keystore, KeystoreError> {
    let keystore: Keystore = serde_json::from_slice(text)
        .map_err(|_| format("a field is missing or of another form"))?;
    if keystore.version != VERSION {
        return Err(format("its version is not 3"));
    }
    Ok(keystore)
}

impl Keystore {
    pub(super) fn decrypt(&self, password: &str) -> Result<PrivateKey, KeystoreError> {
        let crypto = &self.crypto;
        if crypto.cipher != CIPHER {
            return Err(format("its cipher is not aes-128-ctr"));
        }
        if crypto.kdf != crypto.kdfparams.name() {
            return Err(format("its kdf is not that of its kdfparams"));
        }
        let length = |_| format("its iv or its ciphertext is of another length");
        let iv: [u8; 16] = crypto.cipherparams.iv.0[..].try_into().map_err(length)?;
        let sealed: [u8; 32] = crypto.ciphertext.0[..].try_into().map_err(length)?;
        let derived = crypto.kdfparams.derive(password)?;
        if mac(&derived, &sealed)[..] != crypto.mac.0[..] {
            return Err(KeystoreError::Password);
        }
        let mut secret = Zeroizing::new(sealed);
        apply_cipher(&derived, &iv, &mut secret);
        let key = PrivateKey::from_bytes(&secret)?;
        match self.address {
            Some(named) if named != key.address() => Err(KeystoreError::Address {
                named,
                found: key.address(),
            }),
            _ => Ok(key),
        }
    }
}

pub(super) fn encrypt(
    key: &PrivateKey,
    password: &str,
    cost: KdfCost,
) -> Result<String, KeystoreError> {
    let (salt, iv, id) = (random::<32>()?, random::<16>()?, random::<16>()?);
    let (n, r, p) = cost.scrypt();
    let derived = kdf::scrypt(password, &salt, (n, r, p))?;
    let mut sealed = key.to_secret_bytes();
    apply_cipher(&derived, &iv, &mut sealed);
    let text = json!({
        // geth lists only files that name their wallet.
        "address": hex::encode(key.address()),
        "crypto": {
            "cipher": CIPHER,
            "cipherparams": { "iv": hex::encode(iv) },
            "ciphertext": hex::encode(*sealed),
            "kdf": "scrypt",
            "kdfparams": { "dklen": 32, "n": n, "p": p, "r": r, "salt": hex::encode(salt) },
            "mac": hex::encode(mac(&derived, &sealed)),
        },
        "id": uuid_v4(id),
        "version": VERSION,
    });
    Ok(text.to_string())
}

fn apply_cipher(derived: &DerivedKey, iv: &[u8; 16], data: &mut [u8; 32]) {
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&derived[..16]);
    Ctr128BE::<Aes128>::new((&*key).into(), iv.into()).apply_keystream(data);
}

fn mac(derived: &DerivedKey, sealed: &[u8; 32]) -> [u8; 32] {
    let mut input = Zeroizing::new([0; 48]);
    input[..16].copy_from_slice(&derived[16..]);
    input[16..].copy_from_slice(sealed);
    keccak256(&input[..]).0
}

fn random<const N: usize>() -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| PrivateKeyError::Randomness)?;
    Ok(bytes)
}

/// RFC 9562 §5.4.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let part = |range| &digits[range];
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}
