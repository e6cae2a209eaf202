//! [`ChainGate`]: the serving side that is paid on a chain.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::ChainClient;
use chiral_core::buffers::Buffers;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{
    Admission, BillId, ByteRange, Cid, GateError, PaymentGate, Price, Sealed, ServeRequest, Tariff,
    WalletSigner,
};
use redb::ReadTransaction;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::Channels;
use crate::known_keys::KnownKeys;
use crate::messages::{
    Accept, Ack, ChainFacts, CounterOffer, Message, Notice, Quote, Request, Signed, agreement,
};
use crate::receipt::Receipt;
use crate::statement::{Direction, Entry, Status};
use crate::witness::{Claim, Finding, Payment, Witness};
use crate::writing::Writing;
use crate::{Journal, JournalError};

mod account;
mod accounting;
mod allowance;
mod books;
mod channels;
mod config;
mod credit;
pub(crate) mod store;
mod talk;
mod terms;
mod watcher;
mod window;

pub use accounting::{AgreementAccount, WalletAccount};
pub use allowance::{FreeAllowance, FreeShare};
pub use config::{CreditRules, GateConfig};
pub use terms::FileTerms;

use books::{Books, NoAccount, Rules, Verdict};
use store::Earning;
pub(crate) use store::earnings;

/// Terms shown to strangers that are kept signed, at most.
const MAX_SHOWN: usize = 1024;

/// Looks at the ledger at once, at most.
const MAX_LOOKS: usize = 16;

/// When to ask again for what the ledger does not show yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Asks for money, lends within limits, and sees for itself that it was paid.
///
/// Free files are admitted with nothing shown. For others it makes an agreement with whoever
/// names a wallet, and serves requests that the session's key signed, as far as the credit
/// line reaches ([`CreditRules`]) or, under
/// [`PayFirst`](crate::messages::Policy::PayFirst), as far as was paid.
///
/// Agreements, acknowledgements and payments are durable before they are answered. What was
/// served becomes durable every [`GateConfig::flush_interval`]: a kill forgets at most that
/// much of it, in the buyer's favour, and a request of that time could be replayed (it would
/// be served again, never billed).
///
/// A request holds its part of the line until [`PaymentGate::served`] is called for it,
/// which ends it; whoever never calls it holds it for 15 minutes.
#[derive(Clone)]
pub struct ChainGate {
    inner: Arc<Inner>,
}

struct Inner {
    config: GateConfig,
    chain: ChainFacts,
    wallet: Arc<dyn WalletSigner>,
    payee: Address,
    journal: Journal,
    channels: Option<Channels>,
    witness: Witness,
    looks: Semaphore,
    /// Keys of sessions that ask again and again.
    sessions: KnownKeys,
    /// Memory for what is sealed.
    buffers: Arc<Buffers>,
    books: Mutex<Books>,
    terms: Mutex<HashMap<Cid, FileTerms>>,
    /// Terms for nobody in particular, with the price they are for and when to sign anew.
    shown: Mutex<HashMap<Cid, (Price, u64, Bytes)>>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// What was acknowledged and is not paid, in a journal that no gate has open.
pub(crate) fn receivable_in(step: &ReadTransaction) -> Result<Vec<Entry>, JournalError> {
    let config = GateConfig::default();
    let mut books = Books::new(Rules {
        credit: config.credit,
        allowance: config.allowance,
        max_agreements: config.max_agreements,
        payment_deadline: config.payment_deadline.as_secs(),
    });
    store::load(step, &mut books, config.clock.now())?;
    Ok(receivable(&books))
}

fn receivable(books: &Books) -> Vec<Entry> {
    let entry = |account: &account::Account| Entry {
        direction: Direction::Earned,
        bill: None,
        channel: None,
        cid: account.terms.cid,
        wallet: Some(account.terms.payer),
        peer: None,
        protocol: account.protocol.clone(),
        bytes: account.acked.len().saturating_sub(account.paid),
        amount: account.owed(),
        status: Status::Outstanding,
        transaction: None,
        time: account.active,
        receipt: false,
    };
    let entries = books.accounts.values().map(entry);
    entries.filter(|entry| !entry.amount.is_zero()).collect()
}

impl ChainGate {
    /// Opens the books in the journal, and begins to look for payments.
    ///
    /// # Errors
    /// [`JournalError`]; [`JournalError::Damaged`] if the books cannot be read.
    pub async fn start(
        journal: Journal,
        wallet: Arc<dyn WalletSigner>,
        client: Arc<dyn ChainClient>,
        chain: ChainFacts,
        config: GateConfig,
    ) -> Result<Self, JournalError> {
        Self::start_with(journal, wallet, client, chain, None, config).await
    }

