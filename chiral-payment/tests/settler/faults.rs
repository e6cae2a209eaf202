//! The chain is away, lies, loses blocks, or is used by others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use chiral_chain::{BlockId, ChainClient, ChainSpec, DEV_ACCOUNTS, Sealing};
use chiral_core::{PaymentSettler, SettlementStatus};
use chiral_payment::settler::{PaymentState, Problem};
use chiral_payment::{ChainSettler, Journal};

use crate::rig::{
    Line, assert_paid_once, bill, config, embedded, end, foreign, journal, payee, settled, start,
    until,
};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_chain_is_away_bills_wait_and_then_go_out() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let folder = tempfile::tempdir().unwrap();
    let bills = [bill(1, payee(1)), bill(2, payee(2))];
    line.answer(0);
    let first = journal(folder.path());
    let settler = start(&first, &line, config()).await;
    let statuses = settler.settle(bills.to_vec()).await.unwrap();
    assert_eq!(
        statuses,
        vec![SettlementStatus::Pending { transaction: None }; 2]
    );
    until("it is said that the chain is away", async || {
        matches!(settler.problem(), Some(Problem::ChainAway { .. }))
    })
    .await;
    end(&settler, &first).await;

    let second = journal(folder.path());
    let settler = start(&second, &line, config()).await;
    line.answer(u32::MAX);
    settled(&settler, &bills).await;
    assert_paid_once(&line.chain(), &bills, "when the chain was back").await;
    until("nothing is wrong any more", async || {
        settler.problem().is_none()
    })
    .await;
    end(&settler, &second).await;
}

