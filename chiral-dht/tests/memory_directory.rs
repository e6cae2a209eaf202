//! The in-memory directory passes the suite, under a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chiral_core::conformance::peer_directory::{self, Joined, Maker};
use chiral_core::{Announcement, PeerDirectory, PeerId, Protocol, ProviderQuery};
use chiral_dht::MemoryDirectoryNetwork;

#[derive(Default)]
struct Hubs {
    seconds: Arc<AtomicU64>,
}

fn peer(number: usize) -> PeerId {
    PeerId::from_bytes(&number.to_be_bytes()).expect("eight bytes")
}

impl Maker for Hubs {
    async fn join(&self, count: usize) -> Vec<Joined> {
        let seconds = self.seconds.clone();
        let clock = move || Duration::from_secs(seconds.load(Ordering::Relaxed));
        let hub = MemoryDirectoryNetwork::with_clock(Arc::new(clock));
        let join = |number| Joined {
            peer: peer(number),
            directory: Arc::new(hub.join(peer(number))),
        };
        (0..count).map(join).collect()
    }

    async fn pause(&self) {
        panic!("what is announced in memory is seen at once");
    }
}

#[tokio::test]
async fn the_memory_directory_passes_the_suite() {
    peer_directory::run(&Hubs::default()).await;
}

#[tokio::test]
async fn announcements_expire_by_the_clock_that_was_given() {
    let hubs = Hubs::default();
    let advance = async |time: Duration| {
        hubs.seconds.fetch_add(time.as_secs(), Ordering::Relaxed);
    };
    peer_directory::announcements_expire(&hubs, advance).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_clock_it_follows_the_runtimes() {
    let hub = MemoryDirectoryNetwork::new();
    let (seeder, leecher) = (hub.join(peer(1)), hub.join(peer(2)));
    let header = peer_directory::header("paused");
    let offer = peer_directory::offer(Protocol::Http, 1);
    seeder
        .announce(Announcement::new(header.clone(), vec![offer]))
        .await
        .unwrap();
    // Gone without shutdown: what it announced stays until it expires.
    drop(seeder);
    let query = ProviderQuery::new(header.cid.into());
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(leecher.providers(query.clone()).await.unwrap().len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(leecher.providers(query).await.unwrap().len(), 0);
}
