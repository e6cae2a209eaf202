//! What the tests of the libp2p node share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod hostile;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use async_trait::async_trait;
use chiral_core::wallet::{SignerError, WalletSignature};
use chiral_core::{Announcement, ManifestHeader, PeerId, Protocol, ProviderQuery, WalletSigner};
use chiral_dht::{Libp2pConfig, Libp2pNode};
use k256::ecdsa::SigningKey;
use libp2p::Multiaddr;

/// Fails instead of hanging.
pub(crate) async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(240), wait)
        .await
        .expect("nothing came for minutes")
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(240), looking).await;
    assert!(seen.is_ok(), "not seen for minutes: {what}");
}

/// A node that listens in this process.
pub(crate) fn in_memory() -> Libp2pConfig {
    Libp2pConfig::new()
        .allowing_loopback()
        .with_listen(address("/memory/0"))
}

pub(crate) fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// Nodes that know the first one, and have found the network.
pub(crate) async fn network(
    count: usize,
    config: impl Fn(usize) -> Libp2pConfig,
) -> Vec<Libp2pNode> {
    let mut nodes: Vec<Libp2pNode> = Vec::new();
    for number in 0..count {
        let mut config = config(number);
        if let Some(first) = nodes.first() {
            config = config.with_bootstrap(first.listen_addresses()[0].clone());
        }
        nodes.push(Libp2pNode::start(config).await.unwrap());
    }
    if count > 1 {
        for node in &nodes {
            if node.bootstrap().await.is_err() {
                // Says why there is no network.
                let first = nodes[0].listen_addresses()[0].clone();
                panic!("no network: {:?}", node.dial(first).await);
            }
        }
    }
    nodes
}

/// Announces a file over HTTP.
pub(crate) async fn announce(node: &Libp2pNode, header: &ManifestHeader) {
    let offer = chiral_core::conformance::peer_directory::offer(Protocol::Http, 1);
    let announcement = Announcement::new(header.clone(), vec![offer]);
    node.directory().announce(announcement).await.unwrap();
}

/// Who offers a file, in order, each once.
pub(crate) async fn seeders(node: &Libp2pNode, header: &ManifestHeader) -> Vec<PeerId> {
    let query = ProviderQuery::new(header.cid.into());
    let offers = node.directory().providers(query).await.unwrap();
    let mut peers: Vec<PeerId> = offers.into_iter().filter_map(|offer| offer.peer).collect();
    peers.sort();
    peers.dedup();
    peers
}

/// Ids in order.
pub(crate) fn peers<'a>(nodes: impl IntoIterator<Item = &'a Libp2pNode>) -> Vec<PeerId> {
    let mut peers: Vec<PeerId> = nodes.into_iter().map(Libp2pNode::local_peer).collect();
    peers.sort();
    peers
}

/// A wallet whose key is no secret.
#[derive(Debug)]
pub(crate) struct TestWallet(SigningKey);

impl TestWallet {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(SigningKey::from_slice(&[7; 32]).unwrap()))
    }
}

#[async_trait]
impl WalletSigner for TestWallet {
    fn address(&self) -> Address {
        let point = self.0.verifying_key().to_encoded_point(false);
        Address::from_raw_public_key(&point.as_bytes()[1..])
    }

    async fn sign(&self, digest: B256) -> Result<WalletSignature, SignerError> {
        let (signature, recovery) = self.0.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        Ok(WalletSignature::from_bytes(bytes).unwrap())
    }
}
