//! The behaviours of a node, and the only place where a swarm of them is made.

use std::time::Duration;

use chiral_core::peer_network::MAX_TOPIC_MESSAGE;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, IdentityTransform, MaxCountSubscriptionFilter,
    MessageAuthenticity, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::{self, NetworkBehaviour};
use libp2p::{Swarm, identify, ping};

use super::config::Libp2pConfig;
use super::error::Libp2pError;
use super::kademlia::Kademlia;
use super::streams::{self, Registry};
use super::transport;
use crate::records::ChiralStore;

/// How often a connection is tried. It keeps what a NAT remembers of it, which is minutes for
/// TCP; QUIC has its own. A hundred connections, each tried every 15 seconds from both ends as
/// libp2p has it, were most of what an idle node did.
const PING_EVERY: Duration = Duration::from_secs(60);

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
    pub(super) kad: Kademlia,
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
        kad: Kademlia::new(key, config.server, store),
        identify: identify::Behaviour::new(
            identify::Config::new("/chiral/1.0.0".into(), key.public())
                .with_agent_version(concat!("chiral-dht/", env!("CARGO_PKG_VERSION")).into())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0)
                // What the policy allows is told as external addresses.
                .with_hide_listen_addrs(true),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY)),
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
