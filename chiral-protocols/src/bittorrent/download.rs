//! [`TorrentDownload`]: a download of a torrent through the engine.
//!
//! It begins with an info-hash. What the torrent is comes from its `.torrent` file or from the
//! first peer that says it (BEP 9), while sources of every protocol connect; then the engine
//! checks what they deliver against the torrent's own hashes, and finds the cid on the way.
//! What has passed is given to other peers meanwhile.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use chiral_core::chunk_store::Destination;
use chiral_core::content_protocol::SourceStream;
use chiral_core::{
    Alias, ChunkSource, Cid, Endpoint, FileIdentification, FileSpansError, FoundPieces,
    PartialFile, PeerOffer, PieceLookup, Protocol, TransferError,
};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::arriving::Arriving;
use super::magnet::Magnet;
use super::mapped::MappedSource;
use super::merkle::{NodeHash, TreeShape};
use super::metainfo::{InfoHashes, Metainfo, MetainfoError, Version};
use super::protocol::BitTorrentProtocol;
use super::selection::Selection;
use super::swarm::{MAX_LAYER, TorrentInfo, info_hash_of};
use super::target::{TargetDirectory, TargetError};
use super::torrent_pieces::TorrentPieces;
use super::unpack::place;
use super::web_seed::{self, WebSeed};
use crate::engine::Connector;

