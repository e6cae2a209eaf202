//! Pages: 4,096 chunk hashes each, an RFC 9162 subtree with its path to the root.

use super::{
    Buf, BufMut, CHUNK_SIZE, ChunkHash, ChunkLayout, MerkleRoot, ProofError, TreeHash, chain,
    merkle,
};

/// Chunk hashes in a full page; it covers 1 GiB in 128 KiB.
pub const PAGE_CHUNKS: u32 = 4096;

/// Longest path above a page: 2^32 chunks are 2^20 pages.
const MAX_PATH: usize = 20;

/// Length of the path inside a full page.
const INNER_PATH: usize = 12;

/// Limit on an encoded page, in bytes.
pub const MAX_PAGE_LEN: usize =
    4 + 2 + 1 + 1 + 32 * (PAGE_CHUNKS as usize + MAX_PATH + 1 + INNER_PATH + MAX_PATH);

/// Number of pages of a file.
pub const fn page_count(layout: ChunkLayout) -> u32 {
    layout.count().div_ceil(PAGE_CHUNKS)
}

/// The page that holds the hash of chunk `index`.
pub const fn page_of(index: u32) -> u32 {
    index / PAGE_CHUNKS
}

/// Chunk hashes on page `page`.
const fn page_len(layout: ChunkLayout, page: u32) -> u32 {
    let left = layout.count() - page * PAGE_CHUNKS;
    if left < PAGE_CHUNKS {
        left
    } else {
        PAGE_CHUNKS
    }
}

/// Why a page was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The bytes are too short or too long for what they say.
    #[error("manifest page has a wrong length")]
    Length,
    /// The file has no such page, or this is another page than the one asked for.
    #[error("page {found} is not the expected page {expected} of {count}")]
    Index {
        /// Page index in the bytes.
        found: u32,
        /// Page index asked for.
        expected: u32,
        /// Number of pages of the file.
        count: u32,
    },
    /// A page has exactly as many hashes as the file's size says.
    #[error("page has {found} hashes, expected {expected}")]
    Count {
        /// Hashes found.
        found: usize,
        /// Hashes that the page has in a file of this size.
        expected: u32,
    },
    /// The hash before the page's first is missing, or there where it should not be.
    #[error("page has a misplaced hash before its first")]
    Before,
    /// The page does not lead to the root at this size.
    #[error("page does not lead to the root")]
    Proof(#[from] ProofError),
}

/// A page as it travels; nothing about it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPage {
    /// Position of the page.
    pub index: u32,
    /// Hashes of the chunks `index * 4096 ..`.
    pub hashes: Vec<ChunkHash>,
    /// Siblings from the page's own node up.
    pub path: Vec<TreeHash>,
    /// For every page but the first: the hash before the page's first, with its siblings
    /// inside the page before (12) and above it.
    pub before: Option<(ChunkHash, Vec<TreeHash>)>,
}

impl ManifestPage {
    /// The page as bytes: `index u32 ‖ count u16 ‖ hashes ‖ len u8 ‖ path ‖ len u8 ‖
    /// [before ‖ path]`, where the last length is 0 on page 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + 32 * (self.hashes.len() + self.path.len() + 33));
        out.put_u32(self.index);
        out.put_u16(self.hashes.len() as u16);
        for hash in &self.hashes {
            out.put_slice(hash.as_bytes());
        }
        out.put_u8(self.path.len() as u8);
        for node in &self.path {
            out.put_slice(node.as_bytes());
        }
        match &self.before {
            None => out.put_u8(0),
            Some((hash, path)) => {
                out.put_u8(path.len() as u8);
                out.put_slice(hash.as_bytes());
                for node in path {
                    out.put_slice(node.as_bytes());
                }
            }
        }
        out
    }

    /// Reads a page; allocates no more than the bytes given.
    ///
    /// # Errors
    /// [`PageError::Length`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PageError> {
        let mut input = bytes;
        if bytes.len() > MAX_PAGE_LEN {
            return Err(PageError::Length);
        }
        let index = input.try_get_u32().map_err(|_| PageError::Length)?;
        let count = input.try_get_u16().map_err(|_| PageError::Length)?;
        let hashes = take(&mut input, count.into())?
            .map(ChunkHash::from_bytes)
            .collect();
        let len = input.try_get_u8().map_err(|_| PageError::Length)?;
        let path = take(&mut input, len.into())?
            .map(TreeHash::from_bytes)
            .collect();
        let len = input.try_get_u8().map_err(|_| PageError::Length)?;
        let before = if len == 0 {
            None
        } else {
            let hash = take(&mut input, 1)?.next().ok_or(PageError::Length)?;
            let path = take(&mut input, len.into())?
                .map(TreeHash::from_bytes)
                .collect();
            Some((ChunkHash::from_bytes(hash), path))
        };
        if !input.is_empty() {
            return Err(PageError::Length);
        }
        Ok(Self {
            index,
            hashes,
            path,
            before,
        })
    }

    /// Shows that the page is page `index` of the file that `root` seals at this size.
    ///
    /// # Errors
    /// [`PageError`], by case; never passes on doubt.
    pub fn verify(
        self,
        root: MerkleRoot,
        layout: ChunkLayout,
        index: u32,
    ) -> Result<VerifiedPage, PageError> {
        let count = page_count(layout);
        if self.index != index || index >= count {
            return Err(PageError::Index {
                found: self.index,
                expected: index,
                count,
            });
        }
        let expected = page_len(layout, index);
        if self.hashes.len() != expected as usize {
            return Err(PageError::Count {
                found: self.hashes.len(),
                expected,
            });
        }
        let own = merkle::tree_hash(&self.hashes);
        let tree = merkle::climb(&self.path, &[index], &[own], count)?;
        if merkle::seal(layout.size(), tree) != root {
            return Err(ProofError::Root.into());
        }
        let before = match (&self.before, index) {
            (None, 0) => chain::INITIAL,
            (Some((hash, path)), 1..) if path.len() >= INNER_PATH => {
                let (inner, outer) = path.split_at(INNER_PATH);
                let leaf = merkle::leaf(*hash);
                let node = merkle::climb(inner, &[PAGE_CHUNKS - 1], &[leaf], PAGE_CHUNKS)?;
                if merkle::climb(outer, &[index - 1], &[node], count)? != tree {
                    return Err(ProofError::Root.into());
                }
                *hash
            }
            _ => return Err(PageError::Before),
        };
        Ok(VerifiedPage {
            page: self,
            root,
            layout,
            before,
        })
    }
}

