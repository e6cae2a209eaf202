//! [`FreeAgent`]: the fetching side that pays nothing.

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{
    Bill, BillId, ByteRange, Cid, GateError, PaymentAgent, Purchase, SettlementStatus,
};

/// Accepts only what costs nothing. A gate sends terms where it wants to be paid, so every
/// offer is refused with [`GateError::Price`], no credential is ever shown, and nothing is
/// ever owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreeAgent;

impl FreeAgent {
    /// The agent.
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl PaymentAgent for FreeAgent {
    async fn credential(&self, _: &Purchase, _: ByteRange) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn respond(&self, _: &Purchase, message: Bytes) -> Result<Option<Bytes>, GateError> {
        if message.len() > MAX_PAYMENT_MESSAGE {
            return Err(GateError::Message {
                reason: "over the limit",
            });
        }
        Err(GateError::Price)
    }

    async fn verified(&self, _: &Purchase, _: ByteRange) {}

    async fn due(&self, _: &Purchase) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn bills(&self, _: Option<Cid>) -> Result<Vec<Bill>, GateError> {
        Ok(Vec::new())
    }

    async fn settled(&self, _: BillId, _: &SettlementStatus) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn receipt(&self, _: BillId, _: Bytes) -> Result<bool, GateError> {
        Err(GateError::Message {
            reason: "nothing was paid here",
        })
    }
}