/// The line goes down after every number of answers there is, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_line_breaks_each_bill_is_paid_once() {
    for answers in 1..40 {
        let line = Line::to(embedded(Sealing::OnDemand).await);
        let journal = Journal::in_memory().unwrap();
        let bills = [bill(1, payee(1)), bill(2, payee(2))];
        line.answer(answers);
        let settler = start(&journal, &line, config()).await;
        settler.settle(bills.to_vec()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        line.answer(u32::MAX);
        settled(&settler, &bills).await;
        assert_paid_once(&line.chain(), &bills, "after a break").await;
        settler.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_lies_about_sending_pay_once() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    line.false_known.store(2, Ordering::SeqCst);
    line.lost_answers.store(3, Ordering::SeqCst);
    let settler = start(&journal, &line, config()).await;
    let bills = [bill(1, payee(1)), bill(2, payee(2)), bill(3, payee(3))];
    for bill in &bills {
        settler.settle(vec![bill.clone()]).await.unwrap();
        settled(&settler, std::slice::from_ref(bill)).await;
    }
    assert_paid_once(&line.chain(), &bills, "in spite of it").await;
    let sent = line.sent.lock().unwrap().clone();
    let mut distinct = sent.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "always the same bytes");
    assert!(sent.len() > 4, "{} were sent", sent.len());
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_block_is_dropped_is_sent_again_with_the_same_bytes() {
    for count in [1, 2] {
        let line = Line::to(embedded(Sealing::OnDemand).await);
        let journal = Journal::in_memory().unwrap();
        let settler = start(&journal, &line, config()).await;
        let bills: Vec<_> = (1..=count).map(|n| bill(n, payee(n))).collect();
        settler.settle(bills.clone()).await.unwrap();
        let before = settled(&settler, &bills).await;
        let first = line.sent.lock().unwrap()[0].clone();

        // A chain on which nothing of it has happened.
        let other = embedded(Sealing::Manual).await;
        other.seal().await.unwrap();
        line.switch(other.clone());
        until("it is pending again", async || {
            let status = settler.status(bills[0].id).await.unwrap().unwrap();
            matches!(
                status,
                SettlementStatus::Pending {
                    transaction: Some(_)
                }
            )
        })
        .await;
        until("it is in the other chain's pool", async || {
            other.transaction(before[0]).await.unwrap().is_some()
        })
        .await;
        other.seal().await.unwrap();
        assert_eq!(
            settled(&settler, &bills).await,
            before,
            "the same transaction"
        );
        assert_paid_once(&other, &bills, "after the reorganisation").await;
        let sent = line.sent.lock().unwrap().clone();
        assert!(
            sent.iter().all(|raw| *raw == first),
            "always the same bytes"
        );
        settler.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_another_transaction_took_is_given_up_only_when_that_is_deep() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_confirmations(3)).await;
    let bills = [bill(1, payee(1))];
    line.false_known.store(u32::MAX, Ordering::SeqCst);
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is sent", async || !line.sent.lock().unwrap().is_empty()).await;
    let first = line.sent.lock().unwrap()[0].clone();

    let chain = line.chain();
    let price = chain.fees().await.unwrap().gas_price;
    foreign(&chain, 0, price).await;
    let nonce = async || {
        chain
            .nonce(DEV_ACCOUNTS[0].address, BlockId::Latest)
            .await
            .unwrap()
    };
    until("the nonce is taken", async || nonce().await == 1).await;
    until("it is seen", async || {
        let payment = settler.payment(bills[0].id).await.unwrap().unwrap();
        payment.problem == Some(Problem::NonceUsed)
    })
    .await;
    line.false_known.store(0, Ordering::SeqCst);
    chain.seal().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sent = line.sent.lock().unwrap().clone();
    assert!(
        sent.iter().all(|raw| *raw == first),
        "two blocks are not three"
    );
    chain.seal().await.unwrap();
    until("it is sent with another nonce", async || {
        line.sent.lock().unwrap().iter().any(|raw| *raw != first)
    })
    .await;
    // Sent is not yet in a block: those made before it is make it no deeper.
    until("it is mined", async || nonce().await == 2).await;
    for _ in 0..3 {
        chain.seal().await.unwrap();
    }
    settled(&settler, &bills).await;
    assert_paid_once(&chain, &bills, "with another nonce").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_in_which_another_transaction_took_the_nonce_pays_once() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config()).await;
    let bills = [bill(1, payee(1))];
    settler.settle(bills.to_vec()).await.unwrap();
    let before = settled(&settler, &bills).await;
    let other = embedded(Sealing::OnDemand).await;
    let price = other.fees().await.unwrap().gas_price;
    foreign(&other, 0, price).await;
    until("the other chain has the foreign one", async || {
        other
            .nonce(DEV_ACCOUNTS[0].address, BlockId::Latest)
            .await
            .unwrap()
            == 1
    })
    .await;
    line.switch(other.clone());
    until("it is not settled any more", async || {
        settler.status(bills[0].id).await.unwrap()
            != Some(SettlementStatus::Settled {
                transaction: before[0],
            })
    })
    .await;
    let after = settled(&settler, &bills).await;
    assert_ne!(before, after);
    assert_paid_once(&other, &bills, "with another nonce").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_for_another_chain() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let mut spec = ChainSpec::devnet();
    spec.chain_id += 1;
    let other_id = chiral_chain::EmbeddedChain::open(spec, Default::default())
        .await
        .unwrap();
    let twin = ChainSpec::chiral().with_alloc(ChainSpec::devnet().alloc);
    let twin = chiral_chain::EmbeddedChain::open(twin, Default::default())
        .await
        .unwrap();
    let home = line.chain();
    for wrong in [other_id, twin] {
        line.switch(wrong);
        let journal = Journal::in_memory().unwrap();
        let settler = start(&journal, &line, config()).await;
        settler.settle(vec![bill(1, payee(1))]).await.unwrap();
        until("it is said", async || {
            let wrong = settler.problem();
            matches!(
                wrong,
                Some(Problem::WrongChain { .. } | Problem::WrongGenesis { .. })
            )
        })
        .await;
        let payment = settler.payments(1).await.unwrap().remove(0);
        assert_eq!(
            (payment.state, payment.transaction),
            (PaymentState::Waiting, None)
        );
        assert_eq!(line.sent.lock().unwrap().len(), 0);
        settler.shutdown().await.unwrap();
    }
    home.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn short_of_money_what_can_be_paid_is_and_the_rest_waits() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let poor = std::sync::Arc::new(chiral_chain::PrivateKey::random().unwrap());
    let address = chiral_core::WalletSigner::address(&*poor);
    let settler = ChainSettler::start(journal, line.clone(), poor, config())
        .await
        .unwrap();
    let mut dear = bill(1, payee(1));
    dear.amount = U256::from(10).pow(U256::from(18));
    let bills = [dear, bill(2, payee(2))];
    settler.settle(bills.to_vec()).await.unwrap();
    let problem = async |n: usize| settler.payment(bills[n].id).await.unwrap().unwrap().problem;
    until("both wait for money", async || {
        problem(0).await == Some(Problem::Funds) && problem(1).await == Some(Problem::Funds)
    })
    .await;
    crate::rig::give(&line.chain(), address, U256::from(10).pow(U256::from(17))).await;
    settled(&settler, &bills[1..]).await;
    assert_eq!(problem(0).await, Some(Problem::Funds));
    crate::rig::give(&line.chain(), address, U256::from(10).pow(U256::from(18))).await;
    settled(&settler, &bills).await;
    assert_paid_once(&line.chain(), &bills, "when there was money").await;
    settler.shutdown().await.unwrap();
}

