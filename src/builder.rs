//! [`NodeBuilder`]: what a node is made of.

use std::path::PathBuf;
use std::sync::Arc;

use chiral_core::{
    ChunkStore, ContentProtocol, PaymentAgent, PaymentGate, PaymentSettler, PeerDirectory, PeerId,
    PeerNetwork, Rate, TransferRegistry,
};
use chiral_protocols::selection::SeedingContext;
use chiral_protocols::{EngineConfig, Uploads};

use crate::{BuildError, Node, NodeError};

/// Bytes that a node without a data directory keeps in memory.
const MEMORY_LIMIT: u64 = 1 << 30;

pub(crate) enum Store {
    Memory(u64),
    Directory(PathBuf),
    Given(Arc<dyn ChunkStore>),
}

/// Puts something before the gate that payments made.
pub(crate) type GateLayer = Box<dyn FnOnce(Arc<dyn PaymentGate>) -> Arc<dyn PaymentGate> + Send>;

/// Builds a [`Node`]. What is not said has a default that works alone: content in memory,
/// HTTP for fetching, a directory that knows nobody, and no payments.
pub struct NodeBuilder {
    pub(crate) store: Store,
    pub(crate) registry: TransferRegistry,
    pub(crate) protocols: Vec<Arc<dyn ContentProtocol>>,
    #[cfg(feature = "http")]
    pub(crate) http: Option<chiral_protocols::http::HttpConfig>,
    #[cfg(feature = "private")]
    pub(crate) private: Option<chiral_protocols::private::PrivateConfig>,
    #[cfg(feature = "bittorrent")]
    pub(crate) bittorrent: Option<chiral_protocols::bittorrent::swarm::BitTorrentConfig>,
    pub(crate) directory: Option<Arc<dyn PeerDirectory>>,
    pub(crate) network: Option<Arc<dyn PeerNetwork>>,
    #[cfg(feature = "libp2p")]
    pub(crate) libp2p: Option<chiral_dht::Libp2pConfig>,
    #[cfg(feature = "chain")]
    pub(crate) payments: Option<chiral_payment::PaymentsConfig>,
    pub(crate) settler: Option<Arc<dyn PaymentSettler>>,
    pub(crate) gate: Option<Arc<dyn PaymentGate>>,
    pub(crate) gate_layer: Option<GateLayer>,
    pub(crate) agent: Option<Arc<dyn PaymentAgent>>,
    pub(crate) peer: Option<PeerId>,
    pub(crate) engine: EngineConfig,
    pub(crate) auto_seed: bool,
    pub(crate) uploads: Uploads,
    pub(crate) limit_down: Option<Rate>,
    pub(crate) max_downloads: Option<usize>,
    pub(crate) seeding: Option<SeedingContext>,
    pub(crate) restricted: Option<bool>,
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            store: Store::Memory(MEMORY_LIMIT),
            registry: TransferRegistry::new(),
            protocols: Vec::new(),
            #[cfg(feature = "http")]
            http: Some(chiral_protocols::http::HttpConfig::default()),
            #[cfg(feature = "private")]
            private: None,
            #[cfg(feature = "bittorrent")]
            bittorrent: None,
            directory: None,
            network: None,
            #[cfg(feature = "libp2p")]
            libp2p: None,
            #[cfg(feature = "chain")]
            payments: None,
            settler: None,
            gate: None,
            gate_layer: None,
            agent: None,
            peer: None,
            engine: EngineConfig::default(),
            auto_seed: false,
            uploads: Uploads::new(),
            limit_down: None,
            max_downloads: None,
            seeding: None,
            restricted: None,
        }
    }
}

