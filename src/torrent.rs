//! Torrents: what is shared as one, and what is got as one.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use chiral_core::sidecar::SidecarHasher;
use chiral_core::transfer::SourceReport;
use chiral_core::{
    Announcement, Bill, Cid, ManifestHeader, PeerId, PeerOffer, Priority, Protocol, Rate,
    SettlementStatus, StoreError, StoredContent, TransferError,
};
use chiral_protocols::bittorrent::Joined;
use chiral_protocols::bittorrent::create::TorrentSidecar;
use chiral_protocols::bittorrent::download::{Plan, TorrentDownload, TorrentTarget};
use chiral_protocols::bittorrent::magnet::{Magnet, MagnetPeer};
use chiral_protocols::bittorrent::metainfo::Metainfo;
use chiral_protocols::bittorrent::protocol::BitTorrentProtocol;
use chiral_protocols::bittorrent::unpack::{UnpackError, make_executable};
use tokio::task::JoinHandle;

use crate::unfinished::TorrentRecord;
use crate::{Get, Getting, Got, Node, NodeError, Share, share};

/// What an import is to make for the swarms, beside its identity.
pub(crate) fn sidecar(node: &Node) -> Option<Arc<dyn SidecarHasher>> {
    let protocol = node.inner().bittorrent.as_ref()?;
    Some(Arc::new(TorrentSidecar(protocol.share_version())))
}

/// What to download: a magnet link, or what a `.torrent` file says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TorrentSource {
    /// A link; what the torrent is, peers say.
    Magnet(Magnet),
    /// A torrent.
    Torrent(Box<Metainfo>),
}

impl From<Magnet> for TorrentSource {
    fn from(magnet: Magnet) -> Self {
        Self::Magnet(magnet)
    }
}

impl From<Metainfo> for TorrentSource {
    fn from(torrent: Metainfo) -> Self {
        Self::Torrent(Box::new(torrent))
    }
}

impl Node {
    fn bittorrent(&self) -> Result<&Arc<BitTorrentProtocol>, NodeError> {
        let protocol = self.inner().bittorrent.as_ref();
        protocol.ok_or(NodeError::NoBitTorrent)
    }

    /// Shares a file, and answers the magnet link under which BitTorrent clients get it, with
    /// this node's address in it. [`Node::share`] shares it as well, and is told more.
    ///
    /// # Errors
    /// As of [`Node::share`]; [`NodeError::NoBitTorrent`] if the node does not seed over
    /// BitTorrent, or the file is empty, of which there is no torrent.
    pub async fn seed_file(&self, path: impl Into<PathBuf>) -> Result<Magnet, NodeError> {
        self.bittorrent()?;
        let shared = self.share(Share::path(path)).await?;
        self.magnet(shared.cid()).ok_or(NodeError::NoBitTorrent)
    }

    /// The torrent as which something is seeded, if it is.
    pub fn torrent(&self, cid: Cid) -> Option<Metainfo> {
        self.inner().bittorrent.as_ref()?.metainfo_of(cid)
    }

    /// The magnet link of something that is seeded, with this node's address in it.
    pub fn magnet(&self, cid: Cid) -> Option<Magnet> {
        use chiral_core::ContentProtocol;
        let mut magnet = self.torrent(cid)?.magnet();
        let endpoints = self.inner().bittorrent.as_ref()?.endpoints();
        let peers = endpoints.iter().filter_map(|it| it.as_str().parse().ok());
        magnet.peers.extend(peers);
        Some(magnet)
    }

    /// The Chiral nodes that get something that is seeded before the public swarm does: those who
    /// proved who they are, and of what has a price those whom the payment gate has let in.
    pub fn fast_lane(&self, cid: Cid) -> Vec<PeerId> {
        let Some(protocol) = self.inner().bittorrent.as_ref() else {
            return Vec::new();
        };
        let torrent = protocol.torrent_of(cid);
        torrent.map_or_else(Vec::new, |torrent| protocol.fast_lane(&torrent.info_hash))
    }

