//! Payments that are none: what a seeder does not take.

use alloy_primitives::{B256, U256};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{Bill, PaymentAgent, PaymentGate, SettlementStatus, WalletSigner};
use chiral_payment::messages::{Message, Signed};

use super::ledger::Put;
use super::support::*;

/// A bill for one MiB, not paid yet.
async fn owing(market: &Market) -> Bill {
    market.fetch(&market.purchase(), range(0, 1)).await;
    market.agent.bills(None).await.unwrap().remove(0)
}

/// What the seeder says to the notice that this transaction settled the bill.
async fn claim(market: &Market, bill: &Bill, transaction: B256) -> Message {
    let status = SettlementStatus::Settled { transaction };
    let notice = market.agent.settled(bill.id, &status).await.unwrap();
    let answer = market.gate.message(notice.unwrap()).await.unwrap();
    Message::decode(&answer).unwrap()
}

async fn refused(market: &Market, bill: &Bill, put: Put) -> String {
    let transaction = market.ledger.send_and_mine(put);
    refusal(claim(market, bill, transaction).await)
}

fn honest(market: &Market, bill: &Bill) -> Put {
    Put::paying(bill, market.buyer.address())
}

#[tokio::test]
async fn an_honest_transfer_and_a_leg_of_a_batch_are_taken() {
    for put in [Put::paying, Put::batch] {
        let market = Market::new().await;
        let bill = owing(&market).await;
        let put = put(&bill, market.buyer.address());
        let transaction = market.ledger.send_and_mine(put);
        let answer = claim(&market, &bill, transaction).await;
        assert!(matches!(answer, Message::Receipt(_)), "{answer:?}");
        let kept = market.agent.receipt(bill.id, answer.encode()).await;
        assert!(kept.unwrap());
        assert!(market.gate.exposure(market.buyer.address()).is_zero());
    }
}

#[tokio::test]
async fn a_wei_too_small_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let mut put = honest(&market, &bill);
    put.value -= U256::from(1);
    assert!(refused(&market, &bill, put).await.contains("too small"));
}

#[tokio::test]
async fn a_bill_that_is_too_small_for_its_bytes_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    let status = SettlementStatus::Settled { transaction };
    let notice = market.agent.settled(bill.id, &status).await.unwrap();
    let Ok(Message::Notice(notice)) = Message::decode(&notice.unwrap()) else {
        panic!("a notice");
    };
    // Not even the session's own key could claim more bytes; another's can claim nothing.
    let mut body = notice.body.clone();
    body.bytes += 1;
    let forged = Signed::sign(body, &CHAIN, &FixedKeySigner::numbered(66)).await;
    let answer = tell(&market.gate, Message::Notice(forged.unwrap())).await;
    assert!(refusal(answer).contains("session"));
}

#[tokio::test]
async fn a_transaction_for_another_bill_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let paid = market.ledger.send_and_mine(honest(&market, &bill));
    let answer = claim(&market, &bill, paid).await;
    assert!(
        market
            .agent
            .receipt(bill.id, answer.encode())
            .await
            .unwrap()
    );
    // The same transaction for the next bill of the same agreement.
    market.fetch(&market.purchase(), range(1, 2)).await;
    let next = market.agent.bills(None).await.unwrap().remove(0);
    assert_ne!(next.id, bill.id);
    let answer = claim(&market, &next, paid).await;
    assert!(refusal(answer).contains("another bill"));
}

#[tokio::test]
async fn a_transaction_for_another_file_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let paid = market.ledger.send_and_mine(honest(&market, &bill));
    let answer = claim(&market, &bill, paid).await;
    assert!(
        market
            .agent
            .receipt(bill.id, answer.encode())
            .await
            .unwrap()
    );
    let mut other = market.purchase();
    other.cid = chiral_core::Cid::from_bytes([8; 32]);
    market.fetch(&other, range(0, 1)).await;
    let next = market.agent.bills(Some(other.cid)).await.unwrap().remove(0);
    assert_eq!(next.amount, bill.amount, "the amount alone would do");
    let answer = claim(&market, &next, paid).await;
    assert!(refusal(answer).contains("another bill"));
}

#[tokio::test]
async fn another_buyers_transaction_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let other = FixedKeySigner::numbered(9).address();
    for put in [Put::paying(&bill, other), Put::batch(&bill, other)] {
        let reason = refused(&market, &bill, put).await;
        assert!(reason.contains("another wallet paid"), "{reason}");
    }
}

#[tokio::test]
async fn a_transaction_of_another_chain_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    for chain_id in [Some(1), None] {
        let put = Put {
            chain_id,
            ..honest(&market, &bill)
        };
        let reason = refused(&market, &bill, put).await;
        assert!(reason.contains("chain"), "{reason}");
    }
}

#[tokio::test]
async fn a_payment_to_another_wallet_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let put = Put {
        to: FixedKeySigner::numbered(9).address(),
        ..honest(&market, &bill)
    };
    let reason = refused(&market, &bill, put).await;
    assert!(reason.contains("pays another wallet"), "{reason}");
}