    /// The same, with channels to be paid out of.
    ///
    /// # Errors
    /// As [`ChainGate::start`].
    pub async fn start_with(
        journal: Journal,
        wallet: Arc<dyn WalletSigner>,
        client: Arc<dyn ChainClient>,
        chain: ChainFacts,
        channels: Option<Channels>,
        mut config: GateConfig,
    ) -> Result<Self, JournalError> {
        if let Some(channels) = &channels {
            config.channel.contract = channels.domain().contract();
        }
        let rules = Rules {
            credit: config.credit,
            allowance: config.allowance,
            max_agreements: config.max_agreements,
            payment_deadline: config.payment_deadline.as_secs(),
        };
        let now = config.clock.now();
        let mut books = Books::new(rules);
        let (mut books, scanned, terms) = journal
            .read(move |step| {
                let scanned = store::load(step, &mut books, now)?;
                Ok((books, scanned, store::load_terms(step)?))
            })
            .await?;
        if let Some(channels) = &channels {
            for share in channels.shares() {
                books.restore_in_band(share.agreement, share.bytes);
            }
        }
        let gate = Self {
            inner: Arc::new(Inner {
                payee: wallet.address(),
                witness: Witness::new(client, chain, config.confirmations),
                looks: Semaphore::new(MAX_LOOKS),
                sessions: KnownKeys::default(),
                buffers: Arc::default(),
                books: Mutex::new(books),
                terms: Mutex::new(terms),
                shown: Mutex::default(),
                closed: CancellationToken::new(),
                tasks: TaskTracker::new(),
                config,
                chain,
                wallet,
                journal,
                channels,
            }),
        };
        gate.spawn(watcher::flush(gate.clone()));
        gate.spawn(watcher::watch(gate.clone(), scanned));
        Ok(gate)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.inner.closed.clone();
        self.inner.tasks.spawn(async move {
            closed.run_until_cancelled(work).await;
        });
    }

    /// The wallet that is paid.
    pub fn wallet(&self) -> Address {
        self.inner.payee
    }

    /// What a wallet was given and has not paid, in wei.
    pub fn exposure(&self, wallet: Address) -> U256 {
        self.books().exposure(wallet)
    }

    /// What all wallets without history drew today, in wei.
    pub fn strangers_today(&self) -> U256 {
        let now = self.now();
        self.books().credit.drawn_today(now)
    }

    /// What was acknowledged and is not paid, for the statement.
    pub(crate) fn receivable(&self) -> Vec<Entry> {
        receivable(&self.books())
    }

    /// Ends what runs and writes what is not written. Idempotent.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn shutdown(&self) -> Result<(), JournalError> {
        self.inner.closed.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        // Also if nothing has changed: a step that was begun by a task is waited for.
        match self.step("gate-flush", |_| Ok(())).await {
            Err(JournalError::Closed) => Ok(()),
            result => result,
        }
    }

