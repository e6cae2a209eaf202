//! [`ContentProtocol`]: a way of finding, fetching and seeding content.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

pub use crate::chunk_source::TransferError;
use crate::chunk_store::{Destination, ImportMode, ProgressFn};
use crate::{
    ByteRange, ChunkSource, Cid, FileIdentification, FileMetadata, PeerDirectory, PeerOffer,
    PieceHashes, PieceLookup, Priority, Protocol, Rate, TransferRegistry,
};

/// What a protocol can do; the rest answers [`TransferError::Unsupported`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Can fetch from a peer.
    pub fetch: bool,
    /// Can seed.
    pub seed: bool,
    /// Finds peers by itself (trackers, a DHT of its own).
    pub discover: bool,
    /// Delivers manifests, so that a download verifies as it goes.
    pub manifest: bool,
}

impl Capabilities {
    /// Fetching, seeding and manifests, without discovery.
    pub const fn fetch_and_seed() -> Self {
        Self {
            fetch: true,
            seed: true,
            discover: false,
            manifest: true,
        }
    }

    /// Fetching alone.
    pub const fn fetch_only() -> Self {
        Self {
            fetch: true,
            seed: false,
            discover: false,
            manifest: false,
        }
    }
}

/// What to seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SeedContent {
    /// A file, in place or copied.
    Path(PathBuf, ImportMode),
    /// Bytes in memory.
    Bytes(Bytes),
    /// Content that the store holds already, complete or in part.
    Stored(Cid),
}

/// A wish to seed.
#[derive(Clone)]
#[non_exhaustive]
pub struct SeedRequest {
    /// What.
    pub content: SeedContent,
    /// Name hint, if not that of the path.
    pub name: Option<String>,
    /// Told of bytes hashed.
    pub progress: Option<ProgressFn>,
}

impl SeedRequest {
    /// To seed this, with no hints and no progress.
    pub fn new(content: SeedContent) -> Self {
        Self {
            content,
            name: None,
            progress: None,
        }
    }
}

impl fmt::Debug for SeedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedRequest")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// A wish to get a file from one peer.
#[derive(Clone)]
#[non_exhaustive]
pub struct GetRequest {
    /// From whom.
    pub offer: PeerOffer,
    /// What.
    pub target: FileIdentification,
    /// Where to; `None` for bytes in memory.
    pub destination: Option<PathBuf>,
    /// Told of bytes verified.
    pub progress: Option<ProgressFn>,
}

impl GetRequest {
    /// To memory, without progress.
    pub fn new(offer: PeerOffer, target: FileIdentification) -> Self {
        Self {
            offer,
            target,
            destination: None,
            progress: None,
        }
    }
}

impl fmt::Debug for GetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetRequest")
            .field("offer", &self.offer)
            .field("target", &self.target)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// What came of a [`GetRequest`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content {
    /// The bytes.
    Bytes(Bytes),
    /// The file that they were written to.
    File(PathBuf),
}

/// Limit on content fetched into memory, in bytes.
pub const MAX_BYTES_IN_MEMORY: u64 = 1 << 30;

/// Sources that arrive by themselves: incoming connections, trackers, peer exchange.
pub type SourceStream = Pin<Box<dyn Stream<Item = Arc<dyn ChunkSource>> + Send>>;

