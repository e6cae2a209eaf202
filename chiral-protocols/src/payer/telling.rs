//! Telling the gate what was verified: acknowledgements, and payments where a window decides.
//!
//! Such payments follow each other without waiting for their answers: over a stream these come
//! behind all the chunks that are on their way, and by then there is much more to pay for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{ByteRange, TransferError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::{Outcome, Payer, Refusal};

/// Least time between two acknowledgements.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(250);

/// Time that the last acknowledgement may take when a source is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Payments whose answers have not come, at most.
pub(super) const MAX_UNANSWERED: usize = 8;

impl Payer {
    /// Sends what is due to the gate, if anything is; whatever can be, if it is the last. Waits
    /// for the answer. Needs the floor.
    pub(super) async fn acknowledge(&self, last: bool) -> Outcome {
        self.state().acknowledged = Some(Instant::now());
        let unsettled = self.unsettled();
        let Some(message) = self.due(last).await? else {
            return Ok(());
        };
        let mut carry = pin!(self.carrier.carry(message));
        let first = poll_fn(|cx| Poll::Ready(carry.as_mut().poll(cx))).await;
        // On its way: what is asked for from now on comes behind it.
        self.settled(unsettled);
        let answer = match first {
            Poll::Ready(answer) => answer,
            Poll::Pending => carry.await,
        };
        let answer = answer.map_err(|error| Refusal::of_carrier(&error))?;
        self.converse(answer).await?;
        self.note_payment();
        Ok(())
    }

    async fn due(&self, last: bool) -> Result<Option<Bytes>, Refusal> {
        let due = match last {
            true => self.agent.last_due(&self.purchase()).await,
            false => self.agent.due(&self.purchase()).await,
        };
        due.map_err(|error| Refusal::of(&error))
    }

    /// Where a window decides, terms for what was asked for before a payment are out of date.
    fn note_payment(&self) {
        if self.is_windowed() {
            self.state().agreements += 1;
        }
    }

    /// Sends what is due, and goes on: the answer is looked at when it comes. Needs the floor.
    async fn pay_on(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Outcome {
        let unsettled = self.unsettled();
        let Some(message) = self.due(false).await? else {
            return Ok(());
        };
        let payer = self.clone();
        let mut exchange = Box::pin(async move {
            let answer = payer.carrier.carry(message).await;
            payer.answered(answer).await
        });
        let first = poll_fn(|cx| Poll::Ready(exchange.as_mut().poll(cx))).await;
        // On its way: what is asked for from now on comes behind it.
        self.settled(unsettled);
        if let Poll::Ready(outcome) = first {
            return outcome;
        }
        let payer = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Some(outcome) = payer.closed.run_until_cancelled(exchange).await {
                payer.told(outcome);
            }
        });
        Ok(())
    }

    /// The gate answered a payment. If anything is left to say, nobody else talks to it then.
    async fn answered(&self, answer: Result<Bytes, TransferError>) -> Outcome {
        let answer = answer.map_err(|error| Refusal::of_carrier(&error))?;
        let next = self.agent.respond(&self.purchase(), answer).await;
        if let Some(next) = next.map_err(|error| Refusal::of(&error))? {
            let _floor = self.floor.lock().await;
            let answer = self.carrier.carry(next).await;
            let answer = answer.map_err(|error| Refusal::of_carrier(&error))?;
            self.converse(answer).await?;
        }
        self.note_payment();
        Ok(())
    }

    /// Bytes from here are proven. Sends an acknowledgement now and then, behind the back of
    /// whoever tells.
    pub(crate) async fn verified(self: &Arc<Self>, range: ByteRange) {
        self.agent.verified(&self.purchase(), range).await;
        self.count_verified(range.len());
        self.progress.notify_waiters();
        let lately = |at: Instant| at.elapsed() < ACKNOWLEDGE_EVERY;
        // Where a window decides, the gate waits for every payment.
        let windowed = self.is_windowed();
        if !windowed && self.state().acknowledged.is_some_and(lately) {
            return;
        }
        self.more.store(true, Ordering::SeqCst);
        if self.floor.try_lock().is_err() || self.telling.swap(true, Ordering::SeqCst) {
            return;
        }
        let payer = self.clone();
        self.tasks.spawn(async move {
            let closed = payer.closed.clone();
            closed.run_until_cancelled(payer.tell(windowed)).await;
        });
    }

    /// Tells what is verified, as long as there is more of it; one at a time.
    async fn tell(self: Arc<Self>, windowed: bool) {
        loop {
            let more = match windowed {
                true => self.tell_all().await,
                false => self.tell_once().await,
            };
            self.telling.store(false, Ordering::SeqCst);
            // Whoever came in between has left it to this task.
            let more = more && self.more.load(Ordering::SeqCst);
            if !more || self.telling.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    async fn tell_once(&self) -> bool {
        if let Ok(_floor) = self.floor.try_lock() {
            self.more.store(false, Ordering::SeqCst);
            self.told(self.acknowledge(false).await);
        }
        false
    }

    /// False if somebody else talks to the gate: a conversation acknowledges too.
    async fn tell_all(self: &Arc<Self>) -> bool {
        while self.more.load(Ordering::SeqCst) {
            // Before the floor, which whoever has an answer may need. It is never closed.
            let Ok(permit) = self.unanswered.clone().acquire_owned().await else {
                return false;
            };
            let Ok(_floor) = self.floor.try_lock() else {
                return false;
            };
            self.more.store(false, Ordering::SeqCst);
            self.told(self.pay_on(permit).await);
        }
        true
    }

    /// Sends the last acknowledgement, if the gate takes it within [`FAREWELL`].
    pub(crate) async fn finish(&self) {
        if self.finished.swap(true, Ordering::Relaxed) || self.closed.is_cancelled() {
            return;
        }
        let last = async {
            // What was answered need not be said again.
            let _answered = self.unanswered.acquire_many(MAX_UNANSWERED as u32).await;
            let _floor = self.floor.lock().await;
            self.told(self.acknowledge(true).await);
        };
        if timeout(FAREWELL, last).await.is_err() {
            tracing::debug!(source = %self.carrier.name(), "the last acknowledgement was cut short");
        }
    }

    /// An acknowledgement that is not taken holds nothing up: the next says it again.
    pub(super) fn told(&self, outcome: Outcome) {
        if let Err(refusal) = outcome {
            let reason = refusal.reason;
            tracing::debug!(source = %self.carrier.name(), reason, "acknowledgement not taken");
        }
    }
}
