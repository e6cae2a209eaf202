//! Bencode (BEP 3), strictly: a thin layer over `bip_bencode`.
//!
//! What that crate lets pass is refused here, before anything is built: `i+5e`, keys out of
//! order, more values than a limit. What it recurses into is bounded first. A decoded value
//! knows the bytes that it came from, so that the hash of an `info` dictionary is that of the
//! bytes as they came.
//!
//! ```
//! use chiral_protocols::bittorrent::bencode::{Decoded, Item, Limits};
//!
//! let message = Item::dict([("n", Item::Int(7)), ("s", Item::from("seven"))]).encode();
//! assert_eq!(message, b"d1:ni7e1:s5:sevene");
//! let decoded = Decoded::parse(&message, Limits::MESSAGE).unwrap();
//! assert_eq!(decoded.root().get("n").and_then(|value| value.int()), Some(7));
//! ```

use bip_bencode::ext::BRefAccessExt;
use bip_bencode::{BDecodeOpt, BRefAccess, BencodeParseErrorKind, BencodeRef};

mod scan;
mod write;

pub use write::{DictWriter, Item};

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all.
    pub max_len: usize,
    /// Lists and dictionaries inside each other.
    pub max_depth: usize,
    /// Values and keys; each costs about 60 bytes of memory.
    pub max_tokens: usize,
    /// Whether keys may come in any order, as some trackers and DHT nodes send them. The same
    /// key twice is never allowed.
    pub unsorted_keys: bool,
}

impl Limits {
    /// For a `.torrent` file or an `info` dictionary: 64 MiB, a million values, keys in order.
    pub const METAINFO: Self = Self {
        max_len: 64 << 20,
        max_depth: 48,
        max_tokens: 1_000_000,
        unsorted_keys: false,
    };

    /// For a message of a peer, a tracker or a DHT node: 1 MiB, 20,000 values, keys in order.
    pub const MESSAGE: Self = Self {
        max_len: 1 << 20,
        max_depth: 16,
        max_tokens: 20_000,
        unsorted_keys: false,
    };

    /// The same, with keys in any order.
    pub const fn unsorted(self) -> Self {
        Self {
            unsorted_keys: true,
            ..self
        }
    }
}

/// Why bytes are not bencode, or too much of it. Offsets count from the first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BencodeError {
    /// More bytes than may be.
    #[error("{len} bytes of bencode, over the limit of {limit}")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Lists or dictionaries too deep inside each other.
    #[error("nested deeper than {limit} at byte {offset}")]
    TooDeep {
        /// Where.
        offset: usize,
        /// Depth allowed.
        limit: usize,
    },
    /// More values than may be.
    #[error("more than {limit} values")]
    TooMany {
        /// Values allowed.
        limit: usize,
    },
    /// The bytes end within a value.
    #[error("ends within a value")]
    Ended,
    /// A byte that begins no value.
    #[error("no value begins at byte {offset}")]
    Unexpected {
        /// Where.
        offset: usize,
    },
    /// An integer that is empty, has a leading zero or plus, is minus zero, or does not fit 64
    /// bits.
    #[error("not an integer at byte {offset}")]
    Integer {
        /// Where.
        offset: usize,
    },
    /// A length that is not canonical, or reaches past the end.
    #[error("not the length of a string at byte {offset}")]
    Length {
        /// Where.
        offset: usize,
    },
    /// A key that should have come before another.
    #[error("keys out of order at byte {offset}")]
    KeyOrder {
        /// Where.
        offset: usize,
    },
    /// A key that was there before.
    #[error("a key twice at byte {offset}")]
    DuplicateKey {
        /// Where.
        offset: usize,
    },
    /// Something follows the value.
    #[error("bytes after the end, at byte {offset}")]
    Trailing {
        /// Where.
        offset: usize,
    },
}

impl BencodeError {
    /// The same bytes are as wrong the next time.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Decoded bencode, borrowing from its bytes.
#[derive(Debug, Clone)]
pub struct Decoded<'a>(BencodeRef<'a>);

