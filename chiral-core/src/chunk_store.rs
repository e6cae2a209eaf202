//! [`ChunkStore`]: where content lies, complete or in part.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::chain::{ChunkClaim, ProvenLink};
use crate::{
    Bitmap, ByteRange, ChunkHash, ChunkLayout, Cid, Coverage, FileIdentification, FileSpans,
    ManifestHeader, ManifestPage, MerkleRoot, SidecarHasher, TransferId, VerifiedChunk,
    VerifiedPage,
};

/// Limit on the bytes of one [`StoredContent::read`].
pub const MAX_READ: u64 = 4 << 20;

/// Called as work goes on with bytes done and bytes in all. Called often, from any thread:
/// it must be cheap and must not block.
pub type ProgressFn = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {path} is in use by another process")]
    Locked {
        /// Directory of the store.
        path: PathBuf,
    },
    /// Nothing is stored under this cid.
    #[error("no content with cid {cid}")]
    NotFound {
        /// The cid.
        cid: Cid,
    },
    /// A file is where one should be made; nothing was overwritten.
    #[error("{path} exists")]
    AlreadyExists {
        /// The path.
        path: PathBuf,
    },
    /// A file seeded in place is not what it was. It is not served any more.
    #[error("{path} changed since it was shared")]
    Changed {
        /// The path.
        path: PathBuf,
    },
    /// Not something that can be shared: a directory, a device.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is not complete: this many chunks are not proven.
    #[error("{missing} chunks are not proven")]
    Incomplete {
        /// Number of chunks that are not proven.
        missing: u32,
    },
    /// A range that is not held, past the end, or longer than [`MAX_READ`].
    #[error("bytes {range:?} cannot be read")]
    Range {
        /// The range asked for.
        range: ByteRange,
    },
    /// A chunk that does not fit this file: another length, or an index past its end.
    #[error("chunk {index} does not fit the file")]
    Chunk {
        /// The chunk.
        index: u32,
    },
    /// Over a limit of the format or of this store.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit, in the unit of what is limited.
        limit: u64,
    },
    /// No space is left on the device.
    #[error("no space left to {operation} {path}")]
    NoSpace {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("could not {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store's own records cannot be read or written.
    #[error("metadata of the store: {operation}")]
    Metadata {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A source or destination of a kind that this store does not know.
    #[error("store does not support {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The store has been shut down, or the partial file discarded.
    #[error("store is shut down or its file is gone")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything else.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::NoSpace { .. })
    }
}

/// What to import.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ImportSource {
    /// A file on disk.
    Path(PathBuf),
    /// Bytes in memory; always copied into the store.
    Bytes(Bytes),
}

/// What becomes of an imported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ImportMode {
    /// The file stays where it is and is read from there; it must not change.
    #[default]
    InPlace,
    /// The store keeps a copy of its own.
    Copy,
}

/// A wish to take a file into a store.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImportRequest {
    /// Where the bytes are.
    pub source: ImportSource,
    /// Copy or leave in place.
    pub mode: ImportMode,
    /// Name hint for the manifest header; of a path, its last component unless given.
    pub name: Option<String>,
    /// Media type hint for the manifest header.
    pub mime: Option<String>,
    /// Seconds since 1970 (UTC) for the manifest header.
    pub created_at: u64,
    /// Told of bytes hashed.
    pub progress: Option<ProgressFn>,
    /// What else is made of the pass, and kept with the object: see [`crate::sidecar`]. At most
    /// [`MAX_SIDECARS`](crate::sidecar::MAX_SIDECARS).
    pub sidecars: Vec<Arc<dyn SidecarHasher>>,
}

impl ImportRequest {
    /// With no hints and no progress.
    pub fn new(source: ImportSource) -> Self {
        Self {
            source,
            mode: ImportMode::InPlace,
            name: None,
            mime: None,
            created_at: 0,
            progress: None,
            sidecars: Vec::new(),
        }
    }
}

impl fmt::Debug for ImportRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportRequest")
            .field("source", &self.source)
            .field("mode", &self.mode)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Where a complete object lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In the store itself.
    Store,
    /// In a file of the user's, seeded in place.
    External(PathBuf),
    /// In several files of the user's, of which the store knows nothing any more.
    Files,
}

/// A complete object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Identity and hints.
    pub header: ManifestHeader,
    /// Where its bytes are.
    pub location: Location,
    /// Names of those who want it kept.
    pub pins: Vec<String>,
}

impl ObjectInfo {
    /// An object.
    pub fn new(header: ManifestHeader, location: Location, pins: Vec<String>) -> Self {
        Self {
            header,
            location,
            pins,
        }
    }
}

