//! A seeder serves no more before it is paid: bill, settle, wait, give notice. One payment
//! to a wallet at a time, however many requests wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use bytes::Bytes;
use chiral_core::{Bill, GateError, Purchase, SettlementStatus};
use tokio::time::Instant;

use super::{ChainAgent, Key, key, lock};
use crate::messages::Policy;

/// Pause between looks at whether a bill is settled, or something verified.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who pays which wallet, now.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Address, Arc<Turn>>>);

#[derive(Debug, Default)]
struct Turn {
    lock: tokio::sync::Mutex<()>,
    /// Payments that were made.
    paid: AtomicU64,
}

impl Turns {
    fn of(&self, payee: Address) -> Arc<Turn> {
        let mut turns = lock(&self.0);
        // Those that nobody waits for can be made again.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(payee).or_default())
    }
}

impl ChainAgent {
    /// The seeder wants money, or an acknowledgement, before it serves more.
    pub(super) async fn pay_what_is_due(
        &self,
        purchase: &Purchase,
        agreement: B256,
        amount: U256,
        prepay_bytes: u64,
    ) -> Result<Option<Bytes>, GateError> {
        let policy = {
            let books = self.books();
            let deal = books.deals.get(&agreement);
            let deal = deal.filter(|deal| Some(&deal.key) == key(purchase).as_ref());
            deal.map(|deal| (deal.policy, deal.key.clone(), self.pays_in_channel(deal)))
        };
        let Some((policy, key, in_channel)) = policy else {
            return Err(GateError::Message {
                reason: "an agreement that was not made",
            });
        };
        let turn = self.inner.turns.of(key.payee);
        let before = turn.paid.load(Ordering::Acquire);
        let _turn = turn.lock.lock().await;
        if turn.paid.load(Ordering::Acquire) != before {
            // Another conversation has paid meanwhile.
            return Ok(None);
        }
        if in_channel {
            return self.pay_in_channel(&key, agreement, amount.is_zero()).await;
        }
        // What an earlier conversation left behind: paid, and the seeder not told.
        if let Some(notice) = self.next_notice(key.payee).await? {
            return Ok(Some(notice));
        }
        let bills = match policy {
            Policy::PayFirst => {
                self.bill_in_advance(purchase, agreement, prepay_bytes)
                    .await?
            }
            _ if amount.is_zero() => return self.acknowledge(&key).await,
            _ => {
                self.wait_for_verified(key.payee, amount).await;
                self.bill_what_is_verified(key.payee).await?
            }
        };
        if bills.is_empty() {
            return self.acknowledge(&key).await;
        }
        self.settle(bills).await?;
        turn.paid.fetch_add(1, Ordering::Release);
        self.next_notice(key.payee).await
    }

    /// What the seeder gets if there is nothing to pay: an acknowledgement.
    async fn acknowledge(&self, key: &Key) -> Result<Option<Bytes>, GateError> {
        let until = Instant::now() + self.inner.config.verify_patience;
        loop {
            if let Some(ack) = self.acknowledgement(key).await? {
                return Ok(Some(ack));
            }
            if Instant::now() >= until {
                return Err(GateError::Credit);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Bytes on their way become verified soon: many small payments are avoided by waiting
    /// until half of what is asked for can be paid, as long as there is progress.
    async fn wait_for_verified(&self, payee: Address, amount: U256) {
        let patience = self.inner.config.verify_patience;
        let (mut last, mut until) = (U256::ZERO, Instant::now() + patience);
        loop {
            let unbilled = self.books().unbilled(payee);
            if unbilled >= amount / U256::from(2) && !unbilled.is_zero() {
                return;
            }
            if unbilled > last {
                (last, until) = (unbilled, Instant::now() + patience);
            }
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn bill_what_is_verified(&self, payee: Address) -> Result<Vec<Bill>, GateError> {
        let now = self.now();
        let made = self.books().make_bills(None, Some(payee), now);
        made.map_err(|_| GateError::Price)?;
        self.keep("agent-bills").await?;
        Ok(self.books().unsettled(None, Some(payee)))
    }

    async fn bill_in_advance(
        &self,
        purchase: &Purchase,
        agreement: B256,
        needed: u64,
    ) -> Result<Vec<Bill>, GateError> {
        if !purchase.root_known {
            return Err(GateError::RootUnknown);
        }
        let payee = purchase.offer.wallet;
        let open = self.books().unsettled(None, payee);
        if !open.is_empty() {
            // Bills that an earlier run made, and did not see settled.
            return Ok(open);
        }
        let config = &self.inner.config;
        let size = purchase.offer.header.as_ref().map(|header| header.size);
        let now = self.now();
        {
            let mut books = self.books();
            let (usual, most) = (config.prepay_bytes, config.max_prepay_bytes);
            let bytes = books.prepay_bytes(agreement, needed, usual, size, most);
            let bytes = bytes.filter(|bytes| *bytes > 0).ok_or(GateError::Terms {
                reason: "delivers less than was paid for",
            })?;
            let made = books.make_bill_in_advance(agreement, bytes, now);
            made.map_err(|_| GateError::Price)?;
        }
        self.keep("agent-bills").await?;
        Ok(self.books().unsettled(None, payee))
    }

    /// Has bills settled and waits until the ledger shows all of them.
    async fn settle(&self, bills: Vec<Bill>) -> Result<(), GateError> {
        let settler = &self.inner.settler;
        let ids: Vec<_> = bills.iter().map(|bill| bill.id).collect();
        let statuses = settler.settle(bills).await.map_err(|error| {
            tracing::warn!(%error, "what a seeder asks for cannot be settled");
            GateError::Ledger
        })?;
        // The seeder waits for them, whoever else is to be paid with them.
        settler.expedite(&ids).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "bills that are waited for may rest");
        });
        let until = Instant::now() + self.inner.config.settle_patience;
        for (id, mut status) in ids.into_iter().zip(statuses) {
            while let SettlementStatus::Pending { .. } = status {
                if Instant::now() >= until {
                    return Err(GateError::Ledger);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                if let Ok(Some(now)) = settler.status(id).await {
                    status = now;
                }
            }
            if let SettlementStatus::Settled { transaction } = status {
                self.books().settled(id, transaction);
            }
        }
        self.keep("agent-settled").await
    }

    /// The seeder said no for good: the next request begins with terms again.
    pub(super) fn give_up(&self, purchase: &Purchase) {
        if let Some(key) = key(purchase) {
            let mut books = self.books();
            let agreement = books.latest(&key).map(|(agreement, _)| agreement);
            if let Some(agreement) = agreement {
                books.end(agreement);
            }
        }
    }
}
