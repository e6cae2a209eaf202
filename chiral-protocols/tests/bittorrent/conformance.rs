//! The suites of core over real sockets.

use chiral_core::conformance::content_protocol::{
    fetching, identification, seeding, shutdown, transfers_are_steered,
};
use chiral_core::{ChunkStore, ContentProtocol};
use chiral_protocols::bittorrent::mse::Encryption;
use chiral_storage::{FsStore, FsStoreConfig};
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::support::{Peer, content, loopback, soon};

#[tokio::test]
async fn content_is_seeded_and_got() {
    for size in [1, 262_143, 262_145, 5_000_001] {
        let directory = tempfile::tempdir().unwrap();
        let (seeder, fetcher) = (
            Peer::new(loopback(), None).await,
            Peer::new(loopback(), None).await,
        );
        let bytes = content(size);
        soon(seeding(
            &*seeder.protocol,
            &*fetcher.protocol,
            &bytes,
            directory.path(),
        ))
        .await;
        fetcher.protocol.shutdown().await.unwrap();
        seeder.protocol.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_seeded_under_every_kind_of_encryption() {
    for (ours, theirs) in [
        (Encryption::Require, Encryption::Prefer),
        (Encryption::Prefer, Encryption::Off),
        (Encryption::Off, Encryption::Prefer),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = FsStore::open(directory.path().join("store"), FsStoreConfig::default());
        let store: Arc<dyn ChunkStore> = Arc::new(store.await.unwrap());
        let encrypted = |encryption| {
            let mut config = loopback();
            config.encryption = encryption;
            config
        };
        let seeder = Peer::over(encrypted(ours), None, store.clone()).await;
        let fetcher = Peer::new(encrypted(theirs), None).await;
        let got = directory.path().join("got");
        std::fs::create_dir(&got).unwrap();
        // RC4 without optimisation is slow.
        let bytes = content(400_001);
        soon(seeding(&*seeder.protocol, &*fetcher.protocol, &bytes, &got)).await;
        fetcher.protocol.shutdown().await.unwrap();
        seeder.protocol.shutdown().await.unwrap();
        store.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn those_who_do_not_agree_on_encryption_do_not_meet() {
    let mut config = loopback();
    config.encryption = Encryption::Require;
    let seeder = Peer::new(config, None).await;
    let bytes = content(300_000);
    let (offer, _) = seeder.seed(&bytes).await;
    let mut config = loopback();
    config.encryption = Encryption::Off;
    let fetcher = Peer::new(config, None).await;
    let source = soon(fetcher.protocol.connect(&offer, &identification(&bytes))).await;
    assert!(source.is_err());
    fetcher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}

#[tokio::test]
async fn transfers_are_steered_and_the_end_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let seeder = Peer::new(loopback(), None).await;
    let bytes = content(1_000_000);
    let (offer, _) = seeder.seed(&bytes).await;
    let fetcher = Peer::new(loopback(), Some(1)).await;
    soon(fetching(
        &*fetcher.protocol,
        &offer,
        &bytes,
        directory.path(),
    ))
    .await;
    transfers_are_steered(&*fetcher.protocol, identification(&bytes)).await;
    let port = seeder.address();
    soon(shutdown(&*seeder.protocol, &offer, &bytes)).await;
    assert!(TcpListener::bind(port).await.is_ok(), "the port is taken");
    soon(shutdown(&*fetcher.protocol, &offer, &bytes)).await;
}
