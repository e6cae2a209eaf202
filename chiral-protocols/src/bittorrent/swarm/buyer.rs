//! [`Buyer`]: our side of what a Chiral peer sells over the wire.
//!
//! Before blocks of a range are asked for, leave is: the agent's credential goes over Chiral's
//! extension, and so does all that agent and gate have to say to each other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{ByteRange, Endpoint, RequestGrid, TransferError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::handle::{Ask, PeerHandle};
use crate::bittorrent::extension::Admitted;
use crate::payer::{Carrier, Patience, Payer};

/// Most bytes of one range under a payment gate.
const MAX_PAID_REQUEST: u64 = 8 << 20;

/// Time for one agreement, which may include a payment, and agreements in a row that no
/// delivery followed.
pub(super) const PATIENCE: Patience = Patience {
    timeout: Duration::from_secs(600),
    attempts: 12,
};

/// Ranges for which leave is asked at once.
const ASKING: usize = 4;

/// Takes messages to the gate of the peer at the other end.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) handle: Arc<PeerHandle>,
    pub(super) name: Endpoint,
}

#[async_trait]
impl Carrier for Talk {
    fn name(&self) -> &Endpoint {
        &self.name
    }

    async fn carry(&self, message: Bytes) -> Result<Bytes, TransferError> {
        let answer = self.handle.ask(Ask::Payment(message)).await?;
        answer.ok_or_else(|| refused(&self.name, "its payment gate does not answer", true))
    }
}

/// Buys from one peer.
#[derive(Debug)]
pub(super) struct Buyer {
    handle: Arc<PeerHandle>,
    pub(super) payer: Arc<Payer>,
    name: Endpoint,
    asking: Semaphore,
}

/// Leave to ask for a range. Given back when dropped.
#[derive(Debug)]
pub(super) struct Leave {
    handle: Arc<PeerHandle>,
    range: ByteRange,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.handle.release(self.range);
    }
}

fn refused(name: &Endpoint, reason: &str, retryable: bool) -> TransferError {
    TransferError::Refused {
        source_name: name.to_string(),
        reason: reason.to_owned(),
        retryable,
    }
}

impl Buyer {
    pub(super) fn new(handle: Arc<PeerHandle>, payer: Arc<Payer>, name: Endpoint) -> Self {
        Self {
            handle,
            payer,
            name,
            asking: Semaphore::new(ASKING),
        }
    }

    /// The first part of a range for which leave is to be asked at once: a gate lends only so
    /// much.
    pub(super) fn part(&self, range: ByteRange, grid: RequestGrid, size: u64) -> ByteRange {
        let most = self.payer.most_at_once().clamp(1, MAX_PAID_REQUEST);
        let end = range.start.saturating_add(most);
        if end >= range.end {
            return range;
        }
        let cut = grid.floor(end);
        let end = match cut > range.start {
            true => cut,
            false => grid.ceil(range.start + 1, size).min(range.end),
        };
        ByteRange::new(range.start, end)
    }

    /// Asks until the range may be asked for, as often as payment has to be agreed on first.
    pub(super) async fn leave(&self, range: ByteRange) -> Result<Leave, TransferError> {
        let closed = |_| TransferError::Closed;
        let begun = Instant::now();
        let (mut refusals, mut waiting) = (0, None);
        while begun.elapsed() <= PATIENCE.timeout {
            let (agreements, credential) = self.payer.credential(range).await?;
            let permit = self.asking.acquire().await.map_err(closed)?;
            let answer = self.handle.ask(Ask::Admit { range, credential }).await?;
            drop(permit);
            let Some(answer) = answer else {
                return Err(refused(&self.name, "it does not answer", true));
            };
            match Admitted::decode(&answer) {
                Some(Admitted::Granted) => {
                    self.payer.admitted();
                    let handle = self.handle.clone();
                    return Ok(Leave { handle, range });
                }
                Some(Admitted::PaymentRequired(terms)) => {
                    waiting.get_or_insert_with(|| self.payer.wait());
                    let sought = self.payer.agree(agreements, terms).await?;
                    // Others were served since: there is not enough for all at once.
                    if !sought && refusals > 0 {
                        self.payer.pause(refusals).await;
                    }
                    refusals += 1;
                }
                Some(Admitted::Refused { reason, retryable }) => {
                    return Err(refused(&self.name, &reason, retryable));
                }
                None => {
                    return Err(TransferError::Protocol {
                        source_name: self.name.to_string(),
                        reason: "an answer that answers nothing",
                    });
                }
            }
        }
        Err(refused(
            &self.name,
            "asks for payment again and again",
            true,
        ))
    }
}
