//! From a builder's settings to a running node: everything is opened in order, and closed
//! again if a later part fails.

use std::sync::Arc;

use chiral_core::{
    ChunkStore, ContentProtocol, PaymentAgent, PaymentGate, PaymentSettler, PeerDirectory, PeerId,
};
use chiral_dht::MemoryDirectoryNetwork;
use chiral_payment::{FreeAgent, FreeGate, FreeSettler};
use chiral_protocols::{Engine, ProtocolManager};
use chiral_storage::MemoryStore;

use crate::builder::{NodeBuilder, Store};
#[cfg(all(feature = "chain", feature = "libp2p"))]
use crate::exchange::Exchange;
use crate::keeper::Keeper;
use crate::node::Inner;
use crate::settle::Cashier;
use crate::unfinished::Memory;
use crate::{BuildError, Node};

/// What is open so far.
#[derive(Default)]
struct Open {
    store: Option<Arc<dyn ChunkStore>>,
    #[cfg(feature = "chain")]
    payments: Option<chiral_payment::Payments>,
    #[cfg(feature = "libp2p")]
    libp2p: Option<chiral_dht::Libp2pNode>,
    protocols: Vec<Arc<dyn ContentProtocol>>,
}

impl Open {
    /// Closes it all again, last things first.
    async fn close(self) {
        let mut failed: Vec<String> = Vec::new();
        for protocol in &self.protocols {
            failed.extend(protocol.shutdown().await.err().map(|e| e.to_string()));
        }
        #[cfg(feature = "libp2p")]
        if let Some(network) = self.libp2p {
            network.shutdown().await;
        }
        #[cfg(feature = "chain")]
        if let Some(payments) = self.payments {
            failed.extend(payments.shutdown().await.err().map(|e| e.to_string()));
        }
        if let Some(store) = self.store {
            failed.extend(store.shutdown().await.err().map(|e| e.to_string()));
        }
        for error in failed {
            tracing::error!(error, "could not be closed after a failed start");
        }
    }
}

/// Starts a node.
pub(crate) async fn start(builder: NodeBuilder) -> Result<Node, BuildError> {
    let mut open = Open::default();
    match assemble(builder, &mut open).await {
        Ok(node) => Ok(node),
        Err(error) => {
            open.close().await;
            Err(error)
        }
    }
}

