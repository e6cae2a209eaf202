//! Private keys in files under a password: Web3 Secret Storage, version 3, as geth, MetaMask
//! and `cast wallet` know it.
//!
//! On the cipher and key derivation crates themselves and not on `eth-keystore`, which panics
//! on files with short fields, replaces what is there, leaves files readable by everybody and
//! without the address by which geth finds them, and wipes nothing.
//!
//! Everything here blocks, for a second or so where a key is derived: call it from
//! `spawn_blocking`.

mod file;
mod format;
mod kdf;

use std::io;
use std::path::{Path, PathBuf};

use alloy_primitives::Address;

use crate::{PrivateKey, PrivateKeyError};

pub use kdf::KdfCost;

/// Why a key was not kept or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// Nothing is there.
    #[error("there is no keystore at {}: create or import one first", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file is there; it is never replaced.
    #[error(
        "{} is there already and is not replaced: choose another name, or move it away",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the keystore {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the keystore {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The password is another one, or the file is damaged: the two cannot be told apart.
    #[error("wrong password, or a damaged keystore")]
    Password,
    /// Not a keystore of version 3 as is understood here.
    #[error("not a keystore (Web3 Secret Storage 3): {reason}")]
    Format {
        /// What is wrong.
        reason: &'static str,
    },
    /// Its key derivation asks for far more memory or time than any honest one.
    #[error("the keystore asks for too much memory or time, which is no mistake of yours")]
    Cost,
    /// The address that it names is not that of its key.
    #[error("the keystore names the wallet {named}, but its key is that of {found}")]
    Address {
        /// In plain text in the file.
        named: Address,
        /// Of the key inside.
        found: Address,
    },
    /// The key inside is none, or the system has no randomness for a new one.
    #[error(transparent)]
    Key(#[from] PrivateKeyError),
}

impl KeystoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Write { .. } => true,
            Self::Key(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Makes a new key and keeps it at `path`, where nothing must be. See [`store`].
///
/// # Errors
/// Those of [`store`]; [`KeystoreError::Key`] without randomness.
pub fn create(path: &Path, password: &str, cost: KdfCost) -> Result<PrivateKey, KeystoreError> {
    let key = PrivateKey::random()?;
    store(path, &key, password, cost)?;
    Ok(key)
}

/// Keeps a key that is written as 64 hex digits, with or without `0x`. See [`store`].
///
/// # Errors
/// Those of [`store`]; [`KeystoreError::Key`] if it is no key.
pub fn import_hex(
    path: &Path,
    hex: &str,
    password: &str,
    cost: KdfCost,
) -> Result<PrivateKey, KeystoreError> {
    let key = PrivateKey::from_hex(hex)?;
    store(path, &key, password, cost)?;
    Ok(key)
}

/// Keeps a key at `path`, where nothing must be: whole and durable, or not at all. The file
/// can be read by its owner only (mode 0600); folders that are missing are made (0700).
///
/// # Errors
/// [`KeystoreError::Exists`], [`KeystoreError::Write`].
pub fn store(
    path: &Path,
    key: &PrivateKey,
    password: &str,
    cost: KdfCost,
) -> Result<(), KeystoreError> {
    // Before the second that deriving takes; decided by the file system in the end.
    if path.symlink_metadata().is_ok() {
        return Err(KeystoreError::Exists { path: path.into() });
    }
    file::write_new(path, encrypt(key, password, cost)?.as_bytes())
}

/// Reads the key at `path`.
///
/// # Errors
/// [`KeystoreError::Missing`], [`KeystoreError::Read`], and those of [`decrypt`].
pub fn read(path: &Path, password: &str) -> Result<PrivateKey, KeystoreError> {
    decrypt(&file::read(path)?, password)
}

/// The wallet that the file at `path` names, without a password. Nothing proves that the key
/// inside is its; [`read`] does.
///
/// # Errors
/// [`KeystoreError::Missing`], [`KeystoreError::Read`]; [`KeystoreError::Format`], also where
/// the file leaves the address away.
pub fn address(path: &Path) -> Result<Address, KeystoreError> {
    let no_address = KeystoreError::Format {
        reason: "it does not name its address",
    };
    format::parse(&file::read(path)?)?.address.ok_or(no_address)
}

/// The text of a keystore file for a key, with scrypt.
///
/// # Errors
/// [`KeystoreError::Key`] without randomness.
pub fn encrypt(key: &PrivateKey, password: &str, cost: KdfCost) -> Result<String, KeystoreError> {
    format::encrypt(key, password, cost)
}

/// The key in the text of a keystore file, with scrypt or PBKDF2.
///
/// # Errors
/// [`KeystoreError::Password`], [`KeystoreError::Format`], [`KeystoreError::Cost`],
/// [`KeystoreError::Address`], [`KeystoreError::Key`].
pub fn decrypt(text: &[u8], password: &str) -> Result<PrivateKey, KeystoreError> {
    format::parse(text)?.decrypt(password)
}
