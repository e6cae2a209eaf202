//! The behaviours of a node, and the only place where a swarm of them is made.

use std::num::NonZeroUsize;
use std::time::Duration;

use chiral_core::peer_network::MAX_TOPIC_MESSAGE;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, IdentityTransform, MaxCountSubscriptionFilter,
    MessageAuthenticity, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::kad::{self, BucketInserts, Caching, StoreInserts};
use libp2p::swarm::{self, NetworkBehaviour, StreamProtocol};
use libp2p::{Swarm, identify, ping};

use super::config::Libp2pConfig;
use super::error::Libp2pError;
use super::streams::{self, Registry};
use super::{KAD_PROTOCOL, transport};
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

/// What a gossip message has besides its payload: publisher, number, signature, topic.
const GOSSIP_OVERHEAD: usize = 1024;

/// Limits on the topics of one peer, and on their changes in one message.
const MAX_TOPICS_PER_PEER: usize = 256;
const MAX_TOPIC_CHANGES: usize = 64;

/// Streams of one connection whose protocol is being negotiated.
const MAX_NEGOTIATING: usize = 64;

pub(super) type Gossip = gossipsub::Behaviour<IdentityTransform, TopicFilter>;
type TopicFilter = MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) kad: kad::Behaviour<ChiralStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) gossipsub: Gossip,
    pub(super) streams: streams::Behaviour,
}

/// A node's swarm, listening nowhere yet.
pub(super) fn swarm(
    key: &Keypair,
    config: &Libp2pConfig,
    registry: Registry,
    store: ChiralStore,
) -> Result<Swarm<Behaviour>, Libp2pError> {
    let transport = transport::build(key, config.effective_policy())?;
    let limits = &config.limits;
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(
            ConnectionLimits::default()
                .with_max_established_incoming(Some(limits.incoming))
                .with_max_established_outgoing(Some(limits.outgoing))
                .with_max_pending_incoming(Some(limits.pending_incoming))
                .with_max_established_per_peer(Some(limits.per_peer)),
        ),
        kad: kademlia(key, config.server, store),
        identify: identify::Behaviour::new(
            identify::Config::new("/chiral/1.0.0".into(), key.public())
                .with_agent_version(concat!("chiral-dht/", env!("CARGO_PKG_VERSION")).into())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0)
                // What the policy allows is told as external addresses.
                .with_hide_listen_addrs(true),
        ),
        ping: ping::Behaviour::default(),
        gossipsub: gossip(key)?,
        streams: streams::Behaviour::new(registry),
    };
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.idle)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
        .with_smart_dial();
    let peer = key.public().to_peer_id();
    Ok(Swarm::new(transport, behaviour, peer, config))
}

fn kademlia(key: &Keypair, server: bool, store: ChiralStore) -> kad::Behaviour<ChiralStore> {
    let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_parallelism(PARALLELISM)
        .set_max_packet_size(MAX_KAD_PACKET)
        // The store decides what is kept and for how long, and announcers repeat themselves.
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
    let mut kad = kad::Behaviour::with_config(key.public().to_peer_id(), store, config);
    kad.set_mode(Some(if server {
        kad::Mode::Server
    } else {
        kad::Mode::Client
    }));
    kad
}

fn gossip(key: &Keypair) -> Result<Gossip, Libp2pError> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .max_transmit_size(MAX_TOPIC_MESSAGE + GOSSIP_OVERHEAD)
        .build()
        .map_err(Libp2pError::transport)?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: MAX_TOPICS_PER_PEER,
        max_subscriptions_per_request: MAX_TOPIC_CHANGES,
    };
    gossipsub::Behaviour::new_with_subscription_filter(
        MessageAuthenticity::Signed(key.clone()),
        config,
        filter,
    )
    .map_err(|reason| Libp2pError::Transport(reason.into()))
}
