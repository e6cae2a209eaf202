//! [`PaymentGate`] on the serving side, [`PaymentAgent`] on the fetching side, and opaque
//! bytes between them, which protocols carry without reading.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use alloy_primitives::Address;
use async_trait::async_trait;
use bytes::Bytes;

use crate::{Bill, BillId, ByteRange, Cid, PeerOffer, Price, Protocol, SettlementStatus};

/// Limit on any message between gate and agent, in bytes.
pub const MAX_PAYMENT_MESSAGE: usize = 16 * 1024;

/// Why gate or agent refused.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// The terms differ from what was announced, or are not the announcer's.
    #[error("the terms are not what was announced: {reason}")]
    Terms {
        /// What differs.
        reason: &'static str,
    },
    /// The seeder sent more than arrived (connections that broke, processes that ended), and
    /// lends no more before it is paid for bytes that nobody has.
    #[error("it lends no more: much of what it sent never arrived, and only what arrived is paid")]
    Credit,
    /// Payment before delivery is asked, and not every chunk could be checked as it comes.
    #[error("payment in advance needs a link with a root")]
    RootUnknown,
    /// The books cannot be kept.
    #[error("the payment journal failed")]
    Journal(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The wallet did not sign.
    #[error("the wallet does not sign")]
    Wallet(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The ledger cannot be reached, or does not show a payment yet.
    #[error("the payment cannot be seen on the ledger yet")]
    Ledger,
    /// Something that this gate or agent does not do.
    #[error("{what} is not done here")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// Gate or agent has been shut down.
    #[error("shut down")]
    Closed,
}

impl GateError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::Wallet(_) | Self::Ledger)
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
    /// Whether the protocol has each answer [sealed](PaymentGate::seal), so that what is sent
    /// is worth nothing before its key is paid for.
    pub sealed: bool,
}

impl ServeRequest {
    /// Without a credential.
    pub fn new(cid: Cid, range: ByteRange, protocol: Protocol) -> Self {
        Self {
            cid,
            range,
            protocol,
            credential: None,
            sealed: false,
        }
    }

    /// Says that the answer will be sealed.
    #[must_use]
    pub fn with_sealed(mut self, sealed: bool) -> Self {
        self.sealed = sealed;
        self
    }
}

/// Bytes that can be read with a key only, and the seller's word on them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Sealed {
    /// For the client's agent, which gives its lock for it: at most [`MAX_PAYMENT_MESSAGE`].
    pub header: Bytes,
    /// As many bytes as were sealed.
    pub data: Bytes,
    /// What the agent found when it looked at them.
    finding: Option<Arc<dyn Any + Send + Sync>>,
}

impl Sealed {
    /// From both parts.
    pub fn new(header: Bytes, data: Bytes) -> Self {
        Self {
            header,
            data,
            finding: None,
        }
    }

    /// With what an agent found when it [looked](PaymentAgent::inspect) at them, of a type that
    /// nobody else has.
    #[must_use]
    pub fn with_finding<T: Any + Send + Sync>(mut self, finding: T) -> Self {
        self.finding = Some(Arc::new(finding));
        self
    }

    /// What was found, if it was found by who asks.
    pub fn finding<T: Any>(&self) -> Option<&T> {
        self.finding.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("header", &self.header)
            .field("data", &self.data.len())
            .field("inspected", &self.finding.is_some())
            .finish()
    }
}

/// A payment for what was bought before and a lock behind it, promised in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PayAndLock {
    /// Both in one message.
    pub both: Bytes,
    /// The payment alone, for a gate that does not know such messages.
    pub pay: Bytes,
}

