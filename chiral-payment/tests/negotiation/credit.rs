//! What a seeder may lose.

use std::sync::Arc;

use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{Admission, PaymentAgent, PaymentGate, WalletSigner};
use chiral_payment::Journal;
use chiral_payment::messages::{Message, Policy};
use futures_util::{StreamExt, stream};

use super::ledger::Till;
use super::support::*;

/// A buyer that takes and never pays. Answers how many MiB it got.
async fn take(market: &Market, wallet: u64, most: u64) -> u64 {
    let buyer = Arc::new(FixedKeySigner::numbered(wallet));
    let till = Till::new(market.ledger.clone(), buyer.address());
    let journal = Journal::in_memory().unwrap();
    let time = market.time.clone();
    let agent = start_agent(&journal, buyer, till, time, agent_config()).await;
    let purchase = market.purchase();
    let mut got = 0;
    for at in 0..most {
        let mut admitted = None;
        // Once for the terms, once with the agreement.
        for _ in 0..2 {
            let credential = agent
                .credential(&purchase, range(at, at + 1))
                .await
                .unwrap();
            let request = request(credential, range(at, at + 1));
            match market.gate.admit(&request).await.unwrap() {
                Admission::Granted => {
                    admitted = Some(request);
                    break;
                }
                Admission::PaymentRequired(terms) => {
                    if !matches!(Message::decode(&terms), Ok(Message::Quote(_))) {
                        break;
                    }
                    let carry = |message| market.gate.message(message);
                    let agreed =
                        chiral_core::payment_gate::agree(&agent, &purchase, terms, carry).await;
                    agreed.unwrap();
                }
                _ => break,
            }
        }
        let Some(request) = admitted else { break };
        market.gate.served(&request, request.range).await;
        got += 1;
    }
    agent.shutdown().await.unwrap();
    got
}

#[tokio::test]
async fn nothing_is_served_without_an_agreement() {
    let market = Market::new().await;
    for credential in [None, Some(bytes::Bytes::from_static(b"please"))] {
        let admission = market.gate.admit(&request(credential, range(0, 1))).await;
        let Message::Quote(quote) = said(admission.unwrap()) else {
            panic!("terms");
        };
        assert!(quote.body.payer.is_zero());
        assert!(quote.is_by(market.seeder.address(), &CHAIN));
    }
}

#[tokio::test]
async fn a_wallet_gets_no_more_than_its_line_without_paying() {
    let market = Market::new().await;
    assert_eq!(take(&market, 50, 100).await, 4);
    assert_eq!(market.gate.strangers_today(), wei(4));
}

/// Wallets cost nothing to make. The line of each is 4, or a batch if it is to pay as it goes; all
/// of them together get 10, one after the other or a hundred at a time.
#[tokio::test]
async fn a_thousand_fresh_wallets_cost_at_most_the_strangers_budget() {
    for (policy, at_once, line) in [
        (Policy::PayAfter, 1, 4),
        (Policy::PayAfter, 100, 4),
        (Policy::Incremental, 100, 1),
    ] {
        let mut config = gate_config();
        config.policy = policy;
        let market = Market::with(config, agent_config()).await;
        let takes = (100..1100).map(|wallet| take(&market, wallet, 5));
        let got: Vec<u64> = stream::iter(takes)
            .buffer_unordered(at_once)
            .collect()
            .await;
        assert_eq!(got.iter().sum::<u64>(), 10, "{policy:?}, {at_once} at once");
        assert_eq!(market.gate.strangers_today(), wei(10));
        market.pass(86_400);
        assert_eq!(
            take(&market, 99, 5).await,
            line,
            "and on the next day, again"
        );
    }
}

#[tokio::test]
async fn requests_in_flight_count() {
    let market = Market::new().await;
    let purchase = market.purchase();
    for at in 0..4 {
        market.ask(&purchase, range(at, at + 1)).await.unwrap();
    }
    let credential = market
        .agent
        .credential(&purchase, range(4, 5))
        .await
        .unwrap();
    let fifth = market.gate.admit(&request(credential, range(4, 5))).await;
    let answer = said(fifth.unwrap());
    assert!(matches!(answer, Message::NotYet { .. }), "{answer:?}");
}

#[tokio::test]
async fn what_was_not_sent_of_a_request_is_not_owed() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ask = market.ask(&purchase, range(0, 4)).await.unwrap();
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(4));
    market.gate.served(&ask.request, range(0, 1)).await;
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(1));
    assert_eq!(market.gate.strangers_today(), wei(1));
    // Twice said is not twice owed.
    market.gate.served(&ask.request, range(0, 1)).await;
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(1));
}

#[tokio::test]
async fn a_request_over_the_line_by_itself_is_refused() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.ask(&purchase, range(0, 1)).await.unwrap();
    let credential = market
        .agent
        .credential(&purchase, range(1, 6))
        .await
        .unwrap();
    let admission = market.gate.admit(&request(credential, range(1, 6))).await;
    assert!(matches!(admission.unwrap(), Admission::Refused { .. }));
}

