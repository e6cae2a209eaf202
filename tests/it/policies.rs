//! Every way to pay over HTTP, between two real nodes and on a real chain: to the wei, and in the
//! books of both.

use std::time::Duration;

use chiral::chain::LogFilter;
use chiral::core::U256;
use chiral::payment::PaymentsConfig;
use chiral::payment::channel::Side;
use chiral::payment::contracts::channels::{self, CHANNELS};
use chiral::payment::messages::Policy;
use chiral::payment::statement::{Direction, Status};
use chiral::protocols::EngineConfig;
use chiral::{Got, Loopback, Node, Price, Share};

use crate::support::{data, within};

/// Twenty chunks and a byte.
const SIZE: usize = 5_242_881;
const MIB: u64 = 1 << 20;

fn price() -> Price {
    "0.001".parse().unwrap()
}

fn cost() -> U256 {
    price().cost(SIZE as u64).unwrap()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), looking).await;
    assert!(seen.is_ok(), "not within a minute: {what}");
}

/// A seeder and a buyer under one policy, and a file that went from one to the other.
struct Sale {
    network: Loopback,
    seeder: Node,
    buyer: Node,
    got: Got,
}

impl Sale {
    async fn under(policy: Policy) -> Self {
        let network = Loopback::start().await.unwrap();
        let sells = |mut payments: PaymentsConfig| {
            payments.gate.channel.challenge = 60;
            payments.with_price(price()).with_policy(policy)
        };
        let seeder = network.node(1).payments(sells(network.payments(1)));
        let seeder = seeder.start().await.unwrap();
        let content = data(SIZE);
        let shared = within(seeder.share(Share::bytes(content.clone()))).await;
        let link = shared.unwrap().link;

        let patience = EngineConfig::default().with_source_patience(Duration::from_secs(20));
        let buys = network.payments(2).with_max_price(price());
        let buys = buys.with_policies([policy]);
        let buyer = network.node(2).engine(patience).payments(buys);
        let buyer = buyer.start().await.unwrap();
        let got = within(buyer.get(&link).to_bytes().into_future()).await;
        let got = got.unwrap();
        assert_eq!(got.bytes.as_deref(), Some(&content[..]));
        Self {
            network,
            seeder,
            buyer,
            got,
        }
    }

    /// Bills, settled, add up to what the seeder has more than it had.
    async fn paid_by_bills(&self) -> U256 {
        let bills: Vec<_> = self.got.settled.iter().map(|(bill, _)| bill.id).collect();
        within(self.buyer.wait_settled(bills)).await.unwrap();
        until("both books show it", async || {
            let spent = self.buyer.statement().await.unwrap();
            let earned = self.seeder.statement().await.unwrap();
            spent.payable.is_zero() && earned.earned == spent.spent
        })
        .await;
        let spent = self.buyer.statement().await.unwrap();
        assert!(spent.entries.iter().all(|entry| entry.channel.is_none()));
        let rich = U256::from(10_000u64) * U256::from(10u64).pow(U256::from(18));
        let more = self.seeder.balance().await.unwrap();
        assert_eq!(more - rich, spent.spent, "it sent nothing, and got that");
        spent.spent
    }

