//! [`PeerNetwork`]: byte streams between peers by their ids.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};

use crate::PeerId;

/// Limit on the length of a stream protocol's name or a topic, in bytes.
pub const MAX_NAME_LEN: usize = 140;

/// Limit on one message to a topic, in bytes.
pub const MAX_TOPIC_MESSAGE: usize = 64 * 1024;

/// Why the network could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The peer is not connected and could not be reached.
    #[error("peer {peer} cannot be reached")]
    Unreachable {
        /// The peer.
        peer: PeerId,
    },
    /// The peer is reached through a relay only, and streams are not opened over one.
    #[error("peer {peer} is reached through a relay only, which carries no data")]
    Relayed {
        /// The peer.
        peer: PeerId,
    },
    /// The peer does not speak the protocol.
    #[error("peer {peer} does not speak {name}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        name: String,
    },
    /// Somebody in this process accepts this protocol already.
    #[error("{name} is accepted already")]
    Taken {
        /// The protocol.
        name: String,
    },
    /// A name or message over its limit.
    #[error("{what} is over the limit of {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The network has been shut down.
    #[error("network is shut down")]
    Closed,
}

impl NetworkError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Relayed { .. })
    }
}

/// A stream in both directions. Closing the writing half is seen as the end by the other
/// side; dropping it resets the stream.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> PeerStream for T {}

/// A stream of either end.
pub type BoxedPeerStream = Box<dyn PeerStream>;

/// Streams that peers open to us. Dropping it ends acceptance.
pub type IncomingStreams = Pin<Box<dyn Stream<Item = (PeerId, BoxedPeerStream)> + Send>>;

/// Messages of a topic, each with who published it. Dropping it ends the subscription.
pub type TopicStream = Pin<Box<dyn Stream<Item = (PeerId, Bytes)> + Send>>;

/// Byte streams between peers, and topics.
///
/// The peer at the other end of a stream is the one that its id names. Queues are bounded:
/// an acceptor or subscriber that does not keep up loses the newest streams or messages.
#[async_trait]
pub trait PeerNetwork: Send + Sync + fmt::Debug + 'static {
    /// This node's id.
    fn local_peer(&self) -> PeerId;

    /// Peers connected now.
    async fn connected(&self) -> Result<Vec<PeerId>, NetworkError>;

    /// Opens a stream of the named protocol to a peer.
    async fn open(&self, peer: &PeerId, name: &str) -> Result<BoxedPeerStream, NetworkError>;

    /// Accepts streams of the named protocol; one acceptor for each name.
    async fn accept(&self, name: &str) -> Result<IncomingStreams, NetworkError>;

    /// Sends a message to all subscribers of a topic but this node; reaching none is no error.
    async fn publish(&self, topic: &str, message: Bytes) -> Result<(), NetworkError>;

    /// Subscribes to a topic.
    async fn subscribe(&self, topic: &str) -> Result<TopicStream, NetworkError>;

    /// Closes all streams; idempotent.
    async fn shutdown(&self) -> Result<(), NetworkError>;
}
