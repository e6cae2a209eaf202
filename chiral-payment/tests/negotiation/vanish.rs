//! Either side is gone after every single message: what the other loses, to the wei and the
//! chunk.

use std::cell::Cell;

use alloy_primitives::U256;
use chiral_core::payment_gate::{AgreeError, agree};
use chiral_core::{
    Admission, ByteRange, CHUNK_SIZE, PaymentAgent, PaymentGate, PaymentSettler, Purchase,
};
use chiral_payment::messages::Policy;

use super::support::*;

/// Chunks of the file.
const CHUNKS: u64 = 16;

/// Chunks that are lent, or paid for in advance, at a time.
const AT_RISK: u64 = 4;

/// One of them is gone.
#[derive(Debug)]
struct Gone;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Buyer,
    Seeder,
}

/// What passes between the two, until it breaks.
struct Wire {
    left: Cell<u32>,
    passed: Cell<u32>,
    /// Chunks that left the seeder, and those that arrived.
    sent: Cell<u64>,
    arrived: Cell<u64>,
}

impl Wire {
    fn breaks_after(messages: u32) -> Self {
        Self {
            left: Cell::new(messages),
            passed: Cell::new(0),
            sent: Cell::new(0),
            arrived: Cell::new(0),
        }
    }

    fn pass(&self) -> Result<(), Gone> {
        self.left.set(self.left.get().checked_sub(1).ok_or(Gone)?);
        self.passed.set(self.passed.get() + 1);
        Ok(())
    }
}

fn chunk(at: u64) -> ByteRange {
    ByteRange::new(at * CHUNK_SIZE, (at + 1) * CHUNK_SIZE)
}

fn cost(chunks: u64) -> U256 {
    price().cost(chunks * CHUNK_SIZE).unwrap()
}

async fn market(policy: Policy) -> Market {
    let mut gate = gate_config();
    gate.policy = policy;
    gate.credit.initial = cost(AT_RISK);
    gate.credit.most = cost(AT_RISK);
    gate.credit.least_bytes = CHUNK_SIZE;
    gate.credit.strangers = wei(1000);
    gate.prepay_bytes = CHUNK_SIZE;
    let mut agent = agent_config();
    agent.ack_bytes = 2 * CHUNK_SIZE;
    agent.prepay_bytes = AT_RISK * CHUNK_SIZE;
    agent.max_prepay_bytes = AT_RISK * CHUNK_SIZE;
    Market::with(gate, agent).await
}

/// A message to the gate and its answer, if both get through.
async fn carry(market: &Market, wire: &Wire, message: bytes::Bytes) -> Result<bytes::Bytes, Gone> {
    wire.pass()?;
    let answer = market.gate.message(message).await.unwrap();
    wire.pass()?;
    Ok(answer)
}

