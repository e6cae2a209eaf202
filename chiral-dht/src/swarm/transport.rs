//! The transports of a node: QUIC, TCP, WebSocket over TCP, and the memory of this process.
//!
//! All but QUIC, which brings its own, are secured by TLS 1.3 or Noise and multiplexed by
//! yamux. TLS is offered first, since it costs less time for each byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{BoxFuture, FutureExt};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, MemoryTransport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::{
    InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version,
};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Multiaddr;
use libp2p::{PeerId, dns, noise, quic, tcp, websocket};

use super::address_policy::AddressPolicy;
use super::buffered::{ReadAhead, WriteBehind};
use super::error::Libp2pError;
use super::muxer::Multiplexing;
use super::tls::Tls;

/// How long securing and multiplexing a connection may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit on one WebSocket message, in bytes; yamux writes frames of 32 KiB.
const MAX_WEBSOCKET_MESSAGE: usize = 1 << 20;

pub(super) type NodeTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// All transports as one.
///
/// Names are resolved below the WebSocket, which needs them for its handshake, and above all
/// others: the resolver takes any address, and only then finds out whether it can be dialled.
pub(super) fn build(key: &Keypair, policy: AddressPolicy) -> Result<NodeTransport, Libp2pError> {
    let security = Security::new(key)?;
    let tcp = || Policed {
        inner: tcp::tokio::Transport::new(tcp::Config::default()),
        policy,
    };
    let memory = || Policed {
        inner: MemoryTransport::new(),
        policy,
    };
    let quic = || Policed {
        inner: quic::tokio::Transport::new(quic::Config::new(key)),
        policy,
    };
    let mut websocket = websocket::Config::new(resolving(tcp));
    websocket.set_max_data_size(MAX_WEBSOCKET_MESSAGE);
    let others = || {
        let sockets = boxed_sockets(tcp())
            .or_transport(boxed_sockets(memory()))
            .map(|either, _| either.into_inner());
        quic()
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .or_transport(secured(sockets.boxed(), &security))
            .map(|either, _| either.into_inner())
            .boxed()
    };
    // The WebSocket is first: TCP would take its addresses too.
    Ok(secured(boxed_sockets(websocket), &security)
        .or_transport(resolving(others))
        .map(|either, _| either.into_inner())
        .boxed())
}

/// With sockets secured and multiplexed.
fn secured(sockets: Boxed<BoxedSocket>, security: &Security) -> NodeTransport {
    sockets
        .upgrade(Version::V1Lazy)
        .authenticate(security.clone())
        .multiplex(Multiplexing)
        .timeout(UPGRADE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// With DNS names resolved. A machine without a resolver's configuration does without.
fn resolving<T>(make: impl Fn() -> T) -> dns::tokio::Transport<T> {
    dns::tokio::Transport::system(make()).unwrap_or_else(|error| {
        tracing::warn!(%error, "no configuration of a DNS resolver: names are not resolved");
        let (servers, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
        dns::tokio::Transport::custom(make(), servers, options)
    })
}

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// So that what follows is compiled for one kind of socket.
type BoxedSocket = Box<dyn Socket>;

fn boxed_sockets<T>(transport: T) -> Boxed<BoxedSocket>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    transport
        .map(|socket, _| Box::new(socket) as BoxedSocket)
        .boxed()
}

/// TLS and Noise, negotiated in this order.
#[derive(Clone)]
struct Security {
    tls: Tls,
    noise: noise::Config,
}

impl Security {
    fn new(key: &Keypair) -> Result<Self, Libp2pError> {
        Ok(Self {
            tls: Tls::new(key)?,
            noise: noise::Config::new(key).map_err(Libp2pError::transport)?,
        })
    }
}

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

type Secured = BoxFuture<'static, io::Result<(PeerId, BoxedSocket)>>;

/// The socket of a handshake that succeeded, written in long pieces.
async fn boxed<S: Socket + 'static, E: std::error::Error + Send + Sync + 'static>(
    handshake: impl Future<Output = Result<(PeerId, S), E>>,
) -> io::Result<(PeerId, BoxedSocket)> {
    let (peer, socket) = handshake.await.map_err(io::Error::other)?;
    Ok((peer, Box::new(WriteBehind::new(socket)) as BoxedSocket))
}

impl<C: Socket + 'static> InboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, BoxedSocket);
    type Error = io::Error;
    type Future = Secured;

    fn upgrade_inbound(self, socket: C, name: &'static str) -> Secured {
        let socket = ReadAhead::new(socket);
        if name == TLS {
            boxed(self.tls.accept(socket)).boxed()
        } else {
            boxed(self.noise.upgrade_inbound(socket, name)).boxed()
        }
    }
}

impl<C: Socket + 'static> OutboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, BoxedSocket);
    type Error = io::Error;
    type Future = Secured;

    fn upgrade_outbound(self, socket: C, name: &'static str) -> Secured {
        let socket = ReadAhead::new(socket);
        if name == TLS {
            boxed(self.tls.connect(socket)).boxed()
        } else {
            boxed(self.noise.upgrade_outbound(socket, name)).boxed()
        }
    }
}

/// A transport that dials only what the policy allows. It is below the resolver of names, so
/// that a name which resolves to a private address is refused as well.
struct Policed<T> {
    inner: T,
    policy: AddressPolicy,
}

impl<T: Transport + Unpin> Transport for Policed<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if self.policy.allows(&address) {
            self.inner.dial(address, options)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