impl PayAndLock {
    /// From both forms.
    pub fn new(both: Bytes, pay: Bytes) -> Self {
        Self { both, pay }
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
    /// Whether a request may be served. A credential is used up only by what is granted: the same
    /// request can be asked about again, as when a payment has come meanwhile.
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError>;

    /// Bytes of an admitted request were sent (at least handed to the transport).
    async fn served(&self, request: &ServeRequest, sent: ByteRange);

    /// A message from an agent; the answer goes back to it.
    async fn message(&self, message: Bytes) -> Result<Bytes, GateError>;

    /// Seals the bytes of an admitted request whose protocol said that it would have them
    /// sealed. They go to the client's [`PaymentAgent::lock`]; what that answers comes back
    /// to [`PaymentGate::message`], whose answer is for [`PaymentAgent::unseal`].
    ///
    /// # Errors
    /// [`GateError::Unsupported`] by a gate that sells nothing in this way.
    async fn seal(&self, request: &ServeRequest, data: Bytes) -> Result<Sealed, GateError> {
        let _ = (request, data);
        Err(GateError::Unsupported { what: "sealing" })
    }

    /// What this node asks for a file, for whoever announces it.
    fn tariff(&self, cid: Cid) -> Tariff {
        let _ = cid;
        Tariff::default()
    }
}

/// What a seeder asks for a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// The price; free if nothing is said.
    pub price: Price,
    /// Where payments go.
    pub wallet: Option<Address>,
}

/// What an agent is asked about: bytes of a file from a seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purchase {
    /// The file.
    pub cid: Cid,
    /// The seeder's offer, as it was found: its price and wallet are what was announced.
    pub offer: PeerOffer,
    /// Whether every chunk can be checked as it comes, because the root is pinned or proven.
    /// Paying before delivery is for these only.
    pub root_known: bool,
}

impl Purchase {
    /// From this offer, with a root that is not known.
    pub fn new(cid: Cid, offer: PeerOffer) -> Self {
        Self {
            cid,
            offer,
            root_known: false,
        }
    }

    /// Says whether every chunk can be checked as it comes.
    #[must_use]
    pub fn with_root_known(mut self, root_known: bool) -> Self {
        self.root_known = root_known;
        self
    }
}

