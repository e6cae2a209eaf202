//! Torrents of one's own: [`TorrentHasher`] for a file, [`CollectionHasher`] for a directory.
//!
//! A Chiral share has pieces of 262,144 bytes, which are its chunks. Its `info` dictionary of
//! version 1 has `length`, `name`, `piece length` and `pieces` and nothing else, a hybrid one what
//! version 2 adds to that, so the same bytes under the same name have one info-hash on every node,
//! and the one that other makers of torrents give them at that piece length. [`TorrentHashes`] knows no name: it is kept
//! beside the content, and makes a torrent of any name.
//!
//! ```
//! use chiral_protocols::bittorrent::create::TorrentHasher;
//! use chiral_protocols::bittorrent::metainfo::Version;
//!
//! let mut hasher = TorrentHasher::new(Version::Hybrid);
//! hasher.update(b"abc");
//! let torrent = hasher.finish().metainfo("a.txt", Default::default())?;
//! println!("{}", torrent.magnet());
//! # assert_eq!(torrent.files().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use bytes::Bytes;
use chiral_core::chunk_store::MAX_READ;
use chiral_core::sidecar::{FileHasher, MAX_SIDECAR_LEN, SidecarHasher};
use chiral_core::{ByteRange, CHUNK_SIZE, StoreError, StoredContent};

use super::bencode::{Decoded, Item, Limits};
use super::layout::{MAX_PIECE_LENGTH, MAX_PIECES};
use super::magnet::Magnet;
use super::merkle::{BLOCK_LEN, FileTree, NodeHash, TreeShape};
use super::metainfo::{Metainfo, MetainfoError, Outer, Version};

mod collection;
mod streams;

pub use collection::CollectionHasher;

use streams::{PieceStream, TreeStream};

/// Bytes of a piece of a Chiral share: a chunk.
pub const PIECE_LENGTH: u32 = CHUNK_SIZE as u32;

/// Why no torrent can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Of nothing, there is no torrent.
    #[error("there is no torrent of nothing")]
    Empty,
    /// A piece length that is not a power of two from 16 KiB to 512 MiB.
    #[error("a piece length of {piece_length} bytes")]
    PieceLength {
        /// The length.
        piece_length: u32,
    },
    /// More pieces than a torrent may have.
    #[error("{pieces} pieces, over the limit of {MAX_PIECES}")]
    TooManyPieces {
        /// Pieces that there would be.
        pieces: u64,
    },
    /// A file did not have the length that it was announced with.
    #[error("bytes of files that are longer or shorter than they were said to be")]
    Length,
    /// What was made would be refused by those who read it.
    #[error("a torrent that nobody would read")]
    Refused(#[from] MetainfoError),
    /// The bytes could not be read.
    #[error("could not read the content")]
    Content(#[from] StoreError),
    /// What was kept is not what [`TorrentHashes::encode`] writes.
    #[error("hashes that were kept are damaged")]
    Damaged,
}

impl CreateError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Content(error) if error.is_retryable())
    }
}

/// Whether pieces may have this length.
fn check_piece_length(piece_length: u32) -> Result<(), CreateError> {
    let fits = (BLOCK_LEN..=MAX_PIECE_LENGTH).contains(&piece_length);
    match fits && piece_length.is_power_of_two() {
        true => Ok(()),
        false => Err(CreateError::PieceLength { piece_length }),
    }
}

/// Hashes a file for torrents, in one pass: SHA-1, and for version 2 SHA-256 too.
#[derive(Debug, Clone)]
pub struct TorrentHasher {
    piece_length: u32,
    size: u64,
    v1: Option<PieceStream>,
    v2: Option<TreeStream>,
}

impl TorrentHasher {
    /// With the chunks as pieces.
    pub fn new(version: Version) -> Self {
        Self::of(version, PIECE_LENGTH)
    }

    /// With pieces of another length.
    ///
    /// # Errors
    /// [`CreateError::PieceLength`].
    pub fn with_piece_length(version: Version, piece_length: u32) -> Result<Self, CreateError> {
        check_piece_length(piece_length)?;
        Ok(Self::of(version, piece_length))
    }

    fn of(version: Version, piece_length: u32) -> Self {
        let (v1, v2) = (version != Version::V2, version != Version::V1);
        Self {
            piece_length,
            size: 0,
            v1: v1.then(|| PieceStream::new(piece_length)),
            v2: v2.then(|| TreeStream::new(piece_length)),
        }
    }

