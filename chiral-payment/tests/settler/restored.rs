//! An old copy of the journal is restored, or another program uses the nonces of the contract:
//! nothing is paid twice, and nothing passes as paid that was not.

use alloy_primitives::{Address, B256};
use chiral_chain::{ChainClient, ChainSpec, Fees, Sealing, SignedTransaction, Transaction};
use chiral_core::{Bill, PaymentSettler};
use chiral_payment::contracts::batch_pay;
use chiral_payment::settler::Problem;

use crate::rig::{
    Line, assert_paid_once, bill, config, embedded, end, journal, payee, settled, start, until,
    wallet,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_journal_pays_what_is_new_and_nothing_again() {
    let line = Line::to(embedded(Sealing::OnDemand).await);
    let folder = tempfile::tempdir().unwrap();
    let bills: Vec<Bill> = (1..=6).map(|n| bill(n, payee(n))).collect();
    // Two bills are written down and not paid when the copy is made.
    line.answer(0);
    let first = journal(folder.path());
    let settler = start(&first, &line, config()).await;
    settler.settle(bills[..2].to_vec()).await.unwrap();
    end(&settler, &first).await;
    let (file, copy) = (folder.path().join("journal"), folder.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    // What the copy knows nothing of: they are paid, and two more.
    line.answer(u32::MAX);
    let first = journal(folder.path());
    let settler = start(&first, &line, config()).await;
    settled(&settler, &bills[..2]).await;
    settler.settle(bills[2..4].to_vec()).await.unwrap();
    settled(&settler, &bills[2..4]).await;
    end(&settler, &first).await;

    std::fs::rename(&copy, &file).unwrap();
    let second = journal(folder.path());
    let settler = start(&second, &line, config()).await;
    settler.settle(bills[4..].to_vec()).await.unwrap();
    settled(&settler, &bills[..2]).await;
    settled(&settler, &bills[4..]).await;
    assert_paid_once(&line.chain(), &bills, "by the copy").await;
    end(&settler, &second).await;
}

/// The nonce that a bill has in the contract is used for something else: it is not paid by
/// that, however much the contract skips it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bill_that_was_skipped_for_another_is_paid_with_another_nonce() {
    let chain = embedded(Sealing::OnDemand).await;
    let line = Line::to(chain.clone());
    let journal = chiral_payment::Journal::in_memory().unwrap();
    let settler = start(&journal, &line, config().with_failed_after(2)).await;
    let bills = [bill(1, payee(1)), bill(2, payee(2))];
    line.false_known
        .store(u32::MAX, std::sync::atomic::Ordering::SeqCst);
    settler.settle(bills.to_vec()).await.unwrap();
    until("it is signed", async || {
        !line.sent.lock().unwrap().is_empty()
    })
    .await;
    use_leg_nonce(&line).await;
    line.false_known
        .store(0, std::sync::atomic::Ordering::SeqCst);
    chain.seal().await.unwrap();
    until("one of them is seen not to be paid", async || {
        let problem = async |n: usize| settler.payment(bills[n].id).await.unwrap().unwrap().problem;
        problem(0).await == Some(Problem::LegNonceUsed)
    })
    .await;
    let early = settler.payment(bills[0].id).await.unwrap().unwrap();
    assert_eq!(early.settled_at, None, "not passed as paid");
    for _ in 0..3 {
        chain.seal().await.unwrap();
    }
    settled(&settler, &bills).await;
    assert_paid_once(&chain, &bills, "with another nonce").await;
    settler.shutdown().await.unwrap();
}

/// Another program with the same wallet uses the contract's nonce of the first bill that was
/// signed, for a bill of its own.
pub(crate) async fn use_leg_nonce(line: &Line) {
    let id = ChainSpec::devnet().chain_id;
    let sent = line.sent.lock().unwrap()[0].clone();
    let signed = SignedTransaction::decode(&sent, id).unwrap();
    let mut leg = batch_pay::legs(&signed.transaction.input)
        .unwrap()
        .remove(0);
    leg.bill = B256::repeat_byte(0x77);
    leg.to = Address::repeat_byte(0x77);
    let chain = line.chain();
    let gas_price = chain.fees().await.unwrap().gas_price;
    let transaction = Transaction {
        chain_id: id,
        nonce: signed.transaction.nonce,
        gas_limit: 400_000,
        fees: Fees::Legacy { gas_price },
        to: signed.transaction.to,
        value: alloy_primitives::U256::from(leg.amount),
        input: batch_pay::pay(vec![leg]),
    };
    let foreign = transaction.sign(&*wallet()).await.unwrap();
    let hash = chain.send_raw_transaction(foreign.raw).await.unwrap();
    until("it is in a block", async || {
        chain
            .receipt(hash)
            .await
            .unwrap()
            .is_some_and(|receipt| receipt.succeeded)
    })
    .await;
}
