//! The `info` dictionary.

use bytes::Bytes;

use super::MetainfoError;
use super::v1::{self, FilesV1};
use super::v2::{self, FileV2};
use crate::bittorrent::bencode::Value;
use crate::bittorrent::layout::{Entry, LayoutError, TorrentLayout};
use crate::bittorrent::merkle::{BLOCK_LEN, NodeHash};
use crate::bittorrent::paths::{PathTree, SafePath, safe_path};

/// Which hashes a torrent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// SHA-1 over pieces (BEP 3).
    V1,
    /// A tree of SHA-256 for each file (BEP 52).
    V2,
    /// Both, of the same files.
    Hybrid,
}

/// A file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TorrentFile {
    /// Where it goes: beneath the target directory, and beneath [`Info::name`] unless the
    /// torrent is a single file.
    pub path: SafePath,
    /// Size in bytes.
    pub len: u64,
    /// Its place in the torrent, padding and links counted too: what magnets select by
    /// (BEP 53).
    pub index: u32,
    /// Whether it is to be executable (BEP 47).
    pub executable: bool,
    /// Whether it is to be hidden (BEP 47).
    pub hidden: bool,
    /// The root of its tree (version 2); an empty file has none.
    pub pieces_root: Option<NodeHash>,
    /// The components of its path as they came, where they differ from those of `path`: what
    /// web seeds know it by (BEP 19).
    pub raw_path: Option<Vec<Vec<u8>>>,
}

/// What is read of a file in either version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) padding: bool,
    pub(super) symlink: bool,
    executable: bool,
    hidden: bool,
}

impl Attributes {
    pub(super) fn read(value: Value<'_, '_>) -> Self {
        let letters = value
            .get("attr")
            .and_then(|attr| attr.bytes())
            .unwrap_or_default();
        let has = |letter| letters.contains(&letter);
        Self {
            padding: has(b'p'),
            symlink: has(b'l'),
            executable: has(b'x'),
            hidden: has(b'h'),
        }
    }
}

/// What an `info` dictionary says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    version: Version,
    name: String,
    is_single_file: bool,
    private: bool,
    layout: TorrentLayout,
    files: Vec<TorrentFile>,
    /// SHA-1 hashes, one after the other; empty in version 2.
    pieces: Bytes,
}

impl Info {
    pub(super) fn read(info: Value<'_, '_>) -> Result<Self, MetainfoError> {
        let key = |key| MetainfoError::Key { key };
        if !info.is_dict() {
            return Err(key("info"));
        }
        let has_v1 = info.get("pieces").is_some();
        let has_v2 = match info.get("meta version") {
            None => false,
            Some(version) => match version.int().ok_or(key("meta version"))? {
                1 => false,
                2 => true,
                found => return Err(MetainfoError::Version { found }),
            },
        };
        let version = match (has_v1, has_v2) {
            (true, false) => Version::V1,
            (false, true) => Version::V2,
            (true, true) => Version::Hybrid,
            (false, false) => return Err(key("pieces")),
        };
        let piece_length = piece_length(info, has_v2)?;
        let name = ["name.utf-8", "name"]
            .iter()
            .find_map(|key| info.get(key)?.bytes());
        let raw_name = name.filter(|name| !name.is_empty()).ok_or(key("name"))?;
        let v1 = has_v1.then(|| v1::read(info, raw_name)).transpose()?;
        let v2 = has_v2.then(|| v2::read(info)).transpose()?;
        let is_single_file = match (&v1, &v2) {
            (Some(v1), _) => v1.is_single_file,
            (None, Some(files)) => matches!(files.as_slice(), [one] if one.path.len() == 1),
            (None, None) => return Err(key("pieces")),
        };
        let (layout, files) = match (&v1, &v2) {
            (Some(v1), Some(v2)) => hybrid(piece_length, v1, v2)?,
            (Some(v1), None) => only_v1(piece_length, v1)?,
            (None, v2) => only_v2(piece_length, v2.as_deref().unwrap_or_default())?,
        };
        let pieces = match has_v1 {
            true => v1::pieces(info, &layout)?,
            false => Bytes::new(),
        };
        Ok(Self {
            version,
            name: safe_path([raw_name])?.file_name().to_owned(),
            is_single_file,
            private: info.get("private").and_then(|private| private.int()) == Some(1),
            layout,
            files,
            pieces,
        })
    }

    /// Which hashes the torrent has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its name, made safe: of the file, or of the directory that all files go to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that all files go to; none for a single file.
    pub fn directory(&self) -> Option<SafePath> {
        let name = (!self.is_single_file).then_some(&self.name)?;
        safe_path([name]).ok()
    }

