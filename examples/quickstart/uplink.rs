//! An uplink for each seeder, as if it were somewhere else.
//!
//! On one machine all seeders share one processor, and who gets how much of it is chance.
//! With a rate of its own each seeder behaves like one on a network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral::core::{Admission, GateError, PaymentGate, ServeRequest, Tariff};
use chiral::{ByteRange, Cid};
use tokio::time::Instant;

/// Lets another gate decide, and whom that admits wait until what was admitted before has had
/// its time.
#[derive(Debug)]
pub(crate) struct Uplink {
    gate: Arc<dyn PaymentGate>,
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Uplink {
    pub(crate) fn new(gate: Arc<dyn PaymentGate>, bytes_per_second: u64) -> Self {
        Self {
            gate,
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }

    /// Reserves the time that so many bytes take; answers when it begins.
    fn reserve(&self, bytes: u64) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free_at).max(Instant::now());
        *free_at = begin + self.time_for(bytes);
        begin
    }
}

#[async_trait]
impl PaymentGate for Uplink {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        let admission = self.gate.admit(request).await?;
        if admission == Admission::Granted {
            tokio::time::sleep_until(self.reserve(request.range.len())).await;
        }
        Ok(admission)
    }

    /// What was not sent after all, as the client hung up, takes no time.
    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        let unsent = request.range.len().saturating_sub(sent.len());
        {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at -= self.time_for(unsent);
        }
        self.gate.served(request, sent).await;
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        self.gate.message(message).await
    }

    fn tariff(&self, cid: Cid) -> Tariff {
        self.gate.tariff(cid)
    }
}
