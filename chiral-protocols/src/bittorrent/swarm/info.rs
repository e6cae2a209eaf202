//! [`TorrentInfo`]: what the wire needs to know of a torrent.

use bip_bencode::{BDecodeOpt, BRefAccess, BencodeRef};
use bytes::Bytes;
use chiral_core::StoredContent;
use sha1::{Digest, Sha1};

use super::BitTorrentError;
use crate::bittorrent::extension::MAX_METADATA;
use crate::bittorrent::wire::Geometry;

/// Deepest nesting of an info dictionary: files, each with a path.
const MAX_DEPTH: usize = 10;

/// Bytes of a piece of the torrents that are made here: those of a chunk.
const PIECE_LEN: u64 = chiral_core::CHUNK_SIZE;

/// Most files of a torrent.
const MAX_FILES: usize = 65_536;

/// A torrent's info dictionary, as far as the wire needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentInfo {
    /// SHA-1 of the dictionary.
    pub info_hash: [u8; 20],
    /// The dictionary.
    pub metadata: Bytes,
    /// How it is cut.
    pub geometry: Geometry,
    /// It is private (BEP 27).
    pub private: bool,
    /// SHA-1 of each piece, 20 bytes each.
    pieces: Bytes,
}

impl TorrentInfo {
    /// Reads an info dictionary (BEP 3).
    ///
    /// # Errors
    /// [`BitTorrentError::Info`].
    pub fn parse(metadata: Bytes) -> Result<Self, BitTorrentError> {
        read(&metadata)
            .map(|(geometry, private, pieces)| Self {
                info_hash: Sha1::digest(&metadata).into(),
                metadata: metadata.clone(),
                geometry,
                private,
                pieces,
            })
            .ok_or(BitTorrentError::Info)
    }

    /// Reads a .torrent file's info dictionary.
    ///
    /// # Errors
    /// [`BitTorrentError::Info`].
    pub fn of_torrent_file(bytes: &[u8]) -> Result<Self, BitTorrentError> {
        let info = || {
            let options = BDecodeOpt::new(MAX_DEPTH + 2, false, true);
            let root = BencodeRef::decode(bytes, options).ok()?;
            let info = root.dict()?.lookup(b"info")?;
            Some(Bytes::copy_from_slice(info.buffer()))
        };
        Self::parse(info().ok_or(BitTorrentError::Info)?)
    }

    /// Makes the torrent of stored content: one file in pieces that are its chunks. Reads and
    /// hashes all of it.
    ///
    /// # Errors
    /// Those of the store; [`BitTorrentError::Info`] for content that no torrent can hold.
    pub async fn of_content(
        content: &dyn StoredContent,
        name: &str,
    ) -> Result<Result<Self, BitTorrentError>, chiral_core::StoreError> {
        let size = content.header().size;
        if size.div_ceil(PIECE_LEN) * 20 + 1024 > u64::from(MAX_METADATA) {
            return Ok(Err(BitTorrentError::Info));
        }
        let mut pieces = Vec::with_capacity(size.div_ceil(PIECE_LEN) as usize * 20);
        let mut at = 0;
        while at < size {
            let end = size.min(at + PIECE_LEN);
            let bytes = content.read(chiral_core::ByteRange::new(at, end)).await?;
            let hash = tokio::task::spawn_blocking(move || <[u8; 20]>::from(Sha1::digest(&bytes)));
            let Ok(hash) = hash.await else {
                return Ok(Err(BitTorrentError::Info));
            };
            pieces.extend(hash);
            at = end;
        }
        let mut info = format!(
            "d6:lengthi{size}e4:name{}:{name}12:piece lengthi{PIECE_LEN}e6:pieces{}:",
            name.len(),
            pieces.len()
        )
        .into_bytes();
        info.extend(pieces);
        info.push(b'e');
        Ok(Self::parse(info.into()))
    }

    /// SHA-1 of a piece, if the torrent has it.
    pub fn piece_hash(&self, piece: u32) -> Option<[u8; 20]> {
        let from = piece as usize * 20;
        self.pieces.get(from..from + 20)?.try_into().ok()
    }

    /// A .torrent file without trackers.
    pub fn to_torrent_file(&self) -> Vec<u8> {
        [b"d4:info", &self.metadata[..], b"e"].concat()
    }
}

fn read(metadata: &Bytes) -> Option<(Geometry, bool, Bytes)> {
    if metadata.len() > MAX_METADATA as usize {
        return None;
    }
    let options = BDecodeOpt::new(MAX_DEPTH, false, true);
    let root = BencodeRef::decode(metadata, options).ok()?;
    let info = root.dict()?;
    let positive = |value: i64| u64::try_from(value).ok();
    let length = match info.lookup(b"length") {
        Some(length) => positive(length.int()?)?,
        None => {
            let files = info.lookup(b"files")?.list()?;
            if files.len() > MAX_FILES {
                return None;
            }
            let mut sum = 0u64;
            for at in 0..files.len() {
                let length = files.get(at)?.dict()?.lookup(b"length")?.int()?;
                sum = sum.checked_add(positive(length)?)?;
            }
            sum
        }
    };
    let piece_len = u32::try_from(info.lookup(b"piece length")?.int()?).ok()?;
    let geometry = Geometry::new(piece_len, length).ok()?;
    let pieces = info.lookup(b"pieces")?.bytes()?;
    if pieces.len() as u64 != u64::from(geometry.pieces()) * 20 {
        return None;
    }
    let private = info.lookup(b"private").and_then(BRefAccess::int) == Some(1);
    Some((geometry, private, metadata.slice_ref(pieces)))
}
