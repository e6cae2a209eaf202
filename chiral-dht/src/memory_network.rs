//! [`MemoryNetwork`]: byte streams and topics between nodes in one process.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::peer_network::{
    BoxedPeerStream, IncomingStreams, MAX_NAME_LEN, MAX_TOPIC_MESSAGE, TopicStream,
};
use chiral_core::{NetworkError, PeerId, PeerNetwork};
use futures_util::stream;
use tokio::sync::mpsc;

use switchboard::{Membership, Switchboard};

mod pipe;
mod switchboard;

/// Bytes that one direction of a stream holds before its writer waits.
pub const STREAM_BUFFER: usize = 64 * 1024;

/// Streams that wait for an acceptor; what comes beyond is reset.
pub const MAX_WAITING_STREAMS: usize = 64;

/// Messages that wait for a subscriber; what comes beyond is lost.
pub const MAX_WAITING_MESSAGES: usize = 64;

/// What the networks of several nodes have in common. Cheap to clone; all clones are one
/// network.
///
/// All nodes are connected to each other, except where [`MemoryNetworkHub::cut`] was called.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetworkHub {
    switchboard: Arc<Switchboard>,
}

impl MemoryNetworkHub {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as the node that `peer` names sees it. A node that has this id already is
    /// shut down first, as if its process had died and been started again.
    pub fn join(&self, peer: PeerId) -> MemoryNetwork {
        let membership = self.switchboard.join(peer);
        MemoryNetwork {
            membership,
            switchboard: self.switchboard.clone(),
        }
    }

    /// Disconnects two peers: streams between them are reset, and neither hears the other
    /// until [`MemoryNetworkHub::mend`]. They need not have joined.
    pub fn cut(&self, a: &PeerId, b: &PeerId) {
        self.switchboard.cut(a, b);
    }

    /// Leaves two peers a connection through a relay, until [`MemoryNetworkHub::mend`]: streams
    /// are reset and none is opened, messages to topics still come.
    pub fn relay(&self, a: &PeerId, b: &PeerId) {
        self.switchboard.relay(a, b);
    }

    /// Connects two peers again.
    pub fn mend(&self, a: &PeerId, b: &PeerId) {
        self.switchboard.mend(a, b);
    }
}

/// One node's place in a [`MemoryNetworkHub`]. Dropping it is as shutting it down.
///
/// A stream that finds [`MAX_WAITING_STREAMS`] others in front of an acceptor is opened and
/// reset at once. A message is heard by each subscription once, unless
/// [`MAX_WAITING_MESSAGES`] wait there.
pub struct MemoryNetwork {
    membership: Membership,
    switchboard: Arc<Switchboard>,
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork")
            .field("peer", &self.membership.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for MemoryNetwork {
    fn drop(&mut self) {
        self.switchboard.leave(&self.membership);
    }
}

fn check(what: &'static str, len: usize, limit: usize) -> Result<(), NetworkError> {
    if len > limit {
        Err(NetworkError::TooLarge { what, limit })
    } else {
        Ok(())
    }
}

/// A receiver as a stream that ends when its sender is gone.
fn receive<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send {
    stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    })
}

#[async_trait]
impl PeerNetwork for MemoryNetwork {
    fn local_peer(&self) -> PeerId {
        self.membership.peer.clone()
    }

    async fn connected(&self) -> Result<Vec<PeerId>, NetworkError> {
        self.switchboard.connected(&self.membership)
    }

    async fn open(&self, peer: &PeerId, name: &str) -> Result<BoxedPeerStream, NetworkError> {
        check("name", name.len(), MAX_NAME_LEN)?;
        self.switchboard.open(&self.membership, peer, name)
    }

    async fn accept(&self, name: &str) -> Result<IncomingStreams, NetworkError> {
        check("name", name.len(), MAX_NAME_LEN)?;
        Ok(Box::pin(receive(
            self.switchboard.accept(&self.membership, name)?,
        )))
    }

    async fn publish(&self, topic: &str, message: Bytes) -> Result<(), NetworkError> {
        check("name", topic.len(), MAX_NAME_LEN)?;
        check("message", message.len(), MAX_TOPIC_MESSAGE)?;
        self.switchboard.publish(&self.membership, topic, &message)
    }

    async fn subscribe(&self, topic: &str) -> Result<TopicStream, NetworkError> {
        check("name", topic.len(), MAX_NAME_LEN)?;
        Ok(Box::pin(receive(
            self.switchboard.subscribe(&self.membership, topic)?,
        )))
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        self.switchboard.leave(&self.membership);
        Ok(())
    }
}
