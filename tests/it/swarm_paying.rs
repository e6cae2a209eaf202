//! Money in swarms: what Chiral nodes sell over BitTorrent, and who gets nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chiral::core::{Address, ContentProtocol, SettlementStatus, U256};
use chiral::payment::FreeGate;
use chiral::payment::messages::Policy;
use chiral::protocols::EngineConfig;
use chiral::protocols::bittorrent::magnet::Magnet;
use chiral::protocols::bittorrent::protocol::BitTorrentProtocol;
use chiral::protocols::bittorrent::swarm::BitTorrentConfig;
use chiral::storage::MemoryStore;
use chiral::{Loopback, Node, NodeBuilder, Price, Protocol, Share, TransferError};

use crate::support::{data, within};

const PRICE: &str = "0.001";

fn price() -> Price {
    PRICE.parse().unwrap()
}

fn bittorrent(builder: NodeBuilder) -> NodeBuilder {
    builder.bittorrent_listen("127.0.0.1:0".parse().unwrap())
}

async fn seeder(network: &Loopback, account: usize, http: bool) -> Node {
    let builder = network.node(account);
    let builder = if http {
        builder
    } else {
        builder.without_http()
    };
    bittorrent(builder).start().await.unwrap()
}

async fn buyer(network: &Loopback, account: usize, most: &str) -> Node {
    let payments = network
        .payments(account)
        .with_max_price(most.parse().unwrap());
    let patience = EngineConfig::default().with_source_patience(Duration::from_secs(8));
    let builder = network.node(account).engine(patience).payments(payments);
    bittorrent(builder).start().await.unwrap()
}

/// The magnet link without anybody's address: who has it, the directory says.
fn bare(node: &Node, cid: chiral::Cid) -> Magnet {
    let mut magnet = node.magnet(cid).unwrap();
    magnet.peers.clear();
    magnet
}

