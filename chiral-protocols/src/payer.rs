//! [`Payer`]: our agent at one seeder's payment gate.
//!
//! Conversations run in tasks of their own, one at a time for a source: requests that were
//! refused together share one, and one that is given up meanwhile does not end it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::payment_gate::{AgreeError, MAX_PAYMENT_MESSAGE, agree};
use chiral_core::{ByteRange, Endpoint, GateError, PaymentAgent, Purchase, TransferError};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use ahead::Ahead;
use telling::MAX_UNANSWERED;
#[cfg(feature = "private")]
pub(crate) use {ahead::Room, ahead::at_once, sealed::Owed};

mod ahead;
#[cfg(feature = "private")]
mod sealed;
mod telling;

/// First pause before another agreement when those before led to nothing; doubles up to
/// [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Agreements in a row that follow each other at once: what is agreed on first may be how is
/// paid, and then, before anything comes of that, there is something to pay.
const AT_ONCE: u32 = 2;

/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Takes messages to the gate of one seeder, over whatever protocol.
#[async_trait]
pub(crate) trait Carrier: Send + Sync + std::fmt::Debug {
    /// The seeder's place.
    fn name(&self) -> &Endpoint;

    /// Brings the gate's answer to a message.
    async fn carry(&self, message: Bytes) -> Result<Bytes, TransferError>;
}

/// How long and how often an agreement is sought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Time for one agreement, which may include a payment.
    pub(crate) timeout: Duration,
    /// Agreements in a row that no delivery followed.
    pub(crate) attempts: u32,
}

/// Why nothing is bought here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    reason: String,
    retryable: bool,
    /// It would be otherwise with a root.
    for_want_of_root: bool,
}

type Outcome = Result<(), Refusal>;

#[derive(Debug, Default)]
struct State {
    /// Agreements so far. Terms for a request that was made before the last are out of date.
    agreements: u64,
    /// Agreements in a row that no delivery followed.
    fruitless: u32,
    /// The agreement that is being sought.
    seeking: Option<watch::Receiver<Option<Outcome>>>,
    /// It will not be sought again.
    refused: Option<Refusal>,
    acknowledged: Option<Instant>,
}

/// Who answers for us at the seeder's payment gate.
#[derive(Debug)]
pub(crate) struct Payer {
    agent: Arc<dyn PaymentAgent>,
    purchase: Purchase,
    carrier: Arc<dyn Carrier>,
    patience: Patience,
    closed: CancellationToken,
    tasks: TaskTracker,
    root_known: AtomicBool,
    finished: AtomicBool,
    state: Mutex<State>,
    /// Held by whoever talks to the gate.
    floor: tokio::sync::Mutex<()>,
    /// Requests that were refused for want of payment and not admitted since.
    waiting: AtomicUsize,
    /// Something was verified, which the gate may have been waiting for.
    progress: Notify,
    ahead: Mutex<Ahead>,
    /// Something was verified while somebody talked to the gate.
    more: AtomicBool,
    /// Whether somebody tells the gate what is verified.
    telling: AtomicBool,
    /// Payments whose answers have not come: so many more may be sent.
    unanswered: Arc<Semaphore>,
}

impl Payer {
    pub(crate) fn new(
        agent: Arc<dyn PaymentAgent>,
        purchase: Purchase,
        carrier: Arc<dyn Carrier>,
        patience: Patience,
        closed: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            agent,
            purchase,
            carrier,
            patience,
            closed,
            tasks,
            root_known: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            state: Mutex::default(),
            floor: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            progress: Notify::new(),
            ahead: Mutex::default(),
            more: AtomicBool::new(false),
            telling: AtomicBool::new(false),
            unanswered: Arc::new(Semaphore::new(MAX_UNANSWERED)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purchase(&self) -> Purchase {
        let known = self.root_known.load(Ordering::Relaxed);
        self.purchase.clone().with_root_known(known)
    }

    fn refusal(&self, refusal: Refusal) -> TransferError {
        TransferError::Refused {
            source_name: self.carrier.name().to_string(),
            reason: refusal.reason,
            retryable: refusal.retryable,
        }
    }

    /// From now on, payment in advance is for something that can be checked.
    pub(crate) fn root_known(&self) {
        self.root_known.store(true, Ordering::Relaxed);
        self.in_any_order();
        let mut state = self.state();
        state.refused = state.refused.take().filter(|r| !r.for_want_of_root);
    }

    pub(crate) fn is_paying(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.state().seeking.is_some()
    }

    /// A request was refused for want of payment; until this is dropped it waits.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.clone())
    }

    /// Waits until something is verified, but not long: longer the more often it was in vain.
    pub(crate) async fn pause(&self, in_vain: u32) {
        let pause = FIRST_PAUSE.saturating_mul(1 << in_vain.min(16));
        // Passed or cut short: either is fine.
        timeout(pause.min(MAX_PAUSE), self.progress.notified())
            .await
            .unwrap_or_default();
    }

    /// Bytes that one request may ask for now.
    pub(super) fn most_at_once(&self) -> u64 {
        self.agent.most_at_once(&self.purchase())
    }

    /// Whether a window decides how much is served ahead of payment.
    fn is_windowed(&self) -> bool {
        self.most_at_once() != u64::MAX
    }

    /// What to show with a request, and how many agreements there were when it was made.
    pub(crate) async fn credential(
        &self,
        range: ByteRange,
    ) -> Result<(u64, Option<Bytes>), TransferError> {
        let agreements = {
            let state = self.state();
            if let Some(refusal) = state.refused.clone() {
                return Err(self.refusal(refusal));
            }
            state.agreements
        };
        let no = |error: GateError| self.refusal(Refusal::of(&error));
        let credential = self.agent.credential(&self.purchase(), range).await;
        let too_long = |bytes: &Bytes| bytes.len() > MAX_PAYMENT_MESSAGE;
        let value = credential.map_err(no)?;
        if value.as_ref().is_some_and(too_long) {
            return Err(no(GateError::Message {
                reason: "over the limit",
            }));
        }
        Ok((agreements, value))
    }

    /// A request was admitted.
    pub(crate) fn admitted(&self) {
        self.state().fruitless = 0;
    }

    /// The gate answered its terms to a request that was made after `agreements` of them.
    /// Returns when there is a later agreement: true if it had to be sought.
    pub(crate) async fn agree(
        self: &Arc<Self>,
        agreements: u64,
        terms: Bytes,
    ) -> Result<bool, TransferError> {
        let Some(mut outcome) = self.seek(agreements, terms)? else {
            return Ok(false);
        };
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            // The source was closed.
            Err(_) => None,
        };
        match outcome {
            Some(Ok(())) => Ok(true),
            Some(Err(refusal)) => Err(self.refusal(refusal)),
            None => Err(TransferError::Closed),
        }
    }