impl<'a> Decoded<'a> {
    /// Decodes all of the bytes.
    ///
    /// # Errors
    /// [`BencodeError`], by case.
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, BencodeError> {
        let (decoded, rest) = Self::parse_prefix(bytes, limits)?;
        if rest.is_empty() {
            return Ok(decoded);
        }
        let offset = bytes.len() - rest.len();
        Err(BencodeError::Trailing { offset })
    }

    /// Decodes the value that the bytes begin with, and answers what follows it: a message
    /// of `ut_metadata` (BEP 9) has its data there. The limit on the length is that of the
    /// value.
    ///
    /// # Errors
    /// [`BencodeError`], by case; never [`BencodeError::Trailing`].
    pub fn parse_prefix(bytes: &'a [u8], limits: Limits) -> Result<(Self, &'a [u8]), BencodeError> {
        let end = scan::scan(bytes, limits)?;
        let (value, rest) = bytes.split_at(end);
        // One more: it counts what is in the innermost list, too.
        let options = BDecodeOpt::new(limits.max_depth + 2, !limits.unsorted_keys, true);
        let decoded = BencodeRef::decode(value, options).map_err(|error| match *error.kind() {
            BencodeParseErrorKind::InvalidKeyDuplicates { pos, .. } => {
                BencodeError::DuplicateKey { offset: pos }
            }
            BencodeParseErrorKind::InvalidKeyOrdering { pos, .. } => {
                BencodeError::KeyOrder { offset: pos }
            }
            // The scan has been through all others.
            _ => BencodeError::Unexpected { offset: 0 },
        })?;
        Ok((Self(decoded), rest))
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_, 'a> {
        Value(&self.0)
    }
}

/// A value within [`Decoded`] bencode.
#[derive(Debug, Clone, Copy)]
pub struct Value<'v, 'a>(&'v BencodeRef<'a>);

impl<'v, 'a> Value<'v, 'a> {
    /// The bytes that it was decoded from, all of them.
    pub fn raw(&self) -> &'a [u8] {
        self.0.buffer()
    }

    /// The integer, if it is one.
    pub fn int(&self) -> Option<i64> {
        self.0.int()
    }

    /// The integer, if it is one and not negative.
    pub fn unsigned(&self) -> Option<u64> {
        self.int().and_then(|value| u64::try_from(value).ok())
    }

    /// The bytes of the string, if it is one.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        self.0.bytes_ext()
    }

    /// The bytes of the string, if it is one of exactly this length.
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes()?.try_into().ok()
    }

    /// The string, if it is one and UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        self.0.str_ext()
    }

    /// The values of the list, if it is one.
    pub fn list(&self) -> Option<impl ExactSizeIterator<Item = Value<'v, 'a>> + use<'v, 'a>> {
        let list = self.0.list()?;
        let items: Vec<_> = (0..list.len())
            .filter_map(|index| list.get(index).map(Value))
            .collect();
        Some(items.into_iter())
    }

    /// The keys and values of the dictionary, if it is one, sorted by key.
    pub fn dict(
        &self,
    ) -> Option<impl ExactSizeIterator<Item = (&'a [u8], Value<'v, 'a>)> + use<'v, 'a>> {
        let pairs = self.0.dict()?.to_list().into_iter();
        Some(pairs.map(|(key, value)| (*key, Value(value))))
    }

    /// The values of the list; nothing if it is none.
    pub fn items(&self) -> impl Iterator<Item = Value<'v, 'a>> + use<'v, 'a> {
        self.list().into_iter().flatten()
    }

    /// The integer under a key, if this is a dictionary that has one there.
    pub fn int_of(&self, key: &str) -> Option<i64> {
        self.get(key)?.int()
    }

    /// The bytes of the string under a key, if this is a dictionary that has one there.
    pub fn bytes_of(&self, key: &str) -> Option<&'a [u8]> {
        self.get(key)?.bytes()
    }

    /// Whether it is a dictionary.
    pub fn is_dict(&self) -> bool {
        self.0.dict().is_some()
    }

    /// The value of a key, if this is a dictionary that has it.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Value<'v, 'a>> {
        self.0.dict()?.lookup(key.as_ref()).map(Value)
    }
}

#[cfg(test)]
mod tests;
