//! The manifest of a file: a header of at most 512 bytes, and pages of 4,096 chunk hashes.
//!
//! Neither is believed. A header's size and root are bound together by the sealed root; a
//! [`ManifestPage`] becomes a [`VerifiedPage`] only by leading to a root. Whether that root
//! belongs to the cid is shown by the last leaf, which *is* the cid.
//!
//! Encodings are canonical (one byte string per value) and big-endian.

use bytes::{Buf, BufMut};

use crate::chunk::{ChunkLayout, FileTooLarge};
use crate::merkle::{self, ProofError};
use crate::{Alias, CHUNK_SIZE, ChunkHash, Cid, MerkleRoot, TreeHash, chain};

mod header;
mod page;

pub use header::{HeaderError, MAX_HEADER_LEN, ManifestHeader};
pub use page::{
    MAX_PAGE_LEN, ManifestPage, PAGE_CHUNKS, PageError, PageRoots, VerifiedPage, page_count,
    page_of,
};