/// Why a torrent cannot be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorrentError {
    /// It has too many pieces.
    #[error("torrents of millions of pieces are not downloaded")]
    Version,
    /// What peers sent, or the file has, is no torrent.
    #[error("not a torrent that can be downloaded")]
    Metainfo(#[from] MetainfoError),
    /// No file is selected, or the selection names none.
    #[error("no file of the torrent is selected")]
    Nothing,
    /// Several files, and one to write them to.
    #[error("it is a torrent of several files: they go to a directory")]
    Directory,
    /// A file has no place.
    #[error("a file of the torrent has no place")]
    Target(#[from] TargetError),
    /// The files cannot lie beside each other.
    #[error("the files of the torrent cannot lie beside each other")]
    FileSpans(#[from] FileSpansError),
}

impl TorrentError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Where a torrent's files go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TorrentTarget {
    /// Nowhere: what comes stays in the store.
    Store,
    /// To this file; for torrents of a single file.
    File(PathBuf),
    /// To a directory, which exists, under their own names.
    Directory(PathBuf),
}

/// What is known of a torrent that is downloaded.
#[derive(Debug)]
pub struct Plan {
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// The pieces that the download is for.
    pub selection: Arc<Selection>,
    /// The numbers of the files that were selected, in the order of the torrent.
    pub files: Vec<u32>,
}

impl Plan {
    fn new(torrent: Metainfo, selected: &[RangeInclusive<u32>]) -> Result<Self, TorrentError> {
        let wanted =
            |index: u32| selected.is_empty() || selected.iter().any(|run| run.contains(&index));
        let files: Vec<u32> = (0..)
            .zip(torrent.files())
            .filter(|(_, file)| wanted(file.index))
            .map(|(number, _)| number)
            .collect();
        if files.is_empty() {
            return Err(TorrentError::Nothing);
        }
        let second = torrent.info().version() == Version::V2;
        let vast = |(_, _, shape): (u32, NodeHash, TreeShape)| shape.pieces() > MAX_LAYER;
        if second && torrent.missing_trees().any(vast) {
            return Err(TorrentError::Version);
        }
        let layout = torrent.layout();
        let selection = match files.len() == torrent.files().len() {
            true => Selection::all(layout),
            false => Selection::of_files(layout, |file| files.binary_search(&file).is_ok()),
        };
        Ok(Self {
            selection: Arc::new(selection),
            torrent: Arc::new(torrent),
            files,
        })
    }

    /// Whether the download is one file, and not the stream of several.
    pub fn is_single_file(&self) -> bool {
        self.torrent.info().is_single_file()
    }
}

/// A torrent on its way.
#[derive(Debug)]
pub struct TorrentDownload {
    protocol: Arc<BitTorrentProtocol>,
    hashes: InfoHashes,
    /// What it is called, and what peers know it by: of version 1, if it has one.
    alias: Alias,
    info_hash: [u8; 20],
    selected: Vec<RangeInclusive<u32>>,
    target: TorrentTarget,
    plan: watch::Sender<Option<Arc<Plan>>>,
    /// What has come, as long as it comes.
    arriving: Mutex<Option<Arc<Arriving>>>,
    /// Where the files go, in the order of the plan's.
    paths: OnceLock<Vec<PathBuf>>,
}

impl TorrentDownload {
    /// Of a magnet link, of which nothing is known but the hash.
    ///
    /// # Errors
    /// [`TorrentError::Version`].
    pub fn of_magnet(
        protocol: Arc<BitTorrentProtocol>,
        magnet: &Magnet,
        target: TorrentTarget,
    ) -> Result<Arc<Self>, TorrentError> {
        let (hashes, selected) = (magnet.hashes, magnet.selected.clone());
        let trackers = magnet.trackers.iter().map(|url| vec![url.clone()]);
        Self::new(protocol, hashes, selected, target, trackers.collect(), None)
    }

    /// Of a `.torrent` file, with the files whose [places](super::metainfo::TorrentFile::index)
    /// are given; with all, if there are none.
    ///
    /// # Errors
    /// [`TorrentError`], by case.
    pub fn of_torrent(
        protocol: Arc<BitTorrentProtocol>,
        torrent: Metainfo,
        selected: Vec<RangeInclusive<u32>>,
        target: TorrentTarget,
    ) -> Result<Arc<Self>, TorrentError> {
        let (hashes, trackers) = (torrent.hashes(), torrent.outer.trackers.clone());
        Self::new(protocol, hashes, selected, target, trackers, Some(torrent))
    }

    fn new(
        protocol: Arc<BitTorrentProtocol>,
        hashes: InfoHashes,
        selected: Vec<RangeInclusive<u32>>,
        target: TorrentTarget,
        trackers: Vec<Vec<String>>,
        torrent: Option<Metainfo>,
    ) -> Result<Arc<Self>, TorrentError> {
        let alias = match (hashes.v1, hashes.v2) {
            (Some(v1), _) => Alias::InfoHashV1(v1),
            (None, Some(v2)) => Alias::InfoHashV2(v2),
            (None, None) => return Err(TorrentError::Version),
        };
        let info_hash = info_hash_of(&alias).ok_or(TorrentError::Version)?;
        // If there is no room for it, sources will say so.
        protocol.add_trackers(&alias, &trackers).unwrap_or_default();
        let plan = match torrent {
            None => None,
            Some(torrent) => {
                let info = TorrentInfo::of_metainfo(torrent.clone());
                let info = info.map_err(|_| TorrentError::Version)?;
                let plan = Arc::new(Plan::new(torrent, &selected)?);
                if target != TorrentTarget::Store {
                    destination(&plan, &target)?;
                }
                protocol.add_torrent(info).unwrap_or_default();
                Some(plan)
            }
        };
        Ok(Arc::new(Self {
            protocol,
            hashes,
            alias,
            info_hash,
            selected,
            target,
            plan: watch::Sender::new(plan),
            arriving: Mutex::default(),
            paths: OnceLock::new(),
        }))
    }

    /// What the download is called in the registry of transfers.
    pub fn identification(&self) -> FileIdentification {
        FileIdentification::Alias(self.alias)
    }

    /// What is known of the torrent, once it is.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.borrow().clone()
    }

    /// An offer of the peer at `host:port`.
    pub fn peer(&self, place: &str) -> Option<PeerOffer> {
        let endpoint = Endpoint::new(format!("{}@{place}", self.alias)).ok()?;
        Some(PeerOffer::new(Protocol::BitTorrent, endpoint))
    }

    /// An offer of the web seed at this URL (BEP 19). It is hearsay, as the torrent is.
    pub fn web_seed(&self, url: &str) -> Option<PeerOffer> {
        web_seed::offer(url, &self.alias.to_string())
    }

    /// The files that it becomes, once that is known, in the order of [`Plan::files`]; none if
    /// it stays in the store.
    pub fn paths(&self) -> &[PathBuf] {
        self.paths.get().map_or(&[], Vec::as_slice)
    }

    /// Connects as `inner` does, to sources of the torrent.
    pub fn connector(self: &Arc<Self>, inner: Arc<dyn Connector>) -> Arc<dyn Connector> {
        Arc::new(TorrentConnector {
            inner,
            plan: self.plan.subscribe(),
        })
    }

    /// The download is complete, and its stream has this identity: peers are given it from
    /// the store from now on, if it is seeded.
    pub fn completed(&self, cid: Cid) {
        // After a shutdown nobody is given anything.
        self.protocol.expect(&self.alias, cid).unwrap_or_default();
    }

    /// The download is complete and not to be seeded: peers are given nothing of it any more,
    /// and it is known that the torrent is this content.
    pub fn completed_unseeded(&self, cid: Cid) {
        self.protocol.withhold(self.info_hash, cid);
    }

    /// The download is over, and peers are not given anything of it any more.
    pub fn over(&self) {
        *self.arriving() = None;
        self.protocol.serve_arriving(self.info_hash, None);
    }

    fn arriving(&self) -> MutexGuard<'_, Option<Arc<Arriving>>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn learn(&self) -> Result<Arc<Plan>, TransferError> {
        if let Some(plan) = self.plan() {
            return Ok(plan);
        }
        let info = self.protocol.learnt(self.info_hash).await?;
        let torrent = Metainfo::from_info(&info.metadata, &self.hashes);
        let torrent = torrent.map_err(|error| unusable(&error.into()))?;
        let plan = Plan::new(torrent, &self.selected);
        let mut plan = plan.map_err(|error| unusable(&error))?;
        if !plan.torrent.is_checkable() {
            // Its pieces are checked by trees, which peers have.
            plan.torrent = self.protocol.treed(self.info_hash).await?;
        }
        let plan = Arc::new(plan);
        self.plan.send_replace(Some(plan.clone()));
        Ok(plan)
    }
}

