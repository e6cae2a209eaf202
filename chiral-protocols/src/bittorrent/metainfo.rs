//! [`Metainfo`]: what a `.torrent` file says (BEP 3, 12, 19, 27, 47, 52).
//!
//! Version 1 has one list of SHA-1 hashes over all files; version 2 has a tree of SHA-256 for
//! each; a hybrid has both, which must be of the same files. Padding files are never written,
//! nor are symbolic links. Names are made safe as [`super::paths`] says.
//!
//! The hash of an `info` dictionary is that of its bytes as they came, and they are written
//! again as they came.
//!
//! ```
//! use chiral_protocols::bittorrent::metainfo::Metainfo;
//!
//! let torrent = b"d4:infod6:lengthi3e4:name5:a.txt12:piece lengthi16384e\
//!     6:pieces20:\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9dee";
//! let torrent = Metainfo::parse(torrent)?;
//! let mut hasher = torrent.hasher(0).expect("one piece");
//! hasher.feed(0, "abc".into())?;
//! assert_eq!(hasher.finish()?.piece(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use sha1::Digest as _;

use super::bencode::{BencodeError, Decoded, Item, Limits, Value};
use super::layout::{LayoutError, TorrentLayout};
use super::merkle::{FileTree, MerkleError, NodeHash, TreeShape};
use super::paths::PathError;
use super::pieces::{ExpectedPiece, PieceHasher};

mod hashes;
mod info;
mod outer;
mod v1;
mod v2;

pub use hashes::InfoHashes;
pub use info::{Info, TorrentFile, Version};
pub use outer::{MAX_NODES, MAX_TRACKERS, MAX_WEB_SEEDS, Outer};

/// Limit on the files of a torrent, padding included.
pub const MAX_FILES: usize = 200_000;