impl NodeBuilder {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps content and state in a directory, which is made if it is not there. Needs the
    /// feature `fs-store`.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Store::Directory(path.into());
        self
    }

    /// Keeps content in memory, at most so many bytes of it.
    #[must_use]
    pub fn in_memory(mut self, limit_bytes: u64) -> Self {
        self.store = Store::Memory(limit_bytes);
        self
    }

    /// Keeps content in a store of the caller's.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn ChunkStore>) -> Self {
        self.store = Store::Given(store);
        self
    }

    /// Sets HTTP up in another way than the default, which only fetches.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(mut self, config: chiral_protocols::http::HttpConfig) -> Self {
        self.http = Some(config);
        self
    }

    /// Serves over HTTP at this address; port 0 lets the system choose one.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_listen(self, address: std::net::SocketAddr) -> Self {
        let config = chiral_protocols::http::HttpConfig::listening(address);
        self.http(config)
    }

    /// Does without HTTP.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn without_http(mut self) -> Self {
        self.http = None;
        self
    }

    /// Fetches, and serves if the settings say so, over the private protocol: chunks and
    /// payments in one stream. Needs a network, this node's ([`NodeBuilder::libp2p`]) or one
    /// that is given ([`NodeBuilder::network`]).
    #[cfg(feature = "private")]
    #[must_use]
    pub fn private(mut self, config: chiral_protocols::private::PrivateConfig) -> Self {
        self.private = Some(config);
        self
    }

    /// Takes part in BitTorrent's swarms as these settings say: what is shared is seeded there,
    /// too, if they have an address to listen at, and torrents can be
    /// [got](Node::download_torrent). Nobody is told or asked about anything, but by peers that
    /// are named, unless the settings name trackers or the like.
    ///
    /// With libp2p, other Chiral nodes recognise this one in a swarm; with payments it buys and
    /// sells there.
    #[cfg(feature = "bittorrent")]
    #[must_use]
    pub fn bittorrent(
        mut self,
        config: chiral_protocols::bittorrent::swarm::BitTorrentConfig,
    ) -> Self {
        self.bittorrent = Some(config);
        self
    }

    /// Takes part in BitTorrent's swarms, and seeds there at this address; port 0 lets the
    /// system choose one.
    #[cfg(feature = "bittorrent")]
    #[must_use]
    pub fn bittorrent_listen(self, address: std::net::SocketAddr) -> Self {
        use chiral_protocols::bittorrent::swarm::BitTorrentConfig;
        self.bittorrent(BitTorrentConfig::default().with_listen(address))
    }

    /// Has streams to peers over this network, instead of the node's own.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn PeerNetwork>) -> Self {
        self.network = Some(network);
        self
    }

    /// Adds a protocol. It must tell [`NodeBuilder::registry`] of its transfers.
    #[must_use]
    pub fn protocol(mut self, protocol: Arc<dyn ContentProtocol>) -> Self {
        self.protocols.push(protocol);
        self
    }

    /// The registry of transfers that the node will have, for protocols that are made
    /// before it.
    pub fn registry(&self) -> &TransferRegistry {
        &self.registry
    }

    /// Finds and announces seeders through this directory.
    #[must_use]
    pub fn directory(mut self, directory: Arc<dyn PeerDirectory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Takes part in the network: finds and announces seeders in its directory (unless
    /// another was given), and has streams to its peers. Identity and known peers are kept in
    /// `network` of the data directory, unless the settings say where.
    ///
    /// What strangers announce is then dialled only as far as these settings let.
    #[cfg(feature = "libp2p")]
    #[must_use]
    pub fn libp2p(mut self, config: chiral_dht::Libp2pConfig) -> Self {
        self.libp2p = Some(config);
        self
    }

    /// Pays and is paid, from a wallet on a chain. The journal is `payments.redb` of the data
    /// directory, unless the settings say where.
    #[cfg(feature = "chain")]
    #[must_use]
    pub fn payments(mut self, config: chiral_payment::PaymentsConfig) -> Self {
        self.payments = Some(config);
        self
    }

    /// Pays through this settler.
    #[must_use]
    pub fn settler(mut self, settler: Arc<dyn PaymentSettler>) -> Self {
        self.settler = Some(settler);
        self
    }

    /// Lets this gate decide who is served.
    #[must_use]
    pub fn gate(mut self, gate: Arc<dyn PaymentGate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Puts something of the caller's before the gate: it is given the gate that would
    /// otherwise be asked, and answers the one that will be.
    #[must_use]
    pub fn wrap_gate(
        mut self,
        layer: impl FnOnce(Arc<dyn PaymentGate>) -> Arc<dyn PaymentGate> + Send + 'static,
    ) -> Self {
        self.gate_layer = Some(Box::new(layer));
        self
    }

    /// Lets this agent buy, and keep the books of what is owed.
    #[must_use]
    pub fn agent(mut self, agent: Arc<dyn PaymentAgent>) -> Self {
        self.agent = Some(agent);
        self
    }

    /// The node's identity, put into what it announces.
    #[must_use]
    pub fn peer_id(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Limits and times of downloads.
    #[must_use]
    pub fn engine(mut self, config: EngineConfig) -> Self {
        self.engine = config;
        self
    }

    /// Whether to seed what is downloaded, while it is and afterwards, unless
    /// [`Get::seed`](crate::Get::seed) says otherwise; the node has to listen at some address
    /// for that. Not unless it is said.
    #[must_use]
    pub fn auto_seed(mut self, seed: bool) -> Self {
        self.auto_seed = seed;
        self
    }

    /// How many downloads work at once, at least one; the others wait for their turn, the most
    /// important first. Without it all do. [`Node::downloads`] changes it later.
    #[must_use]
    pub fn max_downloads(mut self, max: usize) -> Self {
        self.max_downloads = Some(max);
        self
    }

    /// Limits what all downloads receive together. They share it by priority.
    /// [`Node::downloads`] changes it later.
    #[must_use]
    pub fn limit_down(mut self, limit: Rate) -> Self {
        self.limit_down = Some(limit);
        self
    }

    /// Limits what is served, over all protocols together. [`Node::uploads`] changes it later.
    #[must_use]
    pub fn limit_up(self, limit: Rate) -> Self {
        self.uploads.set_limit(Some(limit));
        self
    }

    /// How others can reach this node, and what to seed over then: decides which protocol is
    /// announced first, and in a browser which at all. Without it the node counts as reachable
    /// at a public address.
    #[must_use]
    pub fn seeding(mut self, context: SeedingContext) -> Self {
        self.seeding = Some(context);
        self
    }

    /// Whether only what looks like the web gets through the network, as behind a proxy: then
    /// protocols beside HTTP are a last resort for downloads (see
    /// [`selection::downloading`](chiral_protocols::selection::downloading)). If not said, it
    /// does if HTTP goes through a proxy.
    #[must_use]
    pub fn restricted_network(mut self, restricted: bool) -> Self {
        self.restricted = Some(restricted);
        self
    }

    /// The limits on what the node will serve, for protocols that are made before it.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Opens the store, binds what listens, and starts the node. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BuildError`]; then nothing is left open.
    pub async fn start(self) -> Result<Node, BuildError> {
        crate::start::start(self).await
    }
}

/// Reads what a user gave as an endpoint.
pub(crate) fn endpoint(text: &str) -> Result<chiral_core::Endpoint, NodeError> {
    chiral_core::Endpoint::new(text).map_err(|_| NodeError::Endpoint {
        text: text.to_owned(),
        reason: "it is empty, too long or has blanks in it",
    })
}
