//! [`Libp2pNetwork`]: byte streams and topics over libp2p.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::peer_network::{
    BoxedPeerStream, IncomingStreams, MAX_NAME_LEN, MAX_TOPIC_MESSAGE, TopicStream,
};
use chiral_core::{NetworkError, PeerNetwork};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::{StreamExt, stream};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::StreamProtocol;
use libp2p::{PeerId, Stream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::framing::Framed;
use super::handle::{Closed, Handle};
use super::streams::{OpenError, RegisterError};
use super::{from_core, to_core};

/// How long opening a stream may take, finding and dialling the peer included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses of a peer that are tried.
const MAX_DIALLED: usize = 8;

/// The network as one node sees it.
///
/// - `open` takes a connection that is there, or makes one: by the addresses that the
///   directory's nodes know for the peer, if none is known here.
/// - A stream that finds [`MAX_WAITING_STREAMS`](super::MAX_WAITING_STREAMS) others in front
///   of an acceptor is reset. A message is heard by each subscription once, unless
///   [`MAX_WAITING_MESSAGES`](super::MAX_WAITING_MESSAGES) wait there.
/// - `shutdown` ends the whole node without withdrawing what it announced: shut down its
///   directory before, or the node itself.
pub(super) struct Libp2pNetwork {
    handle: Handle,
    peer: PeerId,
}

impl Libp2pNetwork {
    pub(super) fn new(handle: Handle, peer: PeerId) -> Self {
        Self { handle, peer }
    }

    fn check_open(&self) -> Result<(), NetworkError> {
        if self.handle.stop.is_cancelled() {
            Err(NetworkError::Closed)
        } else {
            Ok(())
        }
    }

    async fn try_open(&self, peer: PeerId, name: &StreamProtocol) -> Result<Stream, NetworkError> {
        let open = || self.handle.open(peer, name.clone());
        let unreached = match open().await? {
            Err(error @ (OpenError::Unreachable | OpenError::Relayed)) => error,
            other => return other.map_err(|error| failed(error, peer, name)),
        };
        // Not where it was, or nowhere yet: others may know it.
        for mut address in self.handle.find(peer).await?.into_iter().take(MAX_DIALLED) {
            if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                address.push(Protocol::P2p(peer));
            }
            if self.handle.dial(address).await?.is_ok() {
                return open().await?.map_err(|error| failed(error, peer, name));
            }
        }
        Err(failed(unreached, peer, name))
    }
}

fn failed(error: OpenError, peer: PeerId, name: &StreamProtocol) -> NetworkError {
    let peer = to_core(&peer);
    match error {
        OpenError::Unsupported => NetworkError::Unsupported {
            peer,
            name: name.to_string(),
        },
        OpenError::Unreachable => NetworkError::Unreachable { peer },
        OpenError::Relayed => NetworkError::Relayed { peer },
    }
}

impl From<Closed> for NetworkError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl fmt::Debug for Libp2pNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libp2pNetwork")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn check(what: &'static str, len: usize, limit: usize) -> Result<(), NetworkError> {
    if len > limit {
        Err(NetworkError::TooLarge { what, limit })
    } else {
        Ok(())
    }
}

/// A protocol's name as libp2p has it. Multistream-select wants a slash in front; a name
/// without one gets it, on both sides.
fn protocol(name: &str) -> Result<StreamProtocol, NetworkError> {
    check("name", name.len(), MAX_NAME_LEN)?;
    let name = if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{name}")
    };
    // All that it asks for is the slash.
    StreamProtocol::try_from_owned(name).map_err(|_| NetworkError::TooLarge {
        what: "name",
        limit: MAX_NAME_LEN,
    })
}

#[async_trait]
impl PeerNetwork for Libp2pNetwork {
    fn local_peer(&self) -> chiral_core::PeerId {
        to_core(&self.peer)
    }

    async fn connected(&self) -> Result<Vec<chiral_core::PeerId>, NetworkError> {
        let connected = self.handle.connected().await?;
        Ok(connected.iter().map(to_core).collect())
    }

    async fn open(
        &self,
        peer: &chiral_core::PeerId,
        name: &str,
    ) -> Result<BoxedPeerStream, NetworkError> {
        let name = protocol(name)?;
        self.check_open()?;
        let unreachable = || NetworkError::Unreachable { peer: peer.clone() };
        let id = from_core(peer).ok_or_else(unreachable)?;
        let stream = timeout(OPEN_TIMEOUT, self.try_open(id, &name))
            .await
            .map_err(|_| unreachable())??;
        Ok(Box::new(NodeStream::new(stream, &self.handle.stop)))
    }

    async fn accept(&self, name: &str) -> Result<IncomingStreams, NetworkError> {
        let accepted = self.handle.registry.accept(protocol(name)?);
        let accepted = accepted.map_err(|error| match error {
            RegisterError::Taken => NetworkError::Taken { name: name.into() },
            RegisterError::Closed => NetworkError::Closed,
        })?;
        let stop = self.handle.stop.clone();
        Ok(Box::pin(accepted.map(move |(peer, stream)| {
            let stream: BoxedPeerStream = Box::new(NodeStream::new(stream, &stop));
            (to_core(&peer), stream)
        })))
    }

    async fn publish(&self, topic: &str, message: Bytes) -> Result<(), NetworkError> {
        check("name", topic.len(), MAX_NAME_LEN)?;
        check("message", message.len(), MAX_TOPIC_MESSAGE)?;
        Ok(self.handle.publish(topic.into(), message).await?)
    }

    async fn subscribe(&self, topic: &str) -> Result<TopicStream, NetworkError> {
        check("name", topic.len(), MAX_NAME_LEN)?;
        let receiver = self.handle.subscribe(topic.into()).await?;
        Ok(Box::pin(stream::unfold(
            receiver,
            async |mut receiver: tokio::sync::mpsc::Receiver<(PeerId, Bytes)>| {
                let (peer, message) = receiver.recv().await?;
                Some(((to_core(&peer), message), receiver))
            },
        )))
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        self.handle.registry.close();
        self.handle.stop.cancel();
        self.handle.ended.cancelled().await;
        Ok(())
    }
}

/// A stream that breaks when the node is stopped, whatever its connection does.
struct NodeStream {
    stream: Framed<Stream>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl NodeStream {
    fn new(stream: Stream, stop: &CancellationToken) -> Self {
        Self {
            stream: Framed::new(stream),
            stopped: Box::pin(stop.clone().cancelled_owned()),
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the node is shut down",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
