//! [`ChainGate`]: the serving side that is paid on a chain.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::ChainClient;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{
    Admission, BillId, ByteRange, Cid, GateError, PaymentGate, Price, ServeRequest, Tariff,
    WalletSigner,
};
use redb::ReadTransaction;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::messages::{
    Accept, Ack, ChainFacts, Message, Notice, Quote, Request, Signed, agreement,
};
use crate::receipt::Receipt;
use crate::statement::{Direction, Entry, Status};
use crate::witness::{Claim, Finding, Payment, Witness};
use crate::{Journal, JournalError};

mod account;
mod books;
mod config;
mod credit;
pub(crate) mod store;
mod watcher;
mod window;

pub use config::{CreditRules, GateConfig};

use books::{Books, Rules, Verdict};
use store::Earning;
pub(crate) use store::earnings;

/// Files with a price of their own, at most.
const MAX_PRICES: usize = 1 << 20;

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
    witness: Witness,
    looks: Semaphore,
    books: Mutex<Books>,
    prices: Mutex<HashMap<Cid, Price>>,
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
        cid: account.terms.cid,
        wallet: Some(account.terms.payer),
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
        let rules = Rules {
            credit: config.credit,
            max_agreements: config.max_agreements,
            payment_deadline: config.payment_deadline.as_secs(),
        };
        let now = config.clock.now();
        let mut books = Books::new(rules);
        let (books, scanned) = journal
            .read(move |step| {
                let scanned = store::load(step, &mut books, now)?;
                Ok((books, scanned))
            })
            .await?;
        let gate = Self {
            inner: Arc::new(Inner {
                payee: wallet.address(),
                witness: Witness::new(client, chain, config.confirmations),
                looks: Semaphore::new(MAX_LOOKS),
                books: Mutex::new(books),
                prices: Mutex::default(),
                shown: Mutex::default(),
                closed: CancellationToken::new(),
                tasks: TaskTracker::new(),
                config,
                chain,
                wallet,
                journal,
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

    /// Sets a file's price. Quotes that were given stay as they are, and so do the bills
    /// under them. Prices are not kept over a restart.
    pub fn set_price(&self, cid: Cid, price: Price) {
        let mut prices = lock(&self.inner.prices);
        if prices.len() < MAX_PRICES || prices.contains_key(&cid) {
            prices.insert(cid, price);
        } else {
            tracing::warn!(%cid, "too many prices; the general one holds");
        }
    }

    /// A file's price now.
    pub fn price(&self, cid: Cid) -> Price {
        let prices = lock(&self.inner.prices);
        prices.get(&cid).copied().unwrap_or(self.inner.config.price)
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

    /// Makes everything durable that is not.
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
        let taken: Arc<Mutex<Option<books::Dirty>>> = Arc::default();
        let (gate, stash) = (self.clone(), Arc::clone(&taken));
        let result = self
            .inner
            .journal
            .write(point, move |step| {
                let value = f(step)?;
                let mut books = gate.books();
                let dirty = books.take_dirty();
                let saved = store::save(step, &books, &dirty);
                *lock(&stash) = Some(dirty);
                saved.map(|()| value)
            })
            .await;
        if result.is_err()
            && let Some(dirty) = lock(&taken).take()
        {
            self.books().put_back(dirty);
        }
        result
    }

    async fn quote(&self, cid: Cid, payer: Address) -> Result<Bytes, GateError> {
        let inner = &self.inner;
        let (price, now) = (self.price(cid), self.now());
        if payer.is_zero()
            && let Some((at, until, bytes)) = lock(&inner.shown).get(&cid)
            && *at == price
            && *until > now
        {
            return Ok(bytes.clone());
        }
        let mut id = B256::ZERO;
        getrandom::fill(&mut id.0).map_err(|error| GateError::Wallet(Arc::new(error)))?;
        let rules = &inner.config.credit;
        let least = price.cost(rules.least_bytes).unwrap_or(U256::MAX);
        let lifetime = inner.config.quote_lifetime.as_secs();
        let quote = Quote {
            id,
            cid,
            payer,
            payee: inner.payee,
            price,
            policy: inner.config.policy,
            credit_limit: self.books().line(payer, least),
            prepay_bytes: inner.config.prepay_bytes,
            confirmations: inner.config.confirmations,
            chain: inner.chain,
            valid_until: now.saturating_add(lifetime),
        };
        let quote = self.sign(quote).await?;
        let bytes = Message::Quote(quote).encode();
        if payer.is_zero() {
            let mut shown = lock(&inner.shown);
            if shown.len() >= MAX_SHOWN {
                shown.clear();
            }
            // Signed anew while most of its time is left.
            shown.insert(cid, (price, now + lifetime / 8, bytes.clone()));
        }
        Ok(bytes)
    }

    // `Statement` is private to the crate, and so is this.
    async fn sign<T: crate::messages::Statement>(&self, body: T) -> Result<Signed<T>, GateError> {
        let signed = Signed::sign(body, &self.inner.chain, &*self.inner.wallet).await;
        signed.map_err(|error| GateError::Wallet(Arc::new(error)))
    }

    async fn accept(
        &self,
        message: Bytes,
        accept: Signed<Accept>,
        quote: Signed<Quote>,
    ) -> Result<Message, GateError> {
        let (chain, payee) = (&self.inner.chain, self.inner.payee);
        let now = self.now();
        let reason = match () {
            () if !quote.is_by(payee, chain) || quote.body.payee != payee => "not a quote of mine",
            () if quote.body.chain != *chain => "a quote for another chain",
            () if accept.body.quote != quote.digest(chain) => "accepts another quote",
            () if quote.body.payer.is_zero() => "a quote that is for nobody",
            () if quote.body.payer != accept.body.payer => "a quote for another wallet",
            () if !accept.is_by(accept.body.payer, chain) => "not signed by the payer",
            () if accept.body.session_key.is_zero() => "no session key",
            () if quote.body.valid_until <= now => "the quote has expired",
            () => {
                let agreement = agreement(&quote, &accept, chain);
                let Some(terms) = store::terms(message) else {
                    return Err(GateError::Message {
                        reason: "not an acceptance",
                    });
                };
                if self.books().accept(agreement, terms, now) {
                    self.flush("gate-agreement").await.map_err(books_failed)?;
                    return Ok(Message::Accepted { agreement });
                }
                "too many agreements"
            }
        };
        Ok(refused(reason))
    }

    /// Whether the key of a session signed a word.
    fn is_of_session<T: crate::messages::Statement>(
        &self,
        agreement: B256,
        word: &Signed<T>,
    ) -> Option<bool> {
        let key = self.books().accounts.get(&agreement)?.terms.session_key;
        Some(word.is_by(key, &self.inner.chain))
    }

    async fn acknowledge(&self, ack: Signed<Ack>) -> Result<Message, GateError> {
        let agreement = ack.body.agreement;
        match self.is_of_session(agreement, &ack) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let noted = self.books().acknowledge(&ack.body);
        Ok(match noted {
            None => Message::Ended { agreement },
            Some(Ok(sequence)) => {
                self.flush("gate-ack").await.map_err(books_failed)?;
                Message::Acked {
                    agreement,
                    sequence,
                }
            }
            Some(Err(account::AckFault::Sequence)) => refused("an acknowledgement is missing"),
            Some(Err(account::AckFault::Total)) => refused("the total is not the sum"),
            Some(Err(account::AckFault::Ranges)) => refused("acknowledges what was not served"),
        })
    }

    async fn notice(&self, notice: Signed<Notice>) -> Result<Message, GateError> {
        let agreement = notice.body.agreement;
        match self.is_of_session(agreement, &notice) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let notice = notice.body;
        let bill = BillId::derive(agreement, notice.sequence);
        if let Some(earning) = self.find_earning(bill).await? {
            return Ok(match earning.receipt.transaction == notice.transaction {
                true => Message::decode(&earning.message)?,
                false => refused("the bill was paid by another transaction"),
            });
        }
        let (payer, price) = {
            let books = self.books();
            let Some(account) = books.accounts.get(&agreement) else {
                return Ok(Message::Ended { agreement });
            };
            (account.terms.payer, account.terms.price)
        };
        let Some(cost) = price.cost(notice.bytes) else {
            return Ok(refused("the amount overflows"));
        };
        if notice.bytes == 0 || notice.sequence >= account::MAX_BILLS || notice.amount < cost {
            return Ok(refused("the amount is too small for the bytes"));
        }
        let Ok(_look) = self.inner.looks.try_acquire() else {
            return Ok(not_yet());
        };
        let claim = Claim {
            bill,
            payer,
            payee: self.inner.payee,
            amount: notice.amount,
            transaction: notice.transaction,
        };
        Ok(match self.inner.witness.examine(&claim).await {
            Ok(Finding::Paid(payment)) => {
                self.earn(agreement, notice.sequence, notice.bytes, payment)
                    .await?
            }
            Ok(Finding::NotYet) => not_yet(),
            Ok(Finding::Refused { reason }) => refused(reason),
            Err(error) => {
                tracing::warn!(%error, "a payment cannot be looked up");
                not_yet()
            }
        })
    }

    async fn find_earning(&self, bill: BillId) -> Result<Option<Earning>, GateError> {
        let found = self
            .inner
            .journal
            .read(move |step| store::find_earning(step, bill));
        found.await.map_err(books_failed)
    }

    /// Takes a verified payment for a bill, once; answers the receipt.
    async fn earn(
        &self,
        agreement: B256,
        sequence: u32,
        bytes: u64,
        payment: Payment,
    ) -> Result<Message, GateError> {
        let now = self.now();
        let (cid, protocol) = {
            let books = self.books();
            let Some(account) = books.accounts.get(&agreement) else {
                return Ok(Message::Ended { agreement });
            };
            (account.terms.cid, account.protocol.clone())
        };
        let receipt = Receipt {
            bill: payment.bill,
            payer: payment.payer,
            payee: self.inner.payee,
            cid,
            bytes,
            amount: payment.amount,
            transaction: payment.transaction,
            time: now,
        };
        let receipt = self.sign(receipt).await?;
        let earning = Earning {
            agreement,
            sequence,
            protocol,
            message: Message::Receipt(receipt.clone()).encode(),
            receipt: receipt.body,
        };
        let gate = self.clone();
        let kept = self
            .step("gate-payment", move |step| {
                if let Some(before) = store::earning(step, earning.receipt.bill)? {
                    return Ok(before);
                }
                store::save_earning(step, &earning)?;
                let amount = earning.receipt.amount;
                gate.books().pay(agreement, sequence, bytes, amount, now);
                Ok(earning)
            })
            .await
            .map_err(books_failed)?;
        match kept.receipt.transaction == payment.transaction {
            true => Ok(Message::decode(&kept.message)?),
            false => Ok(refused("the bill was paid by another transaction")),
        }
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
            Message::Ack(ack) => self.acknowledge(ack).await?,
            Message::Notice(notice) => self.notice(notice).await?,
            _ => {
                return Err(GateError::Message {
                    reason: "not a message for a gate",
                });
            }
        };
        Ok(answer.encode())
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