/// Answers on the fetching side, and keeps the books of what was verified.
///
/// Protocols carry its messages and tell it what passed the check; what is owed in the end
/// is asked of it by whoever settles.
#[async_trait]
pub trait PaymentAgent: Send + Sync + fmt::Debug + 'static {
    /// What to show with a request for a range; nothing for free content.
    async fn credential(
        &self,
        purchase: &Purchase,
        range: ByteRange,
    ) -> Result<Option<Bytes>, GateError>;

    /// The gate sent something: its terms ([`Admission::PaymentRequired`]) or the answer to
    /// the last message. What to send to it now; `None` when there is nothing left to say
    /// and the request can be made again. May take as long as a payment takes.
    ///
    /// # Errors
    /// [`GateError`]: the terms are not accepted; this seeder is not bought from.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what was agreed or paid is found again.
    async fn respond(
        &self,
        purchase: &Purchase,
        message: Bytes,
    ) -> Result<Option<Bytes>, GateError>;

    /// Bytes from this seeder passed the check and are proven; each byte once.
    async fn verified(&self, purchase: &Purchase, range: ByteRange);

    /// A message that is due to the gate though nothing is requested: an acknowledgement of
    /// what was verified. Its answer goes to [`PaymentAgent::respond`].
    async fn due(&self, purchase: &Purchase) -> Result<Option<Bytes>, GateError>;

    /// The same when nothing more is asked for: what would have waited for more of its kind is
    /// due, too.
    async fn last_due(&self, purchase: &Purchase) -> Result<Option<Bytes>, GateError> {
        self.due(purchase).await
    }

    /// Bytes, at most, that one request to this seeder should ask for now: a gate serves only
    /// so much ahead of payment. No limit, unless an agent knows one.
    fn most_at_once(&self, purchase: &Purchase) -> u64 {
        let _ = purchase;
        u64::MAX
    }

    /// Whether what is bought here comes sealed: whoever asks for bytes says so with the
    /// request, and has a key bought for each answer.
    fn is_sealed(&self, purchase: &Purchase) -> bool {
        let _ = purchase;
        false
    }

    /// What has to be bought from this seeder before anything else: its key is locked and not
    /// paid for, since an earlier run, or since a connection broke. Nothing, unless an agent
    /// has locks.
    fn pending(&self, purchase: &Purchase) -> Option<ByteRange> {
        let _ = purchase;
        None
    }

    /// Sealed bytes have come for a range that was requested, and may wait for their turn. An
    /// agent that looks at them now need not do so when their key is to be bought.
    ///
    /// # Errors
    /// As [`PaymentAgent::lock`].
    async fn inspect(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: Sealed,
    ) -> Result<Sealed, GateError> {
        let _ = (purchase, range);
        Ok(sealed)
    }

    /// What was opened last is [verified](PaymentAgent::verified), and these bytes are next: the
    /// payment that is [due](PaymentAgent::due) and their [lock](PaymentAgent::lock), promised
    /// in one step. The gate answers as to a lock, and not without having taken the payment; if
    /// it answers anything but a key, the two are to be sent one by one. `None` if they cannot
    /// be promised together: then each is to be asked for by itself.
    ///
    /// # Errors
    /// As [`PaymentAgent::lock`].
    ///
    /// # Cancel safety
    /// What was promised stays so and is found again.
    async fn pay_and_lock(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<PayAndLock>, GateError> {
        let _ = (purchase, range, sealed);
        Ok(None)
    }

    /// Sealed bytes have come for a range that was requested. What to send to the gate, so
    /// that it gives the key: a payment that is worth nothing without it.
    ///
    /// # Errors
    /// [`GateError::Unsupported`] by an agent that buys nothing in this way;
    /// [`GateError::Message`] and [`GateError::Terms`] if they are not what was agreed on.
    ///
    /// # Cancel safety
    /// What was locked stays locked and is found again.
    async fn lock(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, GateError> {
        let _ = (purchase, range, sealed);
        Err(GateError::Unsupported { what: "locking" })
    }

    /// The gate answered a lock. The bytes that were sealed; whether they are right is for the
    /// verifier to say. From then on [`PaymentAgent::due`] has the payment itself.
    ///
    /// # Errors
    /// As [`PaymentAgent::lock`], and if the answer is no key.
    async fn unseal(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
        answer: Bytes,
    ) -> Result<Bytes, GateError> {
        let _ = (purchase, range, sealed, answer);
        Err(GateError::Unsupported { what: "unsealing" })
    }

    /// The gate does not answer a lock. The bytes that were sealed, if the ledger shows the
    /// key: whoever takes there what is locked has to show it. `None` as long as it does not.
    /// What follows is as after [`PaymentAgent::unseal`].
    ///
    /// # Errors
    /// As [`PaymentAgent::lock`], and if the ledger cannot be asked.
    async fn unseal_by_ledger(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<Bytes>, GateError> {
        let _ = (purchase, range, sealed);
        Ok(None)
    }

    /// Closes the books on what was verified of a file (of all files, without one) and is on
    /// no bill yet; answers all bills that are not known to be settled. Durable before it
    /// answers; idempotent.
    async fn bills(&self, cid: Option<Cid>) -> Result<Vec<Bill>, GateError>;

    /// A bill was settled so far. Answers the notice for the gate that it was made with, if
    /// there is one to give; the gate's answer goes to [`PaymentAgent::receipt`].
    async fn settled(
        &self,
        bill: BillId,
        status: &SettlementStatus,
    ) -> Result<Option<Bytes>, GateError>;

    /// The gate answered a notice: its receipt, or that it does not see the payment yet.
    /// True once a valid receipt is kept.
    async fn receipt(&self, bill: BillId, answer: Bytes) -> Result<bool, GateError>;
}

/// Why agent and gate did not agree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgreeError<E> {
    /// The agent walked away.
    #[error(transparent)]
    Agent(GateError),
    /// The messages could not be carried.
    #[error(transparent)]
    Carrier(E),
    /// More than [`MAX_ROUNDS`] messages.
    #[error("the seeder does not come to an agreement")]
    Endless,
}

/// Most messages of an agent in one conversation.
pub const MAX_ROUNDS: usize = 16;

/// Leads the conversation that begins with a gate's terms, until the agent is content and
/// the request can be made again. `carry` takes a message to the gate and brings its answer.
///
/// # Errors
/// [`AgreeError`], by who failed.
pub async fn agree<C, F, E>(
    agent: &dyn PaymentAgent,
    purchase: &Purchase,
    terms: Bytes,
    mut carry: C,
) -> Result<(), AgreeError<E>>
where
    C: FnMut(Bytes) -> F,
    F: Future<Output = Result<Bytes, E>>,
{
    let mut message = terms;
    for _ in 0..MAX_ROUNDS {
        match agent.respond(purchase, message).await {
            Ok(Some(next)) => message = carry(next).await.map_err(AgreeError::Carrier)?,
            Ok(None) => return Ok(()),
            Err(error) => return Err(AgreeError::Agent(error)),
        }
    }
    Err(AgreeError::Endless)
}
