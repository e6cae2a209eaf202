//! Connections through a relay carry no streams: over libp2p's own relay, with its client in
//! both peers.

use std::time::Duration;

use futures_util::StreamExt;
use libp2p::core::Transport;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::noise;
use libp2p::swarm::{Config, Swarm, SwarmEvent};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const NAME: StreamProtocol = StreamProtocol::new("/name/1");

#[derive(libp2p::swarm::NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Edge {
    relay: libp2p_relay::client::Behaviour,
    streams: Behaviour,
}

/// A peer that can be reached through relays, and accepts streams.
struct Peer {
    swarm: Swarm<Edge>,
    registry: Registry,
}

impl Peer {
    fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let (circuit, relay) = libp2p_relay::client::new(peer);
        let transport = circuit
            .or_transport(MemoryTransport::new())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(libp2p_yamux::Config::default())
            .boxed();
        let registry = Registry::default();
        let streams = Behaviour::new(registry.clone());
        let behaviour = Edge { relay, streams };
        let config = Config::with_tokio_executor();
        let swarm = Swarm::new(transport, behaviour, peer, config);
        Self { swarm, registry }
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Asks for a stream.
    fn open(&mut self, peer: PeerId) -> oneshot::Receiver<Result<Stream, OpenError>> {
        let (reply, opened) = oneshot::channel();
        let request = OpenRequest { name: NAME, reply };
        self.swarm.behaviour_mut().streams.open(peer, request);
        opened
    }

    /// Goes on until this happens.
    async fn until(&mut self, mut found: impl FnMut(&SwarmEvent<EdgeEvent>) -> bool) {
        while !found(&self.swarm.select_next_some().await) {}
    }
}

/// A relay for everybody, and its address.
async fn relay() -> Multiaddr {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let transport = MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let behaviour = libp2p_relay::Behaviour::new(peer, libp2p_relay::Config::default());
    let mut swarm = Swarm::new(transport, behaviour, peer, Config::with_tokio_executor());
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    address.with(Protocol::P2p(peer))
}

/// What came of a stream that one of the two asked for.
async fn outcome(
    a: &mut Peer,
    b: &mut Peer,
    mut opened: oneshot::Receiver<Result<Stream, OpenError>>,
) -> Result<Stream, OpenError> {
    loop {
        tokio::select! {
            _ = a.swarm.select_next_some() => {}
            _ = b.swarm.select_next_some() => {}
            // Neither has anything to do: it has been answered, or never will be.
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        match opened.try_recv() {
            Ok(outcome) => return outcome,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Closed) => panic!("nobody answers"),
        }
    }
}

async fn is_refused_over_a_relay_and_not_otherwise() {
    let circuit = relay().await.with(Protocol::P2pCircuit);
    let (mut a, mut b) = (Peer::new(), Peer::new());
    let mut accepted = [
        a.registry.accept(NAME).unwrap(),
        b.registry.accept(NAME).unwrap(),
    ];
    b.swarm.listen_on(circuit.clone()).unwrap();
    b.until(|event| matches!(event, SwarmEvent::NewListenAddr { .. }))
        .await;
    let (ours, theirs) = (a.peer(), b.peer());
    a.swarm.dial(circuit.with(Protocol::P2p(theirs))).unwrap();
    let mut connection = None;
    while connection.is_none() {
        tokio::select! {
            event = a.swarm.select_next_some() => if let SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, ..
            } = event && peer_id == theirs {
                assert!(endpoint.is_relayed());
                connection = Some(connection_id);
            },
            _ = b.swarm.select_next_some() => {}
        }
    }

    // Neither opens one, the one who dialled nor the other.
    let opened = a.open(theirs);
    let refused = outcome(&mut a, &mut b, opened).await;
    assert_eq!(refused.unwrap_err(), OpenError::Relayed);
    let opened = b.open(ours);
    let refused = outcome(&mut a, &mut b, opened).await;
    assert_eq!(refused.unwrap_err(), OpenError::Relayed);

    // Whoever does so all the same is not heard.
    let (reply, opened) = oneshot::channel();
    a.swarm
        .behaviour_mut()
        .streams
        .push(ToSwarm::NotifyHandler {
            peer_id: theirs,
            handler: NotifyHandler::One(connection.unwrap()),
            event: OpenRequest { name: NAME, reply },
        });
    let refused = outcome(&mut a, &mut b, opened).await;
    assert_eq!(refused.unwrap_err(), OpenError::Unsupported);
    for accepted in &mut accepted {
        let none = tokio::time::timeout(Duration::from_millis(20), accepted.next()).await;
        assert!(none.is_err(), "a stream came through the relay");
    }

    // Over a connection of their own there is nothing against it, beside the other one.
    b.swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let mut direct = None;
    b.until(|event| match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            direct = Some(address.clone());
            true
        }
        _ => false,
    })
    .await;
    let direct = direct.unwrap().with(Protocol::P2p(theirs));
    a.swarm.dial(direct).unwrap();
    let established = async {
        loop {
            tokio::select! {
                event = a.swarm.select_next_some() => if let SwarmEvent::ConnectionEstablished {
                    endpoint, ..
                } = event && !endpoint.is_relayed() {
                    break;
                },
                _ = b.swarm.select_next_some() => {}
            }
        }
    };
    established.await;
    let opened = a.open(theirs);
    assert!(outcome(&mut a, &mut b, opened).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_refused_over_a_relay_and_not_otherwise() {
    let test = is_refused_over_a_relay_and_not_otherwise();
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, test).await.expect("too long");
}
