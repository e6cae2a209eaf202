//! What a user may name a file by: [`FileIdentification`] and the aliases of other networks.
//!
//! An alias leads to a cid by a hint that the download itself verifies; it never replaces
//! the cid.

use std::fmt;
use std::str::FromStr;

use crate::identity::write_hex;
use crate::link::{Link, ParseLinkError};
use crate::{Cid, MerkleRoot};

/// A file's name in another network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Alias {
    /// SHA-1 of a torrent's info dictionary (BEP 3).
    InfoHashV1([u8; 20]),
    /// SHA-256 of a torrent's info dictionary (BEP 52).
    InfoHashV2([u8; 32]),
    /// MD4-based hash of an ed2k file.
    Ed2k([u8; 16]),
}

impl Alias {
    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InfoHashV1(bytes) => bytes,
            Self::InfoHashV2(bytes) => bytes,
            Self::Ed2k(bytes) => bytes,
        }
    }

    /// The word for the kind: `btih`, `btmh` or `ed2k`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::InfoHashV1(_) => "btih",
            Self::InfoHashV2(_) => "btmh",
            Self::Ed2k(_) => "ed2k",
        }
    }
}

impl fmt::Display for Alias {
    /// `kind:hex`, lower-case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        write_hex(self.as_bytes(), f)
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alias({self})")
    }
}

/// Why a text is no alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an alias: expected btih:, btmh: or ed2k: and 40, 64 or 32 lower-case hexadecimal digits"
)]
pub struct ParseAliasError;

impl FromStr for Alias {
    type Err = ParseAliasError;

    fn from_str(text: &str) -> Result<Self, ParseAliasError> {
        let (kind, hex) = text.split_once(':').ok_or(ParseAliasError)?;
        match kind {
            "btih" => decode(hex).map(Self::InfoHashV1),
            "btmh" => decode(hex).map(Self::InfoHashV2),
            "ed2k" => decode(hex).map(Self::Ed2k),
            _ => Err(ParseAliasError),
        }
    }
}

fn decode<const N: usize>(hex: &str) -> Result<[u8; N], ParseAliasError> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return Err(ParseAliasError);
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or(ParseAliasError)?;
        let low = char::from(pair[1]).to_digit(16).ok_or(ParseAliasError)?;
        *byte = (high << 4 | low) as u8;
    }
    Ok(out)
}

/// What a download is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileIdentification {
    /// The cid, with what else is known.
    Content {
        /// SHA-256 of the file.
        cid: Cid,
        /// Sealed root, if pinned by the link.
        root: Option<MerkleRoot>,
        /// Size in bytes, if known.
        size: Option<u64>,
    },
    /// The sealed root alone: cid and size are learnt from the tree.
    Root(MerkleRoot),
    /// A name in another network, to be resolved to a cid.
    Alias(Alias),
}

impl FileIdentification {
    /// The cid, if it is known.
    pub const fn cid(&self) -> Option<Cid> {
        match self {
            Self::Content { cid, .. } => Some(*cid),
            _ => None,
        }
    }

    /// The pinned root, if there is one.
    pub const fn root(&self) -> Option<MerkleRoot> {
        match self {
            Self::Content { root, .. } => *root,
            Self::Root(root) => Some(*root),
            Self::Alias(_) => None,
        }
    }

    /// The size in bytes, if it is known.
    pub const fn size(&self) -> Option<u64> {
        match self {
            Self::Content { size, .. } => *size,
            _ => None,
        }
    }
}

impl From<Cid> for FileIdentification {
    fn from(cid: Cid) -> Self {
        Self::Content {
            cid,
            root: None,
            size: None,
        }
    }
}

impl From<&Link> for FileIdentification {
    fn from(link: &Link) -> Self {
        Self::Content {
            cid: link.cid,
            root: link.root,
            size: link.size,
        }
    }
}

impl From<Alias> for FileIdentification {
    fn from(alias: Alias) -> Self {
        Self::Alias(alias)
    }
}

impl fmt::Display for FileIdentification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content { cid, root, size } => Link {
                cid: *cid,
                root: *root,
                size: *size,
                name: None,
            }
            .fmt(f),
            Self::Root(root) => write!(f, "root:{root}"),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// Why a text identifies no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdentificationError {
    /// Neither a link nor a cid.
    #[error(transparent)]
    Link(#[from] ParseLinkError),
    /// Begins like an alias and is none.
    #[error(transparent)]
    Alias(#[from] ParseAliasError),
    /// `root:` and then no root.
    #[error("not a merkle root")]
    Root(#[source] crate::ParseHashError),
}

impl FromStr for FileIdentification {
    type Err = ParseIdentificationError;

    /// Takes a link, a bare cid, `root:<hex>`, `btih:<hex>`, `btmh:<hex>` or `ed2k:<hex>`.
    fn from_str(text: &str) -> Result<Self, ParseIdentificationError> {
        match text.split_once(':') {
            Some(("root", hex)) => hex
                .parse()
                .map(Self::Root)
                .map_err(ParseIdentificationError::Root),
            Some(("btih" | "btmh" | "ed2k", _)) => Ok(Self::Alias(text.parse()?)),
            _ => Ok(Self::from(&text.parse::<Link>()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_prints_and_parses() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for text in [
            format!("chiral:{hex}"),
            format!("chiral:{hex}?root={hex}&size=3"),
            format!("root:{hex}"),
            format!("btmh:{hex}"),
            format!("btih:{}", &hex[..40]),
            format!("ed2k:{}", &hex[..32]),
        ] {
            let id: FileIdentification = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        assert_eq!(
            hex.parse::<FileIdentification>().unwrap().cid(),
            hex.parse().ok()
        );
        for text in [
            "",
            "btih:00",
            "root:zz",
            "ed2k:+1000000000000000000000000000000",
            "x:y",
        ] {
            assert!(text.parse::<FileIdentification>().is_err(), "{text}");
        }
    }
}
