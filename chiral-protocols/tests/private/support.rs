//! Nodes and content for the tests.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    ChunkStore, ContentProtocol, FileIdentification, PaymentGate, PeerId, PeerOffer, SeedRequest,
    TransferRegistry,
};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::{PrivateConfig, PrivateProtocol};
use chiral_storage::MemoryStore;

pub(crate) use crate::common::{OpenGate, content, soon};

pub(crate) fn peer(name: u8) -> PeerId {
    PeerId::from_bytes(&[0x12, 0x20, name]).unwrap()
}

/// A node by this name with a store of its own.
pub(crate) async fn node(
    hub: &MemoryNetworkHub,
    name: u8,
    config: PrivateConfig,
    gate: Arc<dyn PaymentGate>,
) -> PrivateProtocol {
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
    let network = Arc::new(hub.join(peer(name)));
    PrivateProtocol::start(config, network, store, TransferRegistry::new(), gate)
        .await
        .unwrap()
}

/// A node that serves, and what it offers.
pub(crate) struct Seeder {
    pub(crate) node: PrivateProtocol,
    pub(crate) offer: PeerOffer,
    pub(crate) target: FileIdentification,
}

pub(crate) async fn seeder(
    hub: &MemoryNetworkHub,
    config: PrivateConfig,
    gate: Arc<dyn PaymentGate>,
    bytes: &Bytes,
) -> Seeder {
    let node = node(hub, 1, config, gate).await;
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    let offer = node.start_seeding(request).await.unwrap().offers.remove(0);
    Seeder {
        node,
        offer,
        target: identification(bytes),
    }
}
