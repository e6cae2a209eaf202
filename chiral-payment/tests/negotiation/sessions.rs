//! Agreements from the first request to the receipt, and what stolen words are worth.

use std::collections::HashSet;

use chiral_core::conformance::payment_gate;
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{Admission, ByteRange, PaymentAgent, PaymentGate, Price, WalletSigner};
use chiral_payment::messages::{Ack, Message, Request, Signed};
use chiral_payment::{Journal, JournalError};
use futures_util::future::join_all;

use super::support::*;

#[tokio::test]
async fn what_is_verified_is_paid_to_the_wei() {
    let market = Market::new().await;
    let purchase = market.purchase();
    // 5 bytes more than 3 MiB: the price is rounded up once.
    for part in [
        range(0, 1),
        range(1, 3),
        ByteRange::new(3 * MIB, 3 * MIB + 5),
    ] {
        market.fetch(&purchase, part).await;
    }
    let owed = price().cost(3 * MIB + 5).unwrap();
    assert!(market.gate.exposure(market.buyer.address()) >= owed);
    let bills = market.settle().await;
    assert_eq!(bills.len(), 1, "one settlement for one file and seeder");
    assert_eq!(bills[0].amount, owed);
    assert_eq!(bills[0].payee, Some(market.seeder.address()));
    assert_eq!(bills[0].bytes, 3 * MIB + 5);
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
    assert!(market.agent.bills(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_download_beyond_the_line_is_settled_on_the_way() {
    let market = Market::new().await;
    let purchase = market.purchase();
    for at in 0..20 {
        market.fetch(&purchase, range(at, at + 1)).await;
    }
    market.settle().await;
    assert!(market.till.bills() > 1, "the line is shorter than the file");
    let paid: Vec<_> = market.agent.bills(None).await.unwrap();
    assert!(paid.is_empty());
    assert!(market.gate.exposure(market.buyer.address()).is_zero());
}

#[tokio::test]
async fn pay_first_serves_nothing_before_it_is_paid() {
    let market = Market::pay_first().await;
    let purchase = market.purchase();
    let first = market.ask(&purchase, range(0, 1)).await.unwrap();
    assert_eq!(market.till.bills(), 1, "paid before it was served");
    first.deliver(&market.gate).await;
    market.agent.verified(&purchase, range(0, 1)).await;
    for at in 1..6 {
        market.fetch(&purchase, range(at, at + 1)).await;
    }
    assert_eq!(market.till.bills(), 3, "two MiB at a time");
    let left = market.agent.bills(None).await.unwrap();
    assert!(left.is_empty(), "nothing is billed again: {left:?}");
}

#[tokio::test]
async fn pay_first_without_delivery_costs_a_bounded_amount() {
    let market = Market::pay_first().await;
    let purchase = market.purchase();
    // Everything is paid and served, as the seeder says, and nothing can be verified.
    let mut served = 0;
    for at in 0..40 {
        match market.ask(&purchase, range(at, at + 1)).await {
            Ok(ask) => ask.deliver(&market.gate).await,
            Err(_) => break,
        }
        served += 1;
    }
    assert_eq!(served, 8, "the limit on what is paid and not delivered");
}

#[tokio::test]
async fn many_requests_at_once_make_one_agreement() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let asks = (0..16u64).map(|at| {
        let part = ByteRange::new(at * 1000, at * 1000 + 1000);
        let (market, purchase) = (&market, &purchase);
        async move { market.ask(purchase, part).await.unwrap() }
    });
    let agreements: HashSet<_> = join_all(asks)
        .await
        .into_iter()
        .map(
            |ask| match Message::decode(&ask.request.credential.unwrap()).unwrap() {
                Message::Request(request) => request.body.agreement,
                other => panic!("{other:?}"),
            },
        )
        .collect();
    assert_eq!(agreements.len(), 1);
}

#[tokio::test]
async fn free_files_need_nothing() {
    let market = Market::new().await;
    market.gate.set_price(cid(), Price::FREE);
    let admission = market.gate.admit(&request(None, range(0, 1))).await;
    assert_eq!(admission.unwrap(), Admission::Granted);
    assert_eq!(market.gate.tariff(cid()).wallet, None);
    payment_gate::free_gate(&market.gate).await;
}

#[tokio::test]
async fn both_sides_pass_the_suites() {
    let market = Market::new().await;
    payment_gate::any_gate(&market.gate).await;
    payment_gate::any_agent(&market.agent).await;
}

/// The point of a session key: what was overheard opens nothing.
#[tokio::test]
async fn a_stolen_credential_is_worth_nothing() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ask = market.ask(&purchase, range(0, 1)).await.unwrap();
    let stolen = ask.request.credential.clone();

    // Again for the same range: its counter was used.
    let again = market
        .gate
        .admit(&request(stolen.clone(), range(0, 1)))
        .await;
    assert!(matches!(again.unwrap(), Admission::Refused { .. }));
    // For another range, and for another file.
    let fresh = market
        .agent
        .credential(&purchase, range(2, 3))
        .await
        .unwrap();
    let other = market
        .gate
        .admit(&request(fresh.clone(), range(3, 4)))
        .await;
    assert!(matches!(other.unwrap(), Admission::Refused { .. }));
    let mut other = request(fresh.clone(), range(2, 3));
    other.cid = chiral_core::Cid::from_bytes([8; 32]);
    let other = market.gate.admit(&other).await.unwrap();
    assert!(matches!(other, Admission::Refused { .. }));
    // With a counter of the thief's, and so with a signature of the thief's.
    let Ok(Message::Request(signed)) = Message::decode(&stolen.unwrap()) else {
        panic!("a request");
    };
    let body = Request {
        counter: 500,
        ..signed.body
    };
    let forged = Signed {
        body,
        signature: signed.signature,
    };
    let forged = Message::Request(forged).encode();
    let forged = market.gate.admit(&request(Some(forged), range(0, 1))).await;
    assert!(matches!(forged.unwrap(), Admission::Refused { .. }));
    // None of it cost the buyer its own credential.
    let own = market.gate.admit(&request(fresh, range(2, 3))).await;
    assert_eq!(own.unwrap(), Admission::Granted);
}

#[tokio::test]
async fn counters_are_used_once_over_restarts_of_both() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ask = market.ask(&purchase, range(0, 1)).await.unwrap();
    ask.deliver(&market.gate).await;
    market.gate.shutdown().await.unwrap();
    market.agent.shutdown().await.unwrap();
    let Market {
        ledger,
        buyer,
        seeder,
        till,
        time,
        agent_journal,
        gate_journal,
        ..
    } = market;
    let gate = start_gate(&gate_journal, seeder, ledger, time.clone(), gate_config()).await;
    let agent = start_agent(&agent_journal, buyer, till, time, agent_config()).await;
    let replayed = gate.admit(&ask.request).await.unwrap();
    assert!(
        matches!(replayed, Admission::Refused { .. }),
        "{replayed:?}"
    );
    // The session goes on without another agreement.
    let credential = agent.credential(&purchase, range(1, 2)).await.unwrap();
    let admitted = gate.admit(&request(credential, range(1, 2))).await.unwrap();
    assert_eq!(admitted, Admission::Granted);
}