fn unusable(error: &TorrentError) -> TransferError {
    TransferError::BadLink {
        reason: match error {
            TorrentError::Version => "it is a torrent of millions of pieces",
            TorrentError::Metainfo(_) => "what its hash is of is no torrent that can be downloaded",
            TorrentError::Nothing => "no file of the torrent is selected",
            TorrentError::Directory => "it is a torrent of several files: they go to a directory",
            TorrentError::Target(_) => "a file of the torrent has no place in the directory",
            TorrentError::FileSpans(_) => "the files of the torrent cannot lie beside each other",
        },
    }
}

/// Where the download itself goes. Reads the disk, and makes directories.
fn destination(plan: &Plan, target: &TorrentTarget) -> Result<Option<Destination>, TorrentError> {
    match target {
        TorrentTarget::File(path) if plan.is_single_file() => {
            Ok(Some(Destination::File(path.clone())))
        }
        TorrentTarget::File(_) => Err(TorrentError::Directory),
        TorrentTarget::Directory(path) => {
            let directory = TargetDirectory::open(path)?;
            let above = plan.torrent.info().directory();
            match plan.torrent.files() {
                [only] if plan.is_single_file() => {
                    let place = directory.place(above.as_ref(), &only.path)?;
                    Ok(Some(Destination::File(place)))
                }
                _ => Ok(Some(Destination::Files(Arc::new(place(plan, &directory)?)))),
            }
        }
        TorrentTarget::Store => Ok(None),
    }
}

#[async_trait]
impl PieceLookup for TorrentDownload {
    async fn look_up(&self) -> Result<FoundPieces, TransferError> {
        let plan = self.learn().await?;
        let hashes = TorrentPieces::new(plan.torrent.clone(), plan.selection.clone());
        let mut found = FoundPieces::new(Arc::new(hashes));
        found.name = Some(plan.torrent.info().name().to_owned());
        let target = self.target.clone();
        let place = tokio::task::spawn_blocking(move || destination(&plan, &target));
        let place = place.await.map_err(|_| TransferError::Closed)?;
        found.destination = place.map_err(|error| unusable(&error))?;
        let paths = match &found.destination {
            Some(Destination::File(path)) => vec![path.clone()],
            Some(Destination::Files(spans)) => {
                let spans = spans.spans().iter();
                spans.map(|span| span.path.clone()).collect()
            }
            _ => Vec::new(),
        };
        self.paths.get_or_init(|| paths);
        Ok(found)
    }

    fn begun(&self, partial: &Arc<dyn PartialFile>) {
        let Some(plan) = self.plan() else { return };
        let arriving = Arc::new(Arriving::new(plan.selection.clone(), partial.clone()));
        *self.arriving() = Some(arriving.clone());
        self.protocol.serve_arriving(self.info_hash, Some(arriving));
    }

    fn passed(&self, chunk: u32) {
        if let Some(arriving) = &*self.arriving() {
            arriving.note_passed(chunk);
        }
    }
}

/// Connects to sources of the torrent's stream, for those of its pieces that are wanted.
#[derive(Debug)]
struct TorrentConnector {
    inner: Arc<dyn Connector>,
    plan: watch::Receiver<Option<Arc<Plan>>>,
}

/// What is known of the torrent, once it is.
async fn known(mut plan: watch::Receiver<Option<Arc<Plan>>>) -> Result<Arc<Plan>, TransferError> {
    let known = plan.wait_for(Option::is_some).await;
    let plan = known.ok().and_then(|plan| plan.clone());
    plan.ok_or(TransferError::Closed)
}

/// The source as the download is to see it, once that is known.
async fn mapped(
    source: Arc<dyn ChunkSource>,
    plan: watch::Receiver<Option<Arc<Plan>>>,
) -> Result<Arc<dyn ChunkSource>, TransferError> {
    Ok(MappedSource::wrap(source, &known(plan).await?.selection))
}

#[async_trait]
impl Connector for TorrentConnector {
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        if web_seed::is_one(offer) {
            let plan = known(self.plan.clone()).await?;
            let source = WebSeed::connect(self.inner.clone(), offer, *target, &plan).await?;
            return Ok(MappedSource::wrap(source, &plan.selection));
        }
        let source = self.inner.connect(offer, target).await?;
        mapped(source, self.plan.clone()).await
    }

    async fn arrivals(&self, target: &FileIdentification) -> SourceStream {
        let (inner, plan) = (self.inner.arrivals(target).await, self.plan.clone());
        let known = move |source| mapped(source, plan.clone());
        let sources = inner.then(known);
        Box::pin(sources.filter_map(|source| std::future::ready(source.ok())))
    }

    fn order(&self, target: &FileIdentification, offers: &mut [PeerOffer]) -> usize {
        self.inner.order(target, offers)
    }
}
