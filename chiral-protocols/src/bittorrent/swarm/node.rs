//! [`Node`]: all torrents of a node, and what its connections share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{
    Alias, Bitmap, ChunkSource, ChunkStore, Cid, FileIdentification, PaymentAgent, PaymentGate,
    PeerId, PeerOffer, PeerSigner, TransferError,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{BitTorrentConfig, BitTorrentError};
use super::dial::DialError;
use super::discovery::Discovery;
use super::discovery::torrent::discover;
use super::handle::Ask;
use super::info::TorrentInfo;
use super::limits::Limits;
use super::source::PeerSource;
use super::torrent::Torrent;
use super::upkeep;
use crate::bittorrent::extension::Greeting;
use crate::bittorrent::peer::BtPeerId;
use crate::bittorrent::session::SessionConfig;
use crate::bittorrent::wire::{Handshake, Reserved};

/// Most torrents of a node.
const MAX_TORRENTS: usize = 10_000;

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: BitTorrentConfig,
    pub(super) peer_id: BtPeerId,
    pub(super) signer: Option<Arc<dyn PeerSigner>>,
    pub(super) gate: Arc<dyn PaymentGate>,
    /// Who pays for what is fetched.
    pub(super) agent: OnceLock<Arc<dyn PaymentAgent>>,
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
    /// Where we listen.
    pub(super) local: Option<SocketAddr>,
}

impl Shared {
    /// Whether an address is our own.
    pub(super) fn listens_at(&self, address: SocketAddr) -> bool {
        self.config.public_address == Some(address) || self.local == Some(address)
    }
}

/// The torrents of a node and their connections.
#[derive(Debug)]
pub(in crate::bittorrent) struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<dyn ChunkStore>,
    torrents: Mutex<HashMap<[u8; 20], Arc<Torrent>>>,
    /// What finds peers.
    pub(in crate::bittorrent) discovery: Discovery,
    pub(super) tasks: TaskTracker,
    pub(super) limits: Arc<Limits>,
    /// Connections being made.
    pub(super) dialling: Semaphore,
    /// Connections that come in and have not been greeted.
    pub(super) answering: Arc<Semaphore>,
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], BitTorrentError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| BitTorrentError::Random)?;
    Ok(bytes)
}

impl Node {
    pub(in crate::bittorrent) fn new(
        config: BitTorrentConfig,
        store: Arc<dyn ChunkStore>,
        gate: Arc<dyn PaymentGate>,
        signer: Option<Arc<dyn PeerSigner>>,
        local: Option<SocketAddr>,
        discovery: Discovery,
    ) -> Result<Arc<Self>, BitTorrentError> {
        let limits = Limits::new(config.max_connections, config.max_connections_per_ip);
        let half_open = config.max_half_open.max(1);
        let tasks = TaskTracker::new();
        Ok(Arc::new(Self {
            shared: Arc::new(Shared {
                peer_id: BtPeerId::new(random()?),
                signer,
                gate,
                agent: OnceLock::new(),
                tasks: tasks.clone(),
                closed: CancellationToken::new(),
                local,
                config,
            }),
            store,
            torrents: Mutex::default(),
            discovery,
            tasks,
            limits,
            dialling: Semaphore::new(half_open),
            answering: Arc::new(Semaphore::new(half_open)),
        }))
    }

    fn torrents(&self) -> MutexGuard<'_, HashMap<[u8; 20], Arc<Torrent>>> {
        self.torrents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The torrent of an info-hash, if this node has it.
    pub(in crate::bittorrent) fn torrent(&self, info_hash: &[u8; 20]) -> Option<Arc<Torrent>> {
        self.torrents().get(info_hash).cloned()
    }