    /// Goes on with every unfinished torrent that is not under way, each as it was begun and
    /// with what was changed of it. What it is, is asked of its peers again.
    pub async fn resume_torrents(&self) -> Vec<Result<GettingTorrent, NodeError>> {
        let mut resumed = Vec::new();
        for unfinished in self.unfinished() {
            let Some(magnet) = unfinished.magnet.as_deref().map(str::parse::<Magnet>) else {
                continue;
            };
            // One that is no link was written by nobody here.
            let (None, Ok(magnet)) = (unfinished.transfer, magnet) else {
                continue;
            };
            let able = crate::auto_seed::check(self).is_ok();
            let mut get = self
                .download_torrent(magnet)
                .priority(unfinished.priority)
                .paused(unfinished.paused)
                .seed(unfinished.seed && able);
            if let Some(limit) = unfinished.limit {
                get = get.limit_down(limit);
            }
            if let Some(path) = unfinished.destination {
                get = get.to_file(path);
            } else if let Some(path) = unfinished.directory {
                get = get.to_directory(path);
            }
            resumed.push(get.start().await);
        }
        resumed
    }

    /// Prepares to download a torrent: say where to, then [`GetTorrent::start`] it. Its public
    /// swarm and Chiral nodes are drawn from together, and all that comes is checked against the
    /// torrent's own hashes.
    pub fn download_torrent(&self, source: impl Into<TorrentSource>) -> GetTorrent {
        GetTorrent {
            seed: self.inner().auto_seed,
            node: self.clone(),
            source: source.into(),
            target: TorrentTarget::Store,
            selected: None,
            peers: Vec::new(),
            offers: Vec::new(),
            priority: Priority::Normal,
            limit: None,
            paused: false,
        }
    }
}

/// A download of a torrent that is being prepared.
#[derive(Debug)]
#[must_use = "nothing is downloaded before start()"]
pub struct GetTorrent {
    node: Node,
    source: TorrentSource,
    target: TorrentTarget,
    selected: Option<Vec<RangeInclusive<u32>>>,
    peers: Vec<MagnetPeer>,
    offers: Vec<PeerOffer>,
    seed: bool,
    priority: Priority,
    limit: Option<Rate>,
    paused: bool,
}

