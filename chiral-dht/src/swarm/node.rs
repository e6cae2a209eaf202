//! [`Libp2pNode`]: a node of the network.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chiral_core::{Cid, PeerDirectory, PeerId, PeerNetwork, PeerSigner};
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::actor::Actor;
use super::config::Libp2pConfig;
use super::directory::{Libp2pDirectory, Parts, Sequence};
use super::error::Libp2pError;
use super::handle::{Closed, Handle, MAX_COMMANDS, Status};
use super::network::Libp2pNetwork;
use super::node_record::{Author, NodeInfo};
use super::signer::Signer;
use super::streams::Registry;
use super::{behaviour, data_dir, from_core, node_record, to_core};
use crate::records::store::UnixClock;
use crate::records::{ChiralStore, NodeRecord, StoreLimits, provider_key};

/// How long [`Libp2pNode::bootstrap`] waits for a way into the network.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(15);

/// A node of the network over libp2p: a directory over Kademlia, and streams and topics
/// between peers, over TCP, QUIC and WebSocket.
///
/// Dropping it ends it without withdrawing what it announced, as if its process had been
/// killed; [`Libp2pNode::shutdown`] withdraws and closes. Directory and network of an ended
/// node answer that they are closed.
pub struct Libp2pNode {
    peer: libp2p::PeerId,
    handle: Handle,
    directory: Arc<Libp2pDirectory>,
    network: Arc<Libp2pNetwork>,
    author: Arc<Author>,
    clock: UnixClock,
}

impl Libp2pNode {
    /// Starts a node: reads or makes its identity, listens, and looks for its network in the
    /// background. Needs a tokio runtime with time and IO.
    ///
    /// # Errors
    /// [`Libp2pError`]: a setting or file that cannot work, an address that is taken.
    pub async fn start(config: Libp2pConfig) -> Result<Self, Libp2pError> {
        config.check()?;
        let key = identity(config.key.clone(), config.data_dir.clone()).await?;
        let peer = key.public().to_peer_id();
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| Libp2pError::Randomness)?;
        let clock: UnixClock = Arc::new(unix_now);
        let registry = Registry::default();
        let store = ChiralStore::new(peer, secret, StoreLimits::default(), clock.clone());
        let mut swarm = behaviour::swarm(&key, &config, registry.clone(), store)?;
        for address in &config.external {
            swarm.add_external_address(address.clone());
        }
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (sender, status) = watch::channel(Status::default());
        let handle = Handle::new(commands, status, registry);
        let mut actor = Actor::new(
            swarm,
            config.effective_policy(),
            config.bootstrap.clone(),
            config.data_dir.as_deref(),
            handle.clone(),
            (received, sender),
        )?;
        actor.listen(&config.listen).await?;
        let sequence = Sequence::open(config.data_dir.as_deref(), clock())?;
        let has_entrance = !config.bootstrap.is_empty() || actor.remembers_peers();
        tokio::spawn(actor.run());

