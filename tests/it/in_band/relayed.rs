//! A peer to which only a relayed connection leads.

use std::sync::Arc;
use std::time::Duration;

use chiral::core::PeerId;
use chiral::core::transfer::TransferEventKind;
use chiral::dht::{MemoryDirectoryNetwork, MemoryNetworkHub};
use chiral::protocols::EngineConfig;
use chiral::protocols::private::{PrivateConfig, PrivateProtocol};
use chiral::{Node, PeerOffer, Protocol, Share};
use futures_util::StreamExt;

use crate::support::{data, within};

fn peer(name: u8) -> PeerId {
    PeerId::from_bytes(&[0x12, 0x20, name]).unwrap()
}

async fn node(hub: &MemoryNetworkHub, directory: &MemoryDirectoryNetwork, name: u8) -> Node {
    let patience = EngineConfig::default().with_source_patience(Duration::from_secs(2));
    let builder = Node::builder()
        .peer_id(peer(name))
        .network(Arc::new(hub.join(peer(name))))
        .directory(Arc::new(directory.join(peer(name))))
        .without_http()
        .engine(patience)
        .private(PrivateConfig::default());
    within(builder.start()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_behind_a_relay_is_no_source_and_an_event_says_why() {
    let hub = MemoryNetworkHub::new();
    // Of its own for each: the offer that is given is the only one.
    let alone = MemoryDirectoryNetwork::new;
    let (seeder, getter) = (node(&hub, &alone(), 1).await, node(&hub, &alone(), 2).await);
    let content = data(3_000_000);
    let shared = within(seeder.share(Share::bytes(content.clone())));
    let link = shared.await.unwrap().link;
    hub.relay(&peer(1), &peer(2));
    let endpoint = PrivateProtocol::endpoint_of(&peer(1)).unwrap();
    let offer = PeerOffer::new(Protocol::Private, endpoint.clone());
    let get = || getter.get(&link).offer(offer.clone()).to_bytes();
    let getting = within(get().start()).await.unwrap();
    let mut events = getting.events();
    let down = async {
        while let Some(event) = events.next().await {
            match event.kind {
                TransferEventKind::SourceUp { .. } => panic!("it is a source"),
                TransferEventKind::SourceDown { source, reason } => return (source, reason),
                _ => {}
            }
        }
        panic!("no event")
    };
    let (source, reason) = within(down).await;
    assert_eq!(source, endpoint.to_string());
    assert!(reason.contains("relayed connection"), "{reason}");
    // Once there is a way, it is one.
    hub.mend(&peer(1), &peer(2));
    let got = match within(getting.outcome()).await {
        Ok(got) => got,
        Err(_) => within(get().into_future()).await.unwrap(),
    };
    assert!(got.bytes.as_deref() == Some(&content[..]));
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}
