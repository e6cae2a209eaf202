//! The suites of core over real sockets, with every store.

use std::sync::Arc;

use chiral_core::conformance::chunk_source::any_source;
use chiral_core::conformance::content_protocol::{
    fetching, identification, seeding, shutdown, transfers_are_steered,
};
use chiral_core::content_protocol::{GetRequest, SeedContent};
use chiral_core::{ChunkStore, ContentProtocol, SeedRequest, TransferRegistry};
use chiral_protocols::http::{HttpConfig, HttpProtocol};
use chiral_storage::{FsStore, FsStoreConfig, MemoryStore};
use tokio::net::TcpListener;

use crate::support::{OpenGate, client, content, loopback, node_over, seeder, soon};

async fn seeds_over(store: Arc<dyn ChunkStore>, size: usize) {
    let directory = tempfile::tempdir().unwrap();
    let node = node_over(loopback(), store).await;
    let fetcher = client().await;
    let bytes = content(size);
    soon(seeding(&node, &fetcher, &bytes, directory.path())).await;
    fetcher.shutdown().await.unwrap();
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_memory_store_is_seeded() {
    for size in [1, 262_143, 262_144, 262_145, 5_000_001] {
        seeds_over(Arc::new(MemoryStore::new(1 << 30)), size).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_seeded() {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path(), FsStoreConfig::default())
        .await
        .unwrap();
    let store: Arc<dyn ChunkStore> = Arc::new(store);
    for size in [262_145, 20_000_001] {
        seeds_over(store.clone(), size).await;
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_can_get_from_itself() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = content(3_000_000);
    let (node, offer, target) = seeder(&bytes).await;
    soon(fetching(&node, &offer, &bytes, directory.path())).await;
    transfers_are_steered(&node, target).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_empty_file_is_served() {
    let (node, offer, target) = seeder(&content(0)).await;
    let got = node.get_content_from(GetRequest::new(offer, target)).await;
    assert!(got.is_ok(), "{got:?}");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_mirror_is_a_source() {
    let bytes = content(1_000_000);
    let (node, offer, target) = seeder(&bytes).await;
    let path = crate::support::path_of(&target);
    let mut mirror = offer.as_mirror();
    let base = mirror.endpoint.as_str().trim_end_matches('/').to_owned();
    mirror.endpoint = chiral_core::Endpoint::new(format!("{base}{path}")).unwrap();
    mirror.header = None;
    let fetcher = client().await;
    let source = fetcher.connect(&mirror, &target).await.unwrap();
    assert_eq!(source.size(), Some(1_000_000));
    assert_eq!(source.manifest_header().await.unwrap(), None);
    soon(any_source(source, &bytes)).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_port_is_free_after_a_shutdown() {
    let bytes = content(1000);
    let (node, offer, target) = seeder(&bytes).await;
    let address = node.local_addr().unwrap();
    // Connections that are open, one idle and one in the middle of its headers.
    let source = node.connect(&offer, &target).await.unwrap();
    let half = tokio::net::TcpStream::connect(address).await.unwrap();
    half.try_write(b"GET /file/").unwrap();
    soon(shutdown(&node, &offer, &bytes)).await;
    drop(TcpListener::bind(address).await.unwrap());
    assert!(source.coverage().await.is_err());
}

#[tokio::test]
async fn what_was_imported_is_pinned_and_goes_with_its_last_pin() {
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 20));
    let node = node_over(loopback(), store.clone()).await;
    let (one, two) = (content(10), content(20));
    for bytes in [&one, &two] {
        let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
        node.start_seeding(request).await.unwrap();
    }
    let (first, second) = (identification(&one), identification(&two));
    let (a, b) = (first.cid().unwrap(), second.cid().unwrap());
    assert_eq!(store.object(a).await.unwrap().unwrap().pins, ["http"]);
    assert_eq!(store.pin(b, "mine").await.unwrap(), 2);
    for target in [first, second] {
        assert!(node.stop_seeding(&target).await.unwrap());
    }
    assert!(store.object(a).await.unwrap().is_none());
    assert_eq!(store.object(b).await.unwrap().unwrap().pins, ["mine"]);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_server_does_not_seed() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let gate = Arc::new(OpenGate);
    let config = HttpConfig::default();
    let client = HttpProtocol::bind(config, store, TransferRegistry::new(), gate)
        .await
        .unwrap();
    assert!(!client.capabilities().seed && client.endpoints().is_empty());
    let request = SeedRequest::new(SeedContent::Bytes(content(1)));
    assert!(client.start_seeding(request).await.is_err());
    client.shutdown().await.unwrap();
}