/// A wish to begin, or go on with, a download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartialRequest {
    /// Id for a new partial file; one that exists keeps its own.
    pub transfer: TransferId,
    /// What is downloaded. A partial file of the same cid and root (of the same root, if no
    /// cid is known) and size is gone on with. One begun under another root, or under none,
    /// is not: what a lying root proves is not the file.
    pub target: FileIdentification,
    /// Size in bytes, as far as anybody says; if it proves wrong the partial file is
    /// discarded and another begun.
    pub size: u64,
    /// How it is to lie in several files; in one of the store's without that, or where it lies
    /// already. It is begun again if it lies elsewhere. Each file is beside its place under
    /// another name, and has its own at [completion](Destination::Files).
    pub spans: Option<Arc<FileSpans>>,
}

impl PartialRequest {
    /// For this target at this size.
    pub fn new(transfer: TransferId, target: FileIdentification, size: u64) -> Self {
        Self {
            transfer,
            target,
            size,
            spans: None,
        }
    }

    /// In several files.
    #[must_use]
    pub fn with_spans(mut self, spans: Arc<FileSpans>) -> Self {
        self.spans = Some(spans);
        self
    }
}

/// A download that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialInfo {
    /// Its id.
    pub transfer: TransferId,
    /// What is downloaded.
    pub target: FileIdentification,
    /// Size in bytes.
    pub size: u64,
    /// Chunks on disk.
    pub present: u32,
    /// Chunks proven.
    pub proven: u32,
}

impl PartialInfo {
    /// A partial file's state.
    pub fn new(
        transfer: TransferId,
        target: FileIdentification,
        size: u64,
        present: u32,
        proven: u32,
    ) -> Self {
        Self {
            transfer,
            target,
            size,
            present,
            proven,
        }
    }
}

/// Where a completed download goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// It becomes an object of the store.
    Store,
    /// It becomes this file, which must not exist; the store remembers it as seeded in place.
    File(PathBuf),
    /// It becomes these files, for which it was [begun](PartialRequest::spans), and the store
    /// knows nothing of it any more. A file that exists with the same bytes does instead; one
    /// with others is an error, and then the partial file is as it was.
    Files(Arc<FileSpans>),
}

/// Content by cid. See the module's trait docs for what every implementation promises:
/// `chiral_core::conformance::chunk_store` checks it.
///
/// - Equal content is one object, however often it is imported.
/// - An object goes when its last pin goes; one that was never pinned stays until it is
///   pinned and unpinned, or [`ChunkStore::remove`]d.
/// - What was acknowledged survives a crash, except writes to partial files within the
///   window that [`PartialFile::write`] states.
#[async_trait]
pub trait ChunkStore: Send + Sync + fmt::Debug + 'static {
    /// Takes a file in, in one pass over it. Afterwards the object has every sidecar that the
    /// request asks for and that can be made of the file; one that it had stays as it was.
    ///
    /// # Errors
    /// [`StoreError::NotAFile`], [`StoreError::Changed`] if the file changes meanwhile, I/O;
    /// [`StoreError::Unsupported`] for a sidecar whose name is none,
    /// [`StoreError::TooLarge`] for too many.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pass soon; nothing is registered.
    async fn import(&self, request: ImportRequest) -> Result<ObjectInfo, StoreError>;

    /// The complete object of this cid.
    async fn object(&self, cid: Cid) -> Result<Option<ObjectInfo>, StoreError>;

    /// All complete objects, by cid.
    async fn objects(&self) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Opens what can be served of this cid: a complete object, or the proven chunks of a
    /// partial file whose root is pinned or proven.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if a file seeded in place is not what it was.
    async fn open(&self, cid: Cid) -> Result<Option<Arc<dyn StoredContent>>, StoreError>;

    /// What is kept beside a complete object under this name. It goes with the object.
    async fn sidecar(&self, cid: Cid, name: &str) -> Result<Option<Bytes>, StoreError>;

    /// Keeps bytes beside a complete object under this name, in place of those that were kept
    /// before: for what was made of it after the import. They survive what the object survives.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Unsupported`] for a name that is none;
    /// [`StoreError::TooLarge`] over the limits of [`crate::sidecar`].
    async fn set_sidecar(&self, cid: Cid, name: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Adds a pin by name; idempotent. Answers the number of pins.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn pin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError>;

    /// Takes a pin away; idempotent. Answers the number of pins left; at none the object is
    /// removed (of a file seeded in place, only the reference).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn unpin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError>;

    /// Removes an object that nobody pins. Answers whether there was one to remove.
    async fn remove(&self, cid: Cid) -> Result<bool, StoreError>;

    /// Begins a partial file, or goes on with one of the same target and size.
    async fn begin(&self, request: PartialRequest) -> Result<Arc<dyn PartialFile>, StoreError>;

    /// All partial files.
    async fn partials(&self) -> Result<Vec<PartialInfo>, StoreError>;

    /// Deletes a partial file. Answers whether there was one.
    async fn discard(&self, transfer: TransferId) -> Result<bool, StoreError>;

    /// Makes everything durable and lets go of files and locks; idempotent. Later calls
    /// answer [`StoreError::Closed`].
    async fn shutdown(&self) -> Result<(), StoreError>;
}

