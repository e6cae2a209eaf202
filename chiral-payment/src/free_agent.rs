//! [`FreeAgent`]: the fetching side that pays nothing.

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{ByteRange, Cid, GateError, PaymentAgent, PeerOffer};

/// Accepts only what costs nothing. A gate sends terms where it wants to be paid, so every
/// offer is refused with [`GateError::Price`], and no credential is ever shown.
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
    async fn accept(&self, _: Cid, _: &PeerOffer, terms: Bytes) -> Result<Bytes, GateError> {
        if terms.len() > MAX_PAYMENT_MESSAGE {
            return Err(GateError::Message {
                reason: "over the limit",
            });
        }
        Err(GateError::Price)
    }

    async fn credential(
        &self,
        _: Cid,
        _: &PeerOffer,
        _: ByteRange,
    ) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn verified(&self, _: Cid, _: &PeerOffer, _: ByteRange) {}
}
