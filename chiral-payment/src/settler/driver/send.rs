//! Sending what is signed, and signing it again with a higher fee.

use alloy_primitives::U256;
use bytes::Bytes;
use chiral_chain::{BlockRef, ChainError, RefusalKind, Transaction};
use tokio::time::Instant;

use super::{Driver, Sent, Stop, signer_problem};
use crate::settler::ledger::{Obstacle, higher};
use crate::settler::plan::LEAST_GAS;
use crate::settler::problem::Problem;
use crate::settler::record::Flight;

/// Times that one transaction is signed.
const MAX_VARIANTS: usize = 8;

impl Driver {
    /// Sends the newest variant, if it is time, and signs a dearer one if that is due.
    pub(super) async fn send(
        &mut self,
        number: u64,
        mut flight: Flight,
        head: BlockRef,
    ) -> Result<Flight, Stop> {
        use crate::settler::record::FlightState::Signed;
        let now = Instant::now();
        let sent = self.sent.get(&number).copied();
        let config = &self.ledger.config;
        let due = |sent: &Sent| sent.head != head.hash || sent.last.elapsed() >= config.poll;
        if sent.as_ref().is_some_and(|sent| !due(sent)) {
            return Ok(flight);
        }
        // The bytes hold on every chain of this id.
        self.ledger.check_identity().await?;
        let long = |sent: Sent| sent.first.elapsed() >= self.ledger.config.replace_after;
        if sent.is_some_and(long) && flight.variants.len() < MAX_VARIANTS {
            flight = self.replace(number, flight).await?;
        }
        let signed = flight.newest();
        let entry = self.sent.entry(number).or_insert(Sent {
            variant: signed.hash,
            first: now,
            last: now,
            head: head.hash,
        });
        if entry.variant != signed.hash {
            (entry.variant, entry.first) = (signed.hash, now);
        }
        (entry.last, entry.head) = (now, head.hash);
        let chain = &self.ledger.chain;
        match chain.send_raw_transaction(signed.raw.clone()).await {
            Ok(hash) if hash != signed.hash => {
                tracing::debug!(%hash, "the node answers another transaction's hash");
            }
            Ok(_) => {}
            Err(ChainError::Refused { kind, reason }) => match kind {
                RefusalKind::AlreadyKnown => {}
                RefusalKind::NonceTooLow => {
                    // It may be in a block since we looked: the next pass sees.
                    self.note(&flight, &Problem::NonceUsed);
                    return Ok(flight);
                }
                RefusalKind::Funds => {
                    self.note(&flight, &Problem::Funds);
                    return Ok(flight);
                }
                _ => {
                    self.note(&flight, &Problem::Refused { reason });
                    return Ok(flight);
                }
            },
            Err(error) => return Err(error.into()),
        }
        if flight.state == Signed {
            flight = self.book.broadcast(number).await?;
            self.board.changed();
        }
        Ok(flight)
    }

    /// Takes a nonce that nothing else has with a transfer of nothing to the wallet itself. It
    /// is not in the journal: whatever becomes of it, nobody is paid.
    pub(super) async fn send_nothing(&mut self, nonce: u64) -> Result<(), Stop> {
        self.ledger.check_identity().await?;
        let filler = Transaction {
            chain_id: self.ledger.config.chain_id,
            nonce,
            gas_limit: LEAST_GAS,
            fees: self.ledger.fees().await?,
            to: Some(self.ledger.wallet),
            value: U256::ZERO,
            input: Bytes::new(),
        };
        let signed = filler.sign(&*self.signer).await.map_err(signer_problem)?;
        tracing::warn!(nonce, "a transfer of nothing fills a gap");
        match self.ledger.chain.send_raw_transaction(signed.raw).await {
            // Taken meanwhile, or refused: the next look shows.
            Ok(_) | Err(ChainError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs the same transaction with a higher fee, if the chain wants more by now.
    async fn replace(&mut self, number: u64, flight: Flight) -> Result<Flight, Stop> {
        let old = &flight.newest().transaction;
        let wanted = match self.ledger.fees().await {
            Ok(wanted) => wanted,
            Err(Obstacle::Problem(problem)) => {
                self.note(&flight, &problem);
                return Ok(flight);
            }
            Err(other) => return Err(other.into()),
        };
        let Some(fees) = higher(old.fees, wanted, &self.ledger.config) else {
            return Ok(flight);
        };
        let dearer = Transaction {
            fees,
            ..old.clone()
        };
        let signed = dearer.sign(&*self.signer).await.map_err(signer_problem)?;
        let flight = self.book.replaced(number, signed).await?;
        self.board.changed();
        Ok(flight)
    }
}
