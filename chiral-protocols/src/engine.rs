//! The multi-source engine: one download from any number of sources over any protocols.
//!
//! A download is one task. It learns the file's identity from whoever knows it, lets the
//! [`Scheduler`](crate::scheduler::Scheduler) hand out byte ranges, puts chunks together,
//! has every one checked, and keeps count of who delivered what that passed.
//!
//! Which check a chunk gets depends on what is known:
//!
//! - under a *pinned* or *proven* root, chunks are checked in any order as they come;
//! - with only the cid and roots that strangers announce, from the end towards the start,
//!   each chunk proving the hash before it, with at most
//!   [`EngineConfig::window_chunks`] chunks not yet proven;
//! - with only the cid and plain mirrors, at the end;
//! - with another network's hashes of pieces, as each piece is whole, and the cid is found on
//!   the way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::chunk_store::ObjectInfo;
use chiral_core::content_protocol::SourceStream;
use chiral_core::transfer::{EventStream, SourceReport};
use chiral_core::{
    ChunkSource, ChunkStore, DownloadRequest, FileIdentification, ManifestHeader, PeerOffer,
    RangeSet, Transfer, TransferError, TransferId, TransferRegistry,
};
use tokio::task::JoinHandle;

use crate::downloads::Downloads;
use crate::peers::PeerBook;
use crate::scheduler::SchedulerConfig;

mod active;
mod assembly;
mod attribution;
mod backward;
mod blame;
mod checks;
mod connections;
mod control;
mod coverage;
mod fetch;
mod finish;
mod forward;
mod held;
mod identify;
mod jobs;
mod lookout;
mod pages;
mod paying;
mod pieces;
mod pinned;
mod places;
mod run;
mod source;
mod tail;
mod tellers;
mod wanted;

pub(crate) use wanted::Seat;
pub use wanted::{MAX_READERS, Readable};

/// Limits and times of a download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Chunks that may be present and not proven while a download verifies backwards.
    pub window_chunks: u32,
    /// Announced roots that are kept as candidates for one cid.
    pub max_candidates: usize,
    /// Sources connected at once in one download.
    pub max_sources: usize,
    /// How long to go on gathering announced roots after the first.
    pub gather: Duration,
    /// How long to wait for a source that knows the manifest before a download is begun from
    /// plain mirrors alone.
    pub manifest_patience: Duration,
    /// How long a download lasts while nobody can deliver what is missing.
    pub source_patience: Duration,
    /// How long a source may stand still because payment is being arranged, before it is
    /// taken for one that stalls.
    pub payment_patience: Duration,
    /// Limit on one request for a manifest page or for the chunk that shows an identity.
    pub request_timeout: Duration,
    /// How often a partial seeder is asked anew what it holds; five times as often while it
    /// has nothing to do.
    pub coverage_refresh: Duration,
    /// How often the directory is asked again who seeds the file.
    pub look_again: Duration,
    /// Chunks that are remembered of those that were thrown away because mirrors, with nothing
    /// but a cid, had sent a whole that is not the file: to tell in the end whose were wrong.
    /// Of those beyond, nobody is put out; what is taken for the file does not depend on it.
    pub max_rejected: usize,
    /// Chunks being checked or written at once.
    pub max_jobs: usize,
    /// How ranges are handed out.
    pub scheduler: SchedulerConfig,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            window_chunks: 64,
            max_candidates: 8,
            max_sources: 50,
            gather: Duration::from_millis(150),
            manifest_patience: Duration::from_secs(3),
            source_patience: Duration::from_secs(30),
            payment_patience: Duration::from_secs(900),
            request_timeout: Duration::from_secs(10),
            coverage_refresh: Duration::from_secs(5),
            look_again: Duration::from_secs(60),
            // Of 16 GiB of file.
            max_rejected: 65_536,
            max_jobs: 24,
            scheduler: SchedulerConfig::default(),
        }
    }
}

impl EngineConfig {
    /// Sets how long a download lasts while nobody can deliver what is missing.
    #[must_use]
    pub fn with_source_patience(mut self, patience: Duration) -> Self {
        self.source_patience = patience;
        self
    }
}

