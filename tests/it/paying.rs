//! Money through the facade: prices, what they cost, and what both sides' books say of it.

use std::sync::Arc;
use std::time::Duration;

use chiral::chain::DEV_ACCOUNTS;
use chiral::core::{ByteRange, Purchase, SettlementStatus, U256};
use chiral::dht::Libp2pConfig;
use chiral::payment::statement::{Direction, Status};
use chiral::payment::stream::{PaymentCarrier, StreamError};
use chiral::protocols::EngineConfig;
use chiral::{Loopback, Node, NodeError, Price, Share, Shared};

use crate::support::{data, within};

fn price(chi: &str) -> Price {
    chi.parse().unwrap()
}

async fn buyer(network: &Loopback, account: usize, most: &str) -> Node {
    let payments = network.payments(account).with_max_price(price(most));
    let patience = EngineConfig::default().with_source_patience(Duration::from_secs(3));
    let builder = network.node(account).engine(patience).payments(payments);
    builder.start().await.unwrap()
}

/// A node of the same network whose chain is behind JSON-RPC.
async fn seeder(network: &Loopback) -> Node {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let peers = Libp2pConfig::new()
        .allowing_loopback()
        .with_listen(listen)
        .with_bootstrap(network.bootstrap().clone());
    let builder = Node::builder()
        .libp2p(peers)
        .http_listen("127.0.0.1:0".parse().unwrap())
        .external_chain(&network.rpc_url(), Arc::new(DEV_ACCOUNTS[1].signer()));
    builder.unwrap().start().await.unwrap()
}

/// What is asked for a file as others find it.
async fn announced(node: &Node, shared: &Shared) -> Vec<Price> {
    let offers = node.seeders(shared.cid()).await.unwrap();
    offers.into_iter().map(|offer| offer.price).collect()
}

/// Looks until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), looking).await;
    assert!(seen.is_ok(), "not within a minute: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_is_announced_paid_to_the_wei_and_in_the_books_of_both() {
    let network = Loopback::start().await.unwrap();
    let seeder = seeder(&network).await;
    let content = data(5_242_881);
    let share = Share::bytes(content.clone()).price(price("0.001"));
    let shared = within(seeder.share(share)).await.unwrap();
    assert_eq!(seeder.price(shared.cid()), price("0.001"));

    let stingy = buyer(&network, 3, "0.0009").await;
    let refused = within(stingy.get(shared.cid()).to_bytes().into_future()).await;
    assert!(
        matches!(refused, Err(NodeError::Transfer(_))),
        "{refused:?}"
    );
    assert!(stingy.statement().await.unwrap().entries.is_empty());

    let first = buyer(&network, 2, "0.001").await;
    assert_eq!(announced(&first, &shared).await, [price("0.001")]);
    let before = (
        seeder.balance().await.unwrap(),
        first.balance().await.unwrap(),
    );
    let got = within(first.get(shared.cid()).to_bytes().into_future())
        .await
        .unwrap();
    assert_eq!(got.bytes.as_deref(), Some(&content[..]));
    let bills: Vec<_> = got.settled.iter().map(|(bill, _)| bill.id).collect();
    let states = within(first.wait_settled(bills)).await.unwrap();
    let settled = |state: &SettlementStatus| matches!(state, SettlementStatus::Settled { .. });
    assert!(states.iter().all(settled), "{states:?}");
    let cost = U256::from(5_000_000_953_674_317u64);
    let billed: U256 = got.settled.iter().map(|(bill, _)| bill.amount).sum();
    assert_eq!(billed, cost);
    assert_eq!(seeder.balance().await.unwrap() - before.0, cost);
    assert!(before.1 - first.balance().await.unwrap() > cost, "and gas");

    until("the buyer's books show it", async || {
        let spent = first.statement().await.unwrap();
        let entry = &spent.entries[0];
        (entry.direction, entry.status) == (Direction::Spent, Status::Settled)
            && (spent.spent, spent.payable) == (cost, U256::ZERO)
    })
    .await;
    // The seeder looks for itself, at the latest when it is told.
    until("the seeder's books show it", async || {
        let earned = seeder.statement().await.unwrap();
        (earned.earned, earned.receivable) == (cost, U256::ZERO)
    })
    .await;

    // Another price holds for whoever comes from then on, and is announced.
    seeder
        .set_price(shared.cid(), price("0.002"))
        .await
        .unwrap();
    let second = buyer(&network, 4, "0.002").await;
    until("the new price is announced", async || {
        announced(&second, &shared).await == [price("0.002")]
    })
    .await;
    let got = within(second.get(shared.cid()).to_bytes().into_future())
        .await
        .unwrap();
    let billed: U256 = got.settled.iter().map(|(bill, _)| bill.amount).sum();
    let dearer = price("0.002").cost(5_242_881).unwrap();
    assert_eq!(billed, dearer);
    let free = Node::builder().start().await.unwrap();
    assert!(matches!(free.balance().await, Err(NodeError::NoPayments)));
    for node in [free, second, first, stingy, seeder] {
        node.shutdown().await.unwrap();
    }
    network.shutdown().await;
}

/// Byte for byte the same, whichever way they go: an acceptance that went over one is known
/// over the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_make_one_agreement_over_streams_and_over_http() {
    let network = Loopback::start().await.unwrap();
    let seeder = seeder(&network).await;
    let share = Share::bytes(data(300_000)).price(price("0.001"));
    let shared = within(seeder.share(share)).await.unwrap();
    let buyer = buyer(&network, 2, "0.001").await;
    until("it is found", async || {
        !buyer.seeders(shared.cid()).await.unwrap().is_empty()
    })
    .await;
    let offer = buyer.seeders(shared.cid()).await.unwrap().remove(0);
    let peer = seeder.libp2p().unwrap().local_peer();
    let streams = buyer.libp2p().unwrap().network();
    let carrier = PaymentCarrier::new(streams, peer);
    let (purchase, agent) = (
        Purchase::new(shared.cid(), offer.clone()),
        buyer.payments().unwrap().agent(),
    );
    let asked = agent.credential(&purchase, ByteRange::new(0, 1000)).await;
    let terms = within(carrier.clone().carry(asked.unwrap().unwrap())).await;
    let accept = agent.respond(&purchase, terms.unwrap()).await;
    let accept = accept.unwrap().unwrap();
    let over_streams = within(carrier.clone().carry(accept.clone())).await.unwrap();
    let http = buyer.manager().implementation(&offer.protocol).unwrap();
    let over_http = within(http.payment_message(&offer, accept)).await.unwrap();
    assert_eq!(over_streams, over_http, "one agreement");
    let said = agent.respond(&purchase, over_streams).await.unwrap();
    assert_eq!(said, None, "and the request can be made");
    let nonsense = within(carrier.carry(b"please".to_vec().into())).await;
    assert!(
        matches!(nonsense, Err(StreamError::Refused)),
        "{nonsense:?}"
    );
    within(buyer.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
    network.shutdown().await;
}
