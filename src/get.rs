//! Downloading: to a file, to bytes, or a part of a file into the store.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use chiral_core::chunk_store::{Destination, MAX_READ};
use chiral_core::transfer::{EventStream, Progress, SourceReport};
use chiral_core::{
    Bill, ByteRange, Cid, DownloadRequest, FileIdentification, ManifestHeader, PeerDirectory,
    PeerOffer, Priority, Protocol, ProviderQuery, Rate, SettlementStatus, StoreError, Transfer,
    TransferError, TransferId,
};
#[cfg(feature = "bittorrent")]
use chiral_protocols::bittorrent::download::TorrentDownload;
use chiral_protocols::{Downloads, ReadError, Readable, Reader};
use tokio::task::JoinHandle;

use crate::auto_seed::{self, Others};
use crate::builder::endpoint;
use crate::node::new_transfer_id;
use crate::settle::free_bills;
#[cfg(feature = "bittorrent")]
use crate::unfinished::TorrentRecord;
use crate::unfinished::{Record, Settings};
use crate::{Node, NodeError};

/// Limit on a download to bytes unless another is given: 256 MiB.
pub const DEFAULT_MAX_BYTES: u64 = 256 << 20;

#[derive(Clone, Debug)]
enum Goal {
    Store,
    File(PathBuf),
    Bytes(u64),
    Part(ByteRange),
}

/// A download that is being prepared.
#[derive(Debug)]
#[must_use = "nothing is downloaded before start()"]
pub struct Get {
    node: Node,
    target: FileIdentification,
    goal: Goal,
    offers: Vec<PeerOffer>,
    seed: bool,
    /// Whether it is no error that it cannot be seeded.
    seed_if_able: bool,
    priority: Priority,
    limit: Option<Rate>,
    paused: bool,
    #[cfg(feature = "bittorrent")]
    pub(crate) torrent: Option<(Arc<TorrentDownload>, TorrentRecord)>,
    bad: Option<NodeError>,
}

impl Get {
    pub(crate) fn new(node: Node, target: FileIdentification) -> Self {
        Self {
            seed: node.inner().auto_seed,
            node,
            target,
            goal: Goal::Store,
            offers: Vec::new(),
            seed_if_able: false,
            priority: Priority::Normal,
            limit: None,
            paused: false,
            #[cfg(feature = "bittorrent")]
            torrent: None,
            bad: None,
        }
    }