/// A way of delivering content.
///
/// Only [`name`](ContentProtocol::name), [`connect`](ContentProtocol::connect),
/// [`registry`](ContentProtocol::registry) and [`shutdown`](ContentProtocol::shutdown) must be
/// written; the rest has forms that answer `Unsupported`, or that follow from these.
#[async_trait]
pub trait ContentProtocol: Send + Sync + fmt::Debug + 'static {
    /// Which protocol this is.
    fn name(&self) -> Protocol;

    /// What it can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::fetch_only()
    }

    /// The transfers that this node works on, shared by all its protocols.
    fn registry(&self) -> &TransferRegistry;

    /// Peers known by this protocol's own means to serve the content.
    async fn peers_serving(
        &self,
        target: &FileIdentification,
    ) -> Result<Vec<PeerOffer>, TransferError> {
        let _ = target;
        Ok(Vec::new())
    }

    /// What is known of the content by this protocol's own means.
    async fn file_metadata(
        &self,
        target: &FileIdentification,
    ) -> Result<Option<FileMetadata>, TransferError> {
        let _ = target;
        Ok(None)
    }

    /// Connects to a seeder.
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError>;

    /// Sources that arrive by themselves for as long as the stream is held.
    async fn sources(&self, target: &FileIdentification) -> Result<SourceStream, TransferError> {
        let _ = target;
        Ok(Box::pin(futures_util::stream::empty()))
    }

    /// Gets a whole file from one peer: one source, in order, verified like any download.
    ///
    /// # Errors
    /// [`TransferError`], by case; [`TransferError::TooLarge`] over
    /// [`MAX_BYTES_IN_MEMORY`] if no destination is given.
    ///
    /// # Cancel safety
    /// Dropping the future ends the download; nothing of it is kept.
    async fn get_content_from(&self, request: GetRequest) -> Result<Content, TransferError> {
        crate::single_source::get(
            self.connect(&request.offer, &request.target).await?,
            request,
        )
        .await
    }

    /// Begins to seed; idempotent for equal content.
    async fn start_seeding(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        let _ = request;
        Err(TransferError::Unsupported {
            protocol: self.name(),
            operation: "seeding",
        })
    }

    /// Ends seeding; true if the content was seeded over this protocol.
    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let _ = target;
        Ok(false)
    }

    /// Pauses the transfer of this content; true if one was running.
    async fn pause(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        Ok(self
            .registry()
            .find(target)
            .is_some_and(|transfer| transfer.pause()))
    }

    /// Resumes the transfer of this content; true if one was paused.
    async fn resume(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        Ok(self
            .registry()
            .find(target)
            .is_some_and(|transfer| transfer.resume()))
    }

    /// Cancels the transfer of this content; true if one was under way.
    async fn cancel(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        Ok(self
            .registry()
            .find(target)
            .is_some_and(|transfer| transfer.cancel()))
    }

    /// Takes a message to the [`PaymentGate`](crate::PaymentGate) of the seeder behind an
    /// offer, and brings its answer. Unread by the protocol.
    ///
    /// # Errors
    /// [`TransferError`]; `Unsupported` by protocols that carry no payments.
    async fn payment_message(
        &self,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        let _ = (offer, message);
        Err(TransferError::Unsupported {
            protocol: self.name(),
            operation: "payment messages",
        })
    }

    /// Where this protocol can be reached for content that it seeds, to be announced.
    fn endpoints(&self) -> Vec<crate::Endpoint> {
        Vec::new()
    }

    /// Stops accepting, ends what is under way, releases ports and files; idempotent.
    async fn shutdown(&self) -> Result<(), TransferError>;
}

/// A download's order to its engine, shared by manager and facade.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadRequest {
    /// What.
    pub target: FileIdentification,
    /// How it is checked if nothing but another network's hashes is known of it. With these,
    /// `target` may be an alias; if it names a cid, what comes must turn out to have it.
    pub pieces: Option<Arc<dyn PieceHashes>>,
    /// Where those hashes are to be learnt first, and who follows what becomes of them.
    pub lookup: Option<Arc<dyn PieceLookup>>,
    /// From whom, beside those that are found.
    pub offers: Vec<PeerOffer>,
    /// Where to.
    pub destination: Destination,
    /// Only these bytes (widened to whole chunks): what is got stays a partial file of the
    /// store, and `destination` does not apply. Needs a pinned or proven root.
    pub only: Option<ByteRange>,
    /// Asked while the download goes on who else seeds it.
    pub directory: Option<Arc<dyn PeerDirectory>>,
    /// Whether the directory's first answer is among the offers; if not, it is asked at once.
    pub asked_directory: bool,
    /// How much it matters beside other downloads; can be changed while it runs.
    pub priority: Priority,
    /// The most to receive; can be changed while it runs.
    pub limit: Option<Rate>,
    /// Whether it begins paused, and does nothing before it is resumed.
    pub paused: bool,
}

impl DownloadRequest {
    /// All of the target, into the store.
    pub fn new(target: FileIdentification) -> Self {
        Self {
            target,
            pieces: None,
            lookup: None,
            offers: Vec::new(),
            destination: Destination::Store,
            only: None,
            directory: None,
            asked_directory: false,
            priority: Priority::Normal,
            limit: None,
            paused: false,
        }
    }
}