/// Makes sources of offers. The engine knows of protocols only through this.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Connects to a seeder over the protocol of its offer.
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError>;

    /// Sources that arrive by themselves.
    async fn arrivals(&self, target: &FileIdentification) -> SourceStream;

    /// Puts offers in the order in which they are to be connected, and answers how many of
    /// them are meant: those behind are a last resort, for when these do not deliver. Unless
    /// said otherwise they stay as they are, and all are meant.
    fn order(&self, target: &FileIdentification, offers: &mut [PeerOffer]) -> usize {
        let _ = target;
        offers.len()
    }
}

/// What one seeder delivered that passed the check. No byte is in two of these.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivered {
    /// Whose bytes they are, over what, at what price.
    pub offer: PeerOffer,
    /// The bytes.
    pub ranges: RangeSet,
}

impl Delivered {
    /// These bytes, from whoever made this offer.
    pub fn new(offer: PeerOffer, ranges: RangeSet) -> Self {
        Self { offer, ranges }
    }
}

/// What came of a download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadReport {
    /// Identity, proven, and hints.
    pub header: ManifestHeader,
    /// The complete object; `None` if only a part was asked for.
    pub object: Option<ObjectInfo>,
    /// Who delivered what, in this run.
    pub delivered: Vec<Delivered>,
    /// What each source did.
    pub sources: Vec<SourceReport>,
}

/// A download under way.
#[derive(Debug)]
pub struct Download {
    transfer: Transfer,
    events: EventStream,
    readable: Readable,
    task: JoinHandle<Result<DownloadReport, TransferError>>,
}

impl Download {
    /// Its handle: progress, events, pause, resume, cancel.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// What makes readers of it.
    pub fn readable(&self) -> &Readable {
        &self.readable
    }

    /// The handle, and all events from the first.
    pub fn split(self) -> (Transfer, EventStream, Finished) {
        (self.transfer, self.events, Finished { task: self.task })
    }

    /// Waits for the end, as [`Finished::report`].
    ///
    /// # Errors
    /// Why it failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the download running.
    pub async fn finished(self) -> Result<DownloadReport, TransferError> {
        Finished { task: self.task }.report().await
    }
}

/// The end of a download.
#[derive(Debug)]
pub struct Finished {
    task: JoinHandle<Result<DownloadReport, TransferError>>,
}

impl Finished {
    /// Waits for the end.
    ///
    /// # Errors
    /// Why it failed. What is durable stays in the store for the next try.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the download running.
    pub async fn report(self) -> Result<DownloadReport, TransferError> {
        match self.task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(TransferError::Closed),
        }
    }
}

/// Runs downloads into one store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    store: Arc<dyn ChunkStore>,
    registry: TransferRegistry,
    config: Arc<EngineConfig>,
    downloads: Downloads,
    peers: PeerBook,
}

impl Engine {
    /// An engine over a store, telling a registry of its transfers.
    pub fn new(
        store: Arc<dyn ChunkStore>,
        registry: TransferRegistry,
        config: EngineConfig,
    ) -> Self {
        Self {
            store,
            registry,
            config: Arc::new(config),
            downloads: Downloads::new(),
            peers: PeerBook::new(),
        }
    }

    /// The queue of its downloads, and the limits on what they receive.
    pub fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    /// What is remembered of peers over all its downloads.
    pub fn peers(&self) -> &PeerBook {
        &self.peers
    }

    /// The store that downloads go into.
    pub fn store(&self) -> &Arc<dyn ChunkStore> {
        &self.store
    }

    /// The transfers under way.
    pub fn registry(&self) -> &TransferRegistry {
        &self.registry
    }

    /// Begins a download, or goes on with one that was interrupted, once it has its turn in
    /// [`Engine::downloads`]. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`TransferError::Registry`] if the same content is being downloaded already.
    pub fn download(
        &self,
        id: TransferId,
        request: DownloadRequest,
        connector: Arc<dyn Connector>,
    ) -> Result<Download, TransferError> {
        let (transfer, driver) = self.registry.begin(id, request.target)?;
        let events = transfer.events();
        if request.paused {
            transfer.pause();
        }
        let turn = self.downloads.enter(id, request.priority, request.limit);
        let engine = self.clone();
        let owner = wanted::Owner::new();
        let readable = owner.readable().clone();
        let work = async move { engine.run(driver, turn, request, connector, owner).await };
        let task = tokio::spawn(work);
        Ok(Download {
            transfer,
            events,
            readable,
            task,
        })
    }
}
