//! [`TorrentInfo`]: what the wire needs to know of a torrent.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{Alias, StoredContent};
use sha1::{Digest, Sha1};

use super::BitTorrentError;
use crate::bittorrent::create::{CreateError, TorrentHashes};
use crate::bittorrent::extension::MAX_METADATA;
use crate::bittorrent::metainfo::{InfoHashes, Metainfo, Outer, Version};
use crate::bittorrent::wire::Geometry;

/// A torrent's info dictionary, as far as the wire needs it.
#[derive(Debug, Clone)]
pub struct TorrentInfo {
    /// SHA-1 of the dictionary; of a torrent of version 2 alone, the first 20 bytes of its
    /// SHA-256.
    pub info_hash: [u8; 20],
    /// The dictionary.
    pub metadata: Bytes,
    /// How it is cut.
    pub geometry: Geometry,
    /// It is private (BEP 27).
    pub private: bool,
    meta: Arc<Metainfo>,
}

impl PartialEq for TorrentInfo {
    /// Whether it is the same dictionary.
    fn eq(&self, other: &Self) -> bool {
        self.metadata == other.metadata
    }
}

impl Eq for TorrentInfo {}

impl TorrentInfo {
    /// Reads an info dictionary (BEP 3, 52).
    ///
    /// # Errors
    /// [`BitTorrentError::Info`].
    pub fn parse(metadata: Bytes) -> Result<Self, BitTorrentError> {
        if metadata.len() > MAX_METADATA as usize {
            return Err(BitTorrentError::Info);
        }
        let itself = InfoHashes {
            v1: Some(Sha1::digest(&metadata).into()),
            v2: None,
        };
        let meta = Metainfo::from_info(&metadata, &itself).map_err(|_| BitTorrentError::Info)?;
        Self::of_metainfo(meta)
    }

    /// Reads a .torrent file: its info dictionary, and the hashes beside it (BEP 52).
    ///
    /// # Errors
    /// [`BitTorrentError::Info`].
    pub fn of_torrent_file(bytes: &[u8]) -> Result<Self, BitTorrentError> {
        let meta = Metainfo::parse(bytes).map_err(|_| BitTorrentError::Info)?;
        Self::of_metainfo(meta)
    }

    /// Of a torrent that was read or made.
    ///
    /// # Errors
    /// [`BitTorrentError::Info`] for one that is over the limits of the wire.
    pub fn of_metainfo(meta: Metainfo) -> Result<Self, BitTorrentError> {
        let layout = meta.layout();
        let geometry = Geometry::new(layout.piece_length(), layout.size());
        let geometry = geometry.map(|geometry| match meta.info().version() {
            Version::V2 => geometry.padded(),
            _ => geometry,
        });
        let metadata = meta.info_bytes().clone();
        let hash = meta.hashes().wire().next();
        let (Ok(geometry), Some(info_hash)) = (geometry, hash) else {
            return Err(BitTorrentError::Info);
        };
        if metadata.len() > MAX_METADATA as usize {
            return Err(BitTorrentError::Info);
        }
        Ok(Self {
            info_hash,
            metadata,
            geometry,
            private: meta.info().is_private(),
            meta: Arc::new(meta),
        })
    }

    /// Makes the torrent of stored content: one file in pieces that are its chunks, of this
    /// version. Reads and hashes all of it.
    ///
    /// # Errors
    /// Those of the store; [`BitTorrentError::Info`] for content that no torrent can hold, and
    /// for a name that none can have.
    pub async fn of_content(
        content: &dyn StoredContent,
        name: &str,
        version: Version,
    ) -> Result<Result<Self, BitTorrentError>, chiral_core::StoreError> {
        let hashes = match TorrentHashes::of_content(content, version).await {
            Ok(hashes) => hashes,
            Err(CreateError::Content(error)) => return Err(error),
            Err(_) => return Ok(Err(BitTorrentError::Info)),
        };
        let meta = hashes.metainfo(name, Outer::default());
        let meta = meta.map_err(|_| BitTorrentError::Info);
        Ok(meta.and_then(Self::of_metainfo))
    }

    /// All that is known of the torrent.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.meta
    }

    /// What it is called by.
    pub fn aliases(&self) -> impl Iterator<Item = Alias> {
        let hashes = self.meta.hashes();
        hashes.aliases().collect::<Vec<_>>().into_iter()
    }

    /// SHA-1 of a piece, if the torrent has it.
    pub fn piece_hash(&self, piece: u32) -> Option<[u8; 20]> {
        self.meta.info().piece_hash(piece)
    }

    /// A .torrent file without trackers.
    pub fn to_torrent_file(&self) -> Vec<u8> {
        let mut meta = Metainfo::clone(&self.meta);
        meta.outer = Outer::default();
        meta.encode()
    }
}
