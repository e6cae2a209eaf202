//! When nothing goes wrong.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use chiral_chain::{BlockId, ChainClient, ChainSpec, Sealing};
use chiral_core::conformance::payment_settler;
use chiral_core::{BillId, PaymentSettler, SettleError, SettlementStatus};
use chiral_payment::calldata::PaymentMetadata;
use chiral_payment::contracts::{BatchPayment, batch_pay};
use chiral_payment::settler::{PaymentState, SettlerConfig, StartError};
use chiral_payment::{ChainSettler, Journal};

use crate::rig::{
    Line, assert_paid_once, bill, config, embedded, payee, settled, start, until, wallet,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_settler_passes_the_suite() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    payment_settler::run(async || {
        let journal = Journal::in_memory().unwrap();
        start(&journal, &line, config()).await as Arc<dyn PaymentSettler>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bill_is_a_plain_transfer_that_names_it() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config()).await;
    let bill = bill(5, payee(1));
    let statuses = settler.settle(vec![bill.clone()]).await.unwrap();
    assert_eq!(statuses, [SettlementStatus::Pending { transaction: None }]);
    let transactions = settled(&settler, std::slice::from_ref(&bill)).await;
    assert_paid_once(&line.chain(), std::slice::from_ref(&bill), "").await;

    let transaction = line.chain().transaction(transactions[0]).await.unwrap();
    let transaction = transaction.unwrap();
    assert_eq!(transaction.to, bill.payee);
    let metadata = PaymentMetadata::decode(&transaction.input).unwrap();
    assert_eq!(metadata, PaymentMetadata::for_bill(&bill));
    assert_eq!((metadata.bill, metadata.cid), (bill.id, bill.cid));

    let again = settler.settle(vec![bill.clone()]).await.unwrap();
    let transaction = transactions[0];
    assert_eq!(again, [SettlementStatus::Settled { transaction }]);
    let payment = settler.payments(10).await.unwrap().remove(0);
    assert_eq!(
        (payment.bill, payment.state),
        (bill.id, PaymentState::Settled)
    );
    assert_eq!(payment.transaction, Some(transaction));
    let block = line
        .chain()
        .block(BlockId::Hash(payment.block.unwrap().hash))
        .await;
    assert_eq!(block.unwrap().unwrap().transactions[0].hash, transaction);
    assert!(payment.settled_at.unwrap() >= payment.taken_at && payment.taken_at > 0);
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_bills_are_one_transaction() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config()).await;
    // Two of them to one payee.
    let mut bills: Vec<_> = (1..=20).map(|n| bill(n, payee(n))).collect();
    bills[19] = bill(20, payee(1));
    settler.settle(bills.clone()).await.unwrap();
    let mut transactions = settled(&settler, &bills).await;
    transactions.dedup();
    assert_eq!(transactions.len(), 1, "one transaction");
    assert_paid_once(&line.chain(), &bills, "in a batch").await;

    let receipt = line
        .chain()
        .receipt(transactions[0])
        .await
        .unwrap()
        .unwrap();
    let contract = ChainSpec::predeployed("BatchPay").unwrap();
    let paid: Vec<_> = receipt
        .logs
        .iter()
        .filter_map(|log| BatchPayment::from_log(log, contract))
        .collect();
    assert_eq!(paid.len(), 20);
    for (payment, bill) in paid.iter().zip(&bills) {
        assert_eq!(payment.payer, settler.wallet());
        assert_eq!((payment.bill, payment.credited), (bill.id, false));
        assert_eq!(U256::from(payment.amount), bill.amount);
    }
    let transaction = line
        .chain()
        .transaction(transactions[0])
        .await
        .unwrap()
        .unwrap();
    let legs = batch_pay::legs(&transaction.input).unwrap();
    let metadata = PaymentMetadata::decode(&legs[3].meta).unwrap();
    assert_eq!(metadata, PaymentMetadata::for_bill(&bills[3]));
    let kept = line
        .chain()
        .balance(contract, BlockId::Latest)
        .await
        .unwrap();
    assert_eq!(kept, U256::ZERO, "the contract keeps nothing");
    println!("20 new payees in one batch: {} gas", receipt.gas_used);
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bills_that_come_shortly_after_each_other_share_a_transaction() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let config = config().with_gather(Duration::from_secs(2));
    let settler = start(&journal, &line, config).await;
    let bills = [bill(1, payee(1)), bill(2, payee(1)), bill(3, payee(2))];
    for bill in &bills {
        settler.settle(vec![bill.clone()]).await.unwrap();
    }
    let mut transactions = settled(&settler, &bills).await;
    transactions.dedup();
    assert_eq!(transactions.len(), 1);
    assert_paid_once(&line.chain(), &bills, "gathered").await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_contract_each_bill_has_its_own_transaction() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    // An address without code would swallow the money: it is not used as one.
    for contract in [None, Some(Address::repeat_byte(0xee))] {
        let journal = Journal::in_memory().unwrap();
        let mut config = config();
        config.batch_contract = contract;
        config.dynamic_fees = contract.is_some();
        let settler = start(&journal, &line, config).await;
        let base = if contract.is_some() { 10 } else { 0 };
        let bills: Vec<_> = (1..=3).map(|n| bill(n + base, payee(n + base))).collect();
        settler.settle(bills.clone()).await.unwrap();
        let mut transactions = settled(&settler, &bills).await;
        transactions.dedup();
        assert_eq!(transactions.len(), 3);
        assert_paid_once(&line.chain(), &bills, "one by one").await;
        settler.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_settled_at_the_depth_that_is_asked_for() {
    let chain = embedded(Sealing::Manual).await;
    let line = Line::to(chain.clone());
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_confirmations(3)).await;
    let bill = bill(1, payee(1));
    settler.settle(vec![bill.clone()]).await.unwrap();
    let state = async || settler.payment(bill.id).await.unwrap().unwrap().state;
    until("it is sent", async || state().await == PaymentState::Sent).await;
    until("it is in the pool", async || {
        !line.sent.lock().unwrap().is_empty()
    })
    .await;
    chain.seal().await.unwrap();
    until("it is included", async || {
        state().await == PaymentState::Included
    })
    .await;
    chain.seal().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state().await, PaymentState::Included, "two blocks deep");
    let status = settler.status(bill.id).await.unwrap().unwrap();
    assert!(matches!(
        status,
        SettlementStatus::Pending {
            transaction: Some(_)
        }
    ));
    chain.seal().await.unwrap();
    settled(&settler, &[bill]).await;
    settler.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_paid_at_no_address_and_a_journal_has_one_wallet() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let journal = Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config()).await;
    let nobody = bill(1, Address::ZERO);
    let refused = settler
        .settle(vec![bill(2, payee(2)), nobody.clone()])
        .await;
    assert!(matches!(refused, Err(SettleError::NoPayee { bill }) if bill == nobody.id));
    assert_eq!(settler.payments(9).await.unwrap(), []);
    settler.shutdown().await.unwrap();
    let unknown = settler.wait(BillId([9; 32].into())).await.unwrap();
    assert_eq!(unknown, None);

    let mut other_chain = config();
    other_chain.chain_id += 1;
    let mut other_genesis = config();
    other_genesis.genesis.0[0] ^= 1;
    let other_wallet = Arc::new(chiral_chain::DEV_ACCOUNTS[1].signer());
    for (config, wallet) in [
        (other_chain, wallet()),
        (other_genesis, wallet()),
        (config(), other_wallet),
    ] {
        let started = ChainSettler::start(journal.clone(), line.clone(), wallet, config).await;
        assert!(
            matches!(started, Err(StartError::OtherJournal { .. })),
            "{started:?}"
        );
    }
    let deep = SettlerConfig::new(1, config().genesis).with_confirmations(40);
    let started = ChainSettler::start(journal, line, wallet(), deep).await;
    assert!(matches!(started, Err(StartError::Depth)), "{started:?}");
}