// Which parts take from it depends on the features.
#[cfg_attr(not(any(feature = "chain", feature = "libp2p")), allow(unused_mut))]
async fn assemble(mut builder: NodeBuilder, open: &mut Open) -> Result<Node, BuildError> {
    let directory = match &builder.store {
        Store::Directory(path) => Some(path.clone()),
        _ => None,
    };
    let store = open_store(builder.store).await?;
    open.store = Some(store.clone());

    #[cfg(feature = "chain")]
    if let Some(mut config) = builder.payments.take() {
        if let Some(directory) = &directory {
            config = config.or_journal_at(directory.join("payments.redb"));
        }
        #[cfg(feature = "libp2p")]
        {
            let wallet = config.wallet().clone();
            builder.libp2p = builder.libp2p.map(|network| network.with_wallet(wallet));
        }
        let payments = chiral_payment::Payments::start(config).await?;
        builder.gate.get_or_insert_with(|| payments.gate());
        builder.agent.get_or_insert_with(|| payments.agent());
        builder.settler.get_or_insert_with(|| payments.settler());
        open.payments = Some(payments);
    }

    #[cfg(all(feature = "libp2p", feature = "bittorrent"))]
    let network_allows = builder.libp2p.as_ref().map(|network| network.allows());
    #[cfg(feature = "libp2p")]
    if let Some(mut config) = builder.libp2p.take() {
        if let Some(directory) = &directory {
            config = config.or_data_dir(directory.join("network"));
        }
        #[cfg(feature = "http")]
        {
            // Whom strangers make us connect to is one question, over whatever protocol.
            let (private, loopback) = config.allows();
            let announced = chiral_protocols::http::AddressPolicy::GlobalAnd { private, loopback };
            builder.http = builder.http.map(|http| http.with_announced(announced));
        }
        let network = chiral_dht::Libp2pNode::start(config).await?;
        builder.directory.get_or_insert_with(|| network.directory());
        builder.peer.get_or_insert_with(|| network.local_peer());
        builder.network.get_or_insert_with(|| network.network());
        #[cfg(feature = "http")]
        if let Some(http) = &mut builder.http
            && http.signer.is_none()
        {
            *http = http.clone().with_signer(network.signer());
        }
        open.libp2p = Some(network);
    }

    #[cfg(feature = "bittorrent")]
    if let Some(config) = &mut builder.bittorrent {
        #[cfg(any(feature = "libp2p", feature = "http"))]
        use chiral_protocols::http::AddressPolicy;
        #[cfg(feature = "libp2p")]
        if let Some((private, loopback)) = network_allows
            && config.addresses == AddressPolicy::GlobalOnly
        {
            config.addresses = AddressPolicy::GlobalAnd { private, loopback };
        }
        // What a torrent has us dial is one question, be it a tracker or a web seed.
        #[cfg(feature = "http")]
        if let Some(http) = &mut builder.http
            && http.hearsay == AddressPolicy::GlobalOnly
        {
            http.hearsay = config.addresses;
        }
    }

    let free = || -> Arc<dyn PaymentGate> { Arc::new(FreeGate::default()) };
    let mut gate = builder.gate.unwrap_or_else(free);
    if let Some(layer) = builder.gate_layer {
        gate = layer(gate);
    }
    let agent: Arc<dyn PaymentAgent> = builder.agent.unwrap_or_else(|| Arc::new(FreeAgent::new()));
    let settler: Arc<dyn PaymentSettler> = builder
        .settler
        .unwrap_or_else(|| Arc::new(FreeSettler::new()));

    #[cfg(feature = "http")]
    let proxied = builder
        .http
        .as_ref()
        .is_some_and(|it| !it.proxies.is_empty());
    #[cfg(not(feature = "http"))]
    let proxied = false;
    #[cfg(feature = "http")]
    if let Some(config) = builder.http {
        use chiral_protocols::http::HttpProtocol;
        let registry = builder.registry.clone();
        let config = config.with_uploads(builder.uploads.clone());
        let http = HttpProtocol::bind(config, store.clone(), registry, gate.clone()).await?;
        let mut http = http.with_agent(agent.clone());
        if let Some(directory) = &builder.directory {
            let others = Others::new(directory.clone(), builder.peer.clone());
            http = http.with_other_seeders(Arc::new(others));
        }
        open.protocols.push(Arc::new(http));
    }
    #[cfg(feature = "private")]
    if let Some(config) = builder.private {
        use chiral_protocols::private::PrivateProtocol;
        let network = builder.network.ok_or(BuildError::NoNetwork)?;
        let config = config.with_uploads(builder.uploads.clone());
        let (registry, gate) = (builder.registry.clone(), gate.clone());
        let private =
            PrivateProtocol::start(config, network, store.clone(), registry, gate).await?;
        let private = private.with_agent(agent.clone());
        open.protocols.push(Arc::new(private));
    }
    #[cfg(feature = "bittorrent")]
    let mut bittorrent = None;
    #[cfg(feature = "bittorrent")]
    if let Some(mut config) = builder.bittorrent {
        use chiral_protocols::bittorrent::protocol::BitTorrentProtocol;
        config.uploads = builder.uploads.clone();
        #[cfg(feature = "chain")]
        if let Some(payments) = &open.payments {
            config.wallet.get_or_insert(payments.wallet().address());
        }
        #[cfg(feature = "libp2p")]
        let signer = open.libp2p.as_ref().map(|network| network.signer());
        #[cfg(not(feature = "libp2p"))]
        let signer = None;
        let (registry, gate) = (builder.registry.clone(), gate.clone());
        let protocol =
            BitTorrentProtocol::bind(config, store.clone(), registry, gate, signer).await?;
        let protocol = Arc::new(protocol.with_agent(agent.clone()));
        bittorrent = Some(protocol.clone());
        open.protocols.push(protocol);
    }
    open.protocols.extend(builder.protocols);
    let mut protocols = open.protocols.iter().cloned();
    let first = protocols.next().ok_or(BuildError::NoProtocol)?;
    let engine = Engine::new(store.clone(), builder.registry, builder.engine);
    engine.downloads().set_max(builder.max_downloads);
    engine.downloads().set_limit(builder.limit_down);
    let manager = ProtocolManager::new(engine, first);
    for protocol in protocols {
        manager.register(protocol);
    }
    if let Some(context) = builder.seeding {
        manager.set_seeding(context);
    }
    manager.set_restricted(builder.restricted.unwrap_or(proxied));
    let keeper = Keeper::start(manager.engine().peers().clone(), directory.as_deref());
    let alone = || -> Arc<dyn PeerDirectory> {
        let nobody = PeerId::from_bytes(&[0]).expect("one byte is a peer id");
        Arc::new(MemoryDirectoryNetwork::new().join(nobody))
    };
    let cashier = Cashier::new(agent, settler, manager.clone());
    cashier.recover();
    #[cfg(all(feature = "chain", feature = "libp2p"))]
    let exchange = match (&open.libp2p, &open.payments) {
        (Some(network), Some(payments)) => {
            match Exchange::start(network.network(), gate.clone(), payments).await {
                Ok(exchange) => Some(exchange),
                Err(error) => {
                    // Without it, payments are talked about over HTTP alone.
                    tracing::warn!(%error, "no payment streams");
                    None
                }
            }
        }
        _ => None,
    };
    Ok(Node::new(Inner {
        store,
        manager,
        uploads: builder.uploads,
        unfinished: Memory::open(directory),
        keeper,
        directory: builder.directory.unwrap_or_else(alone),
        cashier,
        gate,
        peer: builder.peer,
        auto_seed: builder.auto_seed,
        #[cfg(feature = "bittorrent")]
        bittorrent,
        #[cfg(feature = "libp2p")]
        libp2p: open.libp2p.take(),
        #[cfg(feature = "chain")]
        payments: open.payments.take(),
        #[cfg(all(feature = "chain", feature = "libp2p"))]
        exchange,
    }))
}

/// Who else seeds a file over HTTP, as the directory says.
#[cfg(feature = "http")]
#[derive(Debug)]
struct Others {
    directory: Arc<dyn PeerDirectory>,
    own: Option<PeerId>,
}

#[cfg(feature = "http")]
impl Others {
    fn new(directory: Arc<dyn PeerDirectory>, own: Option<PeerId>) -> Self {
        Self { directory, own }
    }
}

#[cfg(feature = "http")]
#[async_trait::async_trait]
impl chiral_protocols::http::OtherSeeders for Others {
    async fn offers(&self, cid: chiral_core::Cid) -> Vec<chiral_core::PeerOffer> {
        let mut query = chiral_core::ProviderQuery::new(cid.into());
        query.protocols.push(chiral_core::Protocol::Http);
        match self.directory.providers(query).await {
            Ok(mut offers) => {
                offers.retain(|offer| offer.peer.is_none() || offer.peer != self.own);
                offers
            }
            Err(error) => {
                tracing::debug!(content = %cid, %error, "others are not known now");
                Vec::new()
            }
        }
    }
}

async fn open_store(store: Store) -> Result<Arc<dyn ChunkStore>, BuildError> {
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
