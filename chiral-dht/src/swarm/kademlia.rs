//! [`Kademlia`]: libp2p's Kademlia, with our settings, and with refusals that are answered.
//!
//! A store that refuses a record makes `libp2p-kad` 0.49 reset the stream of the request, but
//! the state that is to do so is never woken: the sender waits until its own timeout (10
//! seconds), and the stream stays with the receiver until the connection ends. There are 32 of
//! them for each connection; after so many refusals the receiver is deaf to this sender. An
//! honest one is refused too: by a full store, or a clock that is wrong.
//!
//! So a refusal is made an answer. It is of a kind that no implementation takes for success:
//! rust-libp2p counts only answers to puts as acknowledgements, those in Go and JavaScript
//! compare the record that comes back with the one that was sent. It has a record, since
//! go-libp2p reads it without looking whether there is one.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::kad::{self, BucketInserts, Caching, StoreInserts};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::KAD_PROTOCOL;
use crate::records::ChiralStore;

/// Limit on a message of the directory's protocol, in bytes. A record of 48 KiB and the
/// addresses of twenty peers fit.
const MAX_KAD_PACKET: usize = 64 * 1024;

/// Requests of one look-up that are under way at once; js-libp2p's number too.
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).expect("10 is not 0");

/// How long a look-up may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the routing table is refreshed.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// The value that a refusal holds instead of the record.
const REFUSED: &[u8] = b"refused";

type Inner = kad::Behaviour<ChiralStore>;
type ToHandler = THandlerInEvent<Inner>;

pub(crate) struct Kademlia {
    inner: Inner,
}

impl Kademlia {
    /// Answers others if `server`; otherwise only asks.
    pub(super) fn new(key: &Keypair, server: bool, store: ChiralStore) -> Self {
        let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
        config
            .set_query_timeout(QUERY_TIMEOUT)
            .set_parallelism(PARALLELISM)
            .set_max_packet_size(MAX_KAD_PACKET)
            // The store decides what is kept and for how long, and announcers repeat
            // themselves.
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_caching(Caching::Disabled)
            // A refusal of the store must be one to the publisher.
            .set_record_filtering(StoreInserts::Unfiltered)
            // Peers are admitted once they said that they speak our protocol.
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_periodic_bootstrap_interval(Some(REFRESH));
        let mut inner = kad::Behaviour::with_config(key.public().to_peer_id(), store, config);
        inner.set_mode(Some(if server {
            kad::Mode::Server
        } else {
            kad::Mode::Client
        }));
        Self { inner }
    }
}

impl Deref for Kademlia {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Kademlia {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

/// An answer where a request would be dropped without one.
fn answered(event: ToHandler) -> ToHandler {
    match event {
        ToHandler::Reset(request_id) => ToHandler::GetRecordRes {
            record: Some(kad::Record::new(Vec::new(), REFUSED.to_vec())),
            closer_peers: Vec::new(),
            request_id,
        },
        other => other,
    }
}

impl NetworkBehaviour for Kademlia {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|event| event.map_in(answered))
    }
}
