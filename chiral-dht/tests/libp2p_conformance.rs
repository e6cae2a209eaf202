//! The libp2p node passes the suites of directories and networks.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::Duration;

use alloy_primitives::Address;
use chiral_core::WalletSigner;
use chiral_core::conformance::{peer_directory, peer_network};
use chiral_dht::{Libp2pConfig, Libp2pNode};
use support::{TestWallet, address, in_memory, network, soon};

mod support;

/// Makes nodes, and keeps them as long as the suite runs: a dropped node is a killed one.
struct Nodes {
    config: fn() -> Libp2pConfig,
    kept: Mutex<Vec<Libp2pNode>>,
}

impl Nodes {
    fn new(config: fn() -> Libp2pConfig) -> Self {
        Self {
            config,
            kept: Mutex::default(),
        }
    }
}

impl peer_directory::Maker for Nodes {
    async fn join(&self, count: usize) -> Vec<peer_directory::Joined> {
        let make = |_| (self.config)().with_wallet(TestWallet::new());
        let nodes = network(count, make).await;
        let joined = nodes.iter().map(|node| peer_directory::Joined {
            peer: node.local_peer(),
            directory: node.directory(),
        });
        let joined = joined.collect();
        // The former network is done with.
        *self.kept.lock().unwrap() = nodes;
        joined
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn wallet(&self) -> Address {
        TestWallet::new().address()
    }
}

impl peer_network::Maker for Nodes {
    async fn connect(&self) -> peer_network::Pair {
        let nodes = network(2, |_| (self.config)()).await;
        let pair: Vec<_> = nodes.iter().map(Libp2pNode::network).collect();
        *self.kept.lock().unwrap() = nodes;
        pair.try_into().expect("two nodes")
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn over(listen: &str) -> Libp2pConfig {
    Libp2pConfig::new()
        .allowing_loopback()
        .with_listen(address(listen))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_passes_the_suite() {
    soon(peer_directory::run(&Nodes::new(in_memory))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_passes_the_suite_over_tcp() {
    soon(peer_network::run(&Nodes::new(|| {
        over("/ip4/127.0.0.1/tcp/0")
    })))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_passes_the_suite_over_quic() {
    soon(peer_network::run(&Nodes::new(|| {
        over("/ip4/127.0.0.1/udp/0/quic-v1")
    })))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_passes_the_suite_over_websocket() {
    soon(peer_network::run(&Nodes::new(|| {
        over("/ip4/127.0.0.1/tcp/0/ws")
    })))
    .await;
}