/// One chunk, from the request to the check.
async fn fetch(
    market: &Market,
    wire: &Wire,
    purchase: &Purchase,
    range: ByteRange,
) -> Result<(), Gone> {
    for _ in 0..8 {
        let credential = market.agent.credential(purchase, range).await.unwrap();
        wire.pass()?;
        let request = request(credential, range);
        match market.gate.admit(&request).await.unwrap() {
            Admission::Granted => {
                // Whether it arrives or not: the seeder has sent it.
                market.gate.served(&request, range).await;
                wire.sent.set(wire.sent.get() + 1);
                wire.pass()?;
                market.agent.verified(purchase, range).await;
                wire.arrived.set(wire.arrived.get() + 1);
                return Ok(());
            }
            Admission::PaymentRequired(terms) => {
                wire.pass()?;
                let carry = |message| carry(market, wire, message);
                match agree(&market.agent, purchase, terms, carry).await {
                    Ok(()) => {}
                    Err(AgreeError::Carrier(gone)) => return Err(gone),
                    Err(error) => panic!("{error:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("never served");
}

/// All of it, until the wire breaks.
async fn session(market: &Market, wire: &Wire) -> Result<(), Gone> {
    let purchase = market.purchase();
    for at in 0..CHUNKS {
        fetch(market, wire, &purchase, chunk(at)).await?;
        if let Some(ack) = market.agent.due(&purchase).await.unwrap() {
            let answer = carry(market, wire, ack).await?;
            assert_eq!(market.agent.respond(&purchase, answer).await.unwrap(), None);
        }
    }
    pay(market).await;
    for bill in market.till.paid() {
        let status = market.till.status(bill).await.unwrap().unwrap();
        if let Some(notice) = market.agent.settled(bill, &status).await.unwrap() {
            let answer = carry(market, wire, notice).await?;
            assert!(market.agent.receipt(bill, answer).await.unwrap());
        }
    }
    Ok(())
}

/// What an honest buyer does at the end, whether the seeder is there or not.
async fn pay(market: &Market) {
    let bills = market.agent.bills(None).await.unwrap();
    market.till.settle(bills).await.unwrap();
}

/// What the other one lost when `side` was gone after so many messages; and how many messages
/// there were.
async fn loss(policy: Policy, side: Side, messages: u32) -> (U256, u64, u32) {
    let market = market(policy).await;
    let wire = Wire::breaks_after(messages);
    let broken = session(&market, &wire).await.is_err();
    if broken && side == Side::Seeder {
        pay(&market).await;
    }
    let paid: U256 = market.till.amounts().into_iter().sum();
    let (got, gave) = match side {
        Side::Buyer => (paid, wire.sent.get()),
        Side::Seeder => (cost(wire.arrived.get()), 0),
    };
    let lost = match side {
        Side::Buyer => cost(gave).saturating_sub(got),
        Side::Seeder => paid.saturating_sub(got),
    };
    let chunks = lost / cost(1);
    assert_eq!(cost(chunks.to()), lost, "whole chunks");
    market.agent.shutdown().await.unwrap();
    market.gate.shutdown().await.unwrap();
    (lost, chunks.to(), wire.passed.get())
}

/// The worst that any message does, which has to be what is promised.
async fn worst(policy: Policy, side: Side) -> u64 {
    let (left, _, all) = loss(policy, side, u32::MAX).await;
    assert_eq!(left, U256::ZERO, "nobody loses if both stay");
    assert!(all > 2 * CHUNKS as u32, "{all} messages");
    let mut worst = 0;
    for messages in 0..all {
        let (lost, chunks, _) = loss(policy, side, messages).await;
        assert!(
            lost <= cost(AT_RISK),
            "{policy:?}: {lost} wei when the {side:?} is gone after {messages}"
        );
        worst = worst.max(chunks);
    }
    worst
}

#[tokio::test]
async fn pay_after_costs_the_seeder_its_line_and_the_buyer_nothing() {
    assert_eq!(worst(Policy::PayAfter, Side::Buyer).await, AT_RISK);
    assert_eq!(worst(Policy::PayAfter, Side::Seeder).await, 0);
}

#[tokio::test]
async fn pay_first_costs_the_buyer_what_is_prepaid_and_the_seeder_nothing() {
    assert_eq!(worst(Policy::PayFirst, Side::Buyer).await, 0);
    assert_eq!(worst(Policy::PayFirst, Side::Seeder).await, AT_RISK);
}

/// A line grows with what was paid, and the loss never beyond it: `initial` and what was paid,
/// at most `most`.
#[tokio::test]
async fn a_line_that_has_grown_is_the_bound() {
    let mut gate = gate_config();
    gate.credit.initial = cost(1);
    gate.credit.most = cost(6);
    gate.credit.least_bytes = CHUNK_SIZE;
    gate.credit.strangers = wei(1000);
    let market = Market::with(gate, agent_config()).await;
    let purchase = market.purchase();
    let mut largest = U256::ZERO;
    for at in 0..40 {
        let ask = market.ask(&purchase, chunk(at)).await;
        ask.unwrap().deliver(&market.gate).await;
        let paid: U256 = market.till.amounts().into_iter().sum();
        let lost = cost(at + 1) - paid;
        assert!(
            lost <= (cost(1) + paid).min(cost(6)),
            "{lost} lost, {paid} paid"
        );
        largest = largest.max(lost);
        market.agent.verified(&purchase, chunk(at)).await;
    }
    assert_eq!(largest, cost(6), "it has grown to its end");
}
