//! Payment in the session itself: agreements, credit, refusals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::chunk_source::receive;
use chiral_core::{
    ByteRange, ChunkStore, ContentProtocol, DownloadRequest, GateError, TransferError, TransferId,
    TransferRegistry,
};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::{PrivateConfig, PrivateProtocol};
use chiral_protocols::{Engine, EngineConfig, ProtocolManager};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::support::{OpenGate, Seeder, content, node, peer, seeder, soon};
use crate::till::{Purse, Till, tariff};

async fn shop(hub: &MemoryNetworkHub, till: &Arc<Till>, bytes: &Bytes) -> Seeder {
    seeder(hub, PrivateConfig::default(), till.clone(), bytes).await
}

async fn buyer(hub: &MemoryNetworkHub, purse: &Arc<Purse>) -> PrivateProtocol {
    let buyer = node(hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    buyer.with_agent(purse.clone())
}

#[tokio::test]
async fn requests_that_are_refused_together_are_agreed_on_once() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(4_000_000));
    let till = Arc::new(Till {
        rounds: 3,
        ..Till::default()
    });
    let from = shop(&hub, &till, &bytes).await;
    assert_eq!(from.offer.price, tariff().price);
    let purse = Arc::new(Purse {
        pause: Duration::from_millis(50),
        ..Purse::default()
    });
    let buyer = buyer(&hub, &purse).await;
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    let ranges = (0..4).map(|at| ByteRange::new(at * 1_000_000, (at + 1) * 1_000_000));
    soon(join_all(
        ranges.map(|range| receive(&*source, range, &bytes)),
    ))
    .await;
    assert!(!source.is_paying());
    assert_eq!(purse.conversations.load(Ordering::SeqCst), 1);
    assert_eq!(Till::count(&till.hellos), 3);
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stranger_without_a_purse_is_told_the_terms_and_gets_nothing() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1_000_000));
    let till = Arc::new(Till::default());
    let from = shop(&hub, &till, &bytes).await;
    let stranger = node(&hub, 3, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let source = stranger.connect(&from.offer, &from.target).await.unwrap();
    let first = soon(source.fetch(ByteRange::new(0, 1000)).next()).await;
    match first.unwrap() {
        Err(TransferError::PaymentRequired { offer, .. }) => assert_eq!(&offer[..], b"terms"),
        other => panic!("{other:?}"),
    }
    assert_eq!(Till::count(&till.admitted), 0);
    stranger.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn whoever_walks_away_says_why() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let till = Arc::new(Till::default());
    let from = shop(&hub, &till, &bytes).await;
    let purse = Arc::new(Purse {
        refuses: Some(GateError::Price),
        ..Purse::default()
    });
    let buyer = buyer(&hub, &purse).await;
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    let first = soon(source.fetch(ByteRange::new(0, 1000)).next()).await;
    match first.unwrap() {
        Err(TransferError::Refused { reason, .. }) => assert!(reason.contains("price"), "{reason}"),
        other => panic!("{other:?}"),
    }
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_message_reaches_the_gate_without_a_file() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let till = Arc::new(Till::default());
    let from = shop(&hub, &till, &bytes).await;
    let buyer = buyer(&hub, &Arc::new(Purse::default())).await;
    let say = |words: &'static [u8]| buyer.payment_message(&from.offer, Bytes::from_static(words));
    assert_eq!(&soon(say(b"hello")).await.unwrap()[..], b"yes");
    let later = soon(say(b"not yet")).await.unwrap_err();
    assert!(later.is_retryable(), "{later}");
    let never = soon(say(b"cheap")).await.unwrap_err();
    assert!(!never.is_retryable(), "{never}");
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

/// A whole download under a small credit: chunks come while acknowledgements go the other way.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_through_on_credit() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(6_000_000));
    let till = Arc::new(Till {
        credit: 1_000_000,
        ..Till::default()
    });
    let from = shop(&hub, &till, &bytes).await;
    let purse = Arc::new(Purse::default());
    let (registry, store) = (TransferRegistry::new(), Arc::new(MemoryStore::new(1 << 30)));
    let store: Arc<dyn ChunkStore> = store;
    let network = Arc::new(hub.join(peer(2)));
    let config = PrivateConfig::default().fetch_only();
    let gate = Arc::new(OpenGate);
    let protocol = PrivateProtocol::start(config, network, store.clone(), registry.clone(), gate)
        .await
        .unwrap();
    let engine = Engine::new(store.clone(), registry, EngineConfig::default());
    let protocol = Arc::new(protocol.with_agent(purse.clone()));
    let manager = ProtocolManager::new(engine, protocol);
    let mut request = DownloadRequest::new(from.target);
    request.offers = vec![from.offer.clone()];
    let download = manager
        .download_file(TransferId::from_bytes([1; 16]), request)
        .await
        .unwrap();
    let report = soon(download.finished()).await.unwrap();
    assert_eq!(report.header.cid, from.target.cid().unwrap());
    assert_eq!(purse.verified_bytes(), 6_000_000);
    manager.cleanup().await.unwrap();
    from.node.shutdown().await.unwrap();
}
