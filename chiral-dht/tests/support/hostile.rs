//! A node that keeps to libp2p's protocol and to nothing else.

use futures_util::StreamExt;
use libp2p::core::Transport;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetRecordOk, PutRecordError, QueryResult, Quorum};
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, noise, swarm};

use chiral_dht::swarm::KAD_PROTOCOL;

pub(crate) struct Hostile {
    swarm: Swarm<kad::Behaviour<MemoryStore>>,
    targets: Vec<PeerId>,
}

impl Hostile {
    /// Knows these nodes.
    pub(crate) fn new(nodes: &[Multiaddr]) -> Self {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let transport = MemoryTransport::new()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(libp2p_yamux::Config::default())
            .boxed();
        let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
        config.set_max_packet_size(64 * 1024);
        let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
        let mut targets = Vec::new();
        for address in nodes {
            let mut address = address.clone();
            let Some(libp2p::multiaddr::Protocol::P2p(node)) = address.pop() else {
                panic!("{address} names nobody");
            };
            kad.add_address(&node, address);
            targets.push(node);
        }
        let config = swarm::Config::with_tokio_executor();
        Self {
            swarm: Swarm::new(transport, kad, peer, config),
            targets,
        }
    }

    /// Puts a record to those who held what was got last, or to all nodes; answers how many
    /// took it.
    pub(crate) async fn put(&mut self, key: &[u8], value: Vec<u8>) -> usize {
        let record = kad::Record::new(key.to_vec(), value);
        let targets = self.targets.clone();
        let kad = self.swarm.behaviour_mut();
        let query = kad.put_record_to(record, targets.into_iter(), Quorum::All);
        loop {
            let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { id, result, .. }) =
                self.swarm.select_next_some().await
            else {
                continue;
            };
            if id != query {
                continue;
            }
            return match result {
                QueryResult::PutRecord(Ok(_)) => self.targets.len(),
                QueryResult::PutRecord(Err(
                    PutRecordError::QuorumFailed { success, .. }
                    | PutRecordError::Timeout { success, .. },
                )) => success.len(),
                other => panic!("{other:?}"),
            };
        }
    }

    /// What is held under a key; remembers by whom.
    pub(crate) async fn get(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let query = self.swarm.behaviour_mut().get_record(key.to_vec().into());
        let mut values = Vec::new();
        let mut holders = Vec::new();
        loop {
            let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            }) = self.swarm.select_next_some().await
            else {
                continue;
            };
            if id != query {
                continue;
            }
            if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) = result {
                values.push(found.record.value);
                holders.extend(found.peer);
            }
            if step.last {
                if !holders.is_empty() {
                    self.targets = holders;
                }
                return values;
            }
        }
    }
}
