//! What a torrent is called by.

use chiral_core::Alias;
use sha1::Digest as _;

/// The hashes of an `info` dictionary: of a hybrid torrent both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct InfoHashes {
    /// SHA-1 (version 1).
    pub v1: Option<[u8; 20]>,
    /// SHA-256 (version 2).
    pub v2: Option<[u8; 32]>,
}

impl InfoHashes {
    /// What peers, trackers and the DHT know the torrent by: of version 2, the first 20 bytes
    /// (BEP 52). A hybrid torrent has two swarms.
    pub fn wire(&self) -> impl Iterator<Item = [u8; 20]> {
        let v2 = self.v2.map(|hash| {
            let mut short = [0; 20];
            short.copy_from_slice(&hash[..20]);
            short
        });
        self.v1.into_iter().chain(v2)
    }

    /// The names of the torrent in Chiral's directory.
    pub fn aliases(&self) -> impl Iterator<Item = Alias> {
        let v1 = self.v1.map(Alias::InfoHashV1);
        v1.into_iter().chain(self.v2.map(Alias::InfoHashV2))
    }

    /// Whether these bytes have every hash that is known, of at least one.
    pub fn is_of(&self, info: &[u8]) -> bool {
        let v1 = self
            .v1
            .map(|hash| hash == <[u8; 20]>::from(sha1::Sha1::digest(info)));
        let v2 = self
            .v2
            .map(|hash| hash == <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(info)));
        (v1.is_some() || v2.is_some()) && v1 != Some(false) && v2 != Some(false)
    }

    /// Whether both may be of one torrent, and share a hash.
    pub fn matches(&self, other: &Self) -> bool {
        let v1 = self.v1.zip(other.v1).map(|(one, other)| one == other);
        let v2 = self.v2.zip(other.v2).map(|(one, other)| one == other);
        (v1.is_some() || v2.is_some()) && v1 != Some(false) && v2 != Some(false)
    }
}
