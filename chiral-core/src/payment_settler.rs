//! [`PaymentSettler`]: pays bills. Knows nothing of how bytes travelled.

use std::fmt;

use alloy_primitives::B256;
use async_trait::async_trait;

use crate::{Bill, BillId};

/// Why bills were not settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// A bill that asks for money but names no wallet.
    #[error("bill {bill} names no wallet to pay")]
    NoPayee {
        /// The bill.
        bill: BillId,
    },
    /// A bill that asks for money, at a settler that pays none.
    #[error("bill {bill} is not free, and no payment is set up")]
    NotFree {
        /// The bill.
        bill: BillId,
    },
    /// Another bill was settled under this id.
    #[error("bill {bill} was settled with other contents")]
    Conflict {
        /// The bill.
        bill: BillId,
    },
    /// The ledger cannot be reached now; the bills are kept and settled later.
    #[error("the ledger cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not enough money.
    #[error("the wallet's balance does not cover the bills")]
    Funds,
    /// The settler has been shut down.
    #[error("settler is shut down")]
    Closed,
}

impl SettleError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Funds)
    }
}

/// How far a bill is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettlementStatus {
    /// Nothing was owed.
    Free,
    /// Written down; the ledger does not show it yet.
    Pending {
        /// The transaction, once there is one.
        transaction: Option<B256>,
    },
    /// The ledger shows it.
    Settled {
        /// The transaction.
        transaction: B256,
    },
}

/// Pays bills.
///
/// - [`settle`](PaymentSettler::settle) is idempotent by bill id: a bill is paid once,
///   however often it is handed in, whatever is killed when.
/// - What it has acknowledged is durable.
#[async_trait]
pub trait PaymentSettler: Send + Sync + fmt::Debug + 'static {
    /// Takes bills to be paid and answers how far each is, in their order.
    ///
    /// # Errors
    /// [`SettleError`]: then none of these bills was taken.
    async fn settle(&self, bills: Vec<Bill>) -> Result<Vec<SettlementStatus>, SettleError>;

    /// Somebody waits for these bills: they are not kept until more have come to be paid with
    /// them. Says nothing about how far they are; bills that are not known are ignored.
    async fn expedite(&self, bills: &[BillId]) -> Result<(), SettleError> {
        let _ = bills;
        Ok(())
    }

    /// How far a bill is; `None` for one that was never handed in.
    async fn status(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError>;

    /// Ends what can be ended, keeps the rest; idempotent.
    async fn shutdown(&self) -> Result<(), SettleError>;
}