    /// To a file, which must not exist. On the same file system as the data directory it is
    /// moved there, else copied.
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.goal = Goal::File(path.into());
        self
    }

    /// To bytes in memory, at most [`DEFAULT_MAX_BYTES`] of them.
    pub fn to_bytes(self) -> Self {
        self.to_bytes_up_to(DEFAULT_MAX_BYTES)
    }

    /// To bytes in memory, at most so many of them.
    pub fn to_bytes_up_to(mut self, limit: u64) -> Self {
        self.goal = Goal::Bytes(limit);
        self
    }

    /// Only this part, widened to whole chunks. It stays in the store as a partial file,
    /// which [`Share::stored`](crate::Share::stored) shares. Needs a link with its root.
    pub fn only(mut self, part: ByteRange) -> Self {
        self.goal = Goal::Part(part);
        self
    }

    /// Also from this seeder, by the URL at which it serves HTTP.
    pub fn peer(self, url: &str) -> Self {
        self.at(url, false)
    }

    /// Also from this web server, which has a plain copy of the file at this URL.
    pub fn mirror(self, url: &str) -> Self {
        self.at(url, true)
    }

    fn at(mut self, url: &str, mirror: bool) -> Self {
        match endpoint(url) {
            Ok(endpoint) => {
                let mut offer = PeerOffer::new(Protocol::Http, endpoint);
                offer.mirror = mirror;
                self.offers.push(offer);
            }
            Err(error) => self.bad = self.bad.or(Some(error)),
        }
        self
    }

    /// Whether to seed it while it is downloaded (as far as it is proven, with a root that
    /// the link pins) and afterwards, until [`Node::unshare`]; if not said, as
    /// [`NodeBuilder::auto_seed`](crate::NodeBuilder::auto_seed) has it. Whoever gets it from
    /// here pays for it, as for everything that is shared. Of a download that fails or is
    /// cancelled nothing is seeded any more.
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    /// As it was said in an earlier run of the node, which may have served then.
    pub(crate) fn seed_if_able(mut self, seed: bool) -> Self {
        (self.seed, self.seed_if_able) = (seed, true);
        self
    }

    /// Also from this offer, of whatever protocol.
    pub fn offer(mut self, offer: PeerOffer) -> Self {
        self.offers.push(offer);
        self
    }

    /// Whether it begins paused: it waits for [`Getting::resume`] before it does anything.
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// How much it matters beside other downloads: it has its turn sooner, if need be that of
    /// one that matters less, and more of what they share. [`Getting::set_priority`] changes
    /// it.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Limits what it receives. [`Getting::set_limit`] changes it.
    pub fn limit_down(mut self, limit: Rate) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Asks the directory who seeds it and begins; if somebody was named, without waiting
    /// for its answer. It is asked again while the download goes on. A download of the same
    /// content that was interrupted is gone on with.
    ///
    /// # Errors
    /// An endpoint is none, the directory fails and nobody else was named, the same
    /// content is being downloaded, or it is to be seeded and the node serves nothing.
    pub async fn start(self) -> Result<Getting, NodeError> {
        let Self {
            node,
            target,
            goal,
            mut offers,
            seed,
            seed_if_able,
            priority,
            limit,
            paused,
            #[cfg(feature = "bittorrent")]
            torrent,
            bad,
        } = self;
        #[cfg(feature = "bittorrent")]
        let (torrent, torrent_record) = torrent.unzip();
        #[cfg(feature = "bittorrent")]
        let is_torrent = torrent.is_some();
        #[cfg(not(feature = "bittorrent"))]
        let is_torrent = false;
        node.check_open()?;
        if let Some(error) = bad {
            return Err(error);
        }
        let record = match &goal {
            // Bytes are for whoever asks for them now.
            Goal::Bytes(_) => None,
            Goal::Store => Some(Record::new(target, None, None, &offers)),
            Goal::File(path) => Some(Record::new(target, Some(path.clone()), None, &offers)),
            Goal::Part(part) => Some(Record::new(target, None, Some(*part), &offers)),
        };
        // Its link has its peers.
        #[cfg(feature = "bittorrent")]
        let record = match torrent_record {
            Some(torrent) => {
                let path = match &goal {
                    Goal::File(path) => Some(path.clone()),
                    _ => None,
                };
                Some(Record::new(target, path, None, &[]).of_torrent(torrent))
            }
            None => record,
        };
        let record = record.map(|record| record.seeding(seed));
        let seed = match seed.then(|| auto_seed::check(&node)) {
            Some(Err(error)) if seed_if_able => {
                tracing::warn!(%target, %error, "it is not seeded in this run");
                false
            }
            Some(able) => able.map(|()| true)?,
            None => false,
        };
        #[cfg(feature = "chain")]
        close_earlier_books(&node, &target).await?;
        let directory = Others::of(&node);
        // Whoever named peers can do without the directory, and whoever waits need not ask yet.
        // A torrent's swarm is not kept waiting either.
        let asked = offers.is_empty() && !paused && !is_torrent;
        if asked {
            offers = directory.providers(ProviderQuery::new(target)).await?;
        }
        // Nobody gets from himself.
        offers.retain(|offer| offer.peer.is_none() || offer.peer.as_ref() != node.peer_id());
        let mut request = DownloadRequest::new(target);
        (request.offers, request.priority, request.limit) = (offers, priority, limit);
        request.paused = paused;
        request.directory = Some(Arc::new(directory));
        request.asked_directory = asked;
        match &goal {
            Goal::File(path) => request.destination = Destination::File(path.clone()),
            Goal::Part(part) => request.only = Some(*part),
            Goal::Store | Goal::Bytes(_) => {}
        }
        // What was there before stays, whoever reads it now.
        let kept = match target.cid() {
            Some(cid) => node.store().object(cid).await?.is_some(),
            None => false,
        };
        #[cfg(feature = "bittorrent")]
        let download = match &torrent {
            None => {
                node.manager()
                    .download_file(new_transfer_id()?, request)
                    .await?
            }
            Some(torrent) => {
                request.lookup = Some(torrent.clone());
                let connector = torrent.connector(Arc::new(node.manager().clone()));
                let engine = node.manager().engine();
                engine.download(new_transfer_id()?, request, connector)?
            }
        };
        #[cfg(not(feature = "bittorrent"))]
        let download = node
            .manager()
            .download_file(new_transfer_id()?, request)
            .await?;
        let readable = download.readable().clone();
        let (transfer, events, finished) = download.split();
        let id = transfer.id();
        let mut following = None;
        if let Some(record) = record {
            let memory = node.inner().unfinished.clone();
            let settings = Settings {
                priority,
                limit,
                paused,
            };
            memory.begun(record.with(settings)).await;
            let (transfer, downloads) = (transfer.clone(), node.downloads().clone());
            let follow = async move { memory.follow(transfer, downloads, settings).await };
            following = Some(tokio::spawn(follow));
        }
        let seeding = seed.then(|| auto_seed::begin(&node, &transfer));
        let downloads = node.downloads().clone();
        let task = tokio::spawn(async move {
            let report = finished.report().await;
            if let Some(following) = following {
                // It ends with the transfer; what was changed before is kept.
                following.await.unwrap_or_default();
            }
            // The stream of several files is nothing to be seeded by itself.
            #[cfg(feature = "bittorrent")]
            let seeding = match (&torrent, seeding) {
                (None, seeding) => seeding,
                (Some(torrent), seeding) => {
                    torrent.over();
                    match (torrent.plan(), seeding) {
                        (Some(plan), Some(seeding)) if !plan.is_single_file() => {
                            seeding.leave(&node).await;
                            None
                        }
                        (_, seeding) => {
                            if let Ok(report) = &report {
                                let cid = report.header.cid;
                                match &seeding {
                                    Some(_) => torrent.completed(cid),
                                    None => torrent.completed_unseeded(cid),
                                }
                            }
                            seeding
                        }
                    }
                }
            };
            if let Some(seeding) = seeding {
                seeding.end(&node, &report).await;
            }
            let unwanted = matches!(report, Err(TransferError::Cancelled(_)));
            // One that a shutdown ends is gone on with by the next run.
            if report.is_ok() || (unwanted && node.check_open().is_ok()) {
                node.inner().unfinished.over(target).await;
            }
            let report = report?;
            let cid = report.header.cid;
            let payees: Vec<_> = report
                .delivered
                .iter()
                .map(|part| part.offer.clone())
                .collect();
            let mut settled = free_bills(id, cid, &report.delivered);
            settled.extend(node.inner().cashier.settle(Some(cid), &payees).await?);
            #[cfg(feature = "chain")]
            if report.object.is_some()
                && let Some(payments) = node.payments()
            {
                // Getting it once more would be another purchase.
                let closed = payments.chain_agent().forget(cid).await;
                closed.map_err(chiral_payment::PaymentsError::from)?;
            }
            let bytes = match goal {
                Goal::Bytes(limit) => Some(take_bytes(&node, cid, limit, kept).await?),
                _ => None,
            };
            let path = match goal {
                Goal::File(path) => Some(path),
                _ => None,
            };
            let (header, sources) = (report.header, report.sources);
            Ok(Got {
                header,
                path,
                bytes,
                sources,
                settled,
            })
        });
        let events = Mutex::new(Some(events));
        Ok(Getting {
            transfer,
            events,
            readable,
            downloads,
            task,
        })
    }
}

