//! A connection that breaks in the middle of a paid session: it goes on in the same channel.

use std::sync::Arc;
use std::time::Duration;

use chiral::chain::{BlockId, DEV_ACCOUNTS};
use chiral::core::PeerId;
use chiral::dht::{MemoryDirectoryNetwork, MemoryNetworkHub};
use chiral::payment::PaymentsConfig;
use chiral::payment::messages::Policy;
use chiral::protocols::private::PrivateConfig;
use chiral::{Loopback, Node, Rate, Share};

use super::{CHUNK, agreed, asking, claimed, price};
use crate::support::{data, within};

/// How often the connection breaks.
const CUTS: u64 = 4;

fn peer(name: u8) -> PeerId {
    PeerId::from_bytes(&[0x12, 0x20, name]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_costs_no_second_channel_and_nothing_twice() {
    let network = Loopback::start().await.unwrap();
    let (hub, directory) = (MemoryNetworkHub::new(), MemoryDirectoryNetwork::new());
    let node = |name: u8, payments: PaymentsConfig| {
        let builder = Node::builder()
            .peer_id(peer(name))
            .network(Arc::new(hub.join(peer(name))))
            .directory(Arc::new(directory.join(peer(name))))
            .without_http()
            .payments(payments)
            .private(PrivateConfig::default());
        async move { within(builder.start()).await.unwrap() }
    };
    let seller = node(1, asking(network.payments(1), Policy::Channel)).await;
    let payments = network.payments(2).with_max_price(price());
    let buyer = node(2, payments).await;
    let size = 60 * CHUNK + 99;
    let content = data(size as usize);
    let shared = within(seller.share(Share::bytes(content.clone()))).await;
    let link = shared.unwrap().link;
    let slow = Rate::new(8_000_000).unwrap();
    let get = buyer.get(&link).to_bytes().limit_down(slow);
    let getting = within(get.start()).await.unwrap();
    let channels = seller.payments().unwrap().channels();
    let bytes = || -> u64 { channels.shares().iter().map(|share| share.bytes).sum() };
    for cut in 1..=CUTS {
        let some = async {
            while bytes() < cut * 10 * CHUNK {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(some).await;
        hub.cut(&peer(1), &peer(2));
        tokio::time::sleep(Duration::from_millis(100)).await;
        hub.mend(&peer(1), &peer(2));
    }
    let got = within(getting.outcome()).await.unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert!(got.settled.is_empty(), "no bill: {:?}", got.settled);

    let cost = price().cost(size).unwrap().to::<u128>();
    assert_eq!(agreed(&buyer, &seller).await, (cost, size));
    for node in [&buyer, &seller] {
        assert_eq!(node.payments().unwrap().channels().views().len(), 1);
    }
    // All of it in one claim: the seller's only transaction.
    assert_eq!(claimed(&network, &seller).await, cost);
    let wallet = DEV_ACCOUNTS[1].address;
    let sent = network.chain().nonce(wallet, BlockId::Latest).await;
    assert_eq!(sent.unwrap(), 1);
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}
