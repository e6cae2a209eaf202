//! Files of chunk hashes: all hashes in order, 32 bytes each, then the tree node of each
//! manifest page. From the nodes and the hashes of two pages any page is made, so that
//! neither serving nor making the list ever holds all of it.
//!
//! A file of one chunk has its cid as its only hash, and an empty file none: for them
//! nothing is written.

use std::sync::OnceLock;

use chiral_core::manifest::{PAGE_CHUNKS, page_count};
use chiral_core::{
    ChunkHash, ChunkLayout, Cid, ManifestPage, MerkleRoot, PageRoots, StoreError, TreeHash, chain,
    merkle,
};

use super::disk::DiskFile;
use super::meta::MetaError;

const HASH_LEN: u64 = 32;

/// Whether the hashes of a file of this layout are kept in a file.
pub(super) fn has_file(layout: ChunkLayout) -> bool {
    layout.count() > 1
}

/// Bytes of the hashes alone.
pub(super) fn hashes_len(layout: ChunkLayout) -> u64 {
    u64::from(layout.count()) * HASH_LEN
}

/// Where the hash of chunk `index` is.
pub(super) fn offset(index: u32) -> u64 {
    u64::from(index) * HASH_LEN
}

/// Hashes as bytes.
pub(super) fn to_bytes(hashes: &[ChunkHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// `count` hashes from the file.
pub(super) fn read_hashes(
    file: &DiskFile,
    first: u32,
    count: u32,
) -> Result<Vec<ChunkHash>, StoreError> {
    let bytes = file.read(offset(first), count as usize * HASH_LEN as usize)?;
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok(hashes.iter().copied().map(ChunkHash::from_bytes).collect())
}

/// The node of each page of a list that has only its hashes.
pub(super) fn nodes(file: &DiskFile, layout: ChunkLayout) -> Result<Vec<TreeHash>, StoreError> {
    (0..page_count(layout))
        .map(|page| {
            let (first, count) = page_span(layout, page);
            Ok(merkle::tree_hash(&read_hashes(file, first, count)?))
        })
        .collect()
}

/// Appends the nodes of the pages to the hashes.
pub(super) fn write_nodes(
    file: &DiskFile,
    layout: ChunkLayout,
    nodes: &[TreeHash],
) -> Result<(), StoreError> {
    let bytes: Vec<u8> = nodes.iter().flat_map(|node| *node.as_bytes()).collect();
    file.write(hashes_len(layout), &bytes)
}

/// The sealed root above the nodes of all pages.
pub(super) fn seal(layout: ChunkLayout, nodes: &[TreeHash]) -> MerkleRoot {
    merkle::seal(layout.size(), merkle::fold(nodes))
}

/// First chunk and number of chunks of a page; none past the end.
fn page_span(layout: ChunkLayout, page: u32) -> (u32, u32) {
    let first = page.saturating_mul(PAGE_CHUNKS).min(layout.count());
    (first, PAGE_CHUNKS.min(layout.count() - first))
}

fn damaged() -> StoreError {
    StoreError::Metadata {
        operation: "read chunk hashes",
        source: Box::new(MetaError::Damaged {
            what: "chunk hashes",
        }),
    }
}

/// The list of a complete object.
#[derive(Debug)]
pub(super) struct HashList {
    layout: ChunkLayout,
    cid: Cid,
    root: MerkleRoot,
    /// None for files whose hashes follow from the cid.
    file: Option<DiskFile>,
    roots: OnceLock<PageRoots>,
}

impl HashList {
    /// The list of the object with this identity.
    pub(super) fn new(
        layout: ChunkLayout,
        cid: Cid,
        root: MerkleRoot,
        file: Option<DiskFile>,
    ) -> Self {
        Self {
            layout,
            cid,
            root,
            file,
            roots: OnceLock::new(),
        }
    }

    fn hashes(&self, first: u32, count: u32) -> Result<Vec<ChunkHash>, StoreError> {
        match &self.file {
            Some(file) => read_hashes(file, first, count),
            None => Ok(vec![self.cid.into(); count as usize]),
        }
    }

    /// The hashes before and after a chunk of the file.
    pub(super) fn around(&self, index: u32) -> Result<(ChunkHash, ChunkHash), StoreError> {
        let hashes = match index.checked_sub(1) {
            None => self.hashes(index, 1)?,
            Some(previous) => self.hashes(previous, 2)?,
        };
        match hashes[..] {
            [after] => Ok((chain::INITIAL, after)),
            [before, after] => Ok((before, after)),
            _ => Err(damaged()),
        }
    }

    /// Page `index` of the manifest, if the file has one.
    pub(super) fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        if index >= page_count(self.layout) {
            return Ok(None);
        }
        let hashes = |page: u32| {
            let (first, count) = page_span(self.layout, page);
            self.hashes(first, count)
        };
        let previous = match index.checked_sub(1) {
            Some(previous) => hashes(previous)?,
            None => Vec::new(),
        };
        let hashes = hashes(index)?;
        let roots = self.roots()?;
        if roots.as_slice().get(index as usize) != Some(&merkle::tree_hash(&hashes)) {
            return Err(damaged());
        }
        Ok(roots.page(index, hashes, &previous))
    }

    /// The nodes above the pages, shown to lead to the root.
    fn roots(&self) -> Result<&PageRoots, StoreError> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots);
        }
        let roots = match &self.file {
            None => PageRoots::from_hashes(self.layout, &self.hashes(0, self.layout.count())?),
            Some(file) => {
                let count = page_count(self.layout);
                let bytes = file.read(hashes_len(self.layout), count as usize * 32)?;
                let (nodes, _) = bytes.as_chunks::<32>();
                PageRoots::new(
                    self.layout,
                    nodes.iter().copied().map(TreeHash::from_bytes).collect(),
                )
            }
        };
        let roots = roots
            .filter(|roots| roots.root() == self.root)
            .ok_or_else(damaged)?;
        Ok(self.roots.get_or_init(|| roots))
    }
}

