//! SHA-256's own chaining values as the hashes of chunks.
//!
//! A chunk is a whole number of SHA-256's 64-byte blocks, so the state after each chunk is
//! exact, costs nothing extra, and can be checked alone: chunk `i` is right if and only if
//! compressing it from `hash[i-1]` (the standard initial value for `i = 0`) gives `hash[i]`.
//! The last chunk is compressed together with the padding of FIPS 180-4 §5.1.1 for the
//! file's size, so its hash is the file's SHA-256: the cid. When all chunks have passed
//! under one list of hashes, the cid has been checked by induction.
//!
//! The only makers of [`ProvenLink`] and [`VerifiedChunk`] are here: what a store accepts as
//! proven has passed this check.

use bytes::Bytes;
use sha2::block_api::compress256;

use crate::chunk::{ChunkLayout, FileTooLarge};
use crate::{ChunkHash, Cid};

/// SHA-256's initial hash value (FIPS 180-4 §5.3.3): what precedes chunk 0.
pub const INITIAL: ChunkHash = ChunkHash::from_bytes([
    0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85, 0x3c, 0x6e, 0xf3, 0x72, 0xa5, 0x4f, 0xf5, 0x3a,
    0x51, 0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c, 0x1f, 0x83, 0xd9, 0xab, 0x5b, 0xe0, 0xcd, 0x19,
]);

/// SHA-256 of nothing: the cid of the only file of size 0.
pub const EMPTY_CID: Cid = Cid::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Why a chunk did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The index is not one of the file's chunks.
    #[error("chunk {index} is past the end of the file ({count} chunks)")]
    Index {
        /// The refused index.
        index: u32,
        /// Number of chunks in the file.
        count: u32,
    },
    /// Too few or too many bytes for this place.
    #[error("chunk {index} has {found} bytes, expected {expected}")]
    Length {
        /// The chunk.
        index: u32,
        /// Bytes found.
        found: u64,
        /// Bytes that the chunk has in a file of this size.
        expected: u64,
    },
    /// The bytes, from the given predecessor, do not lead to the expected hash.
    #[error("chunk {index} does not lead to its expected hash")]
    Mismatch {
        /// The chunk.
        index: u32,
    },
}

/// Compresses the bytes of one chunk, from the hash before it to the hash after it.
///
/// Cost: one SHA-256 over the bytes.
///
/// # Errors
/// [`ChunkError::Index`] and [`ChunkError::Length`]; never [`ChunkError::Mismatch`].
pub fn hash_after(
    layout: ChunkLayout,
    index: u32,
    before: ChunkHash,
    bytes: &[u8],
) -> Result<ChunkHash, ChunkError> {
    if !layout.contains(index) {
        return Err(ChunkError::Index {
            index,
            count: layout.count(),
        });
    }
    let expected = layout.range(index).len();
    if bytes.len() as u64 != expected {
        return Err(ChunkError::Length {
            index,
            found: bytes.len() as u64,
            expected,
        });
    }
    let mut state = to_words(before);
    let (blocks, tail) = bytes.as_chunks::<64>();
    compress256(&mut state, blocks);
    if layout.is_last(index) {
        finish(&mut state, tail, layout.size());
    }
    Ok(to_hash(state))
}

/// Whether the hash claimed before chunk `index` and the hash after it fit these bytes.
///
/// # Errors
/// [`ChunkError`], by case.
pub fn check(
    layout: ChunkLayout,
    index: u32,
    before: ChunkHash,
    after: ChunkHash,
    bytes: &[u8],
) -> Result<(), ChunkError> {
    if hash_after(layout, index, before, bytes)? == after {
        Ok(())
    } else {
        Err(ChunkError::Mismatch { index })
    }
}

/// Where the bytes of a chunk lead: from one hash to the next. Made only by compressing
/// the bytes; says nothing yet of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLink {
    index: u32,
    before: ChunkHash,
    after: ChunkHash,
}

impl ChunkLink {
    /// Compresses the bytes of chunk `index` from `before`; what precedes chunk 0 is
    /// [`INITIAL`], whatever is given.
    ///
    /// # Errors
    /// As [`hash_after`].
    pub fn compress(
        layout: ChunkLayout,
        index: u32,
        before: ChunkHash,
        bytes: &[u8],
    ) -> Result<Self, ChunkError> {
        let before = if index == 0 { INITIAL } else { before };
        let after = hash_after(layout, index, before, bytes)?;
        Ok(Self {
            index,
            before,
            after,
        })
    }

    /// The chunk.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The hash before the chunk, as it was given.
    pub fn before(&self) -> ChunkHash {
        self.before
    }

    /// The hash that the bytes lead to.
    pub fn after(&self) -> ChunkHash {
        self.after
    }

