//! [`BitTorrentProtocol`]: BitTorrent as a [`ContentProtocol`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::content_protocol::SourceStream;
use chiral_core::{
    Alias, Capabilities, ChunkSource, ChunkStore, Cid, ContentProtocol, Coverage, Endpoint,
    FileIdentification, FileMetadata, ManifestHeader, PaymentAgent, PaymentGate, PeerId, PeerOffer,
    PeerSigner, Protocol, SeedRequest, SidecarHasher, StoreError, StoredContent, TransferError,
    TransferRegistry,
};
use tokio::sync::mpsc;

use crate::seeds::{import, unpin};

use super::arriving::Arriving;
use super::create::{CreateError, TorrentHashes, TorrentSidecar};
use super::dht::DhtStatus;
use super::metainfo::{Metainfo, Outer, Version};
use super::swarm::{
    BitTorrentConfig, BitTorrentError, DialError, Discovery, Node, Origin, Ports, Torrent,
    TorrentInfo,
};

/// Name under which content is pinned that was imported to be seeded over BitTorrent.
pub const PIN: &str = "bittorrent";

/// Sources that wait to be taken by a download.
const WAITING_SOURCES: usize = 64;

/// Time in which a peer must give the info dictionary.
const METADATA_TIMEOUT: Duration = Duration::from_secs(30);

/// A node of BitTorrent's swarms, in both roles.
///
/// # Endpoints
/// `btih:<40 hex>@<host>:<port>` names a peer of the torrent with this info-hash; `btmh:<64
/// hex>@…` does so for a torrent of version 2. A bare `<host>:<port>` is a peer of the torrent
/// that the target is an alias of, or that the offer's header lists among its aliases, or that
/// this node knows to be the target.
///
/// Must be [shut down](ContentProtocol::shutdown): dropping it leaves its tasks running.
#[derive(Debug)]
pub struct BitTorrentProtocol {
    node: Arc<Node>,
    registry: TransferRegistry,
    store: Arc<dyn ChunkStore>,
    gate: Arc<dyn PaymentGate>,
    local: Option<SocketAddr>,
    public: Option<SocketAddr>,
    share_version: Version,
}

impl BitTorrentProtocol {
    /// Starts to listen, if the configuration has an address. Needs a tokio runtime with time
    /// and network. With a signer, other Chiral nodes are told who this is.
    ///
    /// # Errors
    /// [`BitTorrentError`], by case.
    pub async fn bind(
        config: BitTorrentConfig,
        store: Arc<dyn ChunkStore>,
        registry: TransferRegistry,
        gate: Arc<dyn PaymentGate>,
        signer: Option<Arc<dyn PeerSigner>>,
    ) -> Result<Self, BitTorrentError> {
        let ports = Ports::open(&config).await?;
        let local = ports.local_addr();
        let (discovery, nearby) = Discovery::start(&config, &ports).await?;
        let public = config.public_address;
        let share_version = config.share_version;
        let node = Node::new(
            config,
            store.clone(),
            gate.clone(),
            signer,
            local,
            discovery,
        )?;
        if let Some(listener) = ports.tcp {
            node.listen(listener);
        }
        if let Some(utp) = node.discovery.utp() {
            node.listen_utp(utp);
        }
        if let Some(nearby) = nearby {
            nearby.listen(&node);
        }
        Ok(Self {
            node,
            registry,
            store,
            gate,
            local,
            public,
            share_version,
        })
    }

    /// Buys with this agent what Chiral nodes ask a price for.
    #[must_use]
    pub fn with_agent(self, agent: Arc<dyn PaymentAgent>) -> Self {
        self.node.set_agent(agent);
        self
    }

