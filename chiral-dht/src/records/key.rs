//! Keys of records: `/chiral/<cid>`, and `/chiral/<kind>:<hex>` for the file's other names.
//!
//! The form with a namespace and a rest is what validators of other libp2p implementations
//! ask for. The position in the DHT is SHA-256 of these bytes.

use std::fmt;

use chiral_core::{Alias, Cid, FileIdentification, ManifestHeader, MerkleRoot};
use libp2p::kad;

use super::RecordError;

/// What all keys begin with.
pub const NAMESPACE: &str = "/chiral/";

/// Length in bytes of the longest key: a root or a BitTorrent v2 info-hash.
pub const MAX_KEY_LEN: usize = NAMESPACE.len() + 5 + 64;

/// Multihash code and length of a SHA-256 digest.
const SHA_256: [u8; 2] = [0x12, 0x20];

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKey {
    /// The seeders of a file.
    Cid(Cid),
    /// Pointers from a root to the cid.
    Root(MerkleRoot),
    /// Pointers from a name in another network to the cid.
    Alias(Alias),
}

impl RecordKey {
    /// Reads a key. Every accepted byte string is what [`RecordKey::to_bytes`] writes.
    ///
    /// # Errors
    /// [`RecordError::Key`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_KEY_LEN {
            return Err(RecordError::Key);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Key)?;
        let name = text.strip_prefix(NAMESPACE).ok_or(RecordError::Key)?;
        let key = match name.split_once(':') {
            None => name.parse().ok().map(Self::Cid),
            Some(("root", hex)) => hex.parse().ok().map(Self::Root),
            Some(_) => name.parse().ok().map(Self::Alias),
        };
        key.ok_or(RecordError::Key)
    }

    /// The key of what a file is asked for by; `None` for a kind of name without records.
    pub fn of(target: &FileIdentification) -> Option<Self> {
        match target {
            FileIdentification::Content { cid, .. } => Some(Self::Cid(*cid)),
            FileIdentification::Root(root) => Some(Self::Root(*root)),
            FileIdentification::Alias(alias) => Some(Self::Alias(*alias)),
            _ => None,
        }
    }

    /// All keys under which a file is announced, its cid first.
    pub fn all(header: &ManifestHeader) -> impl Iterator<Item = Self> {
        let aliases = header.aliases.iter().copied().map(Self::Alias);
        [Self::Cid(header.cid), Self::Root(header.root)]
            .into_iter()
            .chain(aliases)
    }

    /// The key's bytes: ASCII.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// The key as Kademlia takes it.
    pub fn to_kad(&self) -> kad::RecordKey {
        kad::RecordKey::from(self.to_bytes())
    }

    /// What a pointer is signed for: the key without its namespace; empty for a cid.
    pub(super) fn pointer_name(&self) -> String {
        match self {
            Self::Cid(_) => String::new(),
            other => other.to_string().split_off(NAMESPACE.len()),
        }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMESPACE)?;
        match self {
            Self::Cid(cid) => cid.fmt(f),
            Self::Root(root) => write!(f, "root:{root}"),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// The key of a file's provider records: the multihash of the cid, as IPFS has it for the
/// CID of a raw block.
pub fn provider_key(cid: Cid) -> kad::RecordKey {
    kad::RecordKey::from([&SHA_256[..], cid.as_bytes()].concat())
}

/// The cid of a key that [`provider_key`] made.
///
/// # Errors
/// [`RecordError::Key`].
pub fn parse_provider_key(bytes: &[u8]) -> Result<Cid, RecordError> {
    let digest = bytes.strip_prefix(&SHA_256).ok_or(RecordError::Key)?;
    let digest = digest.try_into().map_err(|_| RecordError::Key)?;
    Ok(Cid::from_bytes(digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn every_kind_of_key_comes_back() {
        for name in [
            HEX.to_owned(),
            format!("root:{HEX}"),
            format!("btmh:{HEX}"),
            format!("btih:{}", &HEX[..40]),
            format!("ed2k:{}", &HEX[..32]),
        ] {
            let text = format!("{NAMESPACE}{name}");
            let key = RecordKey::parse(text.as_bytes()).unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(key.to_bytes(), text.as_bytes());
            assert!(text.len() <= MAX_KEY_LEN);
            let target: FileIdentification = name.parse().unwrap();
            assert_eq!(RecordKey::of(&target), Some(key));
        }
    }

    #[test]
    fn what_is_spelt_otherwise_is_refused() {
        for text in [
            "",
            "/chiral/",
            HEX,
            &format!("/chiral/{}", HEX.to_uppercase()),
            &format!("/chiral/0x{HEX}"),
            &format!("/chiral/{HEX}/"),
            &format!("/chiral//{HEX}"),
            &format!("/pk/{HEX}"),
            &format!("/chiral/sha256:{HEX}"),
            &format!("/chiral/root:{}", &HEX[2..]),
            &format!("/chiral/btih:{HEX}"),
            &format!("/chiral/root:{HEX}00"),
        ] {
            let result = RecordKey::parse(text.as_bytes());
            assert_eq!(result, Err(RecordError::Key), "{text}");
        }
    }

    #[test]
    fn a_provider_key_is_the_multihash_of_the_cid() {
        let cid: Cid = HEX.parse().unwrap();
        let key = provider_key(cid);
        assert_eq!(key.to_vec()[..4], [0x12, 0x20, 0xba, 0x78]);
        assert_eq!(parse_provider_key(key.as_ref()), Ok(cid));
        for bad in [&key.to_vec()[..33], &[0x12; 34], b"", HEX.as_bytes()] {
            assert_eq!(parse_provider_key(bad), Err(RecordError::Key));
        }
    }

    proptest! {
        #[test]
        fn accepted_bytes_are_the_keys_own(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for bytes in [bytes.clone(), [NAMESPACE.as_bytes(), &bytes].concat()] {
                if let Ok(key) = RecordKey::parse(&bytes) {
                    prop_assert_eq!(key.to_bytes(), bytes);
                }
            }
        }
    }
}