    /// Accepts the chunk against a hash that the caller knows to be right: the cid, the
    /// hash before a proven chunk, or one authenticated under a pinned or proven root.
    ///
    /// # Errors
    /// [`ChunkError::Mismatch`].
    pub fn prove(self, proven_after: ChunkHash) -> Result<ProvenLink, ChunkError> {
        if self.after == proven_after {
            Ok(ProvenLink(self))
        } else {
            Err(ChunkError::Mismatch { index: self.index })
        }
    }
}

/// A link that ends at a hash known to be right; the hash before it is thereby right too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenLink(ChunkLink);

impl ProvenLink {
    /// The chunk.
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// The hash before the chunk, proven by it.
    pub fn before(&self) -> ChunkHash {
        self.0.before
    }

    /// The hash of the chunk.
    pub fn after(&self) -> ChunkHash {
        self.0.after
    }
}

/// The bytes of a chunk together with the proof that they are right. Cannot be made any
/// other way than by the check.
#[derive(Debug, Clone)]
pub struct VerifiedChunk {
    layout: ChunkLayout,
    link: ProvenLink,
    bytes: Bytes,
}

impl VerifiedChunk {
    /// Checks bytes between two known hashes.
    ///
    /// # Errors
    /// [`ChunkError`], by case.
    pub fn check(
        layout: ChunkLayout,
        index: u32,
        before: ChunkHash,
        after: ChunkHash,
        bytes: Bytes,
    ) -> Result<Self, ChunkError> {
        let link = ChunkLink::compress(layout, index, before, &bytes)?.prove(after)?;
        Ok(Self {
            layout,
            link,
            bytes,
        })
    }

    /// Whether it is the outcome of this very check: of the same chunk of a file of the same
    /// size, between the same hashes, and of the same bytes, which lie in memory where those do
    /// that are held here. As long as they are held no others lie there.
    fn is_of(&self, layout: ChunkLayout, claim: &ChunkClaim) -> bool {
        let same_bytes = self.bytes.as_ptr() == claim.bytes.as_ptr()
            && self.bytes.len() == claim.bytes.len()
            && !self.bytes.is_empty();
        let before = if claim.index == 0 {
            INITIAL
        } else {
            claim.before
        };
        same_bytes
            && self.layout == layout
            && self.link.index() == claim.index
            && self.link.before() == before
            && self.link.after() == claim.after
    }

    /// The chunk's index and the hashes around it.
    pub fn link(&self) -> ProvenLink {
        self.link
    }

    /// The chunk.
    pub fn index(&self) -> u32 {
        self.link.index()
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Bytes that are said to be a chunk, and the hashes around it, which count as known. Says
/// nothing until it is checked.
#[derive(Debug, Clone)]
pub struct ChunkClaim {
    /// The chunk.
    pub index: u32,
    /// The hash before it.
    pub before: ChunkHash,
    /// Its hash.
    pub after: ChunkHash,
    /// What is said to be its bytes.
    pub bytes: Bytes,
    /// What came of a check that somebody made before, if anybody did: it spares another if it
    /// was of this very claim, and counts for nothing otherwise.
    pub checked: Option<VerifiedChunk>,
}

impl ChunkClaim {
    /// Checks the bytes between the two hashes, which is one SHA-256 over them; none if this
    /// very check was made before.
    ///
    /// # Errors
    /// [`ChunkError`], by case.
    pub fn check(mut self, layout: ChunkLayout) -> Result<VerifiedChunk, ChunkError> {
        if let Some(checked) = self.checked.take()
            && checked.is_of(layout, &self)
        {
            return Ok(checked);
        }
        VerifiedChunk::check(layout, self.index, self.before, self.after, self.bytes)
    }
}

/// The chunks of a file hashed in order, for a file of which nothing but the cid is known:
/// all are proven at the end, or none.
#[derive(Debug, Clone)]
pub struct ForwardChain {
    layout: ChunkLayout,
    hashes: Vec<ChunkHash>,
}

impl ForwardChain {
    /// At the start of a file.
    pub fn new(layout: ChunkLayout) -> Self {
        Self {
            layout,
            hashes: Vec::new(),
        }
    }

    /// The chunk that comes next.
    pub fn next_index(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The hash of the last chunk taken.
    pub fn last_hash(&self) -> Option<ChunkHash> {
        self.hashes.last().copied()
    }

    /// Takes the bytes of the next chunk.
    ///
    /// # Errors
    /// [`ChunkError::Length`], and [`ChunkError::Index`] at the end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        let before = self.hashes.last().copied().unwrap_or(INITIAL);
        self.hashes
            .push(hash_after(self.layout, self.next_index(), before, bytes)?);
        Ok(())
    }

    /// The cid of what was taken, once all of it was. Says nothing of whether it is what
    /// somebody wanted.
    ///
    /// # Errors
    /// [`ChunkError::Length`] if chunks are missing.
    pub fn cid(&self) -> Result<Cid, ChunkError> {
        let (index, count) = (self.next_index(), self.layout.count());
        if index != count {
            return Err(ChunkError::Length {
                index,
                found: 0,
                expected: self.layout.range(index).len(),
            });
        }
        Ok(self.last_hash().map_or(EMPTY_CID, ChunkHash::into_cid))
    }

    /// Ends the file: proof of every chunk, if the last hash is the cid.
    ///
    /// # Errors
    /// [`ChunkError::Length`] if chunks are missing, [`ChunkError::Mismatch`] at the last
    /// chunk if this is another file (which chunk is wrong cannot be known).
    pub fn finish(self, cid: Cid) -> Result<impl Iterator<Item = ProvenLink>, ChunkError> {
        if self.cid()? != cid {
            return Err(ChunkError::Mismatch {
                index: self.layout.count().saturating_sub(1),
            });
        }
        let before = std::iter::once(INITIAL).chain(self.hashes.clone());
        Ok((0u32..)
            .zip(before)
            .zip(self.hashes)
            .map(|((index, before), after)| {
                ProvenLink(ChunkLink {
                    index,
                    before,
                    after,
                })
            }))
    }
}

/// One pass of SHA-256 over a file, giving every chunk hash and the cid.
///
/// ```
/// use chiral_core::chain::ChunkHasher;
/// let mut hasher = ChunkHasher::new();
/// hasher.update(b"abc");
/// let (hashes, cid) = hasher.finish().unwrap();
/// assert_eq!(hashes.len(), 1);
/// assert_eq!(cid.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
#[derive(Clone)]
pub struct ChunkHasher {
    state: [u32; 8],
    /// Bytes of an unfinished 64-byte block.
    carry: [u8; 64],
    size: u64,
    hashes: Vec<ChunkHash>,
}

impl std::fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkHasher")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Default for ChunkHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkHasher {
    /// At the start of a file.
    pub fn new() -> Self {
        Self {
            state: to_words(INITIAL),
            carry: [0; 64],
            size: 0,
            hashes: Vec::new(),
        }
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes, any number of them.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_chunk = self.size % crate::CHUNK_SIZE;
            // A chunk that is full and followed by more is not the last: its hash stands.
            if in_chunk == 0 && self.size > 0 {
                self.hashes.push(to_hash(self.state));
            }
            let room = (crate::CHUNK_SIZE - in_chunk) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.absorb(now);
            bytes = later;
        }
    }

