//! [`Libp2pDirectory`]: the directory over Kademlia.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::peer_directory::MAX_OFFERS;
use chiral_core::{
    Announcement, DirectoryError, FileIdentification, PeerDirectory, PeerOffer, ProviderQuery,
    WalletSigner,
};
use futures_util::future::join_all;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::handle::{Closed, Handle};
use crate::records::store::UnixClock;
use crate::records::{Publication, Reader, RecordKey, WalletBinding, provider_key};
use table::Table;

mod publisher;
mod sequence;
mod table;

pub(super) use sequence::Sequence;
pub use table::MAX_FILES;

/// How long [`PeerDirectory::announce`] and [`PeerDirectory::withdraw`] wait for others to
/// acknowledge. What takes longer goes on by itself.
const PUBLISH_WAIT: Duration = Duration::from_secs(10);

/// How long a look-up, or an announcement, waits for the first node of the network to be found.
const ENTRANCE_WAIT: Duration = Duration::from_secs(10);

/// How long [`PeerDirectory::shutdown`] takes at most.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// The directory of one node.
///
/// - An announcement is signed, put at the nodes closest to the file's names, and repeated
///   until it is withdrawn. Announcing while nobody is connected succeeds: it is published
///   as soon as somebody is. While a node enters the network, the call waits for that. When a node is killed, its announcements expire.
/// - Withdrawing publishes a statement that replaces the announcement at once.
/// - A look-up unites what all of the closest nodes hold, and checks every signature.
/// - Dropped calls are safe: what was announced or withdrawn stays so.
pub(super) struct Libp2pDirectory {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    handle: Handle,
    key: Keypair,
    peer: PeerId,
    wallet: Option<Arc<dyn WalletSigner>>,
    binding: OnceCell<WalletBinding>,
    lifetime: Duration,
    republish: Duration,
    /// Whether there is a network to be found.
    has_entrance: bool,
    clock: UnixClock,
    table: Mutex<Table>,
    /// Something became due.
    wake: Notify,
    closed: AtomicBool,
    /// The publisher stops.
    stop: CancellationToken,
    turn: AtomicU64,
}

/// What a directory is made of.
pub(super) struct Parts {
    pub(super) handle: Handle,
    pub(super) key: Keypair,
    pub(super) wallet: Option<Arc<dyn WalletSigner>>,
    pub(super) lifetime: Duration,
    pub(super) republish: Duration,
    pub(super) has_entrance: bool,
    pub(super) clock: UnixClock,
    pub(super) sequence: Sequence,
}

impl Libp2pDirectory {
    /// Starts the task that publishes; it ends with the handle or by shutdown.
    pub(super) fn start(parts: Parts) -> Self {
        let stop = parts.handle.stop.child_token();
        let shared = Arc::new(Shared {
            peer: parts.key.public().to_peer_id(),
            handle: parts.handle,
            key: parts.key,
            wallet: parts.wallet,
            binding: OnceCell::new(),
            lifetime: parts.lifetime,
            republish: parts.republish,
            has_entrance: parts.has_entrance,
            clock: parts.clock,
            table: Mutex::new(Table::new(parts.sequence)),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            stop,
            turn: AtomicU64::new(0),
        });
        tokio::spawn(publisher::run(shared.clone()));
        Self { shared }
    }

    /// The binding of the wallet, signed once.
    pub(super) async fn binding(&self) -> Result<Option<&WalletBinding>, DirectoryError> {
        self.shared.binding().await
    }

