//! Payments that are none: what a seeder does not take.

use std::time::Duration;

use alloy_primitives::{B256, U256};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{
    Admission, Bill, BillId, PaymentAgent, PaymentGate, Price, Protocol, RangeSet,
    SettlementStatus, WalletSigner,
};
use chiral_payment::messages::{Accept, Message, Notice, Request, Signed, agreement};

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

/// Money is 256 bits wide wherever it is compared: what is over 64 of them is not taken for the
/// lower ones.
#[tokio::test]
async fn the_low_bits_of_a_large_amount_do_not_pay_it() {
    let mut config = gate_config();
    let plenty = U256::from(1u128 << 100);
    (config.credit.initial, config.credit.most) = (plenty, plenty);
    config.credit.strangers = plenty;
    let market = Market::with(config, agent_config()).await;
    let dear = Price::from_wei_per_mib(U256::from(chiral_core::money::WEI_PER_CHI));
    market.gate.set_price(cid(), dear);
    let mut purchase = market.purchase();
    purchase.offer.price = dear;
    market.fetch(&purchase, range(0, 20)).await;
    let bill = market.agent.bills(None).await.unwrap().remove(0);
    let low = U256::from(bill.amount.as_limbs()[0]);
    assert!(low < bill.amount && !low.is_zero(), "{}", bill.amount);
    let mut put = honest(&market, &bill);
    put.value = low;
    assert!(refused(&market, &bill, put).await.contains("too small"));
}

#[tokio::test]
async fn a_notice_that_the_session_did_not_sign_is_refused() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    let transaction = market.ledger.send_and_mine(honest(&market, &bill));
    let status = SettlementStatus::Settled { transaction };
    let notice = market.agent.settled(bill.id, &status).await.unwrap();
    let Ok(Message::Notice(notice)) = Message::decode(&notice.unwrap()) else {
        panic!("a notice");
    };
    let mut body = notice.body.clone();
    body.bytes += 1;
    let forged = Signed::sign(body, &CHAIN, &FixedKeySigner::numbered(66)).await;
    let answer = tell(&market.gate, Message::Notice(forged.unwrap())).await;
    assert!(refusal(answer).contains("session"));
}

/// A buyer that keeps to every form and signs with keys of its own, but says that its money
/// is for more bytes than it pays for: in the notice, and on the ledger.
#[tokio::test]
async fn a_bill_that_is_too_small_for_its_bytes_is_refused() {
    let mut config = gate_config();
    config.credit.waste_permille = 0;
    let market = Market::with(config, agent_config()).await;
    let (buyer, session) = (&*market.buyer, FixedKeySigner::numbered(70));
    let asked = Message::QuoteRequest {
        cid: cid(),
        payer: buyer.address(),
    };
    let Message::Quote(quote) = tell(&market.gate, asked).await else {
        panic!("terms");
    };
    let accept = Accept {
        quote: quote.digest(&CHAIN),
        payer: buyer.address(),
        session_key: session.address(),
    };
    let accept = Signed::sign(accept, &CHAIN, buyer).await.unwrap();
    let agreement = agreement(&quote, &accept, &CHAIN);
    let answer = tell(&market.gate, Message::Accept { accept, quote }).await;
    assert_eq!(answer, Message::Accepted { agreement });
    let shown = Request {
        agreement,
        counter: 1,
        range: range(0, 2),
    };
    let shown = Signed::sign(shown, &CHAIN, &session).await.unwrap();
    let asked = request(Some(Message::Request(shown).encode()), range(0, 2));
    let admission = market.gate.admit(&asked).await.unwrap();
    assert_eq!(admission, Admission::Granted);
    market.gate.served(&asked, asked.range).await;
    // Looking begins with the first block after the agreement at the latest.
    market.ledger.mine();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let bill = |sequence, mib| {
        let id = BillId::derive(agreement, sequence);
        let ranges = RangeSet::from(range(0, mib));
        let bill = Bill::new(id, cid(), ranges, price(), Protocol::Http).unwrap();
        bill.owed_to(None, Some(market.seeder.address()))
    };
    let mut put = Put::paying(&bill(0, 2), buyer.address());
    put.value -= U256::from(1);
    let paid = put.value;
    let transaction = market.ledger.send_and_mine(put);
    for (amount, reason) in [
        (paid, "too small for the bytes"),
        (wei(2), "the amount is too small"),
        (U256::ZERO, "too small for the bytes"),
    ] {
        let notice = Notice {
            agreement,
            sequence: 0,
            bytes: 2 * MIB,
            amount,
            transaction,
        };
        let notice = Signed::sign(notice, &CHAIN, &session).await.unwrap();
        let said = refusal(tell(&market.gate, Message::Notice(notice)).await);
        assert!(said.contains(reason), "{said}");
    }
    // Behind it a payment that is right, of which nobody gives notice: the seeder has looked at
    // both when it counts.
    let right = Put::paying(&bill(1, 1), buyer.address());
    market.ledger.send_and_mine(right);
    let mut waited = 0;
    while market.gate.exposure(buyer.address()) == wei(2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += 1;
        assert!(waited < 500, "not found");
    }
    assert_eq!(market.gate.exposure(buyer.address()), wei(1));
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
        tokio::time::sleep(Duration::from_millis(100)).await;
        let transaction = market
            .ledger
            .send_and_mine(put(&bill, market.buyer.address()));
        let mut waited = 0;
        while !market.gate.exposure(market.buyer.address()).is_zero() {
            tokio::time::sleep(Duration::from_millis(20)).await;
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
async fn a_payment_made_while_the_seeder_was_away_is_found() {
    let market = Market::new().await;
    let bill = owing(&market).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    market.gate.shutdown().await.unwrap();
    market.ledger.send_and_mine(honest(&market, &bill));
    let gate = start_gate(
        &market.gate_journal,
        market.seeder.clone(),
        market.ledger.clone(),
        market.time.clone(),
        gate_config(),
    )
    .await;
    let mut waited = 0;
    while !gate.exposure(market.buyer.address()).is_zero() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += 1;
        assert!(waited < 250, "not found");
    }
    gate.shutdown().await.unwrap();
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