#[tokio::test(flavor = "multi_thread")]
async fn two_seeders_are_paid_to_the_wei_for_what_they_delivered_over_two_protocols() {
    let network = Loopback::start().await.unwrap();
    // One over HTTP and BitTorrent, one over BitTorrent alone.
    let (both, swarm) = (
        seeder(&network, 1, true).await,
        seeder(&network, 2, false).await,
    );
    let content = data(12_000_001);
    let share = || Share::bytes(content.clone()).name("a film").price(price());
    let shared = within(both.share(share())).await.unwrap();
    within(swarm.share(share())).await.unwrap();
    let buyer = buyer(&network, 3, PRICE).await;
    let seeders = async {
        while buyer.seeders(shared.cid()).await.unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(seeders).await;
    let before = [
        both.balance().await.unwrap(),
        swarm.balance().await.unwrap(),
    ];
    let magnet = bare(&both, shared.cid());
    // Slow enough for all to have a part in it.
    let limit = "6MiB".parse().unwrap();
    let get = buyer.download_torrent(magnet).limit_down(limit);
    let getting = within(get.start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert_eq!(got.files[0].header.cid, shared.cid());

    // Each bill is for the bytes of one seeder over one protocol, all of them once.
    let mut by_protocol: BTreeMap<Protocol, u64> = BTreeMap::new();
    let mut by_wallet: BTreeMap<Address, U256> = BTreeMap::new();
    for (bill, _) in &got.settled {
        assert_eq!(bill.amount, price().cost(bill.bytes).unwrap());
        *by_protocol.entry(bill.protocol.clone()).or_default() += bill.bytes;
        *by_wallet.entry(bill.payee.unwrap()).or_default() += bill.amount;
    }
    assert_eq!(by_protocol.values().sum::<u64>(), content.len() as u64);
    assert!(by_protocol[&Protocol::BitTorrent] > 0, "{by_protocol:?}");
    assert!(by_protocol[&Protocol::Http] > 0, "{by_protocol:?}");
    for source in got.sources.iter().filter(|source| source.bytes > 0) {
        let billed = got
            .settled
            .iter()
            .filter(|(bill, _)| bill.protocol == source.protocol && bill.bytes == source.bytes);
        assert!(billed.count() >= 1, "{source:?} {:?}", got.settled);
    }
    let bills: Vec<_> = got.settled.iter().map(|(bill, _)| bill.id).collect();
    let states = within(buyer.wait_settled(bills)).await.unwrap();
    let settled = |state: &SettlementStatus| matches!(state, SettlementStatus::Settled { .. });
    assert!(states.iter().all(settled), "{states:?}");
    for (node, before) in [&both, &swarm].into_iter().zip(before) {
        let wallet = node.payments().unwrap().wallet().address();
        let owed = by_wallet.get(&wallet).copied().unwrap_or_default();
        assert!(owed > U256::ZERO, "{by_wallet:?}");
        assert_eq!(node.balance().await.unwrap() - before, owed);
    }
    for node in [buyer, swarm, both] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_or_will_not_pay_gets_nothing_over_bittorrent() {
    let network = Loopback::start().await.unwrap();
    let seeder = seeder(&network, 1, false).await;
    let share = Share::bytes(data(1_000_000)).name("a film").price(price());
    let shared = within(seeder.share(share)).await.unwrap();
    let magnet = seeder.magnet(shared.cid()).unwrap();

    // A client of the public swarm: it knows nothing of money.
    let store = Arc::new(MemoryStore::new(1 << 30));
    let registry = chiral::core::TransferRegistry::new();
    let gate = Arc::new(FreeGate::default());
    let config = BitTorrentConfig::default();
    let public = BitTorrentProtocol::bind(config, store, registry, gate, None);
    let public = public.await.unwrap();
    let info_hash = magnet.hashes.v1.unwrap();
    let alias = chiral::core::Alias::InfoHashV1(info_hash);
    let endpoint = format!("{alias}@{}", magnet.peers[0]);
    let endpoint = chiral::Endpoint::new(endpoint).unwrap();
    let offer = chiral::PeerOffer::new(Protocol::BitTorrent, endpoint);
    let source = within(public.connect(&offer, &alias.into())).await.unwrap();
    let block = chiral::ByteRange::new(0, 16_384);
    let mut fetch = source.fetch(block);
    let got = futures_util::StreamExt::next(&mut fetch);
    // It stays choked: what it asks for is refused, or never answered.
    let got = tokio::time::timeout(Duration::from_secs(3), got).await;
    assert!(!matches!(got, Ok(Some(Ok(_)) | None)), "{got:?}");
    drop(fetch);
    drop(source);
    within(public.shutdown()).await.unwrap();

    // A Chiral node that pays less than is asked.
    let stingy = buyer(&network, 4, "0.0009").await;
    let getting = within(stingy.download_torrent(magnet.clone()).start()).await;
    let refused = within(getting.unwrap().outcome()).await;
    assert!(
        matches!(
            refused,
            Err(chiral::NodeError::Transfer(TransferError::NoSources { .. }))
        ),
        "{refused:?}"
    );
    assert!(stingy.statement().await.unwrap().entries.is_empty());

    // One that pays it, found by nothing but the address in the link: it asks what it costs.
    let fair = buyer(&network, 5, PRICE).await;
    let before = seeder.balance().await.unwrap();
    let getting = within(fair.download_torrent(magnet).start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    let bills: Vec<_> = got.settled.iter().map(|(bill, _)| bill.id).collect();
    within(fair.wait_settled(bills)).await.unwrap();
    let cost = price().cost(1_000_000).unwrap();
    assert_eq!(seeder.balance().await.unwrap() - before, cost);
    for node in [fair, stingy, seeder] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}

/// Nobody owes anything: a payment is recorded on the chain before a byte comes, and it is what
/// lets the payer into the fast lane.
#[tokio::test(flavor = "multi_thread")]
async fn paid_first_it_comes_over_bittorrent_and_the_payer_is_in_the_fast_lane() {
    let network = Loopback::start().await.unwrap();
    let sells = network.payments(1).with_price(price());
    let sells = sells.with_policy(Policy::PayFirst);
    let builder = network.node(1).without_http().payments(sells);
    let seeder = bittorrent(builder).start().await.unwrap();
    let content = data(6_000_001);
    let shared = within(seeder.share(Share::bytes(content.clone()))).await;
    let cid = shared.unwrap().cid();
    let magnet = seeder.magnet(cid).unwrap();

    // Who proves an id and pays nothing is no better off than others.
    let stingy = buyer(&network, 4, "0.0009").await;
    let getting = within(stingy.download_torrent(magnet.clone()).start()).await;
    let refused = within(getting.unwrap().outcome()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(seeder.fast_lane(cid).is_empty());

    let buys = network.payments(2).with_max_price(price());
    let buys = buys.with_policies([Policy::PayFirst]);
    let patience = EngineConfig::default().with_source_patience(Duration::from_secs(20));
    let builder = network.node(2).engine(patience).payments(buys);
    let buyer = bittorrent(builder).start().await.unwrap();
    let before = seeder.balance().await.unwrap();
    let get = buyer.download_torrent(magnet);
    let get = get.limit_down("2MiB".parse().unwrap());
    let getting = within(get.start()).await.unwrap();
    let lane = async {
        while seeder.fast_lane(cid).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What is in the lane has paid by then.
        assert!(seeder.balance().await.unwrap() > before);
        seeder.fast_lane(cid)
    };
    let lane = within(lane).await;
    assert_eq!(lane, [buyer.peer_id().unwrap().clone()]);
    let got = within(getting.outcome()).await.unwrap();
    assert_eq!(got.files[0].header.cid, cid);
    let over = |bill: &chiral::core::Bill| bill.protocol == Protocol::BitTorrent;
    assert!(got.settled.iter().all(|(bill, _)| over(bill)));
    let bills: Vec<_> = got.settled.iter().map(|(bill, _)| bill.id).collect();
    within(buyer.wait_settled(bills.clone())).await.unwrap();
    let spent = buyer.statement().await.unwrap();
    let cost = price().cost(content.len() as u64).unwrap();
    // Each bill is rounded up once.
    let most = cost + U256::from(spent.entries.len());
    assert!(spent.spent >= cost && spent.spent < most, "{}", spent.spent);
    assert_eq!(seeder.balance().await.unwrap() - before, spent.spent);
    for node in [buyer, stingy, seeder] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}
