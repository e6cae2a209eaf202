//! Calls of contracts from the settler's wallet, beside its payments and in the same journal:
//! one counter of nonces, one way through reorganisations.

use alloy_primitives::{Address, U256};
use bytes::Bytes;
use chiral_core::{BillId, SettleError, SettlementStatus};

use super::driver::unix_now;
use super::{ChainSettler, QueueFull, journal_error};

/// Seconds for which a call rests that need not be made any more: for ever.
const FOR_EVER: u64 = u64::MAX >> 16;

impl ChainSettler {
    /// Takes a call of a contract: `input`, with `value` wei, to `to`. It is executed once and
    /// in the background, like a payment; a call that would fail is tried again and again, with
    /// longer and longer pauses. The same id again is the same call.
    ///
    /// # Errors
    /// [`SettleError::Conflict`] if the id is that of something else; as
    /// [`settle`](chiral_core::PaymentSettler::settle).
    ///
    /// # Cancel safety
    /// The call may have been taken when it is dropped; handing it in again is harmless.
    pub async fn call(
        &self,
        id: BillId,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Result<SettlementStatus, SettleError> {
        if self.end.is_cancelled() {
            return Err(SettleError::Closed);
        }
        let taken = self.book.take_call(id, to, value, input, unix_now()).await;
        let status = taken
            .map_err(journal_error)??
            .ok_or_else(|| SettleError::Unreachable(Box::new(QueueFull)))?;
        self.board.work.notify_one();
        self.board.changed();
        Ok(status)
    }

    /// A call that is not on its way need not be made any more.
    ///
    /// # Errors
    /// As [`status`](chiral_core::PaymentSettler::status).
    pub async fn withdraw_call(&self, id: BillId) -> Result<(), SettleError> {
        let status = self.book.bill(id).await.map_err(journal_error)?;
        let waits = status.is_some_and(|record| record.is_call() && record.is_waiting());
        if waits {
            let put_off = self.book.deferred(id, unix_now(), FOR_EVER).await;
            put_off.map_err(journal_error)?;
        }
        Ok(())
    }
}