    /// Waits for a torrent to become known: by whoever makes it known, or from the first of its
    /// peers that says what it is.
    ///
    /// # Errors
    /// [`TransferError::Closed`] after a shutdown, or if there are too many torrents.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn learnt(&self, info_hash: [u8; 20]) -> Result<TorrentInfo, TransferError> {
        let torrent = self.node.open(info_hash).ok_or(TransferError::Closed)?;
        let _in_use = torrent.in_use();
        let learnt = self.node.closed().run_until_cancelled(torrent.learnt());
        learnt.await.cloned().ok_or(TransferError::Closed)
    }

    /// The same, once its pieces can be checked: of version 2, peers give the trees (BEP 52).
    ///
    /// # Errors
    /// As [`learnt`](Self::learnt).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn treed(&self, info_hash: [u8; 20]) -> Result<Arc<Metainfo>, TransferError> {
        let torrent = self.node.open(info_hash).ok_or(TransferError::Closed)?;
        let _in_use = torrent.in_use();
        let treed = self.node.closed().run_until_cancelled(torrent.treed());
        treed.await.ok_or(TransferError::Closed)
    }

    /// The torrent as which content is seeded, as others read it, if it is.
    pub fn metainfo_of(&self, cid: Cid) -> Option<Metainfo> {
        let info = self.torrent_of(cid)?;
        Some(Metainfo::clone(info.metainfo()))
    }

    /// Seeds content that is not the store's as a torrent that is known.
    ///
    /// # Errors
    /// [`TransferError::Closed`] after a shutdown, or if there are too many torrents.
    pub fn seed_content(
        &self,
        info_hash: [u8; 20],
        content: Arc<dyn StoredContent>,
    ) -> Result<(), TransferError> {
        let torrent = self.node.open(info_hash).ok_or(TransferError::Closed)?;
        torrent.serve_apart(Some(content), true);
        Ok(())
    }

    /// Gives peers of a torrent what a download of it has so far.
    pub(super) fn serve_arriving(&self, info_hash: [u8; 20], content: Option<Arc<Arriving>>) {
        if let Some(torrent) = self.node.torrent(&info_hash) {
            let content = content.map(|content| content as Arc<dyn StoredContent>);
            torrent.serve_apart(content, false);
        }
    }

    /// A torrent is this content, of which peers are given nothing unless it is seeded.
    pub(super) fn withhold(&self, info_hash: [u8; 20], cid: Cid) {
        if let Some(torrent) = self.node.torrent(&info_hash) {
            torrent.withhold(cid);
        }
    }

    /// The torrent of content that is to be seeded: out of what the store keeps beside it, or
    /// made, which reads and hashes all of it. `None` if it can be none: it is empty, or not
    /// complete.
    async fn torrent_to_seed(
        &self,
        content: &dyn StoredContent,
    ) -> Result<Option<TorrentInfo>, TransferError> {
        let header = content.header();
        if let Some(info) = self.torrent_of(header.cid) {
            return Ok(Some(info));
        }
        let sidecar = TorrentSidecar::fitting(self.share_version, header.size);
        let Some(sidecar) = sidecar.filter(|_| content.coverage() == Coverage::Complete) else {
            return Ok(None);
        };
        let hashes = match self.kept_hashes(header).await? {
            Some(hashes) => hashes,
            None => {
                let made = TorrentHashes::of_content(content, sidecar.0).await;
                let made = made.map_err(|error| match error {
                    CreateError::Content(error) => error.into(),
                    _ => unfit(),
                })?;
                let bytes = made.encode().into();
                let keep = self.store.set_sidecar(header.cid, sidecar.name(), bytes);
                if let Err(error) = keep.await {
                    tracing::debug!(%error, "the hashes for torrents are not kept");
                }
                made
            }
        };
        let name = header
            .name
            .clone()
            .unwrap_or_else(|| header.cid.to_string());
        let torrent = hashes.metainfo(&name, Outer::default());
        let torrent = torrent.or_else(|_| {
            // A name that nobody would read.
            hashes.metainfo(&header.cid.to_string(), Outer::default())
        });
        let torrent = torrent.map_err(|_| unfit())?;
        let info = TorrentInfo::of_metainfo(torrent);
        info.map(Some).map_err(|_| unfit())
    }

    /// The hashes that the store keeps beside content, if a torrent can be made of them.
    async fn kept_hashes(
        &self,
        header: &ManifestHeader,
    ) -> Result<Option<TorrentHashes>, TransferError> {
        for sidecar in TorrentSidecar::of_use(self.share_version) {
            let kept = match self.store.sidecar(header.cid, sidecar.name()).await {
                Err(StoreError::NotFound { .. }) => None,
                kept => kept?,
            };
            let kept = kept.and_then(|kept| TorrentHashes::decode(&kept).ok());
            let right =
                |kept: &TorrentHashes| kept.size() == header.size && kept.version() == sidecar.0;
            if let Some(kept) = kept.filter(right) {
                return Ok(Some(kept.only(self.share_version)));
            }
        }
        Ok(None)
    }

    /// What the torrents of shares are.
    pub fn share_version(&self) -> Version {
        self.share_version
    }

    /// The address listened on.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Makes a torrent known, so that its info dictionary need not be fetched from peers.
    ///
    /// # Errors
    /// [`TransferError::Closed`] after a shutdown, or if there are too many torrents.
    pub fn add_torrent(&self, info: TorrentInfo) -> Result<(), TransferError> {
        self.learn(info)?;
        Ok(())
    }

    /// Seeds content of the store as this torrent.
    ///
    /// # Errors
    /// [`TransferError::Closed`] after a shutdown, or if there are too many torrents.
    pub fn seed_torrent(&self, info: TorrentInfo, cid: Cid) -> Result<(), TransferError> {
        self.learn(info)?.set_cid(cid, true);
        Ok(())
    }

    fn learn(&self, info: TorrentInfo) -> Result<Arc<Torrent>, TransferError> {
        let opened = self.node.open(info.info_hash);
        let torrent = opened.ok_or(TransferError::Closed)?;
        self.node.in_all_swarms(&torrent, &info);
        torrent.learn(info);
        Ok(torrent)
    }

    /// All that is known of a torrent: its `info` dictionary, given or fetched from peers, and of
    /// version 2 its trees, as far as they are given or fetched.
    pub fn metainfo(&self, alias: &Alias) -> Option<Arc<Metainfo>> {
        self.node.torrent(&hash_of(alias)?)?.metainfo()
    }

    /// The torrent as which content is seeded, if it is.
    pub fn torrent_of(&self, cid: Cid) -> Option<TorrentInfo> {
        self.node.with_cid(cid)?.info().cloned()
    }

    /// Dials a peer of a torrent; it is handed to whoever downloads it.
    ///
    /// # Errors
    /// [`TransferError::Connection`]; [`TransferError::Closed`].
    pub async fn dial(
        &self,
        info_hash: [u8; 20],
        address: SocketAddr,
    ) -> Result<(), TransferError> {
        let torrent = self.node.open(info_hash).ok_or(TransferError::Closed)?;
        match self.node.dial(&torrent, address, false).await {
            Ok(_) | Err(DialError::Known) => Ok(()),
            Err(source) => Err(TransferError::Connection {
                source_name: address.to_string(),
                source: Box::new(source),
            }),
        }
    }

    /// Says that a torrent is this content, so that a download of the one draws from peers of
    /// the other, and gives them what it has. What is wrong about it shows when it is checked.
    ///
    /// # Errors
    /// [`TransferError::Unknown`] for an alias that is no info-hash; [`TransferError::Closed`]
    /// after a shutdown, or if there are too many torrents.
    pub fn expect(&self, alias: &Alias, cid: Cid) -> Result<(), TransferError> {
        self.torrent_of_alias(alias)?.set_cid(cid, false);
        Ok(())
    }

    /// Has a torrent announced to trackers of its own, tier by tier (BEP 12), beside those that
    /// it is announced to already: for as long as there is a use for it. At most 64.
    ///
    /// # Errors
    /// [`TransferError::Unknown`] for an alias that is no info-hash; [`TransferError::Closed`]
    /// after a shutdown, or if there are too many torrents.
    pub fn add_trackers(&self, alias: &Alias, tiers: &[Vec<String>]) -> Result<(), TransferError> {
        self.torrent_of_alias(alias)?.add_trackers(tiers);
        Ok(())
    }

    /// Tells of peers of a torrent, as `x.pe` of a magnet does: they are dialled by and by for as
    /// long as there is a use for the torrent.
    ///
    /// # Errors
    /// Those of [`Self::add_trackers`].
    pub fn add_peers(&self, alias: &Alias, peers: &[SocketAddr]) -> Result<(), TransferError> {
        let torrent = self.torrent_of_alias(alias)?;
        torrent.suggest(Origin::Tracker, peers.iter().copied());
        Ok(())
    }

    /// The addresses of the peers of a torrent that are connected.
    pub fn peers(&self, info_hash: &[u8; 20]) -> Vec<SocketAddr> {
        let torrent = self.node.torrent(info_hash);
        let peers = torrent.map(|torrent| torrent.peers()).unwrap_or_default();
        peers.iter().map(|peer| peer.address).collect()
    }

    /// How the node of the mainline DHT is doing, if there is one.
    pub fn dht_status(&self) -> Option<DhtStatus> {
        let dht = self.node.discovery.dht.as_ref()?;
        Some(*dht.status().borrow())
    }

    /// What the node of the mainline DHT knows, for [`BitTorrentConfig::dht_saved`] of the next
    /// run; `None` without one, and after a shutdown.
    ///
    /// # Cancel safety
    /// Nothing happens if dropped.
    pub async fn save_dht(&self) -> Option<Vec<u8>> {
        let dht = self.node.discovery.dht.as_ref()?;
        dht.save().await.ok()
    }

    fn torrent_of_alias(&self, alias: &Alias) -> Result<Arc<Torrent>, TransferError> {
        let hash = hash_of(alias).ok_or_else(|| TransferError::Unknown {
            target: alias.to_string(),
        })?;
        self.node.open(hash).ok_or(TransferError::Closed)
    }

    /// Whether there is a connection to a peer of a torrent.
    pub fn is_connected(&self, info_hash: &[u8; 20], address: SocketAddr) -> bool {
        let torrent = self.node.torrent(info_hash);
        torrent.is_some_and(|torrent| torrent.is_connected(address))
    }

    /// The Chiral nodes among the peers of a torrent that have proven who they are.
    pub fn recognised(&self, info_hash: &[u8; 20]) -> Vec<PeerId> {
        let torrent = self.node.torrent(info_hash);
        let peers = torrent.map(|torrent| torrent.peers()).unwrap_or_default();
        peers
            .iter()
            .filter_map(|peer| peer.published().chiral)
            .collect()
    }

    /// Those of them that are in the fast lane: all of what is free, and of what has a price those
    /// whom the payment gate has let have something.
    pub fn fast_lane(&self, info_hash: &[u8; 20]) -> Vec<PeerId> {
        let torrent = self.node.torrent(info_hash);
        torrent.map_or_else(Vec::new, |torrent| self.node.fast_lane(&torrent))
    }

    fn open(&self) -> Result<(), TransferError> {
        if self.node.is_closed() {
            Err(TransferError::Closed)
        } else {
            Ok(())
        }
    }

    /// The torrent and the place that an offer names.
    fn torrent_and_place<'a>(
        &self,
        offer: &'a PeerOffer,
        target: &FileIdentification,
    ) -> Result<([u8; 20], &'a str), TransferError> {
        let endpoint = offer.endpoint.as_str();
        let (named, place) = match endpoint.rsplit_once('@') {
            Some((alias, place)) => {
                let alias = alias.parse().map_err(|_| TransferError::Protocol {
                    source_name: endpoint.to_owned(),
                    reason: "an endpoint that is none",
                })?;
                (hash_of(&alias), place)
            }
            None => (None, endpoint),
        };
        let of_target = || match target {
            FileIdentification::Alias(alias) => hash_of(alias),
            _ => None,
        };
        let of_header = || offer.header.as_ref()?.aliases.iter().find_map(hash_of);
        let of_cid = || Some(self.node.with_cid(target.cid()?)?.info_hash);
        let hash = named.or_else(of_target).or_else(of_header).or_else(of_cid);
        let hash = hash.ok_or_else(|| TransferError::Unknown {
            target: target.to_string(),
        })?;
        Ok((hash, place))
    }

    async fn connect_to(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let (hash, place) = self.torrent_and_place(offer, target)?;
        let torrent = self.node.open(hash).ok_or(TransferError::Closed)?;
        if let Some(cid) = target.cid()
            && (torrent.cid().is_none() || torrent.is_withheld())
        {
            torrent.set_cid(cid, false);
        }
        let source = self
            .node
            .source(&torrent, place, offer, METADATA_TIMEOUT)
            .await?;
        Ok(source)
    }

    fn metadata(&self, mut header: ManifestHeader, info: &TorrentInfo) -> FileMetadata {
        for alias in info.aliases() {
            // One of each kind, in their order; it may have been another torrent before.
            header.aliases.retain(|other| other.kind() != alias.kind());
            header.aliases.push(alias);
        }
        header.aliases.sort();
        let tariff = self.gate.tariff(header.cid);
        // The header's alias says which torrent it is.
        let offer = |endpoint| {
            let mut offer = PeerOffer::new(Protocol::BitTorrent, endpoint);
            offer.header = Some(header.clone());
            (offer.price, offer.wallet) = (tariff.price, tariff.wallet);
            offer
        };
        let offers = self.endpoints().into_iter().map(offer).collect();
        FileMetadata::new(header, offers)
    }
}

