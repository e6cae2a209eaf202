//! What a buyer does not agree to: one change of the seeder's terms in each test case.

use chiral_core::conformance::wallet::{FixedKeySigner, high_s_twin};
use chiral_core::{
    Admission, Cid, GateError, PaymentAgent, PaymentGate, Price, Purchase, WalletSigner,
};
use chiral_payment::messages::{Message, Policy, Quote, Signed};

use super::support::*;

/// The seeder's honest terms for the buyer.
async fn honest(market: &Market) -> Quote {
    let asked = Message::QuoteRequest {
        cid: cid(),
        payer: market.buyer.address(),
    };
    let shown = Some(asked.encode());
    let admission = market.gate.admit(&request(shown, range(0, 1))).await;
    match said(admission.unwrap()) {
        Message::Quote(quote) => quote.body,
        other => panic!("{other:?}"),
    }
}

/// What the buyer says to terms.
async fn say(
    market: &Market,
    purchase: &Purchase,
    quote: Quote,
    signer: &FixedKeySigner,
) -> Result<Option<Message>, GateError> {
    let quote = Signed::sign(quote, &CHAIN, signer).await.unwrap();
    let answer = market
        .agent
        .respond(purchase, Message::Quote(quote).encode())
        .await?;
    Ok(answer.map(|bytes| Message::decode(&bytes).unwrap()))
}

fn is_refused(result: &Result<Option<Message>, GateError>) -> bool {
    matches!(result, Err(GateError::Terms { .. }))
}