/// An agreement, and the key of its session as the seeder knows it.
async fn acknowledged(market: &Market, purchase: &chiral_core::Purchase) -> Signed<Ack> {
    for at in 0..2 {
        market.fetch(purchase, range(at, at + 1)).await;
    }
    let ack = market.agent.due(purchase).await.unwrap().unwrap();
    match Message::decode(&ack).unwrap() {
        Message::Ack(ack) => ack,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn acknowledgements_are_repeated_until_they_are_noted() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ack = acknowledged(&market, &purchase).await;
    assert_eq!((ack.body.sequence, ack.body.total), (1, 2 * MIB));
    let again = market.agent.due(&purchase).await.unwrap().unwrap();
    assert_eq!(again, Message::Ack(ack.clone()).encode(), "the same words");
    for _ in 0..2 {
        let answer = market.gate.message(again.clone()).await.unwrap();
        assert_eq!(market.agent.respond(&purchase, answer).await.unwrap(), None);
    }
    assert_eq!(market.agent.due(&purchase).await.unwrap(), None);
}

#[tokio::test]
async fn acknowledgements_that_do_not_add_up_are_refused() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ack = acknowledged(&market, &purchase).await;
    let thief = FixedKeySigner::numbered(66);
    // Not signed by the session's key, also not where the payer itself signs.
    for signer in [&thief, &*market.buyer] {
        let forged = Signed::sign(ack.body.clone(), &CHAIN, signer)
            .await
            .unwrap();
        let answer = tell(&market.gate, Message::Ack(forged)).await;
        assert!(refusal(answer).contains("session"));
    }
    let unknown = Ack {
        agreement: alloy_primitives::B256::ZERO,
        ..ack.body.clone()
    };
    let unknown = Signed::sign(unknown, &CHAIN, &thief).await.unwrap();
    let answer = tell(&market.gate, Message::Ack(unknown)).await;
    assert!(matches!(answer, Message::Ended { .. }));
    let noted = tell(&market.gate, Message::Ack(ack)).await;
    assert!(matches!(noted, Message::Acked { sequence: 1, .. }));
}