/// Makes a list as the hashes come, holding one page of them.
pub(super) struct HashListWriter<F> {
    create: F,
    file: Option<DiskFile>,
    written: u32,
    pending: Vec<ChunkHash>,
    nodes: Vec<TreeHash>,
}

impl<F: Fn() -> Result<DiskFile, StoreError>> HashListWriter<F> {
    /// Writes to the file that `create` makes, when there is something to write.
    pub(super) fn new(create: F) -> Self {
        Self {
            create,
            file: None,
            written: 0,
            pending: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Takes the next hashes.
    pub(super) fn extend(
        &mut self,
        hashes: impl Iterator<Item = ChunkHash>,
    ) -> Result<(), StoreError> {
        for hash in hashes {
            self.pending.push(hash);
            if self.pending.len() == PAGE_CHUNKS as usize {
                self.write_page()?;
            }
        }
        Ok(())
    }

    fn write_page(&mut self) -> Result<(), StoreError> {
        self.nodes.push(merkle::tree_hash(&self.pending));
        let file = match self.file.take() {
            Some(file) => file,
            None => (self.create)()?,
        };
        file.write(offset(self.written), &to_bytes(&self.pending))?;
        self.file = Some(file);
        self.written += self.pending.len() as u32;
        self.pending.clear();
        Ok(())
    }

    /// Ends the list: its root, and the file, synced, if it has one.
    pub(super) fn finish(
        mut self,
        layout: ChunkLayout,
    ) -> Result<(MerkleRoot, Option<DiskFile>), StoreError> {
        if !has_file(layout) {
            return Ok((
                merkle::seal(layout.size(), merkle::tree_hash(&self.pending)),
                None,
            ));
        }
        if !self.pending.is_empty() {
            self.write_page()?;
        }
        if let Some(file) = &self.file {
            write_nodes(file, layout, &self.nodes)?;
            file.sync()?;
        }
        Ok((seal(layout, &self.nodes), self.file))
    }
}