    /// The torrent of an info-hash, made if need be; nothing if there are too many.
    pub(in crate::bittorrent) fn open(
        self: &Arc<Self>,
        info_hash: [u8; 20],
    ) -> Option<Arc<Torrent>> {
        let mut torrents = self.torrents();
        if let Some(torrent) = torrents.get(&info_hash) {
            return Some(torrent.clone());
        }
        if torrents.len() >= MAX_TORRENTS || self.shared.closed.is_cancelled() {
            return None;
        }
        let torrent = Arc::new(Torrent::new(info_hash));
        torrents.insert(info_hash, torrent.clone());
        self.tasks
            .spawn(upkeep::look_after(self.clone(), torrent.clone()));
        self.tasks
            .spawn(discover(self.clone(), torrent.clone(), info_hash));
        Some(torrent)
    }

    /// A torrent is in the swarms of all of its info-hashes: a hybrid has two (BEP 52). Whoever
    /// comes by either is answered, and it is announced by both.
    pub(in crate::bittorrent) fn in_all_swarms(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        info: &TorrentInfo,
    ) {
        let mut torrents = self.torrents();
        for info_hash in info.metainfo().hashes().wire() {
            if torrents.len() < MAX_TORRENTS && !torrents.contains_key(&info_hash) {
                torrents.insert(info_hash, torrent.clone());
                self.tasks
                    .spawn(discover(self.clone(), torrent.clone(), info_hash));
            }
        }
    }

    /// The torrent that a target is known as.
    pub(in crate::bittorrent) fn find(&self, target: &FileIdentification) -> Option<Arc<Torrent>> {
        match target {
            FileIdentification::Alias(alias) => self.torrent(&info_hash_of(alias)?),
            _ => self.with_cid(target.cid()?),
        }
    }

    pub(in crate::bittorrent) fn with_cid(&self, cid: Cid) -> Option<Arc<Torrent>> {
        self.torrents()
            .values()
            .find(|torrent| torrent.cid() == Some(cid))
            .cloned()
    }

    /// Info-hashes of the torrents that there is a use for.
    pub(super) fn used(&self) -> Vec<[u8; 20]> {
        let torrents = self.torrents();
        torrents
            .iter()
            .filter(|(_, torrent)| torrent.is_used())
            .map(|(info_hash, _)| *info_hash)
            .collect()
    }

    pub(super) fn handshake(&self, info_hash: [u8; 20]) -> Handshake {
        let mut reserved = Reserved::OURS;
        if self.discovery.dht.is_none() {
            // Not a node of the DHT: nobody here answers for one.
            reserved.0[7] &= !0x01;
        }
        Handshake {
            reserved,
            info_hash,
            peer_id: self.shared.peer_id.0,
        }
    }

    pub(super) fn session_config(&self, torrent: &Torrent, remote: SocketAddr) -> SessionConfig {
        let shared = &self.shared;
        let mut config = SessionConfig::new(torrent.info_hash, shared.peer_id.0);
        config.reserved = self.handshake(torrent.info_hash).reserved;
        if let Some(info) = torrent.info() {
            config.geometry = Some(info.geometry);
            config.metadata = Some(info.metadata.clone());
            config.private = info.private;
            config.have = match torrent.have() {
                Some(have) => (*have).clone(),
                None => Bitmap::new(info.geometry.pieces()),
            };
        }
        let local = shared.config.public_address.or(shared.local);
        config.port = local.map(|address| address.port());
        config.remote = Some(remote.ip().to_canonical());
        config.dht_port = self
            .discovery
            .dht
            .as_ref()
            .and_then(|_| self.discovery.udp_port());
        config.greeting = shared.signer.as_ref().and_then(|signer| {
            Some(Greeting {
                peer: signer.peer_id(),
                wallet: shared.config.wallet,
                nonce: random().ok()?,
            })
        });
        config
    }

