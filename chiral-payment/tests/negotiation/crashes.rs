//! Either side ends at any durable step, and begins again from what is on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{GateError, PaymentAgent, PaymentGate, PaymentSettler, WalletSigner};
use chiral_payment::journal::{Crash, CrashSide, CrashStep};
use chiral_payment::messages::Message;
use chiral_payment::{ChainAgent, ChainGate, Journal};

use super::ledger::{Ledger, Till};
use super::support::*;

struct World {
    ledger: Arc<Ledger>,
    till: Arc<Till>,
    buyer: Arc<FixedKeySigner>,
    seeder: Arc<FixedKeySigner>,
    time: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        let ledger = Ledger::new();
        let buyer = Arc::new(FixedKeySigner::numbered(1));
        Self {
            till: Till::new(ledger.clone(), buyer.address()),
            seeder: Arc::new(FixedKeySigner::numbered(2)),
            time: Arc::new(AtomicU64::new(1_790_000_000)),
            ledger,
            buyer,
        }
    }

    async fn agent(&self, journal: &Journal) -> ChainAgent {
        let mut config = agent_config();
        // Written by steps of the conversation only, so that steps have the same numbers.
        config.flush = (MIB, std::time::Duration::from_secs(3600));
        let (till, time) = (self.till.clone(), self.time.clone());
        start_agent(journal, self.buyer.clone(), till, time, config).await
    }

    async fn gate(&self, journal: &Journal) -> ChainGate {
        let mut config = gate_config();
        config.flush_interval = std::time::Duration::from_secs(3600);
        let (ledger, time) = (self.ledger.clone(), self.time.clone());
        start_gate(journal, self.seeder.clone(), ledger, time, config).await
    }
}

