//! Torrents of several files.

use super::super::bencode::Item;
use super::super::merkle::{FileTree, TreeShape};
use super::super::metainfo::{Metainfo, Outer, Version};
use super::streams::{PieceStream, TreeStream};
use super::{CreateError, assemble, check_piece_length};

/// Makes the torrent of a directory: told the files first, then fed their bytes.
///
/// In version 2 and hybrids, files are in the order of the tree, and a hybrid has padding so
/// that each begins with a piece.
#[derive(Debug)]
pub struct CollectionHasher {
    name: String,
    version: Version,
    piece_length: u32,
    files: Vec<(Vec<String>, u64)>,
    /// The file that is fed, and how many of its bytes have been.
    at: (usize, u64),
    v1: Option<PieceStream>,
    tree: Option<TreeStream>,
    trees: Vec<Option<FileTree>>,
}

impl CollectionHasher {
    /// Of files by their paths beneath the directory and sizes, which are sorted here:
    /// [`CollectionHasher::files`] says in which order their bytes are to come.
    ///
    /// # Errors
    /// [`CreateError::PieceLength`], [`CreateError::Empty`].
    pub fn new(
        name: &str,
        mut files: Vec<(Vec<String>, u64)>,
        piece_length: u32,
        version: Version,
    ) -> Result<Self, CreateError> {
        check_piece_length(piece_length)?;
        if files.iter().all(|(_, len)| *len == 0) {
            return Err(CreateError::Empty);
        }
        // As bencode sorts the dictionaries of the file tree.
        files.sort();
        let mut hasher = Self {
            name: name.to_owned(),
            version,
            piece_length,
            files,
            at: (0, 0),
            v1: (version != Version::V2).then(|| PieceStream::new(piece_length)),
            tree: None,
            trees: Vec::new(),
        };
        hasher.begin_file();
        Ok(hasher)
    }

    /// The files, in the order in which their bytes are to come.
    pub fn files(&self) -> &[(Vec<String>, u64)] {
        &self.files
    }

    fn begin_file(&mut self) {
        let has_v2 = self.version != Version::V1;
        self.tree = has_v2.then(|| TreeStream::new(self.piece_length));
        let empty = self.files.get(self.at.0).is_none_or(|(_, len)| *len == 0);
        if self.version == Version::Hybrid
            && !empty
            && let Some(v1) = &mut self.v1
        {
            let zeros = vec![0; v1.to_boundary() as usize];
            v1.update(&zeros);
        }
    }

    /// Takes the next bytes of the files, one file after the other.
    ///
    /// # Errors
    /// [`CreateError::Length`] for more than they were said to have.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), CreateError> {
        while !bytes.is_empty() {
            self.end_files();
            let (index, fed) = self.at;
            let (_, len) = self.files.get(index).ok_or(CreateError::Length)?;
            let left = usize::try_from(len - fed).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(left));
            if let Some(v1) = &mut self.v1 {
                v1.update(now);
            }
            if let Some(tree) = &mut self.tree {
                tree.update(now);
            }
            self.at.1 += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Ends files all of whose bytes have come.
    fn end_files(&mut self) {
        while let Some((_, len)) = self.files.get(self.at.0)
            && self.at.1 == *len
        {
            let shape = TreeShape::new(*len, self.piece_length);
            let layer = self.tree.take().map(TreeStream::finish);
            let tree = shape
                .zip(layer)
                .and_then(|(shape, layer)| FileTree::new(shape, layer).ok());
            self.trees.push(tree);
            self.at = (self.at.0 + 1, 0);
            self.begin_file();
        }
    }

    /// Ends the torrent.
    ///
    /// # Errors
    /// [`CreateError::Length`] if bytes are missing; [`CreateError::Refused`] for paths that
    /// are refused, or two at one place.
    pub fn finish(mut self, outer: Outer) -> Result<Metainfo, CreateError> {
        self.end_files();
        if self.at.0 < self.files.len() {
            return Err(CreateError::Length);
        }
        let mut info = vec![
            ("name", Item::from(self.name.as_str())),
            ("piece length", Item::from(self.piece_length)),
        ];
        if let Some(v1) = self.v1.take() {
            info.push(("pieces", Item::from(v1.finish())));
            info.push(("files", self.list()));
        }
        if self.version != Version::V1 {
            info.push(("meta version", Item::Int(2)));
            info.push(("file tree", self.file_tree()));
        }
        assemble(info, self.trees.into_iter().flatten(), outer)
    }

    fn list(&self) -> Item {
        let mut items = Vec::new();
        let mut at = 0u64;
        let piece_length = u64::from(self.piece_length);
        for (path, len) in &self.files {
            let gap = at.next_multiple_of(piece_length) - at;
            if self.version == Version::Hybrid && *len > 0 && gap > 0 {
                let path = [Item::from(".pad"), Item::from(gap.to_string().as_str())];
                items.push(Item::dict([
                    ("attr", Item::from("p")),
                    ("length", Item::Int(gap as i64)),
                    ("path", Item::list(path)),
                ]));
                at += gap;
            }
            let path = path.iter().map(|part| Item::from(part.as_str()));
            items.push(Item::dict([
                ("length", Item::Int(*len as i64)),
                ("path", Item::list(path)),
            ]));
            at += len;
        }
        Item::List(items)
    }

    fn file_tree(&self) -> Item {
        let mut root = Item::dict::<&str>([]);
        for ((path, len), tree) in self.files.iter().zip(&self.trees) {
            let mut at = &mut root;
            for part in path {
                let Item::Dict(entries) = at else { continue };
                let entry = entries.entry(part.as_bytes().to_vec());
                at = entry.or_insert_with(|| Item::dict::<&str>([]));
            }
            let mut file = vec![("length", Item::Int(*len as i64))];
            if let Some(tree) = tree {
                file.push(("pieces root", Item::from(&tree.root()[..])));
            }
            if let Item::Dict(entries) = at {
                entries.insert(Vec::new(), Item::dict(file));
            }
        }
        root
    }
}