/// What was got once, and of which nothing is here, is bought anew. Its books are closed when
/// it is complete; an earlier run may have been killed right before that.
#[cfg(feature = "chain")]
async fn close_earlier_books(node: &Node, target: &FileIdentification) -> Result<(), NodeError> {
    let (Some(cid), Some(payments)) = (target.cid(), node.payments()) else {
        return Ok(());
    };
    let agent = payments.chain_agent();
    if !agent.remembers(cid) {
        return Ok(());
    }
    let partials = node.store().partials().await?;
    if partials.iter().any(|it| it.target.cid() == Some(cid)) {
        return Ok(());
    }
    node.inner().cashier.settle(Some(cid), &[]).await?;
    let closed = agent.forget(cid).await;
    Ok(closed.map_err(chiral_payment::PaymentsError::from)?)
}

/// Reads a complete object into memory; unless it is to be kept it goes from the store, if
/// nobody has pinned it.
async fn take_bytes(node: &Node, cid: Cid, limit: u64, kept: bool) -> Result<Bytes, NodeError> {
    let store = node.store();
    let content = store.open(cid).await?.ok_or(StoreError::NotFound { cid })?;
    let size = content.header().size;
    if size > limit {
        return Err(TransferError::TooLarge { size, limit }.into());
    }
    let mut bytes = BytesMut::with_capacity(size as usize);
    while (bytes.len() as u64) < size {
        let at = bytes.len() as u64;
        bytes.extend_from_slice(
            &content
                .read(ByteRange::new(at, size.min(at + MAX_READ)))
                .await?,
        );
    }
    drop(content);
    if !kept {
        store.remove(cid).await?;
    }
    Ok(bytes.freeze())
}

