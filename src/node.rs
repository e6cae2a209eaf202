//! [`Node`]: the handle that an application holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chiral_core::transfer::EventStream;
use chiral_core::{
    ChunkStore, Cid, FileIdentification, FileMetadata, PaymentAgent, PaymentGate, PeerDirectory,
    PeerId, PeerOffer, ProviderQuery, StoreError, TransferId, TransferRegistry,
};
use chiral_protocols::{Downloads, PeerBook, ProtocolManager, Reader, Uploads};

use crate::keeper::Keeper;
use crate::settle::Cashier;
use crate::status::status;
use crate::unfinished::Memory;
use crate::{Get, NodeBuilder, NodeError, NodeStatus, Share, Shared};

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) manager: ProtocolManager,
    pub(crate) uploads: Uploads,
    pub(crate) unfinished: Memory,
    pub(crate) keeper: Keeper,
    pub(crate) directory: Arc<dyn PeerDirectory>,
    pub(crate) cashier: Cashier,
    pub(crate) gate: Arc<dyn PaymentGate>,
    pub(crate) peer: Option<PeerId>,
    pub(crate) auto_seed: bool,
    #[cfg(feature = "bittorrent")]
    pub(crate) bittorrent: Option<Arc<chiral_protocols::bittorrent::protocol::BitTorrentProtocol>>,
    #[cfg(feature = "libp2p")]
    pub(crate) libp2p: Option<chiral_dht::Libp2pNode>,
    #[cfg(feature = "chain")]
    pub(crate) payments: Option<chiral_payment::Payments>,
    #[cfg(all(feature = "chain", feature = "libp2p"))]
    pub(crate) exchange: Option<crate::exchange::Exchange>,
}

struct Handle {
    inner: Inner,
    closed: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::SeqCst) {
            tracing::error!("a node was dropped without Node::shutdown: transfers are cut off");
            self.inner.manager.registry().close();
        }
    }
}