    /// Takes the next bytes, any number of them.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(v1) = &mut self.v1 {
            v1.update(bytes);
        }
        if let Some(v2) = &mut self.v2 {
            v2.update(bytes);
        }
    }

    /// Ends the file.
    pub fn finish(self) -> TorrentHashes {
        TorrentHashes {
            size: self.size,
            piece_length: self.piece_length,
            pieces: self.v1.map(PieceStream::finish),
            layer: self.v2.map(TreeStream::finish),
        }
    }
}

/// All that a torrent says of a file's bytes, under whatever name: 20 bytes for each piece, and
/// 32 for version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentHashes {
    size: u64,
    piece_length: u32,
    pieces: Option<Vec<u8>>,
    layer: Option<Vec<NodeHash>>,
}

impl TorrentHashes {
    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Which hashes there are.
    pub fn version(&self) -> Version {
        match (&self.pieces, &self.layer) {
            (Some(_), Some(_)) => Version::Hybrid,
            (None, Some(_)) => Version::V2,
            _ => Version::V1,
        }
    }

    /// Without those that a torrent of this version does not have.
    #[must_use]
    pub fn only(mut self, version: Version) -> Self {
        match version {
            Version::V1 if self.pieces.is_some() => self.layer = None,
            Version::V2 if self.layer.is_some() => self.pieces = None,
            _ => {}
        }
        self
    }

    /// Reads content that is stored already. It must be complete.
    ///
    /// # Errors
    /// [`CreateError::Content`].
    ///
    /// # Cancel safety
    /// Dropping the future stops it, with nothing left behind.
    pub async fn of_content(
        content: &dyn StoredContent,
        version: Version,
    ) -> Result<Self, CreateError> {
        let size = content.header().size;
        let mut hasher = TorrentHasher::new(version);
        while hasher.size < size {
            let end = size.min(hasher.size + MAX_READ);
            let bytes = content.read(ByteRange::new(hasher.size, end)).await?;
            let blocking = tokio::task::spawn_blocking(move || {
                hasher.update(&bytes);
                hasher
            });
            hasher = blocking.await.map_err(|_| StoreError::Closed)?;
        }
        Ok(hasher.finish())
    }

    /// Its torrent under a name.
    ///
    /// # Errors
    /// [`CreateError`], by case.
    pub fn metainfo(&self, name: &str, outer: Outer) -> Result<Metainfo, CreateError> {
        if self.size == 0 {
            return Err(CreateError::Empty);
        }
        let pieces = self.size.div_ceil(self.piece_length.into());
        if pieces > MAX_PIECES.into() {
            return Err(CreateError::TooManyPieces { pieces });
        }
        let size = Item::Int(self.size as i64);
        let mut info = vec![
            ("name", Item::from(name)),
            ("piece length", Item::from(self.piece_length)),
        ];
        if let Some(pieces) = &self.pieces {
            info.push(("length", size.clone()));
            info.push(("pieces", Item::from(pieces.as_slice())));
        }
        let tree = self.tree()?;
        if let Some(tree) = &tree {
            info.push(("meta version", Item::Int(2)));
            let root = Item::from(&tree.root()[..]);
            let file = Item::dict([("length", size), ("pieces root", root)]);
            info.push(("file tree", Item::dict([(name, Item::dict([("", file)]))])));
        }
        assemble(info, tree.into_iter(), outer)
    }

    fn tree(&self) -> Result<Option<FileTree>, CreateError> {
        let Some(layer) = &self.layer else {
            return Ok(None);
        };
        let shape = TreeShape::new(self.size, self.piece_length).ok_or(CreateError::Empty)?;
        let tree = FileTree::new(shape, layer.clone());
        tree.map(Some).map_err(|_| CreateError::Damaged)
    }

    /// For keeping beside the content.
    pub fn encode(&self) -> Vec<u8> {
        let mut pairs = vec![
            ("length", Item::Int(self.size as i64)),
            ("piece length", Item::from(self.piece_length)),
        ];
        let pieces = self.pieces.as_deref();
        pairs.extend(pieces.map(|pieces| ("pieces", Item::from(pieces))));
        let layer = self.layer.as_ref();
        pairs.extend(layer.map(|layer| ("piece layer", Item::from(layer.concat()))));
        Item::dict(pairs).encode()
    }