/// Code that reverts: `PUSH1 0 DUP1 REVERT`.
const REFUSES: [u8; 5] = [0x60, 0, 0x80, 0xfd, 0];

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_refuses_is_credited_by_the_contract() {
    let refusing = Address::repeat_byte(0xdd);
    let account = chiral_chain::GenesisAccount {
        code: REFUSES.to_vec().into(),
        ..Default::default()
    };
    let spec = ChainSpec::devnet().with_alloc([(refusing, account)]);
    let mut config = config();
    config.genesis = spec.genesis_hash();
    let chain = chiral_chain::EmbeddedChain::open(spec, Default::default())
        .await
        .unwrap();
    let line = Line::to(chain.clone());
    let bills = [bill(1, refusing)];

    let journal = Journal::in_memory().unwrap();
    let mut plain = config.clone();
    plain.batch_contract = None;
    let settler = start(&journal, &line, plain).await;
    settler.settle(bills.to_vec()).await.unwrap();
    until("the refusal is seen", async || {
        let payment = settler.payment(bills[0].id).await.unwrap().unwrap();
        payment.problem == Some(Problem::PayeeRefuses)
    })
    .await;
    assert_eq!(line.sent.lock().unwrap().len(), 0, "no gas is spent on it");
    settler.shutdown().await.unwrap();

    // The node says that it would pass: it is reverted, and goes through the contract then.
    line.estimate.store(50_000, Ordering::SeqCst);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config.clone()).await;
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is reverted", async || {
        let payer = settler.wallet();
        // What goes through the contract may be there already when this looks.
        chain.nonce(payer, BlockId::Latest).await.unwrap() >= 1
    })
    .await;
    line.estimate.store(0, Ordering::SeqCst);
    settled(&settler, &bills).await;
    let contract = config.batch_contract.unwrap();
    let call = chiral_chain::CallRequest {
        to: Some(contract),
        input: chiral_payment::contracts::batch_pay::credits(refusing),
        ..Default::default()
    };
    let credit = chain.call(call).await.unwrap();
    assert_eq!(U256::from_be_slice(&credit), bills[0].amount);
    let sent = chain.nonce(settler.wallet(), BlockId::Latest).await;
    assert_eq!(
        sent.unwrap(),
        2,
        "one that is reverted, and one that is not"
    );
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_gas_gets_dearer_the_same_nonce_is_signed_again_and_any_variant_settles() {
    for reaches_the_chain in [true, false] {
        let chain = embedded(Sealing::Manual).await;
        let line = Line::to(chain.clone());
        let journal = Journal::in_memory().unwrap();
        let config = config().with_replace_after(Duration::from_millis(100));
        let settler = start(&journal, &line, config).await;
        let bills = [bill(1, payee(1))];
        settler.settle(bills.to_vec()).await.unwrap();
        let sent = || {
            let mut sent = line.sent.lock().unwrap().clone();
            sent.dedup();
            sent
        };
        until("it is sent", async || !sent().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            sent().len(),
            1,
            "while nothing is gained by it, nothing is signed"
        );
        if !reaches_the_chain {
            line.false_known.store(u32::MAX, Ordering::SeqCst);
        }
        line.dearer.store(2, Ordering::SeqCst);
        until("it is signed again", async || sent().len() > 1).await;
        let variants = sent();
        let chain_id = ChainSpec::devnet().chain_id;
        let hashes: Vec<_> = variants
            .iter()
            .map(|raw| chiral_chain::SignedTransaction::decode(raw, chain_id).unwrap())
            .map(|signed| (signed.transaction.nonce, signed.hash))
            .collect();
        assert!(hashes.iter().all(|(nonce, _)| *nonce == 0));
        let expected = hashes[usize::from(reaches_the_chain)].1;
        until("the pool has it", async || {
            chain.transaction(expected).await.unwrap().is_some()
        })
        .await;
        chain.seal().await.unwrap();
        assert_eq!(settled(&settler, &bills).await, [expected]);
        chain.seal().await.unwrap();
        assert_paid_once(&chain, &bills, "by one of the variants").await;
        settler.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_reset_gets_what_is_watched_and_what_that_builds_on() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_watched_blocks(2)).await;
    let bills: Vec<_> = (1..=4).map(|n| bill(n, payee(n))).collect();
    for bill in &bills[..3] {
        settler.settle(vec![bill.clone()]).await.unwrap();
        settled(&settler, std::slice::from_ref(bill)).await;
    }
    // Only the last is watched by now; its nonce is 2, and nothing else knows 0 and 1.
    let anew = embedded(Sealing::OnDemand).await;
    line.switch(anew.clone());
    settler.settle(bills[3..].to_vec()).await.unwrap();
    until("all are paid on the new chain", async || {
        let last = bills[3].payee.unwrap();
        anew.balance(last, BlockId::Latest).await.unwrap() == bills[3].amount
    })
    .await;
    settled(&settler, &bills).await;
    assert_paid_once(&anew, &bills, "on a chain that was reset").await;
    settler.shutdown().await.unwrap();
}