    fn now(&self) -> u64 {
        self.inner.config.clock.now()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.inner.books)
    }

    /// Makes everything durable that is not. What another step has taken along and is still
    /// writing is waited for: steps happen one after the other.
    async fn flush(&self, point: &'static str) -> Result<(), JournalError> {
        if !self.books().is_dirty() {
            return Ok(());
        }
        self.step(point, |_| Ok(())).await
    }

    /// One durable step with everything that has changed in it. The records are made when
    /// the step's turn has come, so the last step written is the newest state.
    async fn step<T: Send + 'static>(
        &self,
        point: &'static str,
        f: impl FnOnce(&redb::WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let gate = self.clone();
        let (value, writing) = self
            .inner
            .journal
            .write(point, move |step| {
                let value = f(step)?;
                let dirty = gate.books().take_dirty();
                let books = gate.clone();
                let writing = Writing::new(dirty, move |dirty| books.books().put_back(dirty));
                store::save(step, &gate.books(), writing.dirty())?;
                let files = &writing.dirty().files;
                store::save_terms(step, &lock(&gate.inner.terms), files)?;
                Ok((value, writing))
            })
            .await?;
        writing.kept();
        self.books().written();
        Ok(value)
    }

    /// Decides on a request that shows a signed credential.
    fn decide(&self, request: &ServeRequest, shown: &Signed<Request>) -> Admission {
        let Request {
            agreement,
            counter,
            range,
        } = shown.body;
        let ended = || Admission::PaymentRequired(Message::Ended { agreement }.encode());
        let is_cid = {
            let books = self.books();
            let account = books.accounts.get(&agreement);
            account.map(|account| account.terms.cid == request.cid)
        };
        let (Some(is_cid), Some(is_signed)) = (is_cid, self.is_of_session(agreement, shown)) else {
            return ended();
        };
        if !is_cid || !is_signed || !range.covers(request.range) {
            return denied("the credential is for something else, or not the session's");
        }
        if let Some(answer) = self.without_channel(agreement, request) {
            return answer;
        }
        let (now, protocol) = (self.now(), &request.protocol);
        let verdict = self
            .books()
            .admit(agreement, counter, request.range, protocol, now);
        let say = |message: Message| Admission::PaymentRequired(message.encode());
        match verdict {
            Verdict::Serve => Admission::Granted,
            Verdict::Ended => ended(),
            Verdict::Replayed => denied("the credential was used before"),
            Verdict::Busy => say(not_yet()),
            Verdict::TooLarge => denied("the request alone is over the credit line"),
            Verdict::Strangers => denied("no more credit today for wallets that never paid"),
            Verdict::Due {
                amount,
                prepay_bytes,
            } => say(Message::Due {
                agreement,
                amount,
                prepay_bytes,
            }),
        }
    }
}

#[async_trait]
impl PaymentGate for ChainGate {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        if self.inner.closed.is_cancelled() {
            return Err(GateError::Closed);
        }
        if self.price(request.cid).is_free() {
            return Ok(Admission::Granted);
        }
        let shown = request.credential.as_deref().map(Message::decode);
        Ok(match shown {
            Some(Ok(Message::Request(shown))) => self.decide(request, &shown),
            Some(Ok(Message::QuoteRequest { cid, payer })) if cid == request.cid => {
                Admission::PaymentRequired(self.quote(cid, payer).await?)
            }
            _ => Admission::PaymentRequired(self.quote(request.cid, Address::ZERO).await?),
        })
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        let shown = request.credential.as_deref().map(Message::decode);
        if let Some(Ok(Message::Request(shown))) = shown {
            let Request {
                agreement, counter, ..
            } = shown.body;
            let now = self.now();
            self.books().served(agreement, counter, sent, now);
        }
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        if message.len() > MAX_PAYMENT_MESSAGE {
            return Err(GateError::Message {
                reason: "over the limit",
            });
        }
        let decoded = Message::decode(&message)?;
        if self.inner.closed.is_cancelled() {
            return Err(GateError::Closed);
        }
        let answer = match decoded {
            Message::QuoteRequest { cid, payer } => return self.quote(cid, payer).await,
            Message::Accept { accept, quote } => self.accept(message, accept, quote).await?,
            Message::CounterOffer { offer, quote } => {
                return self.bargain(offer, quote).await;
            }
            Message::Ack(ack) => self.acknowledge(ack).await?,
            Message::Notice(notice) => self.notice(notice).await?,
            Message::Channel(message) => self.about_channel(message).await?,
            _ => {
                return Err(GateError::Message {
                    reason: "not a message for a gate",
                });
            }
        };
        Ok(answer.encode())
    }

    async fn seal(&self, request: &ServeRequest, data: Bytes) -> Result<Sealed, GateError> {
        self.seal_answer(request, data).await
    }

    fn tariff(&self, cid: Cid) -> Tariff {
        let price = self.price(cid);
        Tariff {
            price,
            wallet: (!price.is_free()).then_some(self.inner.payee),
        }
    }
}

impl fmt::Debug for ChainGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainGate")
            .field("payee", &self.inner.payee)
            .field("price", &self.inner.config.price)
            .field("policy", &self.inner.config.policy)
            .finish_non_exhaustive()
    }
}

fn refused(reason: &str) -> Message {
    Message::Refused {
        reason: reason.to_owned(),
    }
}

fn not_yet() -> Message {
    Message::NotYet {
        retry_after: LOOK_AGAIN,
    }
}

fn denied(reason: &str) -> Admission {
    Admission::Refused {
        reason: reason.to_owned(),
    }
}

pub(crate) fn books_failed(error: JournalError) -> GateError {
    match error {
        JournalError::Closed => GateError::Closed,
        error => GateError::Journal(Arc::new(error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
