//! [`NodeBuilder`]: what a node is made of.

use std::path::PathBuf;
use std::sync::Arc;

use chiral_core::{
    ChunkStore, ContentProtocol, PaymentGate, PaymentSettler, PeerDirectory, PeerId,
    TransferRegistry,
};
use chiral_dht::MemoryDirectoryNetwork;
use chiral_payment::{FreeGate, FreeSettler};
use chiral_protocols::{Engine, EngineConfig, ProtocolManager};
use chiral_storage::MemoryStore;

use crate::node::{Inner, Node};
use crate::{BuildError, NodeError};

/// Bytes that a node without a data directory keeps in memory.
const MEMORY_LIMIT: u64 = 1 << 30;

enum Store {
    Memory(u64),
    Directory(PathBuf),
    Given(Arc<dyn ChunkStore>),
}

/// Builds a [`Node`]. What is not said has a default that works alone: content in memory,
/// HTTP for fetching, a directory that knows nobody, and no payments.
pub struct NodeBuilder {
    store: Store,
    registry: TransferRegistry,
    protocols: Vec<Arc<dyn ContentProtocol>>,
    #[cfg(feature = "http")]
    http: Option<chiral_protocols::http::HttpConfig>,
    directory: Option<Arc<dyn PeerDirectory>>,
    settler: Option<Arc<dyn PaymentSettler>>,
    gate: Option<Arc<dyn PaymentGate>>,
    agent: Option<Arc<dyn PaymentAgent>>,
    peer: Option<PeerId>,
    engine: EngineConfig,
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
            directory: None,
            settler: None,
            gate: None,
            agent: None,
            peer: None,
            engine: EngineConfig::default(),
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

    /// Opens the store, binds what listens, and starts the node. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BuildError`]; then nothing is left open.
    pub async fn start(self) -> Result<Node, BuildError> {
        let store = open(self.store).await?;
        let gate = self.gate.unwrap_or_else(|| Arc::new(FreeGate::default()));
        let mut built_in: Vec<Arc<dyn ContentProtocol>> = Vec::new();
        #[cfg(feature = "http")]
        if let Some(config) = self.http {
            use chiral_protocols::http::HttpProtocol;
            let (store, registry, gate) = (store.clone(), self.registry.clone(), gate.clone());
            match HttpProtocol::bind(config, store.clone(), registry, gate).await {
                Ok(http) => built_in.push(Arc::new(http)),
                Err(error) => {
                    close(&*store).await;
                    return Err(error.into());
                }
            }
        }
        let mut protocols = built_in.drain(..).chain(self.protocols);
        let Some(first) = protocols.next() else {
            close(&*store).await;
            return Err(BuildError::NoProtocol);
        };
        let engine = Engine::new(store.clone(), self.registry, self.engine);
        let manager = ProtocolManager::new(engine, first);
        for protocol in protocols {
            manager.register(protocol);
        }
        let alone = || -> Arc<dyn PeerDirectory> {
            let nobody = PeerId::from_bytes(&[0]).expect("one byte is a peer id");
            Arc::new(MemoryDirectoryNetwork::new().join(nobody))
        };
        Ok(Node::new(Inner {
            store,
            manager,
            directory: self.directory.unwrap_or_else(alone),
            settler: self.settler.unwrap_or_else(|| Arc::new(FreeSettler::new())),
            gate,
            peer: self.peer,
        }))
    }
}

async fn close(store: &dyn ChunkStore) {
    if let Err(error) = store.shutdown().await {
        tracing::error!(%error, "could not close the store");
    }
}

async fn open(store: Store) -> Result<Arc<dyn ChunkStore>, BuildError> {
    match store {
        Store::Given(store) => Ok(store),
        Store::Memory(limit) => Ok(Arc::new(MemoryStore::new(limit))),
        #[cfg(feature = "fs-store")]
        Store::Directory(path) => {
            use chiral_storage::{FsStore, FsStoreConfig};
            Ok(Arc::new(
                FsStore::open(path, FsStoreConfig::default()).await?,
            ))
        }
        #[cfg(not(feature = "fs-store"))]
        Store::Directory(path) => {
            tracing::debug!(path = %path.display(), "this build keeps nothing on disk");
            Err(BuildError::Unsupported {
                what: "a data directory",
                feature: "fs-store",
            })
        }
    }
}

/// Reads what a user gave as an endpoint.
pub(crate) fn endpoint(text: &str) -> Result<chiral_core::Endpoint, NodeError> {
    chiral_core::Endpoint::new(text).map_err(|_| NodeError::Endpoint {
        text: text.to_owned(),
        reason: "it is empty, too long or has blanks in it",
    })
}
