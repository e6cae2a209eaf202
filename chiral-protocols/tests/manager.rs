//! The manager: a preference among protocols, and one door to all of them.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Capabilities, ChunkSource, ChunkStore, ContentIdentity, ContentProtocol, DownloadRequest,
    Endpoint, FileIdentification, FileMetadata, ManifestHeader, PeerOffer, Protocol, SeedRequest,
    TransferError, TransferId, TransferRegistry,
};
use chiral_protocols::{Engine, EngineConfig, NotRegistered, ProtocolManager};
use chiral_storage::MemoryStore;

/// A protocol that can be asked everything and counts what it was asked.
#[derive(Debug)]
struct Counting {
    name: Protocol,
    registry: TransferRegistry,
    seeded: AtomicU32,
    stopped: AtomicU32,
    shut: AtomicU32,
}

impl Counting {
    fn new(name: &str, registry: &TransferRegistry) -> Arc<Self> {
        Arc::new(Self {
            name: name.parse().unwrap(),
            registry: registry.clone(),
            seeded: AtomicU32::new(0),
            stopped: AtomicU32::new(0),
            shut: AtomicU32::new(0),
        })
    }
}

#[async_trait]
impl ContentProtocol for Counting {
    fn name(&self) -> Protocol {
        self.name.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::fetch_and_seed()
    }

    fn registry(&self) -> &TransferRegistry {
        &self.registry
    }

    async fn peers_serving(&self, _: &FileIdentification) -> Result<Vec<PeerOffer>, TransferError> {
        let place = Endpoint::new(format!("{}-peer", self.name)).unwrap();
        Ok(vec![PeerOffer::new(self.name.clone(), place)])
    }

    async fn connect(
        &self,
        offer: &PeerOffer,
        _: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        Err(TransferError::Missing {
            source_name: offer.endpoint.to_string(),
            what: "the file",
        })
    }

    async fn start_seeding(&self, _: SeedRequest) -> Result<FileMetadata, TransferError> {
        self.seeded.fetch_add(1, Ordering::SeqCst);
        let identity = ContentIdentity::of(b"abc").unwrap();
        let header = ManifestHeader {
            size: identity.size,
            cid: identity.cid,
            root: identity.root,
            name: None,
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        Ok(FileMetadata::new(header, Vec::new()))
    }

    async fn stop_seeding(&self, _: &FileIdentification) -> Result<bool, TransferError> {
        Ok(self.stopped.fetch_add(1, Ordering::SeqCst) == 0)
    }

    async fn shutdown(&self) -> Result<(), TransferError> {
        self.shut.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn manager() -> (ProtocolManager, Arc<Counting>, Arc<Counting>) {
    let registry = TransferRegistry::new();
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 20));
    let engine = Engine::new(store, registry.clone(), EngineConfig::default());
    let (one, two) = (
        Counting::new("one", &registry),
        Counting::new("two", &registry),
    );
    let manager = ProtocolManager::new(engine, one.clone());
    assert!(manager.register(two.clone()).is_none());
    (manager, one, two)
}

fn cid() -> FileIdentification {
    ContentIdentity::of(b"abc").unwrap().cid.into()
}

#[tokio::test]
async fn the_active_protocol_is_a_preference_and_does_not_blind_the_others() {
    let (manager, one, two) = manager();
    assert_eq!(manager.protocol(), one.name);
    let peers = manager.peers_serving(&cid()).await;
    assert_eq!(
        peers
            .iter()
            .map(|p| p.protocol.as_str())
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    manager.set_protocol(two.name.clone()).unwrap();
    assert_eq!(manager.protocol_impl().name(), two.name);
    let peers = manager.peers_serving(&cid()).await;
    assert_eq!(
        peers
            .iter()
            .map(|p| p.protocol.as_str())
            .collect::<Vec<_>>(),
        ["two", "one"]
    );
    let unknown: Protocol = "three".parse().unwrap();
    assert_eq!(
        manager.set_protocol(unknown.clone()),
        Err(NotRegistered { protocol: unknown })
    );
    assert_eq!(manager.protocol(), two.name);
}

#[tokio::test]
async fn uploading_uses_the_active_protocol_and_stopping_asks_all() {
    let (manager, one, two) = manager();
    let seed = || SeedRequest::new(SeedContent::Bytes(bytes::Bytes::from_static(b"abc")));
    manager.upload_file(seed()).await.unwrap();
    manager.set_protocol(two.name.clone()).unwrap();
    manager.upload_file(seed()).await.unwrap();
    assert_eq!(
        (
            one.seeded.load(Ordering::SeqCst),
            two.seeded.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
    assert!(manager.stop_sharing(&cid()).await.unwrap());
    assert!(!manager.stop_sharing(&cid()).await.unwrap());
    assert_eq!(
        (
            one.stopped.load(Ordering::SeqCst),
            two.stopped.load(Ordering::SeqCst)
        ),
        (2, 2)
    );
}

#[tokio::test]
async fn downloads_are_paused_resumed_cancelled_by_what_they_get_and_cleaned_up() {
    let (manager, one, two) = manager();
    let id = TransferId::from_bytes([1; 16]);
    assert!(!manager.pause_download(&cid()));
    let download = manager
        .download_file(id, DownloadRequest::new(cid()))
        .await
        .unwrap();
    assert!(manager.pause_download(&cid()) && !manager.pause_download(&cid()));
    assert!(manager.resume_download(&cid()) && !manager.resume_download(&cid()));
    let again = manager.download_file(TransferId::from_bytes([2; 16]), DownloadRequest::new(cid()));
    assert!(matches!(again.await, Err(TransferError::Registry(_))));
    assert!(manager.cancel_download(&cid()));
    assert!(matches!(
        download.finished().await,
        Err(TransferError::Cancelled(_))
    ));

    let download = manager
        .download_file(id, DownloadRequest::new(cid()))
        .await
        .unwrap();
    manager.cleanup().await.unwrap();
    assert!(download.finished().await.is_err());
    assert!(manager.registry().transfers().is_empty());
    assert_eq!(
        (
            one.shut.load(Ordering::SeqCst),
            two.shut.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
}