    /// What this node announces: the number, and some of the files.
    pub(super) fn announced(&self, limit: usize) -> (usize, Vec<chiral_core::Cid>) {
        self.shared.table().announced(limit)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Sees to it that the next announcement has a number that no restart falls behind.
    async fn reserve(&self) {
        let unsaved = self.table().sequence.unsaved(self.now());
        let Some((unsaved, reserved)) = unsaved else {
            return;
        };
        match tokio::task::spawn_blocking(move || unsaved.save()).await {
            Ok(Ok(())) => self.table().sequence.saved(reserved),
            // What is announced holds all the same, as long as the clock does not go back.
            Ok(Err(error)) => tracing::warn!(%error, "the number was not kept"),
            Err(error) => tracing::warn!(%error, "the number was not kept"),
        }
    }

    fn check_open(&self) -> Result<(), DirectoryError> {
        if self.closed.load(Ordering::Acquire) || self.handle.stop.is_cancelled() {
            Err(DirectoryError::Closed)
        } else {
            Ok(())
        }
    }

    async fn binding(&self) -> Result<Option<&WalletBinding>, DirectoryError> {
        let Some(wallet) = &self.wallet else {
            return Ok(None);
        };
        let signed = self
            .binding
            .get_or_try_init(|| WalletBinding::sign(&**wallet, &self.peer))
            .await;
        match signed {
            Ok(binding) => Ok(Some(binding)),
            Err(error) => {
                tracing::warn!(%error, "the wallet did not sign for this node");
                Err(DirectoryError::Refused {
                    reason: "the wallet did not sign for this node",
                })
            }
        }
    }

    /// Waits for the publisher's first attempt.
    async fn published(&self, attempted: oneshot::Receiver<()>) {
        self.wake.notify_one();
        if timeout(PUBLISH_WAIT, attempted).await.is_err() {
            tracing::debug!("publishing takes its time and goes on");
        }
    }

    /// All copies of a record, checked and united.
    async fn read(&self, key: RecordKey) -> Result<Reader, DirectoryError> {
        let values = self.handle.get(key.to_kad()).await?;
        let mut reader = Reader::new(key, self.now());
        for value in values {
            match reader.add(&value) {
                Ok(0) => {}
                Ok(refused) => tracing::debug!(%key, refused, "a copy with invalid announcements"),
                Err(error) => tracing::debug!(%key, %error, "a copy that is none"),
            }
        }
        Ok(reader)
    }

    /// Waits until some node of the network is known. A node that has nowhere to enter is
    /// its own network.
    async fn entered(&self) -> Result<(), DirectoryError> {
        let mut status = self.handle.status.clone();
        if !self.has_entrance {
            return Ok(());
        }
        match timeout(ENTRANCE_WAIT, status.wait_for(|status| status.known > 0)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(DirectoryError::Closed),
            Err(_) => Err(DirectoryError::Unreachable),
        }
    }
}

impl From<Closed> for DirectoryError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl fmt::Debug for Libp2pDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libp2pDirectory")
            .field("peer", &self.shared.peer)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PeerDirectory for Libp2pDirectory {
    async fn announce(&self, mut announcement: Announcement) -> Result<(), DirectoryError> {
        let shared = &self.shared;
        shared.check_open()?;
        announcement.lifetime = announcement.lifetime.min(shared.lifetime);
        let binding = shared.binding().await?;
        // Signed once to see that it can be; the publisher signs it anew each time.
        let now = shared.now();
        Publication::announce(&shared.key, binding, &announcement, 1, now)?;
        // Whoever announces and tells others wants to be found: not before there is anybody to
        // publish at, unless nobody comes.
        if shared.entered().await.is_err() {
            tracing::debug!("announced while nobody is there; published once somebody is");
        }
        let (attempt, attempted) = oneshot::channel();
        {
            let mut table = shared.table();
            shared.check_open()?;
            if !table.announce(announcement, attempt, Instant::now()) {
                return Err(DirectoryError::Refused {
                    reason: "too many files announced",
                });
            }
        }
        shared.published(attempted).await;
        Ok(())
    }

    async fn withdraw(&self, target: &FileIdentification) -> Result<bool, DirectoryError> {
        let shared = &self.shared;
        shared.check_open()?;
        let withdrawn = shared.table().withdraw(target, Instant::now());
        let any = !withdrawn.is_empty();
        for (cid, _) in &withdrawn {
            shared.handle.stop_providing(provider_key(*cid)).await;
        }
        for (_, attempted) in withdrawn {
            shared.published(attempted).await;
        }
        Ok(any)
    }

    async fn providers(&self, query: ProviderQuery) -> Result<Vec<PeerOffer>, DirectoryError> {
        let shared = &self.shared;
        shared.check_open()?;
        let Some(key) = RecordKey::of(&query.target) else {
            return Ok(Vec::new());
        };
        let entered = shared.entered().await;
        let reader = shared.read(key).await?;
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let offers = if let RecordKey::Cid(_) = key {
            reader.offers(&query, turn)
        } else {
            let read = reader.files().into_iter().map(async |file| {
                let key = RecordKey::of(&file)?;
                let reader = shared.read(key).await.ok()?;
                let mut query = query.clone();
                query.target = file;
                Some(reader.offers(&query, turn))
            });
            let of_files: Vec<_> = join_all(read).await.into_iter().flatten().collect();
            in_turns(of_files)
        };
        // What this node itself knows is an answer; nothing is only one if others were asked.
        if offers.is_empty() {
            entered?;
        }
        Ok(offers)
    }

    async fn shutdown(&self) -> Result<(), DirectoryError> {
        let shared = &self.shared;
        let attempted = {
            let mut table = shared.table();
            if shared.closed.swap(true, Ordering::AcqRel) || shared.handle.stop.is_cancelled() {
                return Ok(());
            }
            table.withdraw_all(Instant::now())
        };
        if shared.handle.status.borrow().known > 0 {
            shared.wake.notify_one();
            let all = timeout(SHUTDOWN_WAIT, join_all(attempted)).await;
            if all.is_err() {
                tracing::warn!("not everything was withdrawn in time: the rest expires");
            }
        }
        shared.stop.cancel();
        Ok(())
    }
}

/// The first of each, then the second of each, and so on, at most [`MAX_OFFERS`].
fn in_turns(of_files: Vec<Vec<PeerOffer>>) -> Vec<PeerOffer> {
    let longest = of_files.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|i| of_files.iter().filter_map(move |offers| offers.get(i)))
        .take(MAX_OFFERS)
        .cloned()
        .collect()
}
