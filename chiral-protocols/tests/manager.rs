//! The manager: a preference among protocols, and one door to all of them.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Capabilities, ChunkSource, ChunkStore, ContentIdentity, ContentProtocol, DownloadRequest,
    Endpoint, FileIdentification, FileMetadata, ManifestHeader, PeerId, PeerOffer, Protocol,
    SeedRequest, TransferError, TransferId, TransferRegistry,
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

/// Those who say who they are go first, and of four in a row one is the public's.
#[tokio::test]
async fn known_peers_are_connected_first_and_the_public_keeps_every_fourth_place() {
    let (manager, _, two) = manager();
    let target = cid();
    let offer = |place: &str, known: bool| {
        let offer = PeerOffer::new(two.name.clone(), Endpoint::new(place).unwrap());
        let peer = PeerId::from_bytes(place.as_bytes()).unwrap();
        if known { offer.with_peer(peer) } else { offer }
    };
    let public = ["p1", "p2", "p3"].map(|place| offer(place, false));
    let known = ["k1", "k2", "k3", "k4", "k5"].map(|place| offer(place, true));
    let mut offers: Vec<_> = public.into_iter().chain(known).collect();
    let peers = manager.engine().peers();
    peers.record(&offers[1], 90_000_000, 9_000_000.0, false);
    peers.record(&offers[6], 90_000, 9_000.0, false);
    let lasts = std::time::Duration::from_secs(60);
    peers.demote(&offers[3], &target, "stalled", lasts);
    manager.order(&target, &mut offers);
    let order: Vec<_> = offers.iter().map(|offer| offer.endpoint.as_str()).collect();
    assert_eq!(order, ["k4", "k2", "k3", "p2", "k5", "p1", "p3", "k1"]);
}

#[tokio::test]
async fn offers_come_in_the_order_of_protocols_then_penalties_then_measured_rates() {
    let (manager, one, two) = manager();
    let target = cid();
    let offer = |protocol: &Protocol, place: &str| {
        PeerOffer::new(protocol.clone(), Endpoint::new(place).unwrap())
    };
    let foreign: Protocol = "three".parse().unwrap();
    let mut offers = vec![
        offer(&foreign, "foreign"),
        offer(&two.name, "f"),
        offer(&two.name, "stranger"),
        offer(&two.name, "slow"),
        offer(&two.name, "fast"),
        offer(&two.name, "staller"),
        offer(&two.name, "liar"),
        offer(&one.name, "a"),
        offer(&one.name, "b"),
    ];
    let order = |offers: &[PeerOffer]| -> Vec<String> {
        offers
            .iter()
            .map(|offer| offer.endpoint.to_string())
            .collect()
    };
    // Six over one protocol, two over the other, nothing measured.
    manager.order(&target, &mut offers);
    assert_eq!(
        order(&offers),
        [
            "f", "stranger", "slow", "fast", "staller", "liar", "a", "b", "foreign"
        ]
    );
    let peers = manager.engine().peers();
    peers.record(&offer(&two.name, "slow"), 10_000, 1_000.0, false);
    peers.record(&offer(&two.name, "fast"), 90_000, 9_000.0, false);
    peers.demote(
        &offer(&two.name, "staller"),
        &target,
        "stalled",
        std::time::Duration::from_secs(60),
    );
    peers.ban(&offer(&two.name, "liar"), &target, "it lied");
    manager.order(&target, &mut offers);
    assert_eq!(
        order(&offers),
        [
            "fast", "slow", "f", "stranger", "staller", "liar", "a", "b", "foreign"
        ]
    );
    // Two fast ones together are more than six slow ones; a choice of the user outweighs both.
    peers.record(&offer(&one.name, "b"), 1_000_000_000, 100_000_000.0, false);
    manager.order(&target, &mut offers);
    assert_eq!(order(&offers)[..3], ["b", "a", "fast"]);
    manager.set_protocol(two.name.clone()).unwrap();
    manager.order(&target, &mut offers);
    assert_eq!(order(&offers)[0], "fast");

    let penalties = manager.penalties();
    let reasons: Vec<_> = penalties.iter().map(|p| p.reason.as_str()).collect();
    assert_eq!(reasons, ["it lied", "stalled"]);
    assert!(
        penalties
            .iter()
            .all(|penalty| penalty.until > penalty.since)
    );
    assert_eq!(
        (manager.clear_penalty("liar"), manager.clear_penalties()),
        (1, 1)
    );
    assert!(manager.penalties().is_empty());
}

#[tokio::test]
async fn one_seeds_over_the_preferred_protocol_first_and_over_nothing_that_is_not_there() {
    use chiral_protocols::selection::{Reachability, SeedingContext};
    let (manager, one, two) = manager();
    let names = |manager: &ProtocolManager| -> Vec<Protocol> {
        let protocols = manager.seeding_protocols();
        protocols.iter().map(|protocol| protocol.name()).collect()
    };
    assert_eq!(names(&manager), [one.name.clone(), two.name.clone()]);
    manager.set_seeding(SeedingContext {
        behind_nat: two.name.clone(),
        ..SeedingContext::new(Reachability::BehindNat)
    });
    assert_eq!(names(&manager), [two.name.clone(), one.name.clone()]);
    manager.set_protocol(one.name.clone()).unwrap();
    assert_eq!(names(&manager), [one.name.clone(), two.name.clone()]);
    manager.set_seeding(SeedingContext::new(Reachability::Browser));
    assert!(names(&manager).is_empty());
}

#[tokio::test]
async fn in_a_restricted_network_what_is_not_chosen_is_left_for_last() {
    let (manager, one, _) = manager();
    manager.register(Counting::new("http", manager.registry()));
    let target = cid();
    let offer =
        |protocol: Protocol, place: &str| PeerOffer::new(protocol, Endpoint::new(place).unwrap());
    let mut offers = vec![
        offer(one.name.clone(), "a"),
        offer(one.name.clone(), "b"),
        offer(Protocol::Http, "web"),
    ];
    let places = |offers: &[PeerOffer]| -> Vec<String> {
        let places = offers.iter().map(|offer| offer.endpoint.to_string());
        places.collect()
    };
    assert_eq!(manager.order(&target, &mut offers), 3);
    manager.set_restricted(true);
    assert_eq!(manager.order(&target, &mut offers), 1);
    assert_eq!(places(&offers), ["web", "a", "b"]);
    // The user's word stands, and without HTTP there is nothing to leave it to.
    manager.set_protocol(one.name.clone()).unwrap();
    assert_eq!(manager.order(&target, &mut offers), 3);
    assert_eq!(places(&offers), ["a", "b", "web"]);
    assert_eq!(manager.order(&target, &mut offers[..2]), 2);
    manager.set_protocol(Protocol::Http).unwrap();
    assert_eq!(manager.order(&target, &mut offers), 1);
    assert_eq!(manager.order(&target, &mut offers[1..]), 2);
}