    /// What was kept.
    ///
    /// # Errors
    /// [`CreateError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CreateError> {
        let limits = Limits {
            max_len: usize::MAX,
            ..Limits::MESSAGE
        };
        let decoded = Decoded::parse(bytes, limits).map_err(|_| CreateError::Damaged)?;
        let root = decoded.root();
        let parse = || {
            let size = root.get("length")?.unsigned()?;
            let piece_length = root.get("piece length")?.unsigned()?;
            let piece_length = u32::try_from(piece_length).ok()?;
            check_piece_length(piece_length).ok()?;
            let count = usize::try_from(size.div_ceil(piece_length.into())).ok()?;
            // There or not, but nothing in between.
            let hashes = |key, each: usize| match root.get(key) {
                None => Some(None),
                Some(hashes) => hashes
                    .bytes()
                    .filter(|all| all.len() == each * count)
                    .map(Some),
            };
            let (pieces, layer) = (hashes("pieces", 20)?, hashes("piece layer", 32)?);
            (pieces.is_some() || layer.is_some()).then(|| Self {
                size,
                piece_length,
                pieces: pieces.map(<[u8]>::to_vec),
                layer: layer.map(|layer| layer.as_chunks::<32>().0.to_vec()),
            })
        };
        parse().ok_or(CreateError::Damaged)
    }
}

/// An `info` dictionary and trees as a torrent, read back as everybody else will.
fn assemble(
    info: Vec<(&str, Item)>,
    trees: impl Iterator<Item = FileTree>,
    outer: Outer,
) -> Result<Metainfo, CreateError> {
    let layers = trees.filter(|tree| tree.piece_layer().len() > 1);
    let layers = layers.map(|tree| (tree.root(), Item::from(tree.piece_layer().concat())));
    let layers = Item::dict(layers);
    let pairs = [("info", Item::dict(info)), ("piece layers", layers)];
    let mut torrent = Metainfo::parse(&Item::dict(pairs).encode())?;
    torrent.outer = outer;
    Ok(torrent)
}

impl Metainfo {
    /// The link to this torrent, with its trackers and web seeds.
    pub fn magnet(&self) -> Magnet {
        Magnet {
            hashes: self.hashes(),
            name: Some(self.info().name().to_owned()),
            length: Some(self.layout().payload()),
            trackers: self.outer.all_trackers().map(str::to_owned).collect(),
            web_seeds: self.outer.web_seeds.clone(),
            ..Magnet::default()
        }
    }
}

/// Has an import hash a file for torrents beside its identity, and keeps
/// [`TorrentHashes`] with the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TorrentSidecar(pub Version);

impl TorrentSidecar {
    /// What hashes a file for a torrent of the version that is wanted, or of version 1 if only
    /// that is possible at this size in bytes; `None` if there can be no torrent of it.
    pub fn fitting(wanted: Version, size: u64) -> Option<Self> {
        let candidates = match wanted {
            Version::Hybrid => &[Version::Hybrid, Version::V1][..],
            Version::V1 => &[Version::V1],
            Version::V2 => &[Version::V2],
        };
        let mut sidecars = candidates.iter().copied().map(Self);
        sidecars.find(|sidecar| sidecar.suits(size))
    }

    /// What may have been kept of a file that a torrent of the version that is wanted can be
    /// made of, the best first. With the hashes of version 1 alone a file goes on having the
    /// torrent that it had when they were made.
    pub fn of_use(wanted: Version) -> impl Iterator<Item = Self> {
        let versions = match wanted {
            Version::Hybrid => [Version::Hybrid, Version::V1],
            Version::V1 => [Version::V1, Version::Hybrid],
            Version::V2 => [Version::V2, Version::Hybrid],
        };
        versions.into_iter().map(Self)
    }
}

impl SidecarHasher for TorrentSidecar {
    fn name(&self) -> &'static str {
        match self.0 {
            Version::V1 => "bittorrent-v1",
            Version::V2 => "bittorrent-v2",
            Version::Hybrid => "bittorrent-hybrid",
        }
    }

    /// Not of an empty file, nor of one whose hashes would be over the limit: from 860 GB on in
    /// version 1.
    fn suits(&self, size: u64) -> bool {
        let each = match self.0 {
            Version::V1 => 20,
            Version::V2 => 32,
            Version::Hybrid => 52,
        };
        let pieces = size.div_ceil(PIECE_LENGTH.into());
        // Numbers and keys are the rest.
        let len = pieces.saturating_mul(each).saturating_add(200);
        size > 0 && pieces <= MAX_PIECES.into() && len <= MAX_SIDECAR_LEN as u64
    }

    fn start(&self) -> Box<dyn FileHasher> {
        Box::new(TorrentHasher::new(self.0))
    }
}

impl FileHasher for TorrentHasher {
    fn update(&mut self, bytes: &[u8]) {
        TorrentHasher::update(self, bytes);
    }

    /// Nothing for an empty file.
    fn finish(self: Box<Self>) -> Option<Bytes> {
        let some = self.size > 0;
        some.then(|| TorrentHasher::finish(*self).encode().into())
    }
}

#[cfg(test)]
mod tests;