/// Six MiB over a line of four: an agreement, acknowledgements, a payment on the way, one at
/// the end, receipts. Goes on from wherever it was.
async fn download(world: &World, agent: &ChainAgent, gate: &ChainGate) -> Result<(), GateError> {
    let purchase = purchase(world.seeder.address(), 1_790_000_000 + 3600);
    for at in 0..6 {
        let ask = ask(agent, gate, &purchase, range(at, at + 1)).await?;
        ask.deliver(gate).await;
        agent.verified(&purchase, range(at, at + 1)).await;
        if let Some(ack) = agent.due(&purchase).await? {
            let answer = gate.message(ack).await?;
            // A seeder that forgot what it served last does not note it; what is verified is
            // billed all the same.
            match agent.respond(&purchase, answer).await {
                Ok(_) | Err(GateError::Terms { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    for bill in agent.bills(None).await? {
        let statuses = world.till.settle(vec![bill.clone()]).await;
        let status = statuses.map_err(|_| GateError::Ledger)?.remove(0);
        if let Some(notice) = agent.settled(bill.id, &status).await? {
            let answer = gate.message(notice).await?;
            agent.receipt(bill.id, answer).await?;
        }
    }
    Ok(())
}

/// Every byte is paid for once: what was forgotten was fetched and verified again, and nothing
/// is paid for twice.
async fn check(world: &World, agent: &ChainAgent, gate: &ChainGate, what: &str) {
    let again = agent.bills(None).await.unwrap();
    assert!(again.is_empty(), "{what}: {again:?}");
    let owed = gate.exposure(world.buyer.address());
    let paid = wei(6);
    let total: alloy_primitives::U256 = world.till.amounts().into_iter().sum();
    assert_eq!(total, paid, "{what}");
    for bill in world.till.paid() {
        assert_eq!(world.ledger.payments(bill), 1, "{what}: {bill}");
    }
    // All was fetched again after the crash, and what was billed before is nobody's debt.
    assert!(owed <= paid, "{what}: {owed} is still owed");
}

async fn crash_at(agent_side: bool, crash: Crash, folder: &Path) -> bool {
    let what = format!(
        "{crash:?} of the {}",
        if agent_side { "buyer" } else { "seeder" }
    );
    let world = World::new();
    let (buyers, seeders) = (folder.join("buyer"), folder.join("seeder"));
    let (buyer_journal, seeder_journal) = (
        Journal::open(&buyers).unwrap(),
        Journal::open(&seeders).unwrap(),
    );
    let agent = world.agent(&buyer_journal).await;
    let gate = world.gate(&seeder_journal).await;
    match agent_side {
        true => buyer_journal.crash(crash),
        false => seeder_journal.crash(crash),
    }
    let crashed = download(&world, &agent, &gate).await.is_err();
    let dead = |journal: &Journal| {
        let journal = journal.clone();
        async move { journal.read(|_| Ok(())).await.is_err() }
    };
    let crashed = crashed || dead(&buyer_journal).await || dead(&seeder_journal).await;
    let _ = agent.shutdown().await;
    let _ = gate.shutdown().await;
    buyer_journal.close().await;
    seeder_journal.close().await;

    let (buyer_journal, seeder_journal) = (
        Journal::open(&buyers).unwrap(),
        Journal::open(&seeders).unwrap(),
    );
    let agent = world.agent(&buyer_journal).await;
    let gate = world.gate(&seeder_journal).await;
    download(&world, &agent, &gate)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    check(&world, &agent, &gate, &what).await;
    agent.shutdown().await.unwrap();
    gate.shutdown().await.unwrap();
    crashed
}

async fn every_step(agent_side: bool) {
    let mut crashes = 0;
    for number in 1..200 {
        let mut any = false;
        for side in [CrashSide::Before, CrashSide::After] {
            let folder = tempfile::tempdir().unwrap();
            let step = CrashStep::Number(number);
            any |= crash_at(agent_side, Crash { side, step }, folder.path()).await;
        }
        if !any {
            break;
        }
        crashes += 1;
    }
    assert!((5..200).contains(&crashes), "{crashes} steps");
}

#[tokio::test]
async fn nothing_is_billed_twice_whichever_step_of_the_buyer_is_the_last() {
    every_step(true).await;
}

#[tokio::test]
async fn nothing_is_billed_twice_whichever_step_of_the_seeder_is_the_last() {
    every_step(false).await;
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(20), looking).await;
    assert!(seen.is_ok(), "{what}");
}

fn named(side: CrashSide, name: &str) -> Crash {
    let step = CrashStep::Named(name.to_owned());
    Crash { side, step }
}

async fn is_dead(journal: &Journal) -> bool {
    journal.read(|_| Ok(())).await.is_err()
}

/// Payments of which nobody gave notice are found by looking through the blocks. A seeder that
/// is killed while it writes down how far it has looked counts each once.
#[tokio::test]
async fn what_is_found_on_the_chain_counts_once_wherever_the_search_was_cut_off() {
    for side in [CrashSide::Before, CrashSide::After] {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let ours = Journal::in_memory().unwrap();
        let agent = world.agent(&ours).await;
        let journal = Journal::open(folder.path().join("seeder")).unwrap();
        let gate = world.gate(&journal).await;
        let purchase = purchase(world.seeder.address(), 1_790_000_000 + 3600);
        for at in 0..2 {
            let ask = ask(&agent, &gate, &purchase, range(at, at + 1)).await;
            ask.unwrap().deliver(&gate).await;
            agent.verified(&purchase, range(at, at + 1)).await;
        }
        let ack = agent.due(&purchase).await.unwrap().unwrap();
        gate.message(ack).await.unwrap();
        // It has written down where it began, and does again when it is 64 blocks further.
        until("nothing is written down", async || journal.steps() > 0).await;
        journal.crash(named(side, "gate-scanned"));
        let bills = agent.bills(None).await.unwrap();
        world.till.settle(bills).await.unwrap();
        for _ in 0..80 {
            world.ledger.mine();
        }
        until("it looks no further", async || is_dead(&journal).await).await;
        let _ = gate.shutdown().await;
        journal.close().await;

        let journal = Journal::open(folder.path().join("seeder")).unwrap();
        let gate = world.gate(&journal).await;
        let wallet = world.buyer.address();
        until("the payment is not seen", async || {
            gate.exposure(wallet).is_zero()
        })
        .await;
        world.ledger.mine();
        let account = gate.account(wallet);
        assert_eq!(
            (account.exposure, account.paid),
            (wei(0), wei(2)),
            "{side:?}"
        );
        agent.shutdown().await.unwrap();
        gate.shutdown().await.unwrap();
    }
}

/// A file's own terms hold after a kill if they were written down, and the general ones if not.
#[tokio::test]
async fn terms_of_a_file_are_kept_or_they_are_not() {
    let dear = chiral_core::Price::from_wei_per_mib(wei(5));
    for (side, kept) in [(CrashSide::Before, false), (CrashSide::After, true)] {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let journal = Journal::open(folder.path().join("seeder")).unwrap();
        let gate = world.gate(&journal).await;
        let general = gate.terms(cid()).price;
        assert_ne!(general, dear);
        journal.crash(named(side, "gate-terms"));
        gate.set_price(cid(), dear);
        let _ = gate.keep_terms().await;
        assert!(is_dead(&journal).await, "{side:?}: no crash");
        let _ = gate.shutdown().await;
        journal.close().await;

        let journal = Journal::open(folder.path().join("seeder")).unwrap();
        let gate = world.gate(&journal).await;
        let expected = if kept { dear } else { general };
        assert_eq!(gate.terms(cid()).price, expected, "{side:?}");
        gate.shutdown().await.unwrap();
    }
}

/// Counters of requests are set aside in the journal before they are used: whenever a buyer is
/// killed, none is used twice.
#[tokio::test]
async fn no_request_has_the_counter_of_another_whenever_the_buyer_is_killed() {
    let counter = |credential: Option<bytes::Bytes>| match Message::decode(&credential?) {
        Ok(Message::Request(request)) => Some(request.body.counter),
        _ => None,
    };
    for side in [CrashSide::Before, CrashSide::After] {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let theirs = Journal::in_memory().unwrap();
        let gate = world.gate(&theirs).await;
        let journal = Journal::open(folder.path().join("buyer")).unwrap();
        let agent = world.agent(&journal).await;
        let purchase = purchase(world.seeder.address(), 1_790_000_000 + 3600);
        ask(&agent, &gate, &purchase, range(0, 1)).await.unwrap();
        journal.crash(named(side, "agent-counters"));
        let mut used = Vec::new();
        while let Ok(credential) = agent.credential(&purchase, range(1, 2)).await {
            used.push(counter(credential).unwrap());
            assert!(used.len() < 10_000, "counters are never set aside");
        }
        let _ = agent.shutdown().await;
        journal.close().await;

        let journal = Journal::open(folder.path().join("buyer")).unwrap();
        let agent = world.agent(&journal).await;
        let next = agent.credential(&purchase, range(1, 2)).await.unwrap();
        let (next, last) = (counter(next).unwrap(), used.iter().max().unwrap());
        assert!(next > *last, "{side:?}: {next} after {last}");
        agent.shutdown().await.unwrap();
        gate.shutdown().await.unwrap();
    }
}

/// A purchase is closed or it is not: what is fetched again is billed in the first case, and in
/// the other it is not.
#[tokio::test]
async fn a_purchase_is_closed_or_it_is_not() {
    for (side, closed) in [(CrashSide::Before, false), (CrashSide::After, true)] {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let theirs = Journal::in_memory().unwrap();
        let gate = world.gate(&theirs).await;
        let journal = Journal::open(folder.path().join("buyer")).unwrap();
        let agent = world.agent(&journal).await;
        download(&world, &agent, &gate).await.unwrap();
        journal.crash(named(side, "agent-forget"));
        assert!(agent.forget(cid()).await.is_err());
        let _ = agent.shutdown().await;
        journal.close().await;

        let journal = Journal::open(folder.path().join("buyer")).unwrap();
        let agent = world.agent(&journal).await;
        assert!(agent.bills(None).await.unwrap().is_empty(), "{side:?}");
        let purchase = purchase(world.seeder.address(), 1_790_000_000 + 3600);
        let ask = ask(&agent, &gate, &purchase, range(0, 1)).await.unwrap();
        ask.deliver(&gate).await;
        agent.verified(&purchase, range(0, 1)).await;
        let again: alloy_primitives::U256 = {
            let bills = agent.bills(None).await.unwrap();
            bills.iter().map(|bill| bill.amount).sum()
        };
        assert_eq!(again, wei(u64::from(closed)), "{side:?}");
        agent.shutdown().await.unwrap();
        gate.shutdown().await.unwrap();
    }
}