#[tokio::test]
async fn a_line_grows_with_what_was_paid() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 4)).await;
    market.settle().await;
    let ask = market.ask(&purchase, range(4, 12)).await;
    ask.unwrap().deliver(&market.gate).await;
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(8));
    assert_eq!(market.gate.strangers_today(), wei(4), "the rest is backed");
}

#[tokio::test]
async fn who_is_overdue_gets_nothing_before_it_pays() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 2)).await;
    let ack = market.agent.due(&purchase).await.unwrap().unwrap();
    market.gate.message(ack).await.unwrap();
    market.pass(3601);
    let credential = market
        .agent
        .credential(&purchase, range(2, 3))
        .await
        .unwrap();
    let admission = market.gate.admit(&request(credential, range(2, 3))).await;
    let answer = said(admission.unwrap());
    assert!(matches!(answer, Message::Due { .. }), "{answer:?}");
    market.settle().await;
    market.ask(&purchase, range(2, 3)).await.unwrap();
}

#[tokio::test]
async fn what_is_served_and_never_acknowledged_ends_the_service() {
    let mut config = gate_config();
    config.credit.initial = wei(1000);
    config.credit.strangers = wei(1000);
    config.credit.unacknowledged = 2 * MIB;
    let market = Market::with(config, agent_config()).await;
    let purchase = market.purchase();
    let mut last = None;
    for at in 0..6 {
        match market.ask(&purchase, range(at, at + 1)).await {
            Ok(ask) => ask.deliver(&market.gate).await,
            Err(error) => last = Some((at, error)),
        }
    }
    let (at, error) = last.expect("it goes on for ever");
    assert!(at >= 3, "{at}: {error}");
    assert!(
        market.agent.bills(None).await.unwrap().is_empty(),
        "never billed"
    );
}

#[tokio::test]
async fn a_little_waste_is_written_off_when_the_rest_is_paid() {
    let mut config = gate_config();
    config.credit.initial = wei(100);
    config.credit.strangers = wei(1000);
    let market = Market::with(config, agent_config()).await;
    let purchase = market.purchase();
    // A hundredth of it arrives twice.
    market.fetch(&purchase, range(0, 50)).await;
    let again = chiral_core::ByteRange::new(0, MIB / 2);
    let ask = market.ask(&purchase, again).await.unwrap();
    ask.deliver(&market.gate).await;
    let bills = market.settle().await;
    assert_eq!(bills[0].amount, wei(50), "what was verified, once");
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
}

#[tokio::test]
async fn more_waste_than_is_tolerated_stays_on_the_account() {
    let mut config = gate_config();
    config.credit.initial = wei(100);
    config.credit.strangers = wei(1000);
    let market = Market::with(config, agent_config()).await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 10)).await;
    let ask = market.ask(&purchase, range(0, 10)).await.unwrap();
    ask.deliver(&market.gate).await;
    market.settle().await;
    assert_eq!(market.gate.exposure(market.buyer.address()), wei(9));
}

#[tokio::test]
async fn what_is_owed_survives_a_restart() {
    let market = Market::new().await;
    assert_eq!(take(&market, 50, 100).await, 4);
    market.gate.shutdown().await.unwrap();
    let gate = start_gate(
        &market.gate_journal,
        market.seeder.clone(),
        market.ledger.clone(),
        market.time.clone(),
        gate_config(),
    )
    .await;
    let debtor = FixedKeySigner::numbered(50).address();
    assert_eq!(gate.exposure(debtor), wei(4));
    assert_eq!(gate.strangers_today(), wei(4));
}

#[tokio::test]
async fn the_books_of_a_wallet_say_what_was_served_acknowledged_and_paid() {
    let market = Market::new().await;
    let (purchase, wallet) = (market.purchase(), market.buyer.address());
    assert!(market.gate.account(wallet).agreements.is_empty());
    market.fetch(&purchase, range(0, 3)).await;
    let ack = market.agent.due(&purchase).await.unwrap().unwrap();
    market.gate.message(ack).await.unwrap();
    let account = market.gate.account(wallet);
    assert_eq!((account.exposure, account.paid), (wei(3), wei(0)));
    assert_eq!(account.line, wei(4));
    let bytes = |account: &chiral_payment::gate::WalletAccount| {
        let agreement = &account.agreements[0];
        (agreement.served, agreement.acknowledged, agreement.paid)
    };
    assert_eq!(bytes(&account), (3 * MIB, 3 * MIB, 0));
    market.pass(3601);
    let late = market.gate.account(wallet);
    assert!(late.overdue && late.line.is_zero());
    let bills = market.settle().await;
    let account = market.gate.account(wallet);
    assert_eq!((account.exposure, account.paid), (wei(0), wei(3)));
    assert_eq!(account.line, wei(7), "it has grown by what was paid");
    assert_eq!(bytes(&account), (3 * MIB, 3 * MIB, 3 * MIB));
    assert_eq!(account.agreements[0].bills, [bills[0].id]);
}