/// Why a torrent is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// Not bencode, or too much of it.
    #[error("not a torrent")]
    Bencode(#[from] BencodeError),
    /// A key is missing, or its value is not what it must be.
    #[error("no valid {key}")]
    Key {
        /// The key.
        key: &'static str,
    },
    /// A later version of the format.
    #[error("meta version {found}")]
    Version {
        /// The version found.
        found: i64,
    },
    /// The files make no torrent.
    #[error("files that make no torrent")]
    Layout(#[from] LayoutError),
    /// A path that is refused.
    #[error("a path that is refused")]
    Path(#[from] PathError),
    /// More than [`MAX_FILES`].
    #[error("more than {MAX_FILES} files")]
    TooManyFiles,
    /// Too many or too few hashes for the pieces.
    #[error("{found} hashes of pieces, expected {expected}")]
    Pieces {
        /// Hashes found.
        found: u64,
        /// Pieces that the files make.
        expected: u64,
    },
    /// A piece layer that does not lead to its file's root.
    #[error("wrong piece layer of file {file}")]
    PieceLayer {
        /// The file.
        file: u32,
        /// What is wrong.
        #[source]
        source: MerkleError,
    },
    /// A piece layer of no file.
    #[error("a piece layer that is no file's")]
    UnknownPieceLayer,
    /// A hybrid whose two versions are of different files.
    #[error("the two versions of a hybrid torrent differ: {what}")]
    Differ {
        /// In what.
        what: &'static str,
    },
    /// An `info` dictionary that is another than the one asked for.
    #[error("an info dictionary with another hash")]
    OtherHash,
}

impl MetainfoError {
    /// The same bytes are as wrong the next time.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A torrent: its files, how they are verified, and where peers are found.
#[derive(Debug, Clone)]
pub struct Metainfo {
    info: Info,
    info_bytes: Bytes,
    hashes: InfoHashes,
    /// Of each file, if the torrent has version 2 and the piece layer is known.
    trees: Vec<Option<FileTree>>,
    /// Files by the roots of their trees.
    roots: HashMap<NodeHash, u32>,
    /// Everything outside the `info` dictionary.
    pub outer: Outer,
}

impl Metainfo {
    /// Reads a `.torrent` file.
    ///
    /// # Errors
    /// [`MetainfoError`], by case.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let decoded = Decoded::parse(bytes, Limits::METAINFO)?;
        let root = decoded.root();
        let info = root.get("info").ok_or(MetainfoError::Key { key: "info" })?;
        let mut torrent = Self::of_info(info)?;
        torrent.outer = Outer::read(root);
        if torrent.info.version() != Version::V1 {
            torrent.read_layers(root)?;
        }
        Ok(torrent)
    }

    /// Reads an `info` dictionary that peers sent (BEP 9), if it is the one asked for. Piece
    /// layers are not in it: [`Metainfo::missing_trees`].
    ///
    /// # Errors
    /// [`MetainfoError::OtherHash`] before anything else; [`MetainfoError`], by case.
    pub fn from_info(bytes: &[u8], expected: &InfoHashes) -> Result<Self, MetainfoError> {
        if !expected.is_of(bytes) {
            return Err(MetainfoError::OtherHash);
        }
        let decoded = Decoded::parse(bytes, Limits::METAINFO)?;
        Self::of_info(decoded.root())
    }

    fn of_info(value: Value<'_, '_>) -> Result<Self, MetainfoError> {
        let info = Info::read(value)?;
        let raw = value.raw();
        let (v1, v2) = match info.version() {
            Version::V1 => (true, false),
            Version::V2 => (false, true),
            Version::Hybrid => (true, true),
        };
        let hashes = InfoHashes {
            v1: v1.then(|| sha1::Sha1::digest(raw).into()),
            v2: v2.then(|| <sha2::Sha256 as sha2::Digest>::digest(raw).into()),
        };
        let root = |(number, file): (u32, &TorrentFile)| Some((file.pieces_root?, number));
        let roots = (0..).zip(info.files()).filter_map(root).collect();
        let trees = info.files().iter().map(|file| {
            let root = file.pieces_root?;
            let shape = TreeShape::new(file.len, info.layout().piece_length())?;
            let small = shape.pieces() == 1;
            small
                .then(|| FileTree::new(shape, vec![root]).ok())
                .flatten()
        });
        Ok(Self {
            trees: trees.collect(),
            roots,
            info,
            info_bytes: Bytes::copy_from_slice(raw),
            hashes,
            outer: Outer::default(),
        })
    }

    /// Layers that are there must be right. Those that are not are fetched from peers, as for a
    /// torrent of which only the `info` dictionary is known.
    fn read_layers(&mut self, root: Value<'_, '_>) -> Result<(), MetainfoError> {
        let Some(layers) = root.get("piece layers") else {
            return Ok(());
        };
        let key = MetainfoError::Key {
            key: "piece layers",
        };
        let found = layers.dict().ok_or_else(|| key.clone())?.len();
        let mut used = HashSet::new();
        for file in 0..self.trees.len() {
            let known = self.info.files()[file].pieces_root.zip(self.shape(file));
            let Some((root, shape)) = known else {
                continue;
            };
            let Some(layer) = layers.get(root) else {
                continue;
            };
            used.insert(root);
            if shape.pieces() == 1 {
                // It needs none, but some writers give it one.
                continue;
            }
            let wrong = |source| MetainfoError::PieceLayer {
                file: file as u32,
                source,
            };
            let (hashes, rest) = layer.bytes().ok_or_else(|| key.clone())?.as_chunks::<32>();
            if !rest.is_empty() {
                return Err(wrong(MerkleError::Count {
                    found: hashes.len() + 1,
                    expected: shape.pieces() as usize,
                }));
            }
            let tree = FileTree::checked(shape, hashes.to_vec(), &root).map_err(wrong)?;
            self.trees[file] = Some(tree);
        }
        match found == used.len() {
            true => Ok(()),
            false => Err(MetainfoError::UnknownPieceLayer),
        }
    }

    /// The `info` dictionary.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its bytes, as peers are sent them (BEP 9).
    pub fn info_bytes(&self) -> &Bytes {
        &self.info_bytes
    }

    /// Its hashes.
    pub fn hashes(&self) -> InfoHashes {
        self.hashes
    }

    /// Pieces and files.
    pub fn layout(&self) -> &TorrentLayout {
        self.info.layout()
    }

    /// The files, without padding.
    pub fn files(&self) -> &[TorrentFile] {
        self.info.files()
    }

    fn shape(&self, file: usize) -> Option<TreeShape> {
        let file = self.info.files().get(file)?;
        TreeShape::new(file.len, self.layout().piece_length())
    }

    /// The tree of a file, if the torrent has version 2 and it is known.
    pub fn tree(&self, file: u32) -> Option<&FileTree> {
        self.trees.get(file as usize)?.as_ref()
    }

    /// A file whose tree has this root; of equal files, one.
    pub fn file_of_root(&self, root: &NodeHash) -> Option<u32> {
        self.roots.get(root).copied()
    }

    /// Files whose trees are not known, with root and shape: peers have them (BEP 52).
    pub fn missing_trees(&self) -> impl Iterator<Item = (u32, NodeHash, TreeShape)> + '_ {
        let missing = self
            .trees
            .iter()
            .enumerate()
            .filter(|(_, tree)| tree.is_none());
        missing.filter_map(|(file, _)| {
            let root = self.info.files()[file].pieces_root?;
            Some((file as u32, root, self.shape(file)?))
        })
    }

    /// Whether all pieces can be checked: by hashes of version 1, or by trees that are known.
    pub fn is_checkable(&self) -> bool {
        self.info.version() != Version::V2 || self.missing_trees().next().is_none()
    }

    /// Takes a tree that peers sent.
    ///
    /// # Errors
    /// [`MerkleError::Mismatch`] if the file has another root.
    pub fn set_tree(&mut self, file: u32, tree: FileTree) -> Result<(), MerkleError> {
        let index = file as usize;
        let root = self
            .info
            .files()
            .get(index)
            .and_then(|file| file.pieces_root);
        if root != Some(tree.root()) || self.shape(index) != Some(tree.shape()) {
            return Err(MerkleError::Mismatch);
        }
        self.trees[index] = Some(tree);
        Ok(())
    }

    /// What a piece must be; `None` past the end, or if all that could say so is a tree that is
    /// not known.
    pub fn expected(&self, piece: u32) -> Option<ExpectedPiece> {
        let v1 = self.info.piece_hash(piece);
        let v2 = self.node_of(piece);
        match (v1, v2) {
            (Some(v1), Some((v2, layer))) => Some(ExpectedPiece::Hybrid(v1, v2, layer)),
            (Some(v1), None) => Some(ExpectedPiece::V1(v1)),
            (None, Some((v2, layer))) => Some(ExpectedPiece::V2(v2, layer)),
            (None, None) => None,
        }
    }

    /// The node over a piece, with its layer.
    fn node_of(&self, piece: u32) -> Option<(NodeHash, u32)> {
        let layout = self.layout();
        let first = layout.segments(layout.piece_range(piece)).next()?;
        let tree = self.tree(first.file?)?;
        let within = first.offset / u64::from(layout.piece_length());
        let hash = tree.piece_layer().get(within as usize)?;
        Some((*hash, tree.shape().piece_layer()))
    }

    /// What checks a piece; `None` as for [`Metainfo::expected`].
    pub fn hasher(&self, piece: u32) -> Option<PieceHasher> {
        let layout = self.layout();
        let (len, padding) = (layout.piece_len(piece), layout.padding(piece));
        Some(PieceHasher::new(piece, len, padding, self.expected(piece)?))
    }

    /// The bytes of a `.torrent` file, with the `info` dictionary as it came. Trees that are
    /// not known are missing in it.
    pub fn encode(&self) -> Vec<u8> {
        let mut pairs = self.outer.write();
        pairs.push(("info", Item::Raw(self.info_bytes.to_vec())));
        let layers: Vec<_> = self.trees.iter().flatten().collect();
        if self.info.version() != Version::V1 {
            let layers = layers
                .into_iter()
                .filter(|tree| tree.piece_layer().len() > 1);
            let layers = layers.map(|tree| (tree.root(), Item::from(tree.piece_layer().concat())));
            pairs.push(("piece layers", Item::dict(layers)));
        }
        Item::dict(pairs).encode()
    }
}

#[cfg(test)]
mod tests;
