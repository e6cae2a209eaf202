//! When bills go out: together, in time, many at once, and not on a chain that is split.

use std::collections::HashSet;
use std::time::Duration;

use alloy_primitives::U256;
use chiral_chain::{BlockId, ChainClient, DEV_ACCOUNTS, Sealing, SignedTransaction};
use chiral_core::{Bill, PaymentSettler, PeerId, SettlementStatus};
use chiral_payment::Journal;
use chiral_payment::settler::{PaymentState, PeerHeads, Problem, firm_block};

use crate::rig::{Line, assert_paid_once, bill, config, embedded, payee, settled, start, until};

fn seconds_now() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_bills_wait_until_together_they_are_worth_a_transaction() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    // Bills of 1,001, 2,001 and 3,001 wei.
    let config = config().with_aggregate(U256::from(6000), Duration::from_secs(3600));
    let settler = start(&journal, &line, config).await;
    let bills = [bill(1, payee(1)), bill(2, payee(2)), bill(3, payee(3))];
    settler.settle(bills[..2].to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(line.sent.lock().unwrap().is_empty(), "3,002 wei wait");
    let waits = settler.payment(bills[0].id).await.unwrap().unwrap();
    assert_eq!(waits.state, PaymentState::Waiting);
    settler.settle(bills[2..].to_vec()).await.unwrap();
    let mut transactions = settled(&settler, &bills).await;
    transactions.dedup();
    assert_eq!(transactions.len(), 1, "all three in one");
    assert_paid_once(&line.chain(), &bills, "together").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bill_waits_longer_than_its_deadline_also_over_a_restart() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let config = config().with_aggregate(U256::MAX, Duration::from_secs(2));
    let settler = start(&journal, &line, config.clone()).await;
    let bills = [bill(1, payee(1))];
    settler.settle(bills.to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(line.sent.lock().unwrap().is_empty());
    settler.shutdown().await.unwrap();
    let settler = start(&journal, &line, config).await;
    settled(&settler, &bills).await;
    let payment = settler.payment(bills[0].id).await.unwrap().unwrap();
    let waited = payment.settled_at.unwrap() - payment.taken_at;
    assert!((2..=20).contains(&waited), "{waited} s");
    assert_paid_once(&line.chain(), &bills, "in time").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_waits_for_waits_for_nothing() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let config = config().with_aggregate(U256::MAX, Duration::from_secs(3600));
    let settler = start(&journal, &line, config).await;
    let bills = [bill(1, payee(1)), bill(2, payee(2))];
    settler.settle(bills.to_vec()).await.unwrap();
    // Of a bill that is not known nothing follows.
    settler.expedite(&[bill(9, payee(9)).id]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(line.sent.lock().unwrap().is_empty());
    settler.expedite(&[bills[1].id]).await.unwrap();
    settled(&settler, &bills).await;
    assert_paid_once(&line.chain(), &bills, "at once, and the other with it").await;
    settler.shutdown().await.unwrap();
}

/// Handed in by many tasks at once, most of them sent before any is in a block.
#[tokio::test(flavor = "multi_thread")]
async fn many_payments_are_on_their_way_at_once_with_a_nonce_each() {
    for contract in [true, false] {
        let chain = embedded(Sealing::Manual).await;
        let line = Line::to(chain.clone());
        let journal = Journal::in_memory().unwrap();
        let mut config = config();
        if !contract {
            config.batch_contract = None;
        }
        let settler = start(&journal, &line, config).await;
        let count = if contract { 120 } else { 30 };
        let bills: Vec<Bill> = (1..=count).map(|n| bill(n, payee(n % 40))).collect();
        let tasks = bills.chunks(6).map(|some| {
            let (settler, some) = (settler.clone(), some.to_vec());
            tokio::spawn(async move { settler.settle(some).await.unwrap() })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let nonces = || {
            let sent = line.sent.lock().unwrap();
            let id = chiral_chain::ChainSpec::devnet().chain_id;
            let nonce = |raw: &bytes::Bytes| {
                let signed = SignedTransaction::decode(raw, id).unwrap();
                (signed.transaction.nonce, signed.hash)
            };
            sent.iter().map(nonce).collect::<HashSet<_>>()
        };
        let at_once = if contract { 3 } else { 16 };
        until("many are sent", async || nonces().len() >= at_once).await;
        assert!(
            nonces().len() <= 16,
            "no more than a node keeps of one wallet"
        );
        let unpaid = settler.status(bills[0].id).await.unwrap().unwrap();
        assert!(matches!(unpaid, SettlementStatus::Pending { .. }));
        let miner = {
            let chain = chain.clone();
            tokio::spawn(async move {
                while chain.seal().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            })
        };
        settled(&settler, &bills).await;
        miner.abort();
        let used = nonces();
        let numbers: HashSet<u64> = used.iter().map(|(nonce, _)| *nonce).collect();
        assert_eq!(numbers.len(), used.len(), "each nonce was signed once");
        assert_eq!(
            numbers.len() as u64,
            numbers.iter().max().unwrap() + 1,
            "no gap"
        );
        assert_paid_once(&chain, &bills, "at once").await;
        println!("{count} bills in {} transactions", used.len());
        settler.shutdown().await.unwrap();
    }
}

/// A node that says that more nonces were used than are makes a gap, which is filled.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_a_lie_has_made_is_filled_with_nothing() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config()).await;
    let bills = [bill(1, payee(1))];
    line.more_nonces
        .store(2, std::sync::atomic::Ordering::SeqCst);
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    line.more_nonces
        .store(0, std::sync::atomic::Ordering::SeqCst);
    settled(&settler, &bills).await;
    assert_paid_once(&line.chain(), &bills, "behind the gap").await;
    let wallet = DEV_ACCOUNTS[0].address;
    let used = line.chain().nonce(wallet, BlockId::Latest).await.unwrap();
    assert_eq!(used, 3, "two of nothing, and the payment");
    settler.shutdown().await.unwrap();
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 36]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_chain_that_is_split_payments_are_held_until_it_has_healed() {
    let chain = embedded(Sealing::Manual).await;
    for _ in 0..4 {
        chain.seal().await.unwrap();
    }
    let line = Line::to(chain.clone());
    let heads = PeerHeads::new();
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_peer_heads(heads.clone())).await;
    // The others' chain, and what each of them says is firm there.
    let others = embedded(Sealing::Manual).await;
    for wallet in [3, 4] {
        let from = DEV_ACCOUNTS[wallet];
        crate::rig::pay_from(&others, from, payee(30)).await;
        others.seal().await.unwrap();
        others.seal().await.unwrap();
    }
    let theirs = firm_block(&others, 2).await.unwrap().unwrap();
    let ours = firm_block(&chain, 2).await.unwrap().unwrap();
    assert_ne!(theirs.hash, ours.hash);
    heads.note(peer(1), ours, seconds_now());
    heads.note(peer(2), theirs, seconds_now());
    heads.note(peer(3), theirs, seconds_now());
    let bills = [bill(1, payee(1)), bill(2, payee(2))];
    settler.settle(bills.to_vec()).await.unwrap();
    until("the split is seen", async || {
        settler.problem()
            == Some(Problem::Split {
                with: 1,
                against: 2,
            })
    })
    .await;
    assert!(
        line.sent.lock().unwrap().is_empty(),
        "nothing is paid there"
    );
    // The split heals: this node follows the others.
    line.switch(others.clone());
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    others.seal().await.unwrap();
    settled(&settler, &bills).await;
    assert_paid_once(&others, &bills, "on the chain of the others").await;
    until("nothing is wrong", async || settler.problem().is_none()).await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_pays_nothing() {
    let chain = embedded(Sealing::Manual).await;
    chain.seal().await.unwrap();
    let line = Line::to(chain.clone());
    let heads = PeerHeads::new();
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_peer_heads(heads.clone())).await;
    let mut ahead = firm_block(&*line, 1).await.unwrap().unwrap();
    ahead.number += 5;
    heads.note(peer(1), ahead, seconds_now());
    let bills = [bill(1, payee(1))];
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is seen", async || {
        settler.problem() == Some(Problem::Stale)
    })
    .await;
    assert!(line.sent.lock().unwrap().is_empty());
    // It catches up, to a chain on which that peer's word is right.
    for _ in 0..6 {
        chain.seal().await.unwrap();
    }
    let right = firm_block(&*line, 1).await.unwrap().unwrap();
    heads.note(peer(1), right, seconds_now());
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    chain.seal().await.unwrap();
    settled(&settler, &bills).await;
    assert_paid_once(&chain, &bills, "when it had caught up").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_whose_newest_block_is_old_is_not_paid_on() {
    let chain = embedded(Sealing::Manual).await;
    let line = Line::to(chain.clone());
    let journal = Journal::in_memory().unwrap();
    // The first block of the devnet is years old.
    let config = config().with_stale_after(Duration::from_secs(600));
    let settler = start(&journal, &line, config).await;
    let bills = [bill(1, payee(1))];
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is seen", async || {
        settler.problem() == Some(Problem::Stale)
    })
    .await;
    assert!(line.sent.lock().unwrap().is_empty());
    chain.seal().await.unwrap();
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    chain.seal().await.unwrap();
    settled(&settler, &bills).await;
    assert_paid_once(&chain, &bills, "on a chain that goes on").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_gas_is_too_dear_nothing_is_paid_and_then_at_no_more_than_the_limit() {
    let chain = embedded(Sealing::Manual).await;
    let line = Line::to(chain.clone());
    let journal = Journal::in_memory().unwrap();
    // The first base fee is a gigawei, and falls by an eighth with each empty block.
    let limit = 500_000_000;
    let settler = start(&journal, &line, config().with_max_gas_price(limit)).await;
    let bills = [bill(1, payee(1)), bill(2, payee(2))];
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is seen", async || {
        matches!(settler.problem(), Some(Problem::FeesOverLimit { wanted }) if wanted > limit)
    })
    .await;
    assert!(line.sent.lock().unwrap().is_empty());
    let payment = settler.payment(bills[0].id).await.unwrap().unwrap();
    assert_eq!(payment.state, PaymentState::Waiting);
    for _ in 0..8 {
        chain.seal().await.unwrap();
    }
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    chain.seal().await.unwrap();
    let transactions = settled(&settler, &bills).await;
    for hash in transactions {
        let receipt = chain.receipt(hash).await.unwrap().unwrap();
        assert!(receipt.effective_gas_price <= limit, "{receipt:?}");
    }
    assert_paid_once(&chain, &bills, "when gas was cheap").await;
    until("nothing is wrong", async || settler.problem().is_none()).await;
    settler.shutdown().await.unwrap();
}
