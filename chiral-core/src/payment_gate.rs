//! [`PaymentGate`] on the serving side, [`PaymentAgent`] on the fetching side, and opaque
//! bytes between them, which protocols carry without reading.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ByteRange, Cid, PeerOffer, Protocol};

/// Limit on any message between gate and agent, in bytes.
pub const MAX_PAYMENT_MESSAGE: usize = 16 * 1024;

/// Why gate or agent refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// A message that is malformed, too long, or not for us.
    #[error("payment message refused: {reason}")]
    Message {
        /// What is wrong.
        reason: &'static str,
    },
    /// The other side asks for more than was allowed.
    #[error("the price is over the limit")]
    Price,
    /// Gate or agent has been shut down.
    #[error("shut down")]
    Closed,
}

impl GateError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A request that is about to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeRequest {
    /// The file.
    pub cid: Cid,
    /// What is to be served.
    pub range: ByteRange,
    /// Over what.
    pub protocol: Protocol,
    /// What the client showed, if anything.
    pub credential: Option<Bytes>,
}

impl ServeRequest {
    /// Without a credential.
    pub fn new(cid: Cid, range: ByteRange, protocol: Protocol) -> Self {
        Self {
            cid,
            range,
            protocol,
            credential: None,
        }
    }
}

/// Whether a request may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// Serve it.
    Granted,
    /// Not before payment is arranged; the bytes are an offer for the client's agent.
    PaymentRequired(Bytes),
    /// Not at all.
    Refused {
        /// Why, in words for the client.
        reason: String,
    },
}

/// Decides on the serving side. Asked before bytes are sent, told after.
#[async_trait]
pub trait PaymentGate: Send + Sync + fmt::Debug + 'static {
    /// Whether a request may be served.
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError>;

    /// Bytes of an admitted request were sent (at least handed to the transport).
    async fn served(&self, request: &ServeRequest, sent: ByteRange);

    /// A message from an agent; the answer goes back to it.
    async fn message(&self, message: Bytes) -> Result<Bytes, GateError>;
}

/// Answers on the fetching side.
#[async_trait]
pub trait PaymentAgent: Send + Sync + fmt::Debug + 'static {
    /// An offer came for this file: what to send to the gate, or an error to walk away.
    async fn accept(&self, cid: Cid, offer: &PeerOffer, terms: Bytes) -> Result<Bytes, GateError>;

    /// What to show with a request; nothing for free content.
    async fn credential(
        &self,
        cid: Cid,
        offer: &PeerOffer,
        range: ByteRange,
    ) -> Result<Option<Bytes>, GateError>;

    /// Bytes from this seeder were verified.
    async fn verified(&self, cid: Cid, offer: &PeerOffer, range: ByteRange);
}
