//! Transfers: ids, state, progress, numbered events, and the registry that the engine and
//! every protocol share.

use std::fmt;
use std::str::FromStr;

/// Id of one transfer, chosen at random by whoever begins it; 32 lower-case hexadecimal
/// digits. It survives a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId([u8; 16]);

impl TransferId {
    /// From 16 (random) bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::identity::write_hex(&self.0, f)
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferId({self})")
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a transfer id is 32 lower-case hexadecimal digits")]
pub struct ParseTransferIdError;

impl FromStr for TransferId {
    type Err = ParseTransferIdError;

    fn from_str(text: &str) -> Result<Self, ParseTransferIdError> {
        let valid = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(value) if valid => Ok(Self(value.to_be_bytes())),
            _ => Err(ParseTransferIdError),
        }
    }
}
