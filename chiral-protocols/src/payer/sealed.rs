//! Buying the keys of sealed bytes: one lock at a time, and what pays for it goes before the
//! next.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::payment_gate::MAX_ROUNDS;
use chiral_core::{ByteRange, GateError, PayAndLock, Sealed, TransferError};
use tokio::time::timeout;

use super::{Payer, Refusal};

/// Most times that a lock or voucher is said again to a seeder that was not reached.
const ATTEMPTS: u32 = 6;

/// So long what is owed waits for a lock to go with.
const LOCK_SOON: Duration = Duration::from_millis(5);

/// What pays for the bytes that were bought last.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// They were found right, and what pays for them is not promised yet.
    pub(crate) right: bool,
    /// Promised, and not said yet.
    due: Option<Bytes>,
    /// Whether the last payment was answered with nothing that wanted an answer.
    plain: bool,
    /// Whether the agent was asked for what an earlier run left to say.
    asked: bool,
    /// The gate does not take a payment and a lock in one message.
    apart: bool,
}

impl Owed {
    /// Whether there is anything to promise or to say.
    pub(crate) fn is_something(&self) -> bool {
        self.right || self.due.is_some()
    }

    /// It is not said: the lock is worth as much to the seeder, who claims it on the chain. The
    /// agent is asked what there is to say before anything else is locked.
    pub(crate) fn give_up(&mut self) {
        (self.right, self.due, self.asked) = (false, None, false);
    }
}

