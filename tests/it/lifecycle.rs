//! Starting, stopping, and what is left behind.

use chiral::core::transfer::{TransferEventKind, TransferOutcome};
use chiral::{BuildError, Node, NodeError};
use futures_util::StreamExt;

use crate::support::{data, node, url, within};

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_releases_port_and_store_and_is_idempotent() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path()).await;
    let address = url(&first);
    within(first.share(data(10))).await.unwrap();
    let second = Node::builder().data_dir(dir.path()).start().await;
    assert!(matches!(
        second,
        Err(BuildError::Store(chiral::core::StoreError::Locked { .. }))
    ));
    within(first.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
    assert!(matches!(
        within(first.share(data(10))).await,
        Err(NodeError::Closed)
    ));
    let port = address.trim_end_matches('/').trim_start_matches("http://");
    assert!(
        std::net::TcpListener::bind(port).is_ok(),
        "the port {port} is free again"
    );
    let again = node(dir.path()).await;
    within(again.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_downloads_and_their_events_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let getter = node(dir.path()).await;
    // A peer that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = format!("http://{}/", silent.local_addr().unwrap());
    let cid = chiral::Cid::from_bytes([9; 32]);
    let getting = within(getter.get(cid).peer(&peer).start()).await.unwrap();
    let events = getting.events();
    assert_eq!(within(getter.status()).await.unwrap().transfers.len(), 1);
    within(getter.shutdown()).await.unwrap();
    let events: Vec<_> = within(events.collect()).await;
    let ends = |kind: &TransferEventKind| matches!(kind, TransferEventKind::Ended { .. });
    assert_eq!(events.iter().filter(|event| ends(&event.kind)).count(), 1);
    let numbers: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(
        numbers,
        (0..events.len() as u64).collect::<Vec<_>>(),
        "from the first event, without gaps"
    );
    assert_eq!(
        events.last().unwrap().kind,
        TransferEventKind::Ended {
            outcome: TransferOutcome::Cancelled
        }
    );
    assert!(within(getting.outcome()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_dies_leaves_the_rest_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(48 << 20);
    let (a, b) = (
        node(&dir.path().join("a")).await,
        node(&dir.path().join("b")).await,
    );
    let link = within(a.share(bytes.clone())).await.unwrap().link;
    within(b.share(bytes.clone())).await.unwrap();
    let getter = node(&dir.path().join("getter")).await;
    let getting = within(
        getter
            .get(&link)
            .peer(&url(&a))
            .peer(&url(&b))
            .to_bytes()
            .start(),
    )
    .await
    .unwrap();
    let mut events = getting.events();
    let mut proven = 0;
    while proven < 20 {
        let event = within(events.next()).await.unwrap();
        proven += u32::from(matches!(event.kind, TransferEventKind::ChunkProven { .. }));
    }
    within(a.shutdown()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert!(got.bytes.unwrap() == bytes);
    within(getter.shutdown()).await.unwrap();
    within(b.shutdown()).await.unwrap();
}
