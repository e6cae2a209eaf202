//! What the tests of all protocols share.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{Admission, ByteRange, GateError, PaymentGate, ServeRequest};

/// Limit on anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

/// Admits everybody.
#[derive(Debug)]
pub(crate) struct OpenGate;

#[async_trait]
impl PaymentGate for OpenGate {
    async fn admit(&self, _: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _: &ServeRequest, _: ByteRange) {}

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }
}

/// Bytes that look different everywhere.
pub(crate) fn content(size: usize) -> Bytes {
    (0..size as u64)
        .map(|i| ((i * 2_654_435_761) >> 13) as u8)
        .collect::<Vec<_>>()
        .into()
}
