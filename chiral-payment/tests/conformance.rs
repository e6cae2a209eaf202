//! The free settler, gate and agent pass the suites.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::PaymentSettler;
use chiral_core::conformance::{payment_gate, payment_settler};
use chiral_payment::{FreeAgent, FreeGate, FreeSettler};

#[tokio::test]
async fn the_free_settler_passes_the_suite() {
    payment_settler::run(async || Arc::new(FreeSettler::new()) as Arc<dyn PaymentSettler>).await;
    payment_settler::bills_that_cost_are_not_free(&FreeSettler::new()).await;
}

#[tokio::test]
async fn the_free_gate_passes_the_suites() {
    payment_gate::any_gate(&FreeGate::new()).await;
    payment_gate::free_gate(&FreeGate::new()).await;
}

#[tokio::test]
async fn the_free_agent_passes_the_suites() {
    payment_gate::any_agent(&FreeAgent::new()).await;
    payment_gate::free_agent(&FreeAgent::new(), [Bytes::from_static(b"a price")]).await;
}
