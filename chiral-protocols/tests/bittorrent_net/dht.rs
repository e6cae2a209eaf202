//! Nodes of the mainline DHT.

use chiral_protocols::bittorrent::dht::{Announcement, DhtError, MainlineDht, NodeConfig};
use chiral_protocols::bittorrent::udp::UdpPort;
use std::net::SocketAddr;

use crate::{NEAR, port, soon};

fn config(bootstrap: &[SocketAddr]) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.bootstrap = bootstrap.to_vec();
    config.addresses = NEAR;
    config
}

async fn joined(dht: &MainlineDht, nodes: usize) {
    let mut status = dht.status();
    soon(status.wait_for(|status| status.nodes >= nodes))
        .await
        .unwrap();
}

async fn network(count: usize) -> Vec<(UdpPort, SocketAddr, MainlineDht)> {
    let mut out = Vec::new();
    let mut first = Vec::new();
    for _ in 0..count {
        let (port, at) = port();
        let dht = MainlineDht::start(config(&first), &port).unwrap();
        if !first.is_empty() {
            joined(&dht, 1).await;
        }
        first = vec![out.first().map_or(at, |(_, at, _): &(_, _, _)| *at)];
        out.push((port, at, dht));
    }
    out
}

#[tokio::test]
async fn one_finds_what_another_has_announced() {
    let nodes = network(5).await;
    let announcement = Announcement {
        port: 7777,
        implied_port: false,
    };
    let taken = soon(nodes[1].2.announce([1; 20], announcement))
        .await
        .unwrap();
    assert!(taken >= 3, "{taken}");
    let mut peers = nodes[4].2.get_peers([1; 20]);
    let expected = SocketAddr::from(([127, 0, 0, 1], 7777));
    assert_eq!(soon(peers.next()).await, Some(expected));
    assert_eq!(soon(peers.next()).await, None);
    // Also who says no more than that it is where it is.
    let implied = Announcement {
        port: 0,
        implied_port: true,
    };
    let peers = nodes[2].2.get_peers_and_announce([2; 20], implied);
    assert!(soon(peers.finish()).await.unwrap() >= 3);
    let mut peers = nodes[3].2.get_peers([2; 20]);
    assert_eq!(soon(peers.next()).await, Some(nodes[2].1));
    for (port, _, dht) in &nodes {
        soon(dht.shutdown()).await;
        soon(port.shutdown()).await;
    }
    let closed = soon(nodes[0].2.get_peers([1; 20]).finish()).await;
    assert!(matches!(closed, Err(DhtError::Closed)));
}

#[tokio::test]
async fn a_node_comes_back_and_its_port_is_free_before() {
    let mut nodes = network(4).await;
    let (port, at, dht) = nodes.remove(3);
    joined(&dht, 2).await;
    let saved = soon(dht.save()).await.unwrap();
    soon(dht.shutdown()).await;
    soon(port.shutdown()).await;
    drop((port, dht));
    let port = UdpPort::bind(&[at]).unwrap();
    let mut again = config(&[]);
    again.saved = Some(saved);
    let dht = MainlineDht::start(again, &port).unwrap();
    joined(&dht, 2).await;
}

#[tokio::test]
async fn without_anybody_a_search_ends() {
    let (port, _) = port();
    let dht = MainlineDht::start(config(&[]), &port).unwrap();
    let mut peers = dht.get_peers([1; 20]);
    assert_eq!(soon(peers.next()).await, None);
    assert_eq!(soon(peers.finish()).await.unwrap(), 0);
}

#[tokio::test]
async fn too_many_searches_are_refused() {
    // Somebody who never answers keeps every search waiting.
    let (_silent, at) = port();
    let (ours, _) = port();
    let dht = MainlineDht::start(config(&[at]), &ours).unwrap();
    let mut searches = Vec::new();
    for n in 0..64 {
        searches.push(dht.get_peers([n; 20]));
        tokio::task::yield_now().await;
    }
    let over = soon(dht.get_peers([99; 20]).finish()).await;
    assert!(matches!(over, Err(DhtError::Busy)), "{over:?}");
    for search in searches {
        assert_eq!(soon(search.finish()).await.unwrap(), 0);
    }
}
