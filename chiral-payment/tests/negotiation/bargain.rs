//! Other prices than the announced one: counter-offers, discounts, what is free.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{
    Bill, ByteRange, Cid, GateError, PaymentAgent, PaymentGate, PaymentSettler, Price, WalletSigner,
};
use chiral_payment::gate::{FileTerms, FreeAllowance, FreeShare};
use chiral_payment::messages::{
    Concessions, CounterOffer, Discount, Message, Policy, Quote, Signed,
};

use super::support::*;

fn at(wei: u64) -> Price {
    Price::from_wei_per_mib(U256::from(wei))
}

/// A seeder that asks a million and goes down to `floor`; a buyer that pays up to `most`.
async fn bargainers(floor: Option<Price>, most: Option<Price>, bid: Option<Price>) -> Market {
    let mut gate = gate_config();
    gate.floor = floor;
    let mut agent = agent_config();
    (agent.max_price, agent.bid) = (most, bid);
    Market::with(gate, agent).await
}

#[tokio::test]
async fn a_counter_offer_above_the_floor_becomes_the_price() {
    let market = bargainers(Some(at(600_000)), Some(at(700_000)), None).await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 3)).await;
    let bills = market.settle().await;
    assert_eq!(bills[0].price, at(700_000));
    assert_eq!(bills[0].amount, U256::from(2_100_000));
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
}

