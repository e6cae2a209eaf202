//! Vocabulary and traits of the Chiral network.

pub mod alias;
pub mod chain;
pub mod chunk;
pub mod chunk_store;
pub mod coverage;
pub mod identity;
pub mod link;
pub mod manifest;
pub mod merkle;
pub mod range;
pub mod transfer;

pub use alias::{Alias, FileIdentification};
pub use chain::{ChunkHasher, ChunkLink, ContentIdentity, ForwardChain, ProvenLink, VerifiedChunk};
pub use chunk::{CHUNK_SIZE, ChunkLayout, MAX_CHUNKS, MAX_FILE_SIZE};
pub use chunk_store::{ChunkStore, PartialFile, StoreError, StoredContent};
pub use coverage::{Bitmap, ChunkRuns, Coverage};
pub use identity::{ChunkHash, Cid, MerkleRoot, ParseHashError, TreeHash};
pub use link::Link;
pub use manifest::{ManifestHeader, ManifestPage, PageRoots, VerifiedPage};
pub use merkle::MerkleProof;
pub use range::{ByteRange, RangeSet, RequestGrid};
pub use transfer::TransferId;
