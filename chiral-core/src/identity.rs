//! The identifiers of content: [`Cid`], [`MerkleRoot`], [`ChunkHash`].
//!
//! All are 32 bytes, shown as 64 lower-case hexadecimal digits without `0x`. Parsing is
//! strict: a prefix, another length, an upper-case or a non-hexadecimal digit is an error,
//! so that one identity has exactly one spelling.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a 32-byte identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHashError {
    /// Not 64 characters.
    #[error("expected 64 hexadecimal digits, found {found} characters")]
    Length {
        /// Number of bytes in the text.
        found: usize,
    },
    /// A character outside `0-9a-f`.
    #[error("character {position} is not one of 0-9a-f (identifiers are lower-case)")]
    Digit {
        /// Index of the first offending byte.
        position: usize,
    },
    /// The text begins with `0x`, which is for things of the blockchain.
    #[error("content identifiers carry no 0x prefix")]
    Prefix,
}

/// Decodes exactly 64 lower-case hexadecimal digits.
pub(crate) fn parse_hex32(text: &str) -> Result<[u8; 32], ParseHashError> {
    let bytes = text.as_bytes();
    if bytes.starts_with(b"0x") || bytes.starts_with(b"0X") {
        return Err(ParseHashError::Prefix);
    }
    if bytes.len() != 64 {
        return Err(ParseHashError::Length { found: bytes.len() });
    }
    let mut out = [0u8; 32];
    for (index, pair) in bytes.chunks_exact(2).enumerate() {
        let high = digit(pair[0]).ok_or(ParseHashError::Digit {
            position: index * 2,
        })?;
        let low = digit(pair[1]).ok_or(ParseHashError::Digit {
            position: index * 2 + 1,
        })?;
        out[index] = high << 4 | low;
    }
    Ok(out)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

macro_rules! hash32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, ParseHashError> {
                parse_hex32(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash32! {
    /// Content id: SHA-256 of the whole file as it travels (of the ciphertext, if encrypted).
    ///
    /// Any SHA-256 checksum published anywhere is one.
    Cid
}

hash32! {
    /// Sealed Merkle root over the chunk hashes; commits to the file's size, to the number of
    /// chunks and, through the last leaf, to the [`Cid`]. See [`crate::merkle`].
    MerkleRoot
}

hash32! {
    /// SHA-256's chaining value after a chunk; for the last chunk of a file, its [`Cid`].
    /// See [`crate::chain`].
    ChunkHash
}

hash32! {
    /// A node of the Merkle tree: RFC 9162's Merkle Tree Hash of the leaves below it.
    /// See [`crate::merkle`].
    TreeHash
}

impl From<Cid> for ChunkHash {
    /// The hash of the last chunk is the cid.
    fn from(cid: Cid) -> Self {
        Self(cid.0)
    }
}

impl ChunkHash {
    /// This hash taken as the identity of a whole file: right for a last chunk only.
    pub const fn into_cid(self) -> Cid {
        Cid(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn one_spelling_only() {
        let cid: Cid = EMPTY.parse().unwrap();
        assert_eq!(cid.to_string(), EMPTY);
        assert_eq!(
            format!("0x{EMPTY}").parse::<Cid>(),
            Err(ParseHashError::Prefix)
        );
        assert_eq!(
            format!("sha256_{EMPTY}").parse::<Cid>(),
            Err(ParseHashError::Length { found: 71 })
        );
        assert_eq!(
            EMPTY.to_uppercase().parse::<Cid>(),
            Err(ParseHashError::Digit { position: 0 })
        );
        assert_eq!(
            EMPTY[1..].parse::<Cid>(),
            Err(ParseHashError::Length { found: 63 })
        );
        assert_eq!(
            EMPTY.replace("b855", "b85g").parse::<Cid>(),
            Err(ParseHashError::Digit { position: 63 })
        );
        // 64 bytes, but not 64 digits.
        assert!("é".repeat(32).parse::<Cid>().is_err());
    }

    #[test]
    fn json_is_the_hex_text() {
        let cid: Cid = EMPTY.parse().unwrap();
        let json = serde_json::to_string(&cid).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Cid>(&json).unwrap(), cid);
        assert!(serde_json::from_str::<Cid>("\"00\"").is_err());
    }
}