    /// Connects to a peer of a torrent, for a download: once it has said what it has, and the
    /// torrent is known, or it is clear that this will not be soon.
    pub(in crate::bittorrent) async fn source(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        place: &str,
        offer: &PeerOffer,
        patience: Duration,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let name = || offer.endpoint.as_str().to_owned();
        let failed = |source: DialError| TransferError::Connection {
            source_name: name(),
            source: Box::new(source),
        };
        // Used from now on: or the connection would be let go at once.
        let _in_use = torrent.in_use();
        let is_announced = offer.valid_until.is_some();
        // A second connection to one peer would be refused, or displace the first.
        let handle = match torrent.claim_connected(place) {
            Some(handle) => handle,
            None => self
                .dial_place(torrent, place, is_announced)
                .await
                .map_err(failed)?,
        };
        let known = tokio::time::timeout(patience, handle.knows(torrent)).await;
        let Some(info) = torrent.info() else {
            handle.coverage()?;
            return Err(match known {
                Ok(()) => TransferError::Missing {
                    source_name: name(),
                    what: "the info dictionary",
                },
                Err(_) => TransferError::Timeout {
                    source_name: name(),
                },
            });
        };
        let (torrent, geometry) = (torrent.clone(), info.geometry);
        let shared = self.shared.clone();
        let source = PeerSource::new(handle.clone(), torrent, geometry, offer.clone(), shared);
        // It is used all the same if it chokes us, or has nothing yet: that may change.
        let _ = tokio::time::timeout(self.shared.config.introduction, handle.introduced()).await;
        source.coverage().await?;
        Ok(Arc::new(source))
    }

    /// Takes a message to the payment gate of a Chiral node, and brings its answer.
    pub(in crate::bittorrent) async fn carry(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        place: &str,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        let name = || offer.endpoint.as_str().to_owned();
        let _in_use = torrent.in_use();
        let is_announced = offer.valid_until.is_some();
        let there = torrent.peers().into_iter().find(|peer| {
            let published = peer.published();
            let known = offer.peer.is_some() && published.chiral == offer.peer;
            let at = published.listens_at.unwrap_or(peer.address);
            !peer.is_closed() && (known || at.to_string() == place)
        });
        let handle = match there {
            Some(handle) => handle,
            None => self
                .dial_place(torrent, place, is_announced)
                .await
                .map_err(|source| TransferError::Connection {
                    source_name: name(),
                    source: Box::new(source),
                })?,
        };
        let answer = handle.ask(Ask::Payment(message)).await?;
        answer.ok_or_else(|| TransferError::Refused {
            source_name: name(),
            reason: "its payment gate does not answer".to_owned(),
            retryable: false,
        })
    }

    /// The Chiral nodes that are in the fast lane of a torrent.
    pub(in crate::bittorrent) fn fast_lane(&self, torrent: &Torrent) -> Vec<PeerId> {
        let sold = upkeep::has_a_price(self, torrent);
        let peers = torrent.peers();
        let published = peers.iter().map(|peer| peer.published());
        let in_it = published.filter(|peer| upkeep::has_lane(peer, sold));
        in_it.filter_map(|peer| peer.chiral).collect()
    }

    /// Buys with this agent; the first that is given.
    pub(in crate::bittorrent) fn set_agent(&self, agent: Arc<dyn PaymentAgent>) {
        self.shared.agent.get_or_init(|| agent);
    }

    /// Ends everything, and waits for it.
    pub(in crate::bittorrent) async fn shutdown(&self) {
        self.shared.closed.cancel();
        self.dialling.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.discovery.shutdown().await;
        self.torrents().clear();
    }

    /// Whether it was shut down.
    pub(in crate::bittorrent) fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// What ends it.
    pub(in crate::bittorrent) fn closed(&self) -> &CancellationToken {
        &self.shared.closed
    }
}

/// The info-hash that an alias stands for on the wire.
pub(in crate::bittorrent) fn info_hash_of(alias: &Alias) -> Option<[u8; 20]> {
    match alias {
        Alias::InfoHashV1(hash) => Some(*hash),
        Alias::InfoHashV2(hash) => hash.first_chunk().copied(),
        _ => None,
    }
}