/// A node: seeds, downloads, settles. Cheap to clone; all clones are one node.
///
/// End it with [`Node::shutdown`]; when the last clone is dropped without, downloads are
/// cancelled and that is logged as an error.
#[derive(Clone)]
pub struct Node {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("protocols", &self.manager().protocols())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Begins to build a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            handle: Arc::new(Handle {
                inner,
                closed: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.handle.inner
    }

    pub(crate) fn check_open(&self) -> Result<(), NodeError> {
        if self.handle.closed.load(Ordering::SeqCst) {
            Err(NodeError::Closed)
        } else {
            Ok(())
        }
    }

    /// Shares a file, bytes, or something that the store holds already, over every protocol
    /// that seeds, and announces it.
    ///
    /// # Errors
    /// The file cannot be read or changes meanwhile; a protocol or the directory fails. Then
    /// nothing new is shared.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the file imported and not shared.
    pub async fn share(&self, share: impl Into<Share>) -> Result<Shared, NodeError> {
        self.check_open()?;
        crate::share::share(self, share.into()).await
    }

    /// Stops sharing; true if it was shared. A file shared in place stays where it is; a
    /// copy that the store made goes.
    ///
    /// # Errors
    /// Of the store, a protocol or the directory, after all have been asked.
    pub async fn unshare(&self, cid: Cid) -> Result<bool, NodeError> {
        self.check_open()?;
        crate::share::unshare(self, cid).await
    }

    /// Prepares a download: say where to and from whom, then [`Get::start`] it.
    pub fn get(&self, target: impl Into<FileIdentification>) -> Get {
        Get::new(self.clone(), target.into())
    }

    /// Reads content that the store holds; of a partial file, what is there. For a download
    /// under way see [`Getting::reader`](crate::Getting::reader).
    ///
    /// # Errors
    /// Nothing of it is there, or the store fails.
    pub async fn reader(&self, cid: Cid) -> Result<Reader, NodeError> {
        self.check_open()?;
        let content = self.store().open(cid).await?;
        let content = content.ok_or(StoreError::NotFound { cid })?;
        Ok(Reader::stored(content)?)
    }

    /// Who seeds a file, at what price, as far as the directory and the protocols know; not
    /// this node itself.
    ///
    /// # Errors
    /// The directory fails.
    pub async fn seeders(
        &self,
        target: impl Into<FileIdentification>,
    ) -> Result<Vec<PeerOffer>, NodeError> {
        self.check_open()?;
        let target = target.into();
        let directory = &self.inner().directory;
        let mut offers = directory.providers(ProviderQuery::new(target)).await?;
        offers.extend(self.manager().peers_serving(&target).await);
        offers.retain(|offer| offer.peer.is_none() || offer.peer.as_ref() != self.peer_id());
        Ok(offers)
    }

    /// What is known of a file and who seeds it, without downloading: from the store, the
    /// directory, and the protocols. `None` if nobody knows it.
    ///
    /// # Errors
    /// The directory fails.
    pub async fn metadata(
        &self,
        target: impl Into<FileIdentification>,
    ) -> Result<Option<FileMetadata>, NodeError> {
        self.check_open()?;
        let target = target.into();
        let offers = self.seeders(target).await?;
        let mut header = offers.iter().find_map(|offer| offer.header.clone());
        if let Some(cid) = target.cid()
            && header.is_none()
        {
            header = self
                .inner()
                .store
                .object(cid)
                .await?
                .map(|object| object.header);
        }
        for protocol in self.manager().protocols() {
            if header.is_some() {
                break;
            }
            header = protocol
                .file_metadata(&target)
                .await?
                .map(|metadata| metadata.header);
        }
        Ok(header.map(|header| FileMetadata::new(header, offers)))
    }

    /// What the node is doing.
    ///
    /// # Errors
    /// The store fails.
    pub async fn status(&self) -> Result<NodeStatus, NodeError> {
        status(self).await
    }

    /// Numbered events of all transfers from now on.
    pub fn events(&self) -> EventStream {
        self.registry().events()
    }

    /// The transfers under way.
    pub fn registry(&self) -> &TransferRegistry {
        self.manager().registry()
    }

    /// The queue of downloads and the limits on what they receive, to be looked at and changed.
    pub fn downloads(&self) -> &Downloads {
        self.manager().engine().downloads()
    }

    /// What is remembered of peers: who is demoted or banned, why and until when, which can be
    /// cleared, and how fast they were. Bans and rates outlast a restart if the node has a data
    /// directory.
    pub fn peers(&self) -> &PeerBook {
        self.manager().engine().peers()
    }

    /// The limits on what is served, to be looked at and changed: for all of it, and for each
    /// file.
    pub fn uploads(&self) -> &Uploads {
        &self.inner().uploads
    }

    /// The protocols: registering, preferring, and the architecture's methods.
    pub fn manager(&self) -> &ProtocolManager {
        &self.inner().manager
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ChunkStore> {
        &self.inner().store
    }

    /// The directory.
    pub fn directory(&self) -> &Arc<dyn PeerDirectory> {
        &self.inner().directory
    }

    /// What decides who is served: for protocols that are registered later.
    pub fn gate(&self) -> &Arc<dyn PaymentGate> {
        &self.inner().gate
    }

    /// What pays for what is fetched: for protocols that are registered later.
    pub fn agent(&self) -> &Arc<dyn PaymentAgent> {
        &self.inner().cashier.agent
    }

    /// The node's identity, if it was given one.
    pub fn peer_id(&self) -> Option<&PeerId> {
        self.inner().peer.as_ref()
    }

    /// The libp2p node, if there is one.
    #[cfg(feature = "libp2p")]
    pub fn libp2p(&self) -> Option<&chiral_dht::Libp2pNode> {
        self.inner().libp2p.as_ref()
    }

    /// Multiaddrs at which peers find this node, with its id: what others enter the network
    /// by. Empty without libp2p.
    pub fn addresses(&self) -> Vec<String> {
        #[cfg(feature = "libp2p")]
        if let Some(network) = &self.inner().libp2p {
            let addresses = network.listen_addresses();
            return addresses.iter().map(ToString::to_string).collect();
        }
        Vec::new()
    }

    /// Stops accepting, cancels downloads (what is durable stays for the next start), lets
    /// uploads end within their deadline, withdraws announcements, and releases ports, files
    /// and locks; idempotent.
    ///
    /// # Errors
    /// The first failure, after everything has been tried.
    pub async fn shutdown(&self) -> Result<(), NodeError> {
        if self.handle.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let inner = self.inner();
        inner.cashier.last_words().await;
        let transfers = inner.manager.cleanup().await;
        inner.cashier.shutdown().await;
        let settler = inner.cashier.settler.shutdown().await;
        #[cfg(all(feature = "chain", feature = "libp2p"))]
        if let Some(exchange) = &inner.exchange {
            exchange.shutdown().await;
        }
        let directory = inner.directory.shutdown().await;
        #[cfg(feature = "libp2p")]
        if let Some(network) = &inner.libp2p {
            network.shutdown().await;
        }
        #[cfg(feature = "chain")]
        let payments = match &inner.payments {
            Some(payments) => payments.shutdown().await,
            None => Ok(()),
        };
        inner.manager.registry().close();
        inner.keeper.shutdown().await;
        let store = inner.store.shutdown().await;
        transfers?;
        settler?;
        directory?;
        store?;
        #[cfg(feature = "chain")]
        payments?;
        Ok(())
    }
}

/// An id for a new transfer.
pub(crate) fn new_transfer_id() -> Result<TransferId, NodeError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| chiral_core::StoreError::Io {
        operation: "draw random bytes from",
        path: "the system".into(),
        source: error.into(),
    })?;
    Ok(TransferId::from_bytes(bytes))
}