        let directory = Arc::new(Libp2pDirectory::start(Parts {
            handle: handle.clone(),
            key: key.clone(),
            wallet: config.wallet.clone(),
            lifetime: config.lifetime,
            republish: config.republish,
            has_entrance,
            clock: clock.clone(),
            sequence,
        }));
        let network = Arc::new(Libp2pNetwork::new(handle.clone(), peer));
        let author = Arc::new(Author {
            key,
            clock: clock.clone(),
            handle: handle.clone(),
            directory: directory.clone(),
            info: Default::default(),
        });
        tokio::spawn(node_record::serve(author.clone(), network.clone()));
        Ok(Self {
            peer,
            handle,
            directory,
            network,
            author,
            clock,
        })
    }

    /// Who seeds what.
    pub fn directory(&self) -> Arc<dyn PeerDirectory> {
        self.directory.clone()
    }

    /// Streams and topics.
    pub fn network(&self) -> Arc<dyn PeerNetwork> {
        self.network.clone()
    }

    /// This node's identity key, to sign with.
    pub fn signer(&self) -> Arc<dyn PeerSigner> {
        Arc::new(Signer(self.author.key.clone()))
    }

    /// This node's id.
    pub fn local_peer(&self) -> PeerId {
        to_core(&self.peer)
    }

    /// The addresses listened on, each with this node's `/p2p/…` at its end: what others take
    /// as a way into the network.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        let listen = self.handle.status.borrow().listen.clone();
        let with_peer = |address: Multiaddr| address.with_p2p(self.peer);
        listen
            .into_iter()
            .map(|address| with_peer(address).unwrap_or_else(|address| address))
            .collect()
    }

    /// How many nodes are in the routing table.
    pub fn known_nodes(&self) -> usize {
        self.handle.status.borrow().known
    }

    /// Waits until a node of the network is known, which happens in the background.
    ///
    /// # Errors
    /// [`Libp2pError::NoNetwork`] if none is found in time, and [`Libp2pError::Closed`].
    pub async fn bootstrap(&self) -> Result<(), Libp2pError> {
        let mut status = self.handle.status.clone();
        match timeout(
            BOOTSTRAP_TIMEOUT,
            status.wait_for(|status| status.known > 0),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Libp2pError::Closed),
            Err(_) => Err(Libp2pError::NoNetwork),
        }
    }

    /// Connects to an address, with or without `/p2p/…` at its end, and answers who is there.
    ///
    /// # Errors
    /// [`Libp2pError::Dial`], also for addresses that the policy does not allow.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, Libp2pError> {
        match self.handle.dial(address.clone()).await? {
            Ok(peer) => Ok(to_core(&peer)),
            Err(reason) => Err(Libp2pError::Dial { address, reason }),
        }
    }

    /// The peers connected now.
    ///
    /// # Errors
    /// [`Libp2pError::Closed`].
    pub async fn connected(&self) -> Result<Vec<PeerId>, Libp2pError> {
        let connected = self.handle.connected().await?;
        Ok(connected.iter().map(to_core).collect())
    }

    /// Who says by a standard provider record that it has a file: without addresses, prices
    /// or signatures, but common to all libp2p implementations.
    ///
    /// # Errors
    /// [`Libp2pError::Closed`].
    pub async fn provider_peers(&self, cid: Cid) -> Result<Vec<PeerId>, Libp2pError> {
        let peers = self.handle.providers(provider_key(cid)).await?;
        Ok(peers.iter().map(to_core).collect())
    }

    /// Says what this node's record holds besides its addresses, wallet and files.
    pub fn set_info(&self, info: NodeInfo) {
        self.author.set_info(info);
    }

    /// Asks a peer what it says of itself: signed, and true as far as one trusts it.
    ///
    /// # Errors
    /// [`Libp2pError::Peer`] if it cannot be reached or answers something else.
    pub async fn node_record(&self, peer: &PeerId) -> Result<NodeRecord, Libp2pError> {
        let id = from_core(peer).ok_or_else(|| Libp2pError::Peer {
            peer: peer.clone(),
            reason: "not a libp2p id".into(),
        })?;
        node_record::ask(&self.network, id, (self.clock)()).await
    }

    /// Withdraws what was announced, as far as it can be done in some seconds, closes all
    /// connections and listeners, and writes what is kept on disk; idempotent.
    pub async fn shutdown(&self) {
        if let Err(error) = self.directory.shutdown().await {
            tracing::debug!(%error, "announcements were not withdrawn");
        }
        self.handle.registry.close();
        self.handle.stop.cancel();
        self.handle.ended.cancelled().await;
    }
}

impl Drop for Libp2pNode {
    fn drop(&mut self) {
        self.handle.registry.close();
        self.handle.stop.cancel();
    }
}

impl fmt::Debug for Libp2pNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libp2pNode")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl From<Closed> for Libp2pError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

async fn identity(key: Option<Keypair>, data_dir: Option<PathBuf>) -> Result<Keypair, Libp2pError> {
    match (key, data_dir) {
        (Some(key), None) => Ok(key),
        (key, Some(directory)) => {
            let read = move || data_dir::identity(&directory, key);
            let read = tokio::task::spawn_blocking(read).await;
            // The task is cancelled only when the runtime ends.
            read.map_err(|_| Libp2pError::Closed)?
        }
        (None, None) => Ok(Keypair::generate_ed25519()),
    }
}

/// A clock before 1970 counts as 1970.
fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