impl GetTorrent {
    /// To a file, which must not exist; for torrents of one file.
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.target = TorrentTarget::File(path.into());
        self
    }

    /// To a directory, which must exist: a file under its own name, several in a directory of
    /// the torrent's name. Names that lead elsewhere are changed or refused.
    pub fn to_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.target = TorrentTarget::Directory(path.into());
        self
    }

    /// Only these files, by their places in the torrent, instead of those that a magnet link
    /// selects. Pieces that lie in others as well come whole.
    pub fn select(mut self, files: impl IntoIterator<Item = RangeInclusive<u32>>) -> Self {
        self.selected = Some(files.into_iter().collect());
        self
    }

    /// Also from this peer of the swarm.
    pub fn peer(mut self, peer: MagnetPeer) -> Self {
        self.peers.push(peer);
        self
    }

    /// Also from this offer, of whatever protocol; its header says which content it is of.
    pub fn offer(mut self, offer: PeerOffer) -> Self {
        self.offers.push(offer);
        self
    }

    /// Whether to go on seeding it afterwards; see [`Get::seed`]. Peers of the swarm are given
    /// what has come while it comes in any case.
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    /// How much it matters beside other downloads.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Limits what it receives.
    pub fn limit_down(mut self, limit: Rate) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether it begins paused.
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// Begins, or goes on with one that was interrupted. It does not wait for anything: what the
    /// torrent is, is learnt while it is under way, and fails it if that is nothing to download.
    ///
    /// # Errors
    /// The node has no BitTorrent; a `.torrent` that cannot be downloaded as is wished; the same
    /// torrent is being downloaded.
    pub async fn start(self) -> Result<GettingTorrent, NodeError> {
        let Self {
            node,
            source,
            target,
            selected,
            mut peers,
            offers,
            seed,
            priority,
            limit,
            paused,
        } = self;
        node.check_open()?;
        let protocol = node.bittorrent()?.clone();
        let web_seeds;
        let place = target.clone();
        let link;
        let torrent = match source {
            TorrentSource::Magnet(mut magnet) => {
                magnet.selected = selected.unwrap_or(magnet.selected);
                magnet.peers.append(&mut peers);
                web_seeds = magnet.web_seeds.clone();
                peers.clone_from(&magnet.peers);
                let torrent = TorrentDownload::of_magnet(protocol, &magnet, place)?;
                link = magnet;
                torrent
            }
            TorrentSource::Torrent(torrent) => {
                web_seeds = torrent.outer.web_seeds.clone();
                let selected = selected.unwrap_or_default();
                link = Magnet {
                    peers: peers.clone(),
                    selected: selected.clone(),
                    ..torrent.magnet()
                };
                // It looks where files are to go.
                let made = move || TorrentDownload::of_torrent(protocol, *torrent, selected, place);
                let made = tokio::task::spawn_blocking(made).await;
                made.map_err(|_| NodeError::Closed)??
            }
        };
        let mut get = node
            .get(torrent.identification())
            .priority(priority)
            .paused(paused)
            .seed(seed);
        if let Some(limit) = limit {
            get = get.limit_down(limit);
        }
        for peer in peers {
            get = torrent
                .peer(&peer.to_string())
                .into_iter()
                .fold(get, Get::offer);
        }
        // One that is no URL for us is no seed.
        let seeds = web_seeds.iter().filter_map(|url| torrent.web_seed(url));
        get = seeds.fold(get, Get::offer);
        get = offers.into_iter().fold(get, Get::offer);
        let directory = match &target {
            TorrentTarget::File(path) => {
                get = get.to_file(path);
                None
            }
            TorrentTarget::Directory(path) => Some(path.clone().into_os_string()),
            _ => None,
        };
        let magnet = link.to_string();
        get.torrent = Some((torrent.clone(), TorrentRecord { magnet, directory }));
        let getting = get.start().await?;
        let transfer = getting.transfer().clone();
        let ending = Ending {
            node,
            torrent: torrent.clone(),
            target,
            seed,
        };
        let task = tokio::spawn(async move { ending.end(getting).await });
        Ok(GettingTorrent {
            torrent,
            transfer,
            task,
        })
    }
}

/// What is done when all has come.
struct Ending {
    node: Node,
    torrent: Arc<TorrentDownload>,
    target: TorrentTarget,
    seed: bool,
}

impl Ending {
    async fn end(self, getting: Getting) -> Result<GotTorrent, NodeError> {
        let got = getting.outcome().await.map_err(|error| match error {
            // It is not this download's to move away.
            NodeError::Transfer(TransferError::Store(StoreError::AlreadyExists { path }))
                if self.is_several() =>
            {
                UnpackError::Exists { path }.into()
            }
            error => error,
        })?;
        let plan = self.torrent.plan().ok_or(NodeError::Closed)?;
        let files = if self.is_several() {
            self.take_in(&plan, &got).await?
        } else {
            let path = self.torrent.paths().first().cloned();
            let path = path.filter(|_| self.target != TorrentTarget::Store);
            let file = plan.files.first();
            file.map(|file| GotFile::new(&plan, *file, path, got.header.clone()))
                .into_iter()
                .collect()
        };
        Ok(GotTorrent {
            torrent: plan.torrent.clone(),
            files,
            sources: got.sources,
            settled: got.settled,
        })
    }

    /// Whether it becomes several files of a directory.
    fn is_several(&self) -> bool {
        let several = |plan: Arc<Plan>| !plan.is_single_file();
        matches!(self.target, TorrentTarget::Directory(_))
            && self.torrent.plan().is_some_and(several)
    }

