//! The suites of core.

use std::sync::Arc;

use chiral_core::conformance::chunk_source::any_source;
use chiral_core::conformance::content_protocol::{
    fetching, seeding, shutdown, transfers_are_steered,
};
use chiral_core::content_protocol::GetRequest;
use chiral_core::{ContentProtocol, FileIdentification};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::PrivateConfig;

use crate::support::{OpenGate, content, node, seeder, soon};

#[tokio::test]
async fn what_is_seeded_can_be_fetched() {
    for size in [1, 262_143, 262_144, 262_145, 5_000_001] {
        let (hub, directory) = (MemoryNetworkHub::new(), tempfile::tempdir().unwrap());
        let a = node(&hub, 1, PrivateConfig::default(), Arc::new(OpenGate)).await;
        let b = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
        soon(seeding(&a, &b, &content(size), directory.path())).await;
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_source_is_a_source() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(5_000_001));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    soon(any_source(source, &bytes)).await;
    let directory = tempfile::tempdir().unwrap();
    soon(fetching(&buyer, &from.offer, &bytes, directory.path())).await;
    transfers_are_steered(&buyer, from.target).await;
    soon(shutdown(&buyer, &from.offer, &bytes)).await;
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_empty_file_is_served() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(0));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let request = GetRequest::new(from.offer, from.target);
    let got = soon(buyer.get_content_from(request)).await;
    assert!(got.is_ok(), "{got:?}");
    let other = FileIdentification::from(chiral_core::Cid::from_bytes([9; 32]));
    assert!(!from.node.stop_seeding(&other).await.unwrap());
    from.node.shutdown().await.unwrap();
    buyer.shutdown().await.unwrap();
}