#[tokio::test]
async fn a_failed_transaction_is_refused() {
    for put in [Put::paying, Put::batch] {
        let market = Market::new().await;
        let bill = owing(&market).await;
        let mut put = put(&bill, market.buyer.address());
        put.succeeded = false;
        assert!(refused(&market, &bill, put).await.contains("failed"));
    }
}

#[tokio::test]
async fn a_transfer_that_names_no_bill_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let mut put = honest(&market, &bill);
    put.input = bytes::Bytes::new();
    assert!(!refused(&market, &bill, put).await.is_empty());
}

#[tokio::test]
async fn an_event_of_another_contract_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let mut put = Put::batch(&bill, market.buyer.address());
    put.to = FixedKeySigner::numbered(9).address();
    put.logs[0].0 = put.to;
    assert!(!refused(&market, &bill, put).await.is_empty());
}

#[tokio::test]
async fn not_mined_yet_is_asked_again_and_not_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let transaction = market.ledger.send(honest(&market, &bill));
    let answer = claim(&market, &bill, transaction).await;
    assert!(matches!(answer, Message::NotYet { .. }), "{answer:?}");
    assert!(
        !market
            .agent
            .receipt(bill.id, answer.encode())
            .await
            .unwrap()
    );
    market.ledger.mine();
    let answer = claim(&market, &bill, transaction).await;
    assert!(matches!(answer, Message::Receipt(_)), "{answer:?}");
}

#[tokio::test]
async fn an_unknown_transaction_and_a_chain_that_is_away_are_asked_again() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let answer = claim(&market, &bill, B256::repeat_byte(0xee)).await;
    assert!(matches!(answer, Message::NotYet { .. }), "{answer:?}");
    market.ledger.set_away(true);
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    let answer = claim(&market, &bill, transaction).await;
    assert!(matches!(answer, Message::NotYet { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_payment_counts_when_it_is_deep_enough() {
    let mut config = gate_config();
    config.confirmations = 3;
    let market = Market::with(config, agent_config()).await;
    let bill = owing(&market).await;
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    for _ in 0..2 {
        let answer = claim(&market, &bill, transaction).await;
        assert!(matches!(answer, Message::NotYet { .. }), "{answer:?}");
        market.ledger.mine();
    }
    let answer = claim(&market, &bill, transaction).await;
    assert!(matches!(answer, Message::Receipt(_)), "{answer:?}");
}

#[tokio::test]
async fn a_bill_counts_once_however_often_it_is_claimed() {
    let market = Market::new().await;
    market.fetch(&market.purchase(), range(0, 2)).await;
    let bill = market.agent.bills(None).await.unwrap().remove(0);
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    let first = claim(&market, &bill, transaction).await;
    let second = claim(&market, &bill, transaction).await;
    assert_eq!(first, second, "the same receipt");
    // Another transaction for the same bill is no second payment.
    let again = market.ledger.send_and_mine(honest(&market, &bill));
    let answer = claim(&market, &bill, again).await;
    assert!(refusal(answer).contains("another transaction"));
    market.fetch(&market.purchase(), range(2, 3)).await;
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(1));
}

#[tokio::test]
async fn a_payment_is_found_without_a_notice() {
    for put in [Put::paying, Put::batch] {
        let market = Market::new().await;
        let bill = owing(&market).await;
        // Looking begins with the first block after the agreement at the latest.
        market.ledger.mine();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let transaction = market
            .ledger
            .send_and_mine(put(&bill, market.buyer.address()));
        let mut waited = 0;
        while !market.gate.exposure(market.buyer.address()).is_zero() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            waited += 1;
            assert!(waited < 250, "not found");
        }
        // And the notice that comes after all gets its receipt.
        let answer = claim(&market, &bill, transaction).await;
        assert!(
            market
                .agent
                .receipt(bill.id, answer.encode())
                .await
                .unwrap()
        );
    }
}

#[tokio::test]
async fn a_receipt_is_the_seeders_and_says_what_was_paid() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    let Message::Receipt(receipt) = claim(&market, &bill, transaction).await else {
        panic!("a receipt");
    };
    let thief = FixedKeySigner::numbered(66);
    let forged = Signed::sign(receipt.body.clone(), &CHAIN, &thief).await;
    let forged = Message::Receipt(forged.unwrap()).encode();
    assert!(market.agent.receipt(bill.id, forged).await.is_err());
    let mut less = receipt.body.clone();
    less.amount -= U256::from(1);
    let less = Signed::sign(less, &CHAIN, &*market.seeder).await.unwrap();
    let less = Message::Receipt(less).encode();
    assert!(market.agent.receipt(bill.id, less).await.is_err());
    let right = Message::Receipt(receipt).encode();
    assert!(market.agent.receipt(bill.id, right).await.unwrap());
}