#[tokio::test]
async fn what_was_not_served_cannot_be_acknowledged() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let _ = market.ask(&purchase, range(0, 1)).await.unwrap();
    // The buyer counts bytes that this seeder was never asked for.
    market.agent.verified(&purchase, range(0, 3)).await;
    let ack = market.agent.due(&purchase).await.unwrap().unwrap();
    let answer = Message::decode(&market.gate.message(ack).await.unwrap()).unwrap();
    assert!(refusal(answer).contains("not served"));
}

#[tokio::test]
async fn a_price_that_changes_does_not_touch_what_was_agreed() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 1)).await;
    let dearer = Price::from_wei_per_mib(price().wei_per_mib() * alloy_primitives::U256::from(9));
    market.gate.set_price(cid(), dearer);
    market.fetch(&purchase, range(1, 2)).await;
    let bills = market.settle().await;
    assert_eq!(bills[0].amount, wei(2), "at the price that was agreed on");
    // A buyer who comes now is asked for the new price, which is not what it knows of.
    market.pass(3 * 3600);
    let mut stale = market.purchase();
    stale.offer.price = price();
    let refused = market.ask(&stale, range(2, 3)).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn an_agreement_ends_and_another_is_made() {
    let market = Market::new().await;
    market.fetch(&market.purchase(), range(0, 1)).await;
    market.pass(3 * 3600);
    market.fetch(&market.purchase(), range(1, 2)).await;
    let bills = market.settle().await;
    assert_eq!(bills.len(), 2, "one for each agreement");
    let bytes: u64 = bills.iter().map(|bill| bill.bytes).sum();
    assert_eq!(bytes, 2 * MIB);
}

#[tokio::test]
async fn a_seeder_that_lost_its_books_makes_a_new_agreement() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 1)).await;
    market.gate.shutdown().await.unwrap();
    let gate = start_gate(
        &Journal::in_memory().unwrap(),
        market.seeder.clone(),
        market.ledger.clone(),
        market.time.clone(),
        gate_config(),
    )
    .await;
    ask(&market.agent, &gate, &purchase, range(1, 2))
        .await
        .unwrap();
}

#[tokio::test]
async fn no_byte_is_billed_twice_until_the_file_is_forgotten() {
    let market = Market::new().await;
    let purchase = market.purchase();
    market.fetch(&purchase, range(0, 2)).await;
    market.settle().await;
    // Again from the same seeder, and from another place of the same wallet.
    market.agent.verified(&purchase, range(0, 2)).await;
    let mut other = purchase.clone();
    other.offer.endpoint = chiral_core::Endpoint::new("http://192.0.2.2/").unwrap();
    market.fetch(&other, range(1, 3)).await;
    let bills = market.settle().await;
    assert_eq!(bills.len(), 1);
    assert_eq!(bills[0].ranges, range(2, 3).into());
    market.agent.forget(cid()).await.unwrap();
    market.fetch(&purchase, range(0, 1)).await;
    let bills = market.settle().await;
    assert_eq!(bills[0].ranges, range(0, 1).into(), "bought again");
}

#[tokio::test]
async fn both_sides_can_be_shut_down_twice() {
    let market = Market::new().await;
    for _ in 0..2 {
        market.gate.shutdown().await.unwrap();
        market.agent.shutdown().await.unwrap();
    }
    let asked = market.gate.admit(&request(None, range(0, 1))).await;
    assert!(asked.is_err(), "{asked:?}");
    market.gate_journal.close().await;
    let closed: Result<(), JournalError> = market.gate.shutdown().await;
    closed.unwrap();
    assert_ne!(market.buyer.address(), market.seeder.address());
}
