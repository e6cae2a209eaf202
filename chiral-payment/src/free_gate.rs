//! [`FreeGate`]: the serving side that asks for nothing.

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{Admission, ByteRange, GateError, PaymentGate, ServeRequest};

/// Admits everybody, whatever they show, and keeps no account of what was served.
///
/// Since it makes no offers, no message can be an answer to one: all are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreeGate;

impl FreeGate {
    /// The gate.
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl PaymentGate for FreeGate {
    async fn admit(&self, _request: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _request: &ServeRequest, _sent: ByteRange) {}

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        let reason = if message.len() > MAX_PAYMENT_MESSAGE {
            "over the limit"
        } else {
            "nothing is to be paid here"
        };
        Err(GateError::Message { reason })
    }
}
