//! Two hundred peers in one swarm, all of them ours.

use chiral_core::ContentProtocol;
use chiral_core::conformance::content_protocol::identification;
use chiral_protocols::bittorrent::swarm::BitTorrentConfig;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::support::{Peer, content, loopback, soon};
use crate::swarm::{get, offer_of};

const LEECHERS: usize = 200;

/// Others of the swarm that each leecher knows from the beginning, beside the seed.
const ACQUAINTANCES: usize = 4;

fn roomy() -> BitTorrentConfig {
    let mut config = loopback();
    // They share one address.
    config.max_connections_per_ip = 2 * LEECHERS;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_peers_complete_from_one_seed_and_each_other() {
    let seed = Peer::new(roomy(), None).await;
    let bytes = content(2_000_001);
    let (_, info) = seed.seed(&bytes).await;
    let target = identification(&bytes);
    let mut crowd = Vec::new();
    for _ in 0..LEECHERS {
        crowd.push(Peer::new(roomy(), None).await);
    }
    let mut downloads = FuturesUnordered::new();
    for (number, peer) in crowd.iter().enumerate() {
        let mut offers = vec![offer_of(&seed, &info)];
        for step in 1..=ACQUAINTANCES {
            offers.push(offer_of(&crowd[(number + step * 7) % LEECHERS], &info));
        }
        downloads.push(get(peer, target, offers));
    }
    let mut complete = 0;
    while let Some(got) = downloads.next().await {
        assert!(got == bytes);
        complete += 1;
    }
    assert_eq!(complete, LEECHERS);
    drop(downloads);
    for peer in crowd {
        soon(peer.protocol.shutdown()).await.unwrap();
    }
    soon(seed.protocol.shutdown()).await.unwrap();
}