/// Content that can be served.
#[async_trait]
pub trait StoredContent: Send + Sync + fmt::Debug + 'static {
    /// Identity and hints.
    fn header(&self) -> &ManifestHeader;

    /// What can be served now; may grow.
    fn coverage(&self) -> Coverage;

    /// Reads bytes that the coverage holds, at most [`MAX_READ`] of them, none too few.
    ///
    /// # Errors
    /// [`StoreError::Range`]; [`StoreError::Changed`] if the file is not what it was.
    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError>;

    /// A page of the manifest; `None` if the file has no such page or it is not known here.
    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError>;
}

/// A download on its way to disk.
///
/// Two bits are kept for each chunk: *present* (its bytes are on disk) and *proven* (they
/// have been checked). A bit is never durable before its data.
#[async_trait]
pub trait PartialFile: Send + Sync + fmt::Debug + 'static {
    /// Its id.
    fn transfer(&self) -> TransferId;

    /// The cutting of the file.
    fn layout(&self) -> ChunkLayout;

    /// Chunks whose bytes are held, proven or not.
    fn present(&self) -> Bitmap;

    /// Chunks that have been checked.
    fn proven(&self) -> Bitmap;

    /// The hash of chunk `index` as the last proof of it or of the chunk after it said;
    /// `None` if neither is proven. (A proven chunk proves the hash before it.)
    async fn proven_hash(&self, index: u32) -> Result<Option<ChunkHash>, StoreError>;

    /// Writes a checked chunk: present and proven.
    ///
    /// What is lost if the process is killed: at most the last 64 chunks or the last 500 ms
    /// of writes, whichever is more. Waits if the disk falls further behind than that.
    async fn write(&self, chunk: VerifiedChunk) -> Result<(), StoreError>;

    /// Checks chunks and writes those that pass, as [`PartialFile::write`] does; answers for
    /// each whether it passed. For many at once this is cheaper than one by one: a store that
    /// has threads for its work does all of it in one go there.
    ///
    /// # Errors
    /// Those of [`PartialFile::write`]; it is not known then which were written.
    ///
    /// # Cancel safety
    /// If the future is dropped, any of the chunks may be written, now or a little later.
    async fn write_checked(&self, claims: Vec<ChunkClaim>) -> Result<Vec<bool>, StoreError> {
        let mut passed = Vec::with_capacity(claims.len());
        for claim in claims {
            let chunk = claim.check(self.layout());
            passed.push(chunk.is_ok());
            if let Ok(chunk) = chunk {
                self.write(chunk).await?;
            }
        }
        Ok(passed)
    }

    /// Writes bytes that cannot be checked yet: present, not proven. Never over a proven
    /// chunk. Same durability as [`PartialFile::write`].
    ///
    /// # Errors
    /// [`StoreError::Chunk`] if index or length do not fit.
    async fn write_unproven(&self, index: u32, bytes: Bytes) -> Result<(), StoreError>;

    /// Marks present chunks as proven, in the order given.
    ///
    /// # Errors
    /// [`StoreError::Chunk`] for one that is not present.
    async fn prove(&self, links: Vec<ProvenLink>) -> Result<(), StoreError>;

    /// Takes back a chunk that turned out wrong: not present. Proven chunks stay.
    async fn forget(&self, index: u32) -> Result<(), StoreError>;

    /// Reads a present chunk back, proven or not.
    ///
    /// # Errors
    /// [`StoreError::Range`] if it is not present.
    async fn read(&self, index: u32) -> Result<Bytes, StoreError>;

    /// Keeps a page for serving and for the next start. Its root counts as this file's: for
    /// pinned and proven roots only.
    async fn store_page(&self, page: &VerifiedPage) -> Result<(), StoreError>;

    /// A page kept before.
    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError>;

    /// Gives the header under which the proven chunks may be served from now on: for pinned
    /// and proven roots only.
    async fn set_header(&self, header: ManifestHeader) -> Result<(), StoreError>;

    /// The header given before, if any: with it, a restart needs nobody to learn the identity.
    async fn header(&self) -> Result<Option<ManifestHeader>, StoreError>;

    /// Makes all writes so far durable.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Ends the download: recomputes the root from the proven hashes, makes everything
    /// durable, moves the file to its destination without overwriting anything, and
    /// registers the object. The hints come from `header`, identity from what was proven.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`]; [`StoreError::AlreadyExists`], after which the partial
    /// file is as it was.
    async fn complete(
        &self,
        destination: Destination,
        header: ManifestHeader,
    ) -> Result<ObjectInfo, StoreError>;

    /// The sealed root recomputed from the proven hashes, once all are.
    async fn recomputed_root(&self) -> Result<Option<MerkleRoot>, StoreError>;
}