fn unfit() -> TransferError {
    TransferError::Unsupported {
        protocol: Protocol::BitTorrent,
        operation: "seeding a file that no torrent can hold",
    }
}

fn hash_of(alias: &Alias) -> Option<[u8; 20]> {
    super::swarm::info_hash_of(alias)
}

#[async_trait]
impl ContentProtocol for BitTorrentProtocol {
    fn name(&self) -> Protocol {
        Protocol::BitTorrent
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::fetch_and_seed();
        capabilities.seed = self.local.is_some();
        capabilities.discover = true;
        capabilities
    }

    fn registry(&self) -> &TransferRegistry {
        &self.registry
    }

    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        self.open()?;
        let connect = self.connect_to(offer, target);
        let source = self.node.closed().run_until_cancelled(connect).await;
        source.unwrap_or(Err(TransferError::Closed))
    }

    /// Peers that come to us, that other peers tell of, and that were [dialled](Self::dial).
    async fn sources(&self, target: &FileIdentification) -> Result<SourceStream, TransferError> {
        self.open()?;
        let torrent = match target {
            FileIdentification::Alias(alias) => {
                hash_of(alias).and_then(|hash| self.node.open(hash))
            }
            _ => self.node.find(target),
        };
        let Some(torrent) = torrent else {
            return Ok(Box::pin(futures_util::stream::empty()));
        };
        let (sender, mut receiver) = mpsc::channel(WAITING_SOURCES);
        torrent.wait_for_sources(sender);
        Ok(Box::pin(futures_util::stream::poll_fn(move |cx| {
            receiver.poll_recv(cx)
        })))
    }

    /// Makes a torrent of the content, whose pieces are its chunks, unless it is known as one.
    /// Of what can be none, for now or ever, nothing is offered: it is empty, or a download that
    /// is not complete.
    async fn start_seeding(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        self.open()?;
        if self.local.is_none() {
            return Err(TransferError::Unsupported {
                protocol: Protocol::BitTorrent,
                operation: "seeding without an address to listen on",
            });
        }
        let cid = import(&*self.store, &request, PIN, Protocol::BitTorrent).await?;
        let content = self
            .store
            .open(cid)
            .await?
            .ok_or(StoreError::NotFound { cid })?;
        let header = content.header().clone();
        let Some(info) = self.torrent_to_seed(&*content).await? else {
            return Ok(FileMetadata::new(header, Vec::new()));
        };
        self.seed_torrent(info.clone(), cid)?;
        if let Some(torrent) = self.node.torrent(&info.info_hash) {
            torrent.serve(content).await;
        }
        tracing::debug!(content = %cid, "seeding over bittorrent");
        Ok(self.metadata(header, &info))
    }

    /// Peers that are connected are let go once nobody else has a use for the torrent.
    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let Some(torrent) = self.node.find(target) else {
            return Ok(false);
        };
        let cid = torrent.cid();
        let was_seeded = torrent.stop_seeding();
        if let Some(cid) = cid.filter(|_| was_seeded) {
            unpin(&*self.store, cid, PIN).await?;
        }
        Ok(was_seeded)
    }

    /// Over the extension of Chiral's own: to a node that is connected, or is dialled for it.
    async fn payment_message(
        &self,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        self.open()?;
        let target = offer
            .header
            .as_ref()
            .map(|header| FileIdentification::from(header.cid));
        let target = target.unwrap_or(FileIdentification::Alias(Alias::InfoHashV1([0; 20])));
        let (hash, place) = self.torrent_and_place(offer, &target)?;
        let torrent = self.node.open(hash).ok_or(TransferError::Closed)?;
        let carry = self.node.carry(&torrent, place, offer, message);
        let answer = self.node.closed().run_until_cancelled(carry).await;
        answer.unwrap_or(Err(TransferError::Closed))
    }

    /// `host:port`, for any torrent: what is announced has the info-hash before it.
    fn endpoints(&self) -> Vec<Endpoint> {
        let local = self.local.filter(|address| !address.ip().is_unspecified());
        let address = self.public.or(local);
        address
            .and_then(|address| Endpoint::new(address.to_string()).ok())
            .into_iter()
            .collect()
    }

    async fn shutdown(&self) -> Result<(), TransferError> {
        self.node.shutdown().await;
        Ok(())
    }
}