#[tokio::test]
async fn a_counter_offer_at_the_floor_to_the_wei() {
    for (floor, agreed) in [(700_000, true), (700_001, false)] {
        let market = bargainers(Some(at(floor)), Some(at(700_000)), None).await;
        let answer = market.ask(&market.purchase(), range(0, 1)).await;
        match agreed {
            true => assert!(answer.is_ok(), "{answer:?}"),
            false => assert!(matches!(answer, Err(GateError::Price)), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_bid_that_is_not_taken_leaves_the_announced_price() {
    let market = bargainers(None, Some(price()), Some(at(500_000))).await;
    market.fetch(&market.purchase(), range(0, 1)).await;
    assert_eq!(market.settle().await[0].amount, wei(1));
    // And one that is taken is the price, whatever the most is.
    let market = bargainers(Some(at(1)), None, Some(at(500_000))).await;
    market.fetch(&market.purchase(), range(0, 1)).await;
    assert_eq!(market.settle().await[0].amount, U256::from(500_000));
}

#[tokio::test]
async fn a_file_has_a_floor_of_its_own() {
    let market = bargainers(None, Some(at(10)), None).await;
    let terms = FileTerms::new(price()).with_floor(at(10));
    market.gate.set_terms(cid(), terms);
    market.fetch(&market.purchase(), range(0, 1)).await;
    assert_eq!(market.settle().await[0].amount, U256::from(10));
}

#[tokio::test]
async fn many_conversations_bargain_at_once() {
    let market = bargainers(Some(at(600_000)), Some(at(700_000)), None).await;
    let purchase = market.purchase();
    let asks = (0..8u64).map(|at| {
        let part = ByteRange::new(at * 1000, at * 1000 + 1000);
        market.ask(&purchase, part)
    });
    for ask in futures_util::future::join_all(asks).await {
        ask.unwrap();
    }
}

/// Terms for the buyer, and its signed offer of another price for them.
async fn offered(market: &Market, wanted: Price) -> (Signed<CounterOffer>, Signed<Quote>) {
    let asked = Message::QuoteRequest {
        cid: cid(),
        payer: market.buyer.address(),
    };
    let Message::Quote(quote) = tell(&market.gate, asked).await else {
        panic!("terms");
    };
    let offer = CounterOffer {
        quote: quote.digest(&CHAIN),
        payer: market.buyer.address(),
        price: wanted,
    };
    let offer = Signed::sign(offer, &CHAIN, &*market.buyer).await.unwrap();
    (offer, quote)
}

#[tokio::test]
async fn there_is_one_round() {
    let market = bargainers(Some(at(1)), None, None).await;
    let (offer, quote) = offered(&market, at(500_000)).await;
    let message = Message::CounterOffer { offer, quote };
    let Message::Quote(answer) = tell(&market.gate, message).await else {
        panic!("terms");
    };
    assert_eq!(answer.body.price, at(500_000));
    let again = CounterOffer {
        quote: answer.digest(&CHAIN),
        payer: market.buyer.address(),
        price: at(400_000),
    };
    let offer = Signed::sign(again, &CHAIN, &*market.buyer).await.unwrap();
    let quote = answer;
    let refused = tell(&market.gate, Message::CounterOffer { offer, quote }).await;
    assert!(refusal(refused).contains("enough"));
}

#[tokio::test]
async fn offers_that_are_not_the_buyers_for_this_quote_are_refused() {
    let market = bargainers(Some(at(1)), None, None).await;
    let thief = FixedKeySigner::numbered(66);
    let (offer, quote) = offered(&market, at(500_000)).await;
    let (_, another) = offered(&market, at(500_000)).await;
    let by_thief = Signed::sign(offer.body.clone(), &CHAIN, &thief)
        .await
        .unwrap();
    let foreign = Signed::sign(quote.body.clone(), &CHAIN, &thief)
        .await
        .unwrap();
    let (free, _) = offered(&market, Price::FREE).await;
    let (dearer, dear_quote) = offered(&market, at(1_000_001)).await;
    for (what, offer, quote) in [
        ("of a thief", by_thief, quote.clone()),
        ("for another quote", offer.clone(), another),
        ("for a quote of somebody else", offer.clone(), foreign),
        ("of nothing", free, quote.clone()),
        ("of more", dearer, dear_quote),
    ] {
        let answer = tell(&market.gate, Message::CounterOffer { offer, quote }).await;
        assert!(!refusal(answer).is_empty(), "{what}");
    }
    market.pass(3 * 3600);
    let answer = tell(&market.gate, Message::CounterOffer { offer, quote }).await;
    assert!(refusal(answer).contains("expired"));
}

/// A price other than the announced one is taken only as the answer to the buyer's own offer.
#[tokio::test]
async fn what_answers_no_offer_of_the_buyers_is_refused() {
    let market = bargainers(Some(at(1)), Some(price()), Some(at(500_000))).await;
    let (_, quote) = offered(&market, at(500_000)).await;
    let purchase = market.purchase();
    for answers in [B256::ZERO, B256::repeat_byte(5)] {
        let mut terms = quote.body.clone();
        (terms.price, terms.answers) = (at(500_000), answers);
        let terms = Signed::sign(terms, &CHAIN, &*market.seeder).await.unwrap();
        let said = market
            .agent
            .respond(&purchase, Message::Quote(terms).encode())
            .await;
        assert!(matches!(said, Err(GateError::Terms { .. })), "{said:?}");
    }
}

fn discounts() -> Concessions {
    let discount = |mib: u64, wei: u64| Discount {
        from_bytes: mib * MIB,
        price: at(wei),
    };
    Concessions::new(0, vec![discount(2, 500_000), discount(4, 100_000)]).unwrap()
}

#[tokio::test]
async fn discounts_are_in_the_bill_to_the_wei() {
    let mut gate = gate_config();
    gate.discounts = discounts();
    let market = Market::with(gate, agent_config()).await;
    let purchase = market.purchase();
    for at in 0..5 {
        market.fetch(&purchase, range(at, at + 1)).await;
    }
    market
        .fetch(&purchase, ByteRange::new(5 * MIB, 5 * MIB + 3))
        .await;
    market.settle().await;
    let paid: U256 = market.till.amounts().into_iter().sum();
    // Rounded up once for each of the bills, of which the last alone is for a part of a wei.
    assert_eq!(paid, U256::from(2_000_000 + 1_000_000 + 100_000 + 1));
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
}

/// What is covered follows from the money, not from the order in which it comes.
#[tokio::test]
async fn bills_with_discounts_may_overtake_each_other() {
    let mut gate = gate_config();
    gate.discounts = discounts();
    gate.credit.initial = wei(100);
    gate.credit.strangers = wei(100);
    let market = Market::with(gate, agent_config()).await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 3)).await;
    let first = market.agent.bills(None).await.unwrap();
    market.fetch(&purchase, range(3, 6)).await;
    let all = market.agent.bills(None).await.unwrap();
    let second: Vec<Bill> = all
        .into_iter()
        .filter(|bill| bill.id != first[0].id)
        .collect();
    assert_eq!(second[0].amount, U256::from(500_000 + 200_000));
    // The seeder knows that all of it is owed.
    let ack = market.agent.due(&purchase).await.unwrap().unwrap();
    market.gate.message(ack).await.unwrap();
    // 700,000 wei are for 0.7 MiB at the beginning, down to the byte.
    for (bill, left) in [(&second[0], 2_500_001), (&first[0], 0)] {
        let statuses = market.till.settle(vec![bill.clone()]).await.unwrap();
        let notice = market.agent.settled(bill.id, &statuses[0]).await.unwrap();
        let answer = market.gate.message(notice.unwrap()).await.unwrap();
        assert!(market.agent.receipt(bill.id, answer).await.unwrap());
        let owed = market.gate.exposure(market.buyer.address());
        assert_eq!(owed, U256::from(left), "after {}", bill.amount);
    }
}

fn giving(share: FreeShare) -> FreeAllowance {
    FreeAllowance {
        share,
        per_day: 20 * MIB,
    }
}

async fn giver(share: FreeShare, policy: Policy) -> Market {
    let mut gate = gate_config();
    gate.allowance = giving(share);
    gate.policy = policy;
    gate.prepay_bytes = MIB;
    Market::with(gate, agent_config()).await
}

#[tokio::test]
async fn the_first_bytes_of_a_wallet_are_free_once() {
    let market = giver(FreeShare::PerWallet(2 * MIB), Policy::PayAfter).await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 1)).await;
    assert!(market.agent.bills(None).await.unwrap().is_empty(), "a gift");
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
    market.fetch(&purchase, range(1, 3)).await;
    let bills = market.settle().await;
    assert_eq!((bills[0].bytes, bills[0].amount), (2 * MIB, wei(1)));
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
    // Another file, after a restart: the share is used up.
    market.gate.shutdown().await.unwrap();
    let mut config = gate_config();
    config.allowance = giving(FreeShare::PerWallet(2 * MIB));
    let gate = start_gate(
        &market.gate_journal,
        market.seeder.clone(),
        market.ledger.clone(),
        market.time.clone(),
        config,
    )
    .await;
    let mut other = purchase.clone();
    other.cid = Cid::from_bytes([8; 32]);
    let ask = ask(&market.agent, &gate, &other, range(0, 1))
        .await
        .unwrap();
    gate.served(&ask.request, range(0, 1)).await;
    assert_eq!(gate.exposure(market.buyer.address()), wei(1));
}

