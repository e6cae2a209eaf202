//! [`ContentIdentity`]: size, cid and root of a file, from one pass over it.

use crate::chunk::FileTooLarge;
use crate::manifest::PAGE_CHUNKS;
use crate::{ChunkHash, ChunkHasher, Cid, MerkleRoot, TreeHash, merkle};

/// Everything that identifies a file, from one pass over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentIdentity {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the whole.
    pub cid: Cid,
    /// Sealed Merkle root.
    pub root: MerkleRoot,
}

impl ContentIdentity {
    /// Of bytes in memory.
    ///
    /// # Errors
    /// [`FileTooLarge`] over [`crate::MAX_FILE_SIZE`].
    pub fn of(bytes: &[u8]) -> Result<Self, FileTooLarge> {
        let mut hasher = IdentityHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// One pass over a file for its [`ContentIdentity`] alone: of the chunk hashes only one page
/// is held, and one node for each page before it (32 bytes per GiB).
#[derive(Debug, Clone, Default)]
pub struct IdentityHasher {
    chunks: ChunkHasher,
    page: Vec<ChunkHash>,
    nodes: Vec<TreeHash>,
}

impl IdentityHasher {
    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.chunks.size()
    }

    /// Takes the next bytes, any number of them.
    pub fn update(&mut self, bytes: &[u8]) {
        self.chunks.update(bytes);
        for hash in self.chunks.drain() {
            self.page.push(hash);
            if self.page.len() == PAGE_CHUNKS as usize {
                self.nodes.push(merkle::tree_hash(&self.page));
                self.page.clear();
            }
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`FileTooLarge`] over [`crate::MAX_FILE_SIZE`].
    pub fn finish(mut self) -> Result<ContentIdentity, FileTooLarge> {
        let size = self.chunks.size();
        let (rest, cid) = self.chunks.finish()?;
        // At most one hash is left: that of the last chunk.
        self.page.extend(rest);
        if !self.page.is_empty() {
            self.nodes.push(merkle::tree_hash(&self.page));
        }
        let root = merkle::seal(size, merkle::fold(&self.nodes));
        Ok(ContentIdentity { size, cid, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_page_of_chunks_has_the_root_of_its_whole_list() {
        let (mut identity, mut plain) = (IdentityHasher::default(), ChunkHasher::new());
        let part = vec![7u8; 1 << 20];
        for _ in 0..1025 {
            identity.update(&part);
            plain.update(&part);
        }
        let (hashes, cid) = plain.finish().unwrap();
        let identity = identity.finish().unwrap();
        let root = merkle::seal(1025 << 20, merkle::tree_hash(&hashes));
        assert_eq!((identity.cid, identity.root), (cid, root));
    }
}