fn take<'a>(
    input: &mut &'a [u8],
    count: usize,
) -> Result<impl Iterator<Item = [u8; 32]> + use<'a>, PageError> {
    let bytes = input.split_off(..count * 32).ok_or(PageError::Length)?;
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok(hashes.iter().copied())
}

/// A page that leads to a root. Whether the root belongs to a cid is another question.
#[derive(Clone, Debug)]
pub struct VerifiedPage {
    page: ManifestPage,
    root: MerkleRoot,
    layout: ChunkLayout,
    before: ChunkHash,
}

impl VerifiedPage {
    /// The root that it leads to.
    pub fn root(&self) -> MerkleRoot {
        self.root
    }

    /// The cutting of the file that the root seals.
    pub fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// The page.
    pub fn page(&self) -> &ManifestPage {
        &self.page
    }

    /// Indices of the chunks whose hashes are on the page.
    pub fn chunks(&self) -> std::ops::Range<u32> {
        let first = self.page.index * PAGE_CHUNKS;
        first..first + self.page.hashes.len() as u32
    }

    /// The hashes before and after chunk `index`, if it is on this page.
    pub fn around(&self, index: u32) -> Option<(ChunkHash, ChunkHash)> {
        let at = index.checked_sub(self.page.index * PAGE_CHUNKS)? as usize;
        let after = *self.page.hashes.get(at)?;
        let before = if at == 0 {
            self.before
        } else {
            self.page.hashes[at - 1]
        };
        Some((before, after))
    }
}

/// The tree above the pages of one file: from it, and the hashes of a page, the page with
/// its proofs is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRoots {
    layout: ChunkLayout,
    roots: Vec<TreeHash>,
}

impl PageRoots {
    /// From the nodes of all pages; `None` if their number does not fit the file's size.
    pub fn new(layout: ChunkLayout, roots: Vec<TreeHash>) -> Option<Self> {
        (roots.len() == page_count(layout) as usize).then_some(Self { layout, roots })
    }

    /// From all chunk hashes; `None` if their number does not fit the file's size.
    pub fn from_hashes(layout: ChunkLayout, hashes: &[ChunkHash]) -> Option<Self> {
        if hashes.len() != layout.count() as usize {
            return None;
        }
        let roots = hashes
            .chunks(PAGE_CHUNKS as usize)
            .map(merkle::tree_hash)
            .collect();
        Some(Self { layout, roots })
    }

    /// The nodes of the pages.
    pub fn as_slice(&self) -> &[TreeHash] {
        &self.roots
    }

    /// The sealed root of the file.
    pub fn root(&self) -> MerkleRoot {
        merkle::seal(self.layout.size(), merkle::fold(&self.roots))
    }

    /// Makes page `index` from the hashes of its own page and, except for page 0, those of
    /// the page before it. `None` if the file has no such page or the numbers do not fit.
    pub fn page(
        &self,
        index: u32,
        hashes: Vec<ChunkHash>,
        previous: &[ChunkHash],
    ) -> Option<ManifestPage> {
        if index >= page_count(self.layout) || hashes.len() != page_len(self.layout, index) as usize
        {
            return None;
        }
        let path = merkle::siblings(&self.roots, &[index]);
        let before = match index.checked_sub(1) {
            None => None,
            Some(_) if previous.len() != PAGE_CHUNKS as usize => return None,
            Some(at) => {
                let leaves: Vec<_> = previous.iter().map(|hash| merkle::leaf(*hash)).collect();
                let mut path = merkle::siblings(&leaves, &[PAGE_CHUNKS - 1]);
                path.extend(merkle::siblings(&self.roots, &[at]));
                Some((*previous.last()?, path))
            }
        };
        Some(ManifestPage {
            index,
            hashes,
            path,
            before,
        })
    }
}

const _: () =
    assert!(CHUNK_SIZE * (PAGE_CHUNKS as u64) == 1 << 30 && PAGE_CHUNKS == 1 << INNER_PATH);

#[cfg(test)]
mod tests;
