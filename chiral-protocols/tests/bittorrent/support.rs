//! Nodes and content for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::content_protocol::{SeedContent, SourceStream};
use chiral_core::{
    Admission, ByteRange, ChunkSource, ChunkStore, Cid, ContentProtocol, FileIdentification,
    GateError, PaymentGate, PeerId, PeerOffer, PeerSignError, PeerSigner, SeedRequest,
    ServeRequest, Tariff, TransferError, TransferRegistry,
};
use chiral_protocols::Connector;
use chiral_protocols::bittorrent::protocol::BitTorrentProtocol;
use chiral_protocols::bittorrent::swarm::{BitTorrentConfig, TorrentInfo};
use chiral_storage::MemoryStore;
use ed25519_dalek::{Signer, SigningKey};

pub(crate) use crate::common::{OpenGate, content, soon};

/// Admits everybody, and asks a price once it is told to.
#[derive(Debug, Default)]
pub(crate) struct Shop(pub(crate) AtomicBool);

#[async_trait]
impl PaymentGate for Shop {
    async fn admit(&self, _: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _: &ServeRequest, _: ByteRange) {}

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }

    fn tariff(&self, _: Cid) -> Tariff {
        let mut tariff = Tariff::default();
        if self.0.load(Ordering::SeqCst) {
            tariff.price = "0.001".parse().unwrap();
        }
        tariff
    }
}

/// An identity.
#[derive(Debug)]
pub(crate) struct Key(SigningKey);

impl Key {
    pub(crate) fn signer(seed: u8) -> Arc<dyn PeerSigner> {
        Arc::new(Self(SigningKey::from_bytes(&[seed; 32])))
    }
}

impl PeerSigner for Key {
    fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(&[&[0, 36][..], &self.public_key()].concat()).unwrap()
    }

    fn public_key(&self) -> Vec<u8> {
        [&[8, 1, 18, 32][..], self.0.verifying_key().as_bytes()].concat()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

/// A configuration on a free port of the loopback interface.
pub(crate) fn loopback() -> BitTorrentConfig {
    let mut config = BitTorrentConfig::default().with_listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.max_connections_per_ip = 200;
    config
}

/// A node and what it keeps.
pub(crate) struct Peer {
    pub(crate) protocol: Arc<BitTorrentProtocol>,
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) registry: TransferRegistry,
}

impl Peer {
    pub(crate) async fn new(config: BitTorrentConfig, key: Option<u8>) -> Self {
        let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
        Self::over(config, key, store).await
    }

    pub(crate) async fn over(
        config: BitTorrentConfig,
        key: Option<u8>,
        store: Arc<dyn ChunkStore>,
    ) -> Self {
        Self::with_gate(config, key, store, Arc::new(OpenGate)).await
    }

    pub(crate) async fn with_gate(
        config: BitTorrentConfig,
        key: Option<u8>,
        store: Arc<dyn ChunkStore>,
        gate: Arc<dyn PaymentGate>,
    ) -> Self {
        let registry = TransferRegistry::new();
        let kept = store.clone();
        let signer = key.map(Key::signer);
        let bound = BitTorrentProtocol::bind(config, kept, registry.clone(), gate, signer).await;
        let protocol = Arc::new(bound.unwrap());
        Self {
            protocol,
            store,
            registry,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.protocol.local_addr().unwrap()
    }

    /// Seeds these bytes; how others find it, and as what.
    pub(crate) async fn seed(&self, bytes: &Bytes) -> (PeerOffer, TorrentInfo) {
        let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
        let metadata = soon(self.protocol.start_seeding(request)).await.unwrap();
        let info = self.protocol.torrent_of(metadata.header.cid).unwrap();
        (metadata.offers[0].clone(), info)
    }
}

/// The engine's way to one protocol.
#[derive(Debug)]
pub(crate) struct Only(pub(crate) Arc<BitTorrentProtocol>);

#[async_trait]
impl Connector for Only {
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        self.0.connect(offer, target).await
    }

    async fn arrivals(&self, target: &FileIdentification) -> SourceStream {
        self.0.sources(target).await.unwrap()
    }
}
