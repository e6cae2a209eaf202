//! The process ends right before or after each kind of durable step there is, those of trouble
//! included. `crashes` goes through the steps of an ordinary payment by their numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::{B256, U256};
use chiral_chain::{BlockId, ChainClient, EmbeddedChain, Sealing};
use chiral_core::{Bill, BillId, PaymentSettler, SettleError, SettlementStatus};
use chiral_payment::journal::{Crash, CrashSide, CrashStep};
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Journal};

use crate::restored::use_leg_nonce;
use crate::rig::{
    Line, assert_paid_once, bill, config, embedded, foreign, journal, payee, settled, start, until,
};

/// Every step of the settler, as `design.md` lists them.
const STEPS: [&str; 15] = [
    "settle-open",
    "settle-intent",
    "settle-call",
    "settle-signed",
    "settle-broadcast",
    "settle-included",
    "settle-final",
    "settle-closed",
    "settle-reopened",
    "settle-replaced",
    "settle-reorganised",
    "settle-reverted",
    "settle-lost",
    "settle-skipped",
    "settle-deferred",
];

#[test]
fn the_list_is_the_one_in_the_design() {
    let design = include_str!("../../design.md");
    let mut named: Vec<&str> = design
        .lines()
        .filter_map(|line| line.strip_prefix("| `settle-")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let mut known: Vec<&str> = STEPS
        .iter()
        .map(|step| step.strip_prefix("settle-").unwrap())
        .collect();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
}

/// What leads to a step, and to its bills being paid in the end.
struct World {
    step: &'static str,
    line: Arc<Line>,
    bills: Vec<Bill>,
}

impl World {
    async fn new(step: &'static str) -> Self {
        let manual = matches!(step, "settle-replaced");
        let sealing = if manual {
            Sealing::Manual
        } else {
            Sealing::OnDemand
        };
        Self {
            step,
            line: Line::to(embedded(sealing).await),
            bills: vec![bill(1, payee(1)), bill(2, payee(2)), bill(3, payee(3))],
        }
    }

    fn config(&self) -> SettlerConfig {
        let mut config = config().with_replace_after(Duration::from_millis(40));
        if self.step == "settle-deferred" {
            // The contract would keep the amount for a payee that refuses.
            config.batch_contract = None;
        }
        match self.step {
            "settle-closed" | "settle-reopened" => config.with_watched_blocks(2),
            "settle-skipped" => config.with_failed_after(2),
            _ => config,
        }
    }

    /// Whether the settler is gone: its journal has crashed.
    async fn is_dead(journal: &Journal) -> bool {
        journal.read(|_| Ok(())).await.is_err()
    }

    /// Makes the trouble, once, until the step has crashed.
    async fn first_life(&self, settler: &ChainSettler, journal: &Journal) {
        let dead = async || Self::is_dead(journal).await;
        let line = &self.line;
        let gone = match self.step {
            "settle-lost" | "settle-skipped" => {
                line.false_known.store(u32::MAX, Ordering::SeqCst);
                true
            }
            "settle-reverted" => {
                // Enough to begin with, and too little for the contract.
                line.estimate.store(1, Ordering::SeqCst);
                false
            }
            "settle-deferred" => {
                line.refuses.store(true, Ordering::SeqCst);
                false
            }
            _ => false,
        };
        let few = match self.step {
            "settle-deferred" | "settle-reopened" => 1,
            _ => 2,
        };
        if self.step == "settle-call" {
            assert!(call(settler).await.is_err(), "the journal has crashed");
            return;
        }
        if settler.settle(self.bills[..few].to_vec()).await.is_err() {
            return;
        }
        let sent = || !line.sent.lock().unwrap().is_empty();
        if gone {
            until("it is signed", async || sent() || dead().await).await;
            match self.step {
                "settle-lost" => {
                    let price = line.chain().fees().await.unwrap().gas_price;
                    foreign(&line.chain(), 0, price).await;
                }
                _ => use_leg_nonce(line).await,
            }
            line.false_known.store(0, Ordering::SeqCst);
        }
        match self.step {
            "settle-replaced" => {
                until("it is sent", async || sent() || dead().await).await;
                line.dearer.store(2, Ordering::SeqCst);
            }
            "settle-reorganised" => {
                until("it is paid", async || {
                    self.paid(&line.chain()).await == 2 || dead().await
                })
                .await;
                until("it is noticed", async || {
                    let status = settler.payment(self.bills[0].id).await;
                    status.is_err() || status.unwrap().unwrap().block.is_some()
                })
                .await;
                line.switch(embedded(Sealing::OnDemand).await);
            }
            "settle-reopened" => {
                settled(settler, &self.bills[..1]).await;
                until("nobody looks any more", async || {
                    line.chain().seal().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    line.chain().head().await.unwrap().number > 6
                })
                .await;
                // The next is looked at still, and builds on what another chain lacks.
                settler.settle(self.bills[1..2].to_vec()).await.unwrap();
                settled(settler, &self.bills[1..2]).await;
                line.switch(embedded(Sealing::OnDemand).await);
            }
            _ => {}
        }
        let manual = self.step == "settle-replaced";
        until("the step is taken", async || {
            if !manual {
                // Whatever has to be deep becomes so.
                line.chain().seal().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            dead().await
        })
        .await;
    }

    async fn paid(&self, chain: &EmbeddedChain) -> usize {
        let mut paid = 0;
        for bill in &self.bills {
            let payee = bill.payee.unwrap();
            let balance = chain.balance(payee, BlockId::Latest).await.unwrap();
            paid += usize::from(!balance.is_zero());
        }
        paid
    }
}

/// A call of a contract; to an address that has none, so that the money says how often it was
/// executed.
async fn call(settler: &ChainSettler) -> Result<SettlementStatus, SettleError> {
    let id = BillId(B256::repeat_byte(0xca));
    let value = U256::from(1234);
    settler
        .call(id, payee(0x3a), value, vec![1, 2, 3].into())
        .await
}

async fn crash(step: &'static str, side: CrashSide) {
    let world = World::new(step).await;
    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path());
    let named = CrashStep::Named(step.to_owned());
    first.crash(Crash { side, step: named });
    let wallet = crate::rig::wallet();
    let started = ChainSettler::start(first.clone(), world.line.clone(), wallet, world.config());
    if let Ok(settler) = started.await {
        world.first_life(&settler, &first).await;
        assert!(World::is_dead(&first).await, "{step} was never taken");
        settler.shutdown().await.unwrap();
    }
    first.close().await;

    // The trouble is over.
    world.line.estimate.store(0, Ordering::SeqCst);
    world.line.refuses.store(false, Ordering::SeqCst);
    world.line.false_known.store(0, Ordering::SeqCst);
    let second = journal(folder.path());
    let settler = start(&second, &world.line, world.config()).await;
    settler.settle(world.bills.clone()).await.unwrap();
    let miner = {
        let line = world.line.clone();
        tokio::spawn(async move {
            loop {
                line.chain().seal().await.unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        })
    };
    settled(&settler, &world.bills).await;
    if step == "settle-call" {
        until("the call is executed", async || {
            let status = call(&settler).await.unwrap();
            matches!(status, SettlementStatus::Settled { .. })
        })
        .await;
        let chain = world.line.chain();
        let got = chain.balance(payee(0x3a), BlockId::Latest).await.unwrap();
        assert_eq!(got, U256::from(1234), "{side:?}: once");
    }
    miner.abort();
    let when = format!("after a crash {side:?} {step}");
    assert_paid_once(&world.line.chain(), &world.bills, &when).await;
    settler.shutdown().await.unwrap();
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bill_is_paid_once_whichever_kind_of_step_is_the_last() {
    for step in STEPS {
        for side in [CrashSide::Before, CrashSide::After] {
            crash(step, side).await;
        }
    }
}