/// What came of a download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Got {
    /// Identity, proven, and hints.
    pub header: ManifestHeader,
    /// The file, if it was to be one.
    pub path: Option<PathBuf>,
    /// The bytes, if they were wanted.
    pub bytes: Option<Bytes>,
    /// What each source did.
    pub sources: Vec<SourceReport>,
    /// The bill of each seeder, and how far it is; see [`Node::wait_settled`].
    pub settled: Vec<(Bill, SettlementStatus)>,
}

/// A download under way. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct Getting {
    transfer: Transfer,
    /// From the first event; for whoever asks first.
    events: Mutex<Option<EventStream>>,
    readable: Readable,
    downloads: Downloads,
    task: JoinHandle<Result<Got, NodeError>>,
}

impl Getting {
    /// Its id.
    pub fn id(&self) -> TransferId {
        self.transfer.id()
    }

    /// The handle that the registry has of it.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.transfer.progress()
    }

    /// What each source has done so far.
    pub fn sources(&self) -> Vec<SourceReport> {
        self.transfer.sources()
    }

    /// Its numbered events up to its end: the first call has all of them from the first (as
    /// far as the queue reaches back), later calls those from then on.
    pub fn events(&self) -> EventStream {
        let first = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        first.unwrap_or_else(|| self.transfer.events())
    }

    /// Reads the file while it comes, from its beginning or from wherever the reader seeks:
    /// what it will read next is fetched first. It waits for what is not proven yet, and no
    /// other bytes ever come out of it.
    ///
    /// # Errors
    /// [`ReadError::TooMany`] if it has as many readers as it may.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        self.readable.reader()
    }

    /// Pauses; true if it was running or waiting for its turn, which others then have. A node
    /// with a data directory remembers it over a restart, like priority and limit.
    pub fn pause(&self) -> bool {
        self.transfer.pause()
    }

    /// Resumes; true if it was paused.
    pub fn resume(&self) -> bool {
        self.transfer.resume()
    }

    /// Cancels; true the first time. What is durable stays for another try.
    pub fn cancel(&self) -> bool {
        self.transfer.cancel()
    }

    /// Changes how much it matters beside other downloads; false if it has ended.
    pub fn set_priority(&self, priority: Priority) -> bool {
        self.downloads.set_priority(self.id(), priority)
    }

    /// Limits what it receives, from now on; false if it has ended.
    pub fn set_limit(&self, limit: Option<Rate>) -> bool {
        self.downloads.set_download_limit(self.id(), limit)
    }

    /// Waits for the end: all bytes in place and verified, bills handed over.
    ///
    /// # Errors
    /// Why it failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the download running.
    pub async fn outcome(self) -> Result<Got, NodeError> {
        match self.task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(NodeError::Closed),
        }
    }
}

impl IntoFuture for Get {
    type Output = Result<Got, NodeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Starts the download and waits for its end.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.start().await?.outcome().await })
    }
}
