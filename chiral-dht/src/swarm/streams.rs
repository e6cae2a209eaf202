//! Named byte streams: a behaviour of the swarm, a handler of each connection, and the
//! registry of who accepts what.
//!
//! Opening negotiates the name by multistream-select, so that a peer which does not speak a
//! protocol says so at once. Streams are never opened or accepted over a relayed connection:
//! a relay cuts its circuits after 128 KiB.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
    StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::oneshot;

use super::address_policy::is_relayed;
use handler::Handler;
pub(super) use registry::{RegisterError, Registry};

mod handler;
mod registry;
#[cfg(test)]
mod tests;

/// Streams that wait for a connection to one peer; what comes beyond is refused.
const MAX_WAITING_OPENS: usize = 256;

/// Why a stream did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The peer does not accept this name.
    Unsupported,
    /// There is no connection to the peer, and none could be made.
    Unreachable,
    /// The same, but for one through a relay.
    Relayed,
}

/// A stream that somebody waits for.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(super) name: StreamProtocol,
    pub(super) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

impl OpenRequest {
    fn fail(self, error: OpenError) {
        // Whoever asked may have given up.
        let _ = self.reply.send(Err(error));
    }
}

/// The behaviour.
pub(crate) struct Behaviour {
    registry: Registry,
    /// Connections that may carry streams, oldest first.
    direct: HashMap<PeerId, Vec<ConnectionId>>,
    /// Connections through relays, which carry none.
    relayed: HashMap<PeerId, Vec<ConnectionId>>,
    /// Streams that wait for a connection being made.
    waiting: HashMap<PeerId, Vec<OpenRequest>>,
    queue: VecDeque<ToSwarm<Infallible, OpenRequest>>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            registry,
            direct: HashMap::new(),
            relayed: HashMap::new(),
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream, over a new connection if there is none.
    pub(super) fn open(&mut self, peer: PeerId, request: OpenRequest) {
        if let Some(connection) = self.connection(&peer) {
            self.push(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: request,
            });
            return;
        }
        let waiting = self.waiting.entry(peer).or_default();
        waiting.retain(|request| !request.reply.is_closed());
        if waiting.len() >= MAX_WAITING_OPENS {
            request.fail(OpenError::Unreachable);
            return;
        }
        waiting.push(request);
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::NotDialing)
            .build();
        self.push(ToSwarm::Dial { opts });
    }

    /// The newest connection that may carry streams: an old one may be dying.
    fn connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.direct.get(peer)?.last().copied()
    }

    fn push(&mut self, event: ToSwarm<Infallible, OpenRequest>) {
        self.queue.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId, relayed: bool) -> Handler {
        Handler::new(peer, (!relayed).then(|| self.registry.clone()))
    }

    fn established(&mut self, event: ConnectionEstablished<'_>) {
        if event.endpoint.is_relayed() {
            let connections = self.relayed.entry(event.peer_id).or_default();
            connections.push(event.connection_id);
            // What was dialled for them leads through a relay: there is nothing to wait for.
            if event.endpoint.is_dialer() {
                let waiting = self.waiting.remove(&event.peer_id).unwrap_or_default();
                for request in waiting {
                    request.fail(OpenError::Relayed);
                }
            }
            return;
        }
        let connections = self.direct.entry(event.peer_id).or_default();
        connections.push(event.connection_id);
        for request in self.waiting.remove(&event.peer_id).unwrap_or_default() {
            self.push(ToSwarm::NotifyHandler {
                peer_id: event.peer_id,
                handler: NotifyHandler::One(event.connection_id),
                event: request,
            });
        }
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        for of_peers in [&mut self.direct, &mut self.relayed] {
            if let Some(connections) = of_peers.get_mut(&event.peer_id) {
                connections.retain(|connection| *connection != event.connection_id);
                if connections.is_empty() {
                    of_peers.remove(&event.peer_id);
                }
            }
        }
    }

    fn dial_failed(&mut self, event: DialFailure<'_>) {
        // Another dial is under way: its outcome counts.
        if matches!(event.error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        let Some(peer) = event.peer_id else {
            return;
        };
        for request in self.waiting.remove(&peer).unwrap_or_default() {
            let relayed = self.relayed.contains_key(&peer);
            request.fail(match relayed {
                true => OpenError::Relayed,
                false => OpenError::Unreachable,
            });
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, is_relayed(local) || is_relayed(remote)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, is_relayed(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(event),
            FromSwarm::ConnectionClosed(event) => self.closed(event),
            FromSwarm::DialFailure(event) => self.dial_failed(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