impl Payer {
    /// Whether what is bought here comes sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.agent.is_sealed(&self.purchase())
    }

    /// What has to be bought here before anything else: its key is locked and not paid for.
    pub(crate) fn pending(&self) -> Option<ByteRange> {
        self.agent.pending(&self.purchase())
    }

    /// Has sealed bytes looked at while they wait for their turn. What is wrong with them is said
    /// again when their key is to be bought.
    pub(crate) async fn inspected(&self, range: ByteRange, sealed: Sealed) -> Sealed {
        let purchase = self.purchase();
        let looked = self.agent.inspect(&purchase, range, sealed.clone());
        looked.await.unwrap_or(sealed)
    }

    /// Has the key of sealed bytes bought, and opens them. What has to be paid for the bytes
    /// before them goes in front, and is taken once the gate has heard it.
    ///
    /// Said again, both, if the seeder is not reached: to repeat them does no harm. The agent is
    /// asked each time: as long as a lock stands it says the same, and then it may know better.
    ///
    /// # Errors
    /// Then nothing more can be bought here for now.
    pub(crate) async fn open_sealed(
        self: &Arc<Self>,
        owed: &mut Owed,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, TransferError> {
        let _floor = self.floor.lock().await;
        let no = |error: &GateError| self.refusal(Refusal::of(error));
        let purchase = self.purchase();
        if !std::mem::replace(&mut owed.asked, true) && !owed.is_something() {
            // A run that was killed may have promised what the seeder never heard of, and takes
            // no lock before.
            let due = self.agent.due(&purchase).await;
            owed.due = due.map_err(|error| no(&error))?;
        }
        let mut attempt = 0;
        loop {
            if let Some(both) = self.promise_both(owed, range, sealed).await? {
                // If that does not do, the same again in two messages tells why.
                if let Some(plain) = self.at_once(owed, both, range, sealed).await {
                    return Ok(plain);
                }
            }
            let lock = self.lock(owed, range, sealed).await?;
            let failed = match self.carry_both(owed, lock).await {
                Ok(key) => match self.agent.unseal(&purchase, range, sealed, key).await {
                    Ok(plain) => return Ok(plain),
                    Err(error) => no(&error),
                },
                Err(error) => error,
            };
            // Whoever keeps the key back and takes the money has to show it on the ledger.
            let shown = self.agent.unseal_by_ledger(&purchase, range, sealed).await;
            match shown {
                Ok(Some(plain)) => return Ok(plain),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the ledger shows no key"),
            }
            if !failed.is_retryable() || attempt == ATTEMPTS {
                return Err(failed);
            }
            attempt += 1;
            self.pause(attempt).await;
        }
    }

    /// Promises what pays for the bytes before, if they were right: with a lock for the next ones
    /// in the same step, if the agent can, or by itself. Answers the message in the former case.
    async fn promise_both(
        &self,
        owed: &mut Owed,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<Bytes>, TransferError> {
        if !owed.right || owed.due.is_some() {
            return Ok(None);
        }
        if !owed.apart {
            let purchase = self.purchase();
            let promised = self.agent.pay_and_lock(&purchase, range, sealed).await;
            let promised = promised.map_err(|error| self.refusal(Refusal::of(&error)))?;
            if let Some(PayAndLock { both, pay, .. }) = promised {
                (owed.right, owed.due) = (false, Some(pay));
                return Ok(Some(both));
            }
        }
        self.promise(owed).await?;
        Ok(None)
    }

    /// Says a payment and a lock in one message. The bytes that the answer opens, if it does.
    async fn at_once(
        &self,
        owed: &mut Owed,
        both: Bytes,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Option<Bytes> {
        let mut carry = pin!(self.carrier.carry(both));
        let first = poll_fn(|cx| Poll::Ready(carry.as_mut().poll(cx))).await;
        // On its way: what is asked for from now on comes behind it.
        self.settled(self.unsettled());
        let answer = match first {
            Poll::Ready(answer) => answer,
            Poll::Pending => carry.await,
        };
        let opened = match answer {
            Ok(key) => {
                let purchase = self.purchase();
                let unsealed = self.agent.unseal(&purchase, range, sealed, key);
                unsealed.await.map_err(|error| error.to_string())
            }
            Err(error) => {
                // Whoever does not know such a message says so at once, and for good.
                owed.apart = !error.is_retryable();
                Err(error.to_string())
            }
        };
        match opened {
            Ok(plain) => {
                owed.due = None;
                Some(plain)
            }
            Err(reason) => {
                tracing::debug!(source = %self.carrier.name(), reason, "one by one");
                None
            }
        }
    }

    /// The lock for bytes. If it takes long others may be locking: they wait for what is owed,
    /// which is said meanwhile.
    async fn lock(
        &self,
        owed: &mut Owed,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, TransferError> {
        let purchase = self.purchase();
        let mut lock = self.agent.lock(&purchase, range, sealed);
        let lock = match timeout(LOCK_SOON, &mut lock).await {
            Ok(lock) => lock,
            Err(_) => {
                // Both go on: the one may be in the middle of a step that the other waits for.
                let (paid, lock) = futures_util::future::join(self.pay_now(owed), lock).await;
                paid?;
                lock
            }
        };
        lock.map_err(|error| self.refusal(Refusal::of(&error)))
    }

    /// Has what pays for bytes that were right promised.
    async fn promise(&self, owed: &mut Owed) -> Result<(), TransferError> {
        let due = self.agent.due(&self.purchase()).await;
        owed.due = due.map_err(|error| self.refusal(Refusal::of(&error)))?;
        owed.right = false;
        Ok(())
    }

    /// What is owed, if anything is, and a lock behind it: without a pause in between, once it
    /// was seen that a payment is answered with a word to which nothing is to be said.
    async fn carry_both(&self, owed: &mut Owed, lock: Bytes) -> Result<Bytes, TransferError> {
        let Some(due) = owed.due.clone().filter(|_| owed.plain) else {
            self.pay_now(owed).await?;
            return self.carrier.carry(lock).await;
        };
        let mut pay = pin!(self.carrier.carry(due));
        let first = poll_fn(|cx| Poll::Ready(pay.as_mut().poll(cx))).await;
        self.settled(self.unsettled());
        let lock = self.carrier.carry(lock);
        let (paid, key) = match first {
            Poll::Ready(paid) => (paid, lock.await),
            Poll::Pending => futures_util::future::join(pay, lock).await,
        };
        let paid = paid?;
        owed.due = None;
        self.took(owed, paid).await?;
        key
    }

    /// The gate answered a payment: whatever is left to say is said.
    async fn took(&self, owed: &mut Owed, mut answer: Bytes) -> Result<(), TransferError> {
        owed.plain = true;
        for _ in 0..MAX_ROUNDS {
            let next = self.agent.respond(&self.purchase(), answer).await;
            match next.map_err(|error| self.refusal(Refusal::of(&error)))? {
                None => return Ok(()),
                Some(next) => {
                    owed.plain = false;
                    owed.due = Some(next.clone());
                    answer = self.carrier.carry(next).await?;
                    owed.due = None;
                }
            }
        }
        Err(self.refusal(Refusal::lasting("it does not come to an end")))
    }

    async fn pay_now(&self, owed: &mut Owed) -> Result<(), TransferError> {
        let Some(message) = owed.due.clone() else {
            return Ok(());
        };
        let answer = self.carrier.carry(message).await?;
        self.settled(self.unsettled());
        owed.due = None;
        self.took(owed, answer).await
    }

    /// What was opened is right: a payment takes the lock's place, promised with the next lock
    /// or by [`Payer::pay`].
    pub(crate) async fn right(&self, owed: &mut Owed, range: ByteRange) {
        let _floor = self.floor.lock().await;
        self.agent.verified(&self.purchase(), range).await;
        self.count_verified(range.len());
        owed.right = true;
    }

    /// Promises and says what is owed when nothing is bought behind it.
    pub(crate) async fn pay(&self, owed: &mut Owed) -> Result<(), TransferError> {
        let _floor = self.floor.lock().await;
        if owed.right && owed.due.is_none() {
            self.promise(owed).await?;
        }
        self.pay_now(owed).await
    }

    /// The agent's own word that it does not pay where nothing can be checked.
    pub(crate) fn unchecked(&self) -> TransferError {
        self.refusal(Refusal::of(&GateError::RootUnknown))
    }
}
