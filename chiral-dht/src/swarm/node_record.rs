//! The node record: asked from the node itself, over a stream of its own.
//!
//! Whoever opens a stream of [`NODE_PROTOCOL`] gets the signed record and the end; nothing is
//! sent to ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chiral_core::{PeerNetwork, Protocol};
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::directory::Libp2pDirectory;
use super::error::Libp2pError;
use super::handle::Handle;
use super::network::Libp2pNetwork;
use super::to_core;
use crate::records::node_record::{MAX_NODE_RECORD_LEN, MAX_SEEDED};
use crate::records::store::UnixClock;
use crate::records::{NodeRecord, RecordError};

/// The protocol of node records.
pub const NODE_PROTOCOL: &str = "/chiral/node/1.0.0";

/// How long a record holds.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long answering, or being answered, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Askers that are answered at once.
const MAX_ASKERS: usize = 16;

/// What the application says of its node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// What it serves over.
    pub protocols: Vec<Protocol>,
    /// Bytes that it gives to the network, if it has a limit.
    pub capacity_bytes: Option<u64>,
    /// Bytes that it holds.
    pub used_bytes: u64,
}

/// Makes the record of this node.
pub(super) struct Author {
    pub(super) key: Keypair,
    pub(super) clock: UnixClock,
    pub(super) handle: Handle,
    pub(super) directory: Arc<Libp2pDirectory>,
    pub(super) info: Mutex<NodeInfo>,
}

impl Author {
    pub(super) fn set_info(&self, info: NodeInfo) {
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }

    async fn write(&self) -> Result<Vec<u8>, RecordError> {
        let now = (self.clock)();
        let info = self
            .info
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (count, seeded) = self.directory.announced(MAX_SEEDED);
        // Without the wallet's signature the record names none.
        let wallet = self.directory.binding().await.ok().flatten().copied();
        let record = NodeRecord {
            seq: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            expires_at: (now + LIFETIME).as_secs(),
            addresses: self.handle.status.borrow().announced.clone(),
            protocols: info.protocols,
            capacity_bytes: info.capacity_bytes,
            used_bytes: info.used_bytes,
            wallet,
            seeded_count: count as u64,
            seeded,
        };
        record.sign(&self.key, now)
    }
}

/// Answers askers until the node is stopped.
pub(super) async fn serve(author: Arc<Author>, network: Arc<Libp2pNetwork>) {
    let mut askers = match network.accept(NODE_PROTOCOL).await {
        Ok(askers) => askers,
        Err(error) => {
            tracing::warn!(%error, "node records are not served");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_ASKERS));
    while let Some((peer, mut stream)) = askers.next().await {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let author = author.clone();
        tokio::spawn(async move {
            let answer = async {
                let record = author.write().await.map_err(std::io::Error::other)?;
                stream.write_all(&record).await?;
                stream.close().await
            };
            match timeout(ANSWER_TIMEOUT, answer).await {
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a node record was not told"),
                Err(_) => tracing::debug!(%peer, "an asker does not read"),
                Ok(Ok(())) => {}
            }
            drop(place);
        });
    }
}

/// Asks a peer for its record, and checks it.
pub(super) async fn ask(
    network: &Libp2pNetwork,
    peer: PeerId,
    now: Duration,
) -> Result<NodeRecord, Libp2pError> {
    let id = to_core(&peer);
    let failed = |reason: String| Libp2pError::Peer {
        peer: id.clone(),
        reason,
    };
    let stream = network
        .open(&id, NODE_PROTOCOL)
        .await
        .map_err(|error| match error {
            chiral_core::NetworkError::Closed => Libp2pError::Closed,
            error => failed(error.to_string()),
        })?;
    let mut bytes = Vec::new();
    // One byte over the limit is enough to be refused.
    let mut limited = stream.take(MAX_NODE_RECORD_LEN as u64 + 1);
    match timeout(ANSWER_TIMEOUT, limited.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("no answer in time".into())),
    }
    NodeRecord::verify(&bytes, &peer, now).map_err(|error| failed(error.to_string()))
}