    /// Learns what the files are that all is in by now.
    async fn take_in(&self, plan: &Arc<Plan>, got: &Got) -> Result<Vec<GotFile>, NodeError> {
        let mut files = Vec::with_capacity(plan.files.len());
        for (file, path) in plan.files.iter().zip(self.torrent.paths()) {
            let entry = plan.torrent.files().get(*file as usize);
            if entry.is_some_and(|entry| entry.executable) {
                let path = path.clone();
                let made = tokio::task::spawn_blocking(move || make_executable(&path)).await;
                made.map_err(|_| NodeError::Closed)??;
            }
            let header = share::take_in(&self.node, path, self.seed).await?;
            files.push(GotFile::new(plan, *file, Some(path.clone()), header));
        }
        if self.seed {
            self.seed(plan, got, &files).await?;
        }
        Ok(files)
    }

    /// Seeds the torrent out of its files, and each of them by itself.
    async fn seed(&self, plan: &Plan, got: &Got, files: &[GotFile]) -> Result<(), NodeError> {
        let store = self.node.store();
        let layout = plan.torrent.layout().clone();
        let mut parts: Vec<Option<Arc<dyn StoredContent>>> =
            vec![None; layout.file_count() as usize];
        for file in files {
            share::seed(&self.node, file.header.clone()).await?;
            if let Some(part) = parts.get_mut(file.number as usize) {
                *part = store.open(file.header.cid).await?;
            }
        }
        let all = plan.selection.is_all();
        let header = all.then(|| got.header.clone());
        let joined = Arc::new(Joined::new(header.clone(), layout, parts));
        let protocol = self.node.bittorrent()?;
        let Some(info_hash) = plan.torrent.hashes().wire().next() else {
            return Ok(());
        };
        protocol.seed_content(info_hash, joined)?;
        let Some(header) = header else {
            return Ok(());
        };
        use chiral_core::ContentProtocol;
        let offer = |endpoint| {
            let mut offer = PeerOffer::new(Protocol::BitTorrent, endpoint);
            offer.peer = self.node.peer_id().cloned();
            offer.header = Some(header.clone());
            offer
        };
        let offers: Vec<_> = protocol.endpoints().into_iter().map(offer).collect();
        if !offers.is_empty() {
            let announcement = Announcement::new(header.clone(), offers);
            self.node.directory().announce(announcement).await?;
        }
        Ok(())
    }
}

/// A file of a torrent that was got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GotFile {
    /// Its place in the torrent, as magnet links select it.
    pub index: u32,
    /// Its path in the torrent, made safe; beneath the torrent's name, if that is a directory.
    pub inside: String,
    /// Where it is, if not in the store alone.
    pub path: Option<PathBuf>,
    /// Its identity, by which it can be shared on.
    pub header: ManifestHeader,
    number: u32,
}

impl GotFile {
    fn new(plan: &Plan, number: u32, path: Option<PathBuf>, header: ManifestHeader) -> Self {
        let file = plan.torrent.files().get(number as usize);
        Self {
            index: file.map_or(number, |file| file.index),
            inside: file.map_or_else(String::new, |file| file.path.to_string()),
            path,
            header,
            number,
        }
    }
}

/// What came of a download of a torrent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GotTorrent {
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// Its files, as far as they were selected: a collection, from path to cid. Of a torrent of
    /// several files that stays in the store it is one, the torrent's stream.
    pub files: Vec<GotFile>,
    /// What each source did.
    pub sources: Vec<SourceReport>,
    /// The bill of each seeder, and how far it is.
    pub settled: Vec<(Bill, SettlementStatus)>,
}

/// A download of a torrent under way. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct GettingTorrent {
    torrent: Arc<TorrentDownload>,
    transfer: chiral_core::Transfer,
    task: JoinHandle<Result<GotTorrent, NodeError>>,
}

impl GettingTorrent {
    /// The handle that the registry has of it: progress, events, pause, resume, cancel.
    pub fn transfer(&self) -> &chiral_core::Transfer {
        &self.transfer
    }

    /// The torrent, once it is known.
    pub fn torrent(&self) -> Option<Arc<Metainfo>> {
        Some(self.torrent.plan()?.torrent.clone())
    }

    /// Waits for the end: all files in place and verified, bills handed over.
    ///
    /// # Errors
    /// Why it failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the download running.
    pub async fn outcome(self) -> Result<GotTorrent, NodeError> {
        match self.task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(NodeError::Closed),
        }
    }
}