#[tokio::test]
async fn honest_terms_are_accepted() {
    let market = Market::new().await;
    let (purchase, quote) = (market.purchase(), honest(&market).await);
    let answer = say(&market, &purchase, quote, &market.seeder).await;
    assert!(
        matches!(answer, Ok(Some(Message::Accept { .. }))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn terms_that_differ_from_the_announcement_are_refused() {
    type Change = fn(&mut Quote);
    let changes: &[(&str, Change)] = &[
        ("a wei more", |q| {
            let wei = q.price.wei_per_mib() + alloy_primitives::U256::from(1);
            q.price = Price::from_wei_per_mib(wei);
        }),
        ("a wei less", |q| {
            let wei = q.price.wei_per_mib() - alloy_primitives::U256::from(1);
            q.price = Price::from_wei_per_mib(wei);
        }),
        ("another file", |q| q.cid = Cid::from_bytes([8; 32])),
        ("another chain id", |q| q.chain.chain_id = 1),
        ("another first block", |q| q.chain.genesis.0[0] ^= 1),
        ("another contract", |q| q.chain.batch_pay = q.payee),
        ("for another buyer", |q| q.payer = q.payee),
        ("expired", |q| q.valid_until = 1_000_000_000),
        ("earlier than announced", |q| q.valid_until -= 3601),
        ("for ever", |q| q.valid_until = u64::MAX),
    ];
    let market = Market::new().await;
    let purchase = market.purchase();
    for (what, change) in changes {
        let mut quote = honest(&market).await;
        change(&mut quote);
        let answer = say(&market, &purchase, quote, &market.seeder).await;
        assert!(is_refused(&answer), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn another_wallet_is_refused_also_where_it_signs_itself() {
    let market = Market::new().await;
    let thief = FixedKeySigner::numbered(66);
    let mut quote = honest(&market).await;
    quote.payee = thief.address();
    for signer in [&thief, &*market.seeder] {
        let answer = say(&market, &market.purchase(), quote.clone(), signer).await;
        assert!(is_refused(&answer), "{answer:?}");
    }
}

#[tokio::test]
async fn terms_signed_by_somebody_else_or_nobody_are_refused() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let quote = honest(&market).await;
    let thief = FixedKeySigner::numbered(66);
    let answer = say(&market, &purchase, quote.clone(), &thief).await;
    assert!(is_refused(&answer), "{answer:?}");

    let signed = Signed::sign(quote, &CHAIN, &*market.seeder).await.unwrap();
    let twin = high_s_twin(*signed.signature.as_bytes());
    let bytes = Message::Quote(signed).encode().to_vec();
    let at = bytes.len() - 65;
    for signature in [[0; 65], twin] {
        let mut bytes = bytes.clone();
        bytes[at..].copy_from_slice(&signature);
        let answer = market.agent.respond(&purchase, bytes.into()).await;
        assert!(
            matches!(answer, Err(GateError::Message { .. })),
            "{answer:?}"
        );
    }
    let unsigned = bytes[..at].to_vec();
    let answer = market.agent.respond(&purchase, unsigned.into()).await;
    assert!(
        matches!(answer, Err(GateError::Message { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn terms_for_what_was_announced_as_free_are_refused() {
    let market = Market::new().await;
    let quote = honest(&market).await;
    let mut purchase = market.purchase();
    purchase.offer.price = Price::FREE;
    let answer = say(&market, &purchase, quote, &market.seeder).await;
    assert!(is_refused(&answer), "{answer:?}");
}

#[tokio::test]
async fn terms_without_an_announced_wallet_are_refused() {
    let market = Market::new().await;
    let quote = honest(&market).await;
    let mut purchase = market.purchase();
    purchase.offer.wallet = None;
    let answer = say(&market, &purchase, quote, &market.seeder).await;
    assert!(is_refused(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_price_over_the_buyers_limit_is_refused_as_that() {
    let mut config = agent_config();
    config.max_price = Some(Price::from_wei_per_mib(
        wei(1) - alloy_primitives::U256::from(1),
    ));
    let market = Market::with(gate_config(), config).await;
    let answer = market.ask(&market.purchase(), range(0, 1)).await;
    assert!(matches!(answer, Err(GateError::Price)), "{answer:?}");
}

#[tokio::test]
async fn paying_first_needs_a_root() {
    let market = Market::pay_first().await;
    let purchase = market.purchase().with_root_known(false);
    let answer = market.ask(&purchase, range(0, 1)).await;
    assert!(matches!(answer, Err(GateError::RootUnknown)), "{answer:?}");
    assert_eq!(market.till.bills(), 0);
}

#[tokio::test]
async fn a_policy_that_is_not_wanted_is_refused() {
    let mut config = gate_config();
    config.policy = Policy::PayFirst;
    let mut buyer = agent_config();
    buyer.policies = vec![Policy::PayAfter];
    let market = Market::with(config, buyer).await;
    let answer = market.ask(&market.purchase(), range(0, 1)).await;
    assert!(matches!(answer, Err(GateError::Terms { .. })), "{answer:?}");
}

#[tokio::test]
async fn words_that_belong_to_no_agreement_are_refused() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let agreement = alloy_primitives::B256::repeat_byte(5);
    for message in [
        Message::Accepted { agreement },
        Message::Due {
            agreement,
            amount: wei(1),
            prepay_bytes: 0,
        },
        Message::QuoteRequest {
            cid: cid(),
            payer: market.buyer.address(),
        },
    ] {
        let answer = market.agent.respond(&purchase, message.encode()).await;
        assert!(answer.is_err(), "{message:?}: {answer:?}");
    }
}

/// Nothing unproven is ever billed, whatever the seeder asks for.
#[tokio::test]
async fn nothing_is_paid_for_what_was_not_verified() {
    let market = Market::new().await;
    let purchase = market.purchase();
    let ask = market.ask(&purchase, range(0, 1)).await.unwrap();
    ask.deliver(&market.gate).await;
    let Ok(Message::Request(shown)) = Message::decode(&ask.request.credential.unwrap()) else {
        panic!("a request");
    };
    let due = Message::Due {
        agreement: shown.body.agreement,
        amount: wei(1000),
        prepay_bytes: 0,
    };
    let answer = market.agent.respond(&purchase, due.encode()).await;
    assert!(matches!(answer, Err(GateError::Credit)), "{answer:?}");
    assert!(market.agent.bills(None).await.unwrap().is_empty());
    assert_eq!(market.till.bills(), 0);
}

/// A seeder cannot make another's quote an agreement, nor a quote for one buyer another's.
#[tokio::test]
async fn the_seeder_refuses_acceptances_that_are_not_of_its_own_terms() {
    let market = Market::new().await;
    let quote = honest(&market).await;
    let (buyer, thief) = (&*market.buyer, FixedKeySigner::numbered(66));
    let own = Signed::sign(quote.clone(), &CHAIN, &*market.seeder)
        .await
        .unwrap();
    let foreign = Signed::sign(quote, &CHAIN, &thief).await.unwrap();
    let another = Signed::sign(honest(&market).await, &CHAIN, &*market.seeder)
        .await
        .unwrap();
    let accept = |of: &Signed<Quote>, payer| chiral_payment::messages::Accept {
        quote: of.digest(&CHAIN),
        payer,
        session_key: thief.address(),
    };
    let cases = [
        (
            "a foreign quote",
            accept(&foreign, buyer.address()),
            buyer,
            &foreign,
        ),
        (
            "another quote's hash",
            accept(&another, buyer.address()),
            buyer,
            &own,
        ),
        ("another payer", accept(&own, thief.address()), &thief, &own),
        (
            "not signed by the payer",
            accept(&own, buyer.address()),
            &thief,
            &own,
        ),
    ];
    for (what, body, signer, quote) in cases {
        let accept = Signed::sign(body, &CHAIN, signer).await.unwrap();
        let quote = quote.clone();
        let answer = tell(&market.gate, Message::Accept { accept, quote }).await;
        assert!(!refusal(answer).is_empty(), "{what}");
    }
    // Terms that were shown to nobody in particular are nobody's.
    let shown = market
        .gate
        .admit(&request(None, range(0, 1)))
        .await
        .unwrap();
    let Message::Quote(shown) = said(shown) else {
        panic!("terms");
    };
    assert!(matches!(
        market
            .gate
            .admit(&request(None, range(0, 1)))
            .await
            .unwrap(),
        Admission::PaymentRequired(_)
    ));
    let accept = accept(&shown, alloy_primitives::Address::ZERO);
    let accept = Signed::sign(accept, &CHAIN, &thief).await.unwrap();
    let quote = shown;
    let answer = tell(&market.gate, Message::Accept { accept, quote }).await;
    assert!(refusal(answer).contains("nobody"));
}

/// A stale offer is worth nothing: price and expiry are under the signature, and both sides
/// look at them.
#[tokio::test]
async fn terms_that_have_expired_cannot_be_accepted_any_more() {
    let market = Market::new().await;
    let quote = honest(&market).await;
    let quote = Signed::sign(quote, &CHAIN, &*market.seeder).await.unwrap();
    let accept = chiral_payment::messages::Accept {
        quote: quote.digest(&CHAIN),
        payer: market.buyer.address(),
        session_key: FixedKeySigner::numbered(3).address(),
    };
    let accept = Signed::sign(accept, &CHAIN, &*market.buyer).await.unwrap();
    let late = Message::Accept {
        accept: accept.clone(),
        quote: quote.clone(),
    };
    market.pass(2 * 3600 - 1);
    let answer = tell(&market.gate, late.clone()).await;
    assert!(matches!(answer, Message::Accepted { .. }), "{answer:?}");
    market.pass(1);
    assert!(refusal(tell(&market.gate, late).await).contains("expired"));
    // A later end is another statement, which nobody signed.
    let mut stretched = quote;
    stretched.body.valid_until += 3600;
    let quote = stretched;
    let forged = Message::Accept { accept, quote };
    assert!(refusal(tell(&market.gate, forged).await).contains("not a quote of mine"));
}