    /// Whether it is one file, and not a directory.
    pub fn is_single_file(&self) -> bool {
        self.is_single_file
    }

    /// Whether peers may come from its trackers only: neither DHT nor peer exchange (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Pieces and files.
    pub fn layout(&self) -> &TorrentLayout {
        &self.layout
    }

    /// The files, without padding and links; their numbers are those of the layout.
    pub fn files(&self) -> &[TorrentFile] {
        &self.files
    }

    /// SHA-1 of a piece (version 1).
    pub fn piece_hash(&self, piece: u32) -> Option<[u8; 20]> {
        let (hashes, _) = self.pieces.as_chunks::<20>();
        hashes.get(piece as usize).copied()
    }
}

fn piece_length(info: Value<'_, '_>, has_v2: bool) -> Result<u32, MetainfoError> {
    let found = info.get("piece length").and_then(|length| length.int());
    let found = found.ok_or(MetainfoError::Key {
        key: "piece length",
    })?;
    let fits = u32::try_from(found).ok();
    // The upper limit and nothing are the layout's to refuse.
    let v2 = |length: &u32| !has_v2 || length.is_power_of_two() && *length >= BLOCK_LEN;
    fits.filter(v2).ok_or_else(|| {
        LayoutError::PieceLength {
            piece_length: found,
        }
        .into()
    })
}

/// Collects files with safe paths.
#[derive(Default)]
struct Collected {
    paths: PathTree,
    files: Vec<TorrentFile>,
}

impl Collected {
    fn add(
        &mut self,
        raw: &[&[u8]],
        len: u64,
        index: u32,
        attributes: Attributes,
        pieces_root: Option<NodeHash>,
    ) -> Result<(), MetainfoError> {
        let path = self.paths.add(raw)?;
        let same = path.components().map(str::as_bytes).eq(raw.iter().copied());
        let raw_path = (!same).then(|| raw.iter().map(|part| part.to_vec()).collect());
        self.files.push(TorrentFile {
            path,
            len,
            index,
            executable: attributes.executable,
            hidden: attributes.hidden,
            pieces_root,
            raw_path,
        });
        Ok(())
    }
}

type Files = (TorrentLayout, Vec<TorrentFile>);

fn only_v1(piece_length: u32, v1: &FilesV1<'_>) -> Result<Files, MetainfoError> {
    let mut collected = Collected::default();
    let mut entries = Vec::with_capacity(v1.files.len());
    for (index, file) in (0..).zip(&v1.files) {
        if file.attributes.padding {
            entries.push(Entry::Padding(file.len));
        } else if !file.attributes.symlink {
            entries.push(Entry::File(file.len));
            collected.add(&file.path, file.len, index, file.attributes, None)?;
        }
    }
    Ok((TorrentLayout::new(piece_length, entries)?, collected.files))
}

fn only_v2(piece_length: u32, v2: &[FileV2<'_>]) -> Result<Files, MetainfoError> {
    let mut collected = Collected::default();
    for (index, file) in (0..).zip(v2) {
        if !file.attributes.symlink {
            collected.add(&file.path, file.len, index, file.attributes, file.root)?;
        }
    }
    let lens = collected.files.iter().map(|file| file.len);
    Ok((TorrentLayout::aligned(piece_length, lens)?, collected.files))
}

/// Both versions: padding is as version 1 has it, and everything else must be the same.
fn hybrid(piece_length: u32, v1: &FilesV1<'_>, v2: &[FileV2<'_>]) -> Result<Files, MetainfoError> {
    let (layout, mut files) = only_v1(piece_length, v1)?;
    let differ = |what| MetainfoError::Differ { what };
    let real = v1
        .files
        .iter()
        .filter(|file| !file.attributes.padding && !file.attributes.symlink);
    let mut trees = v2.iter().filter(|file| !file.attributes.symlink);
    for (number, file) in (0..).zip(real) {
        let tree = trees.next().ok_or(differ("number of files"))?;
        if tree.path != file.path {
            return Err(differ("paths"));
        }
        if tree.len != file.len {
            return Err(differ("sizes"));
        }
        let start = layout.file_range(number).map_or(0, |range| range.start);
        if file.len > 0 && !start.is_multiple_of(piece_length.into()) {
            return Err(differ("where files begin"));
        }
        files[number as usize].pieces_root = tree.root;
    }
    match trees.next() {
        None => Ok((layout, files)),
        Some(_) => Err(differ("number of files")),
    }
}