    fn absorb(&mut self, mut bytes: &[u8]) {
        let held = (self.size % 64) as usize;
        self.size += bytes.len() as u64;
        if held > 0 {
            let take = bytes.len().min(64 - held);
            self.carry[held..held + take].copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if held + take < 64 {
                return;
            }
            compress256(&mut self.state, &[self.carry]);
        }
        let (blocks, tail) = bytes.as_chunks::<64>();
        compress256(&mut self.state, blocks);
        self.carry[..tail.len()].copy_from_slice(tail);
    }

    /// Hands over the hashes of full chunks known so far, for files whose list should not
    /// be held in memory; the rest comes later or from [`ChunkHasher::finish`].
    pub fn drain(&mut self) -> std::vec::Drain<'_, ChunkHash> {
        self.hashes.drain(..)
    }

    /// Ends the file: the chunk hashes not drained before, and the cid. An empty file has
    /// no chunks and the cid [`EMPTY_CID`].
    ///
    /// # Errors
    /// [`FileTooLarge`] over [`crate::MAX_FILE_SIZE`].
    pub fn finish(mut self) -> Result<(Vec<ChunkHash>, Cid), FileTooLarge> {
        let layout = ChunkLayout::new(self.size)?;
        let held = (self.size % 64) as usize;
        let carry = self.carry;
        finish(&mut self.state, &carry[..held], self.size);
        let cid = to_hash(self.state).into_cid();
        if layout.count() > 0 {
            self.hashes.push(cid.into());
        }
        Ok((self.hashes, cid))
    }
}

/// Compresses the tail of a file with the padding for its size.
fn finish(state: &mut [u32; 8], tail: &[u8], size: u64) {
    let mut block = [[0u8; 64]; 2];
    block[0][..tail.len()].copy_from_slice(tail);
    block[0][tail.len()] = 0x80;
    // Sizes are below 2^61 bytes (ChunkLayout), so the length in bits fits.
    let bits = (size << 3).to_be_bytes();
    let used = if tail.len() < 56 { 1 } else { 2 };
    block[used - 1][56..].copy_from_slice(&bits);
    compress256(state, &block[..used]);
}

fn to_words(hash: ChunkHash) -> [u32; 8] {
    let mut words = [0u32; 8];
    let (quads, _) = hash.as_bytes().as_chunks::<4>();
    for (word, quad) in words.iter_mut().zip(quads) {
        *word = u32::from_be_bytes(*quad);
    }
    words
}

fn to_hash(state: [u32; 8]) -> ChunkHash {
    let mut bytes = [0u8; 32];
    let (quads, _) = bytes.as_chunks_mut::<4>();
    for (quad, word) in quads.iter_mut().zip(state) {
        *quad = word.to_be_bytes();
    }
    ChunkHash::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