#[tokio::test]
async fn the_first_bytes_of_each_file_are_free() {
    let market = giver(FreeShare::PerFile(MIB), Policy::PayAfter).await;
    for file in [7, 8] {
        let mut purchase = market.purchase();
        purchase.cid = Cid::from_bytes([file; 32]);
        market.fetch(&purchase, range(0, 2)).await;
    }
    let bills = market.settle().await;
    assert_eq!(bills.len(), 2);
    assert!(bills.iter().all(|bill| bill.amount == wei(1)));
}

#[tokio::test]
async fn what_was_not_taken_of_a_gift_can_be_had_later() {
    let market = giver(FreeShare::PerWallet(4 * MIB), Policy::PayAfter).await;
    market.fetch(&market.purchase(), range(0, 1)).await;
    // The agreement is over, and its account swept.
    market.pass(4 * 3600);
    until_swept(&market).await;
    let mut other = market.purchase();
    other.cid = Cid::from_bytes([8; 32]);
    market.fetch(&other, range(0, 4)).await;
    assert_eq!(
        market.settle().await[0].amount,
        wei(1),
        "three of four left"
    );
}

async fn until_swept(market: &Market) {
    let asked = Message::QuoteRequest {
        cid: cid(),
        payer: market.buyer.address(),
    };
    for _ in 0..500 {
        let Message::Quote(quote) = tell(&market.gate, asked.clone()).await else {
            panic!("terms");
        };
        if quote.body.concessions.free_bytes() == 3 * MIB {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never given back");
}

#[tokio::test]
async fn paid_first_what_is_free_comes_before_any_payment() {
    let market = giver(FreeShare::PerWallet(2 * MIB), Policy::PayFirst).await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 2)).await;
    assert_eq!(market.till.bills(), 0, "free");
    market.fetch(&purchase, range(2, 4)).await;
    assert_eq!(market.till.amounts(), [wei(2)]);
}

/// Wallets cost nothing to make, so neither do their shares.
#[tokio::test]
async fn a_thousand_wallets_are_given_no_more_than_a_day_has() {
    let market = giver(FreeShare::PerWallet(2 * MIB), Policy::PayAfter).await;
    let mut got = 0;
    for wallet in 100..1100 {
        let buyer = Arc::new(FixedKeySigner::numbered(wallet));
        let asked = Message::QuoteRequest {
            cid: cid(),
            payer: buyer.address(),
        };
        let Message::Quote(quote) = tell(&market.gate, asked).await else {
            panic!("terms");
        };
        let free = quote.body.concessions.free_bytes();
        got += free;
        if free == 0 {
            continue;
        }
        let accept = chiral_payment::messages::Accept {
            quote: quote.digest(&CHAIN),
            payer: buyer.address(),
            session_key: buyer.address(),
        };
        let accept = Signed::sign(accept, &CHAIN, &*buyer).await.unwrap();
        let answer = tell(&market.gate, Message::Accept { accept, quote }).await;
        assert!(matches!(answer, Message::Accepted { .. }), "{answer:?}");
    }
    assert_eq!(got, 20 * MIB);
}

/// Two quotes before the first is accepted: the gift is given once, and the other is asked for
/// again.
#[tokio::test]
async fn a_gift_is_not_given_twice_by_two_quotes() {
    let market = giver(FreeShare::PerWallet(2 * MIB), Policy::PayAfter).await;
    let (_, first) = offered(&market, at(1)).await;
    let (_, second) = offered(&market, at(1)).await;
    let mut answers = Vec::new();
    for quote in [first, second] {
        let accept = chiral_payment::messages::Accept {
            quote: quote.digest(&CHAIN),
            payer: market.buyer.address(),
            session_key: market.buyer.address(),
        };
        let accept = Signed::sign(accept, &CHAIN, &*market.buyer).await.unwrap();
        answers.push(tell(&market.gate, Message::Accept { accept, quote }).await);
    }
    assert!(matches!(answers[0], Message::Accepted { .. }));
    assert!(matches!(answers[1], Message::Ended { .. }));
}