    async fn end(self) {
        within(self.buyer.shutdown()).await.unwrap();
        within(self.seeder.shutdown()).await.unwrap();
        self.network.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_a_channel_chunks_are_paid_as_they_come_and_claimed_to_the_wei() {
    let sale = Sale::under(Policy::Channel).await;
    let paid_for: u64 = sale.got.settled.iter().map(|(bill, _)| bill.bytes).sum();
    assert_eq!(paid_for, 0, "there is nothing on bills");
    let (ours, theirs) = (
        sale.buyer.payments().unwrap().channels(),
        sale.seeder.payments().unwrap().channels(),
    );
    let views = ours.views();
    let [view] = views.as_slice() else {
        panic!("{views:?}");
    };
    let (id, deposit) = (view.id, view.deposit);
    until("all of it is in vouchers", async || {
        let held = theirs.payee(id);
        held.is_some_and(|held| U256::from(held.paid()) == cost())
    })
    .await;
    let spent = sale.buyer.statement().await.unwrap();
    let entry = &spent.entries[0];
    assert_eq!(spent.entries.len(), 1);
    assert_eq!(
        (entry.direction, entry.status),
        (Direction::Spent, Status::Pending)
    );
    assert_eq!((entry.channel, entry.bytes), (Some(id), SIZE as u64));
    assert_eq!((spent.payable, spent.spent), (cost(), U256::ZERO));
    let earned = sale.seeder.statement().await.unwrap();
    assert_eq!((earned.receivable, earned.earned), (cost(), U256::ZERO));
    assert_eq!(earned.entries[0].cid, sale.got.header.cid);

    // The buyer ends it, the seeder's watcher claims before the challenge is over.
    within(ours.close(id)).await.unwrap();
    let chain = sale.network.chain();
    until("the chain has paid it", async || {
        let head = chain.head().await.unwrap().number;
        let filter = LogFilter {
            from_block: 0,
            to_block: head,
            address: Some(CHANNELS),
            topics: vec![Some(channels::CLOSED_TOPIC), Some(id)],
        };
        let logs = chain.logs(filter).await.unwrap();
        let ends = logs
            .iter()
            .filter_map(|log| channels::closed(log, CHANNELS));
        let ends: Vec<_> = ends.collect();
        let Some(end) = ends.first() else {
            return false;
        };
        let wei = cost().to::<u128>();
        assert_eq!(*end, (id, wei, deposit - wei), "and the rest is back");
        true
    })
    .await;
    until("both books show it", async || {
        let spent = sale.buyer.statement().await.unwrap();
        let earned = sale.seeder.statement().await.unwrap();
        (spent.spent, spent.payable) == (cost(), U256::ZERO)
            && (earned.earned, earned.receivable) == (cost(), U256::ZERO)
    })
    .await;
    let over = theirs.views();
    assert!(over.iter().all(|view| view.side == Side::Payee));
    sale.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incrementally_it_is_settled_every_few_chunks() {
    let sale = Sale::under(Policy::Incremental).await;
    let paid = sale.paid_by_bills().await;
    let spent = sale.buyer.statement().await.unwrap();
    let bills = spent.entries.len();
    assert!(
        bills >= 5,
        "{bills} bills for twenty chunks, four at a time"
    );
    let most = spent.entries.iter().map(|entry| entry.bytes).max();
    assert!(most <= Some(MIB), "{most:?}");
    let bytes: u64 = spent.entries.iter().map(|entry| entry.bytes).sum();
    assert_eq!(bytes, SIZE as u64);
    // Each bill is rounded up once.
    assert!(
        paid >= cost() && paid < cost() + U256::from(bills),
        "{paid}"
    );
    sale.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paid_first_it_comes_afterwards() {
    let sale = Sale::under(Policy::PayFirst).await;
    let paid = sale.paid_by_bills().await;
    let bills = sale.buyer.statement().await.unwrap().entries.len();
    assert!(
        paid >= cost() && paid < cost() + U256::from(bills),
        "{paid}"
    );
    sale.end().await;
}

/// What a file costs is asked for after a restart, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_outlasts_a_restart() {
    let network = Loopback::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let own: Price = "0.003".parse().unwrap();
    let start = async || {
        let payments = network.payments(1).with_price(price());
        let builder = network.node(1).data_dir(directory.path());
        builder.payments(payments).start().await.unwrap()
    };
    let seeder = start().await;
    let shared = within(seeder.share(Share::bytes(data(1000))))
        .await
        .unwrap();
    let cid = shared.cid();
    assert_eq!(seeder.price(cid), price());
    seeder.set_price(cid, own).await.unwrap();
    within(seeder.shutdown()).await.unwrap();

    let seeder = start().await;
    assert_eq!(seeder.price(cid), own);
    let gate = seeder.payments().unwrap().chain_gate();
    gate.clear_terms(cid);
    gate.keep_terms().await.unwrap();
    assert_eq!(seeder.price(cid), price(), "the general one holds again");
    within(seeder.shutdown()).await.unwrap();
    let seeder = start().await;
    assert_eq!(seeder.price(cid), price());
    within(seeder.shutdown()).await.unwrap();
    network.shutdown().await;
}
