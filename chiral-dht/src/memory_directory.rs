//! [`MemoryDirectory`]: a directory that several nodes in one process share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::{
    Announcement, DirectoryError, FileIdentification, PeerDirectory, PeerId, PeerOffer,
    ProviderQuery,
};

use records::Records;

mod records;

pub use records::{MAX_ANNOUNCEMENTS_PER_PEER, MAX_OFFERS_PER_ANNOUNCEMENT};

/// Time since some moment in the past; never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What the directories of several nodes have in common. Cheap to clone; all clones are one
/// network.
///
/// Announcements of a node that vanishes without [`MemoryDirectory::shutdown`] stay until
/// they expire, as they would in a directory among machines.
#[derive(Clone)]
pub struct MemoryDirectoryNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    records: Mutex<Records>,
    clock: Clock,
}

impl Shared {
    /// The records that hold now.
    fn records(&self) -> MutexGuard<'_, Records> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.expire((self.clock)());
        records
    }
}

impl MemoryDirectoryNetwork {
    /// An empty network on tokio's clock, which tests can pause.
    pub fn new() -> Self {
        let start = tokio::time::Instant::now();
        Self::with_clock(Arc::new(move || start.elapsed()))
    }

    /// An empty network on the caller's clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                records: Mutex::default(),
                clock,
            }),
        }
    }

    /// The directory of the node that `peer` names. Several with one id are one node: each
    /// replaces and withdraws what the others announced.
    pub fn join(&self, peer: PeerId) -> MemoryDirectory {
        MemoryDirectory {
            peer,
            shared: self.shared.clone(),
            closed: AtomicBool::new(false),
        }
    }
}

impl Default for MemoryDirectoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryDirectoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let announcements = self.shared.records().len();
        f.debug_struct("MemoryDirectoryNetwork")
            .field("announcements", &announcements)
            .finish_non_exhaustive()
    }
}

/// One node's place in a [`MemoryDirectoryNetwork`].
///
/// - An offer that names nobody is answered as its announcer's, unless it is a mirror, which
///   stays nobody's. One that names another peer is refused.
/// - A lookup by a name that several files were announced under answers the offers of all.
///   One that pins root or size leaves out offers that contradict it.
/// - Where there are more offers than may be answered, every peer gets a place before any
///   gets a second one, and another peer is first each time.
pub struct MemoryDirectory {
    peer: PeerId,
    shared: Arc<Shared>,
    closed: AtomicBool,
}

impl MemoryDirectory {
    /// Who announces through this directory.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// The records, unless this directory was shut down. Checked under the lock, so that
    /// nothing is announced behind a shutdown.
    fn open_records(&self) -> Result<MutexGuard<'_, Records>, DirectoryError> {
        let records = self.shared.records();
        if self.closed.load(Ordering::Relaxed) {
            Err(DirectoryError::Closed)
        } else {
            Ok(records)
        }
    }
}

impl fmt::Debug for MemoryDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDirectory")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PeerDirectory for MemoryDirectory {
    async fn announce(&self, announcement: Announcement) -> Result<(), DirectoryError> {
        let mut records = self.open_records()?;
        records.announce(&self.peer, announcement, (self.shared.clock)())
    }

    async fn withdraw(&self, target: &FileIdentification) -> Result<bool, DirectoryError> {
        Ok(self.open_records()?.withdraw(&self.peer, target))
    }

    async fn providers(&self, query: ProviderQuery) -> Result<Vec<PeerOffer>, DirectoryError> {
        Ok(self.open_records()?.providers(&query))
    }

    async fn shutdown(&self) -> Result<(), DirectoryError> {
        let mut records = self.shared.records();
        if !self.closed.swap(true, Ordering::Relaxed) {
            records.withdraw_all(&self.peer);
        }
        Ok(())
    }
}