    /// Joins the search for an agreement or begins one; `None` if there is one already.
    fn seek(
        self: &Arc<Self>,
        agreements: u64,
        terms: Bytes,
    ) -> Result<Option<watch::Receiver<Option<Outcome>>>, TransferError> {
        let mut state = self.state();
        if let Some(refusal) = state.refused.clone() {
            return Err(self.refusal(refusal));
        }
        if let Some(outcome) = &state.seeking {
            return Ok(Some(outcome.clone()));
        }
        if state.agreements != agreements {
            return Ok(None);
        }
        let (tell, outcome) = watch::channel(None);
        state.seeking = Some(outcome.clone());
        let (payer, fruitless) = (self.clone(), state.fruitless);
        drop(state);
        self.tasks.spawn(async move {
            let search = payer.search(agreements, terms, fruitless);
            let result = payer.closed.run_until_cancelled(search).await;
            payer.note(result.as_ref());
            tell.send_replace(result);
        });
        Ok(Some(outcome))
    }

    /// Seeks an agreement, after so many.
    async fn search(&self, agreements: u64, terms: Bytes, fruitless: u32) -> Outcome {
        if let Some(in_vain) = fruitless.checked_sub(AT_ONCE) {
            // Either the agent has more to acknowledge then, or the gate has calmed down.
            self.pause(in_vain).await;
        }
        let limit = self.patience.timeout;
        let talk = async {
            let _floor = self.floor.lock().await;
            // The gate may only be waiting to hear what has come, or have heard it meanwhile.
            let in_date = || self.state().agreements == agreements;
            if in_date() {
                self.told(self.acknowledge(false).await);
            }
            match in_date() {
                true => self.converse(terms).await,
                false => Ok(()),
            }
        };
        match timeout(limit, talk).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::temporary("no agreement in time")),
        }
    }

    /// Takes note of how a search ended.
    fn note(&self, outcome: Option<&Outcome>) {
        let mut state = self.state();
        state.seeking = None;
        match outcome {
            Some(Ok(())) => {
                state.agreements += 1;
                state.fruitless += 1;
                // Those that followed at once took no time in which anything could have changed.
                let most = self.patience.attempts.saturating_add(AT_ONCE - 1);
                if state.fruitless >= most {
                    let reason = "asks for payment whatever is agreed";
                    state.refused = Some(Refusal::lasting(reason));
                }
            }
            Some(Err(refusal)) if !refusal.retryable => state.refused = Some(refusal.clone()),
            Some(Err(_)) | None => {}
        }
        if let Some(outcome) = outcome {
            tracing::debug!(source = %self.carrier.name(), ?outcome, "payment was talked about");
        }
    }

    async fn converse(&self, message: Bytes) -> Outcome {
        let carry = |message| self.carrier.carry(message);
        match agree(&*self.agent, &self.purchase(), message, carry).await {
            Ok(()) => Ok(()),
            Err(AgreeError::Agent(error)) => Err(Refusal::of(&error)),
            Err(AgreeError::Carrier(error)) => Err(Refusal::of_carrier(&error)),
            Err(error) => Err(Refusal::lasting(&error.to_string())),
        }
    }
}

/// A request that waits for payment.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Payer>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refusal {
    fn of_carrier(error: &TransferError) -> Self {
        Self {
            reason: error.to_string(),
            retryable: error.is_retryable(),
            for_want_of_root: false,
        }
    }

    fn of(error: &GateError) -> Self {
        Self {
            reason: error.to_string(),
            retryable: error.is_retryable(),
            for_want_of_root: matches!(error, GateError::RootUnknown),
        }
    }

    fn lasting(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            retryable: false,
            for_want_of_root: false,
        }
    }

    fn temporary(reason: &str) -> Self {
        Self {
            retryable: true,
            ..Self::lasting(reason)
        }
    }
}
