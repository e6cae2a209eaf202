//! [`ChainAgent`]: the fetching side that pays on a chain.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::PrivateKey;
use chiral_core::buffers::Buffers;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{
    Bill, BillId, ByteRange, Cid, GateError, PayAndLock, PaymentAgent, PaymentSettler, Purchase,
    RangeSet, Sealed, SettlementStatus, WalletSigner,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::Channels;
use crate::gate::books_failed;
use crate::known_keys::KnownKeys;
use crate::messages::{
    Accept, ChainFacts, Message, Notice, Quote, Request, Signed, Statement, agreement,
};
use crate::receipt::Receipt;
use crate::writing::Writing;
use crate::{Journal, JournalError};

mod bargain;
mod books;
mod channels;
mod config;
mod deal;
mod paying;
mod queue;
mod sealed;
pub(crate) mod store;
mod talk;
mod terms;

pub use config::AgentConfig;

use bargain::Bids;
use books::Books;
use deal::Key;
use paying::Turns;
use queue::Queue;

/// How long one conversation may keep the others from making an agreement of their own.
const LEASE: Duration = Duration::from_secs(5);

/// Longest pause that a seeder can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Agrees to terms that are what was announced, keeps the books of what was verified, and
/// makes the bills.
///
/// What was agreed, acknowledged, billed and settled is durable before anybody hears of it.
/// What was verified becomes durable in groups ([`AgentConfig::flush`]) and before it is
/// acknowledged or billed: what a kill takes away in between is never billed. No byte of a
/// file is on two bills, until [`ChainAgent::forget`].
///
/// The keys of its sessions are in the journal in plain. Whoever reads them can have what is
/// agreed on served at the buyer's cost, within the credit lines; they cannot move money.
#[derive(Clone)]
pub struct ChainAgent {
    inner: Arc<Inner>,
}

struct Inner {
    config: AgentConfig,
    chain: ChainFacts,
    wallet: Arc<dyn WalletSigner>,
    payer: Address,
    journal: Journal,
    channels: Option<Channels>,
    settler: Arc<dyn PaymentSettler>,
    books: Mutex<Books>,
    /// Conversations that are about to agree, and until when they keep others from it.
    leases: Mutex<HashMap<Key, Instant>>,
    agreed: Notify,
    bids: Bids,
    turns: Turns,
    /// Who waits to lock in which channel.
    queue: Queue,
    /// Keys of wallets that sold sealed bytes.
    sellers: KnownKeys,
    /// Memory for what is opened.
    buffers: Arc<Buffers>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl ChainAgent {
    /// Opens the books in the journal.
    ///
    /// # Errors
    /// [`JournalError`]; [`JournalError::Damaged`] if the books cannot be read.
    pub async fn start(
        journal: Journal,
        wallet: Arc<dyn WalletSigner>,
        settler: Arc<dyn PaymentSettler>,
        chain: ChainFacts,
        config: AgentConfig,
    ) -> Result<Self, JournalError> {
        Self::start_with(journal, wallet, settler, chain, None, config).await
    }

    /// The same, with channels to pay out of.
    ///
    /// # Errors
    /// As [`ChainAgent::start`].
    pub async fn start_with(
        journal: Journal,
        wallet: Arc<dyn WalletSigner>,
        settler: Arc<dyn PaymentSettler>,
        chain: ChainFacts,
        channels: Option<Channels>,
        config: AgentConfig,
    ) -> Result<Self, JournalError> {
        let books = journal
            .read(|step| {
                let mut books = Books::default();
                store::load(step, &mut books)?;
                Ok(books)
            })
            .await?;
        let agent = Self {
            inner: Arc::new(Inner {
                payer: wallet.address(),
                config,
                chain,
                wallet,
                journal,
                channels,
                settler,
                books: Mutex::new(books),
                leases: Mutex::default(),
                agreed: Notify::new(),
                bids: Bids::default(),
                turns: Turns::default(),
                queue: Queue::default(),
                sellers: KnownKeys::default(),
                buffers: Arc::default(),
                closed: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        let (writer, closed) = (agent.clone(), agent.inner.closed.clone());
        agent.inner.tasks.spawn(async move {
            closed.run_until_cancelled(writer.write_in_groups()).await;
        });
        Ok(agent)
    }

    /// The wallet that pays.
    pub fn wallet(&self) -> Address {
        self.inner.payer
    }

    /// Whether bytes of a file that were verified before would not be billed again.
    pub fn remembers(&self, cid: Cid) -> bool {
        self.books().remembers(cid)
    }

    /// What of a file is on the books as verified, whoever delivered it: each byte of it is
    /// billed or paid once. Of what came right before a kill, that which is not in here was not
    /// written down: it is to be asked for again.
    pub fn verified_of(&self, cid: Cid) -> RangeSet {
        self.books().verified_of(cid)
    }

    /// A file is here complete, or given up, and its books are closed
    /// ([`PaymentAgent::bills`]). A later download of it is another purchase, of which all
    /// bytes are billed.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn forget(&self, cid: Cid) -> Result<(), JournalError> {
        self.books().forget(cid);
        self.flush("agent-forget").await
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
        match self.step("agent-verified").await {
            Err(JournalError::Closed) => Ok(()),
            result => result,
        }
    }

    async fn write_in_groups(self) {
        let mut turn = tokio::time::interval(self.inner.config.flush.1);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_sweep = 0;
        loop {
            turn.tick().await;
            let now = self.now();
            if now.saturating_sub(last_sweep) > 3600 {
                last_sweep = now;
                self.books().sweep(now);
            }
            self.forget_ended().await;
            if let Err(error) = self.flush("agent-verified").await {
                tracing::warn!(%error, "what was verified is not on disk");
            }
        }
    }

    /// Tells the channels which agreements are over, before they are gone from disk here.
    async fn forget_ended(&self) {
        let ended = self.books().take_ended();
        let Some(channels) = self.inner.channels.as_ref().filter(|_| !ended.is_empty()) else {
            return;
        };
        for (agreement, about) in ended {
            channels.forget(agreement, about);
        }
        if let Err(error) = channels.write_down().await {
            tracing::warn!(%error, "what was paid in channels is not on disk");
        }
    }

    fn now(&self) -> u64 {
        self.inner.config.clock.now()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.inner.books)
    }

    fn check_open(&self) -> Result<(), GateError> {
        match self.inner.closed.is_cancelled() {
            true => Err(GateError::Closed),
            false => Ok(()),
        }
    }

    /// Makes everything durable that is not. What another step has taken along and is still
    /// writing is waited for: steps happen one after the other.
    async fn flush(&self, point: &'static str) -> Result<(), JournalError> {
        if !self.books().is_dirty() {
            return Ok(());
        }
        self.step(point).await
    }

    /// One durable step with everything that has changed. The records are made when its turn
    /// has come, so the last step written is the newest state.
    ///
    /// Channels in the same journal are written with it: what a key opened is never on disk as
    /// verified without the key, which would have to be told once more, for another upload.
    async fn step(&self, point: &'static str) -> Result<(), JournalError> {
        let (channels, journal) = (self.inner.channels.as_ref(), &self.inner.journal);
        let written = match channels.filter(|channels| channels.is_in(journal)) {
            Some(channels) => channels.write_with(point, self.writes()).await?,
            None => journal.write(point, self.writes()).await?,
        };
        written.keep(self);
        Ok(())
    }

    /// What writes everything that has changed in the books, in whatever step.
    fn writes(
        &self,
    ) -> impl FnOnce(&redb::WriteTransaction) -> Result<Written, JournalError> + Send + 'static
    {
        let agent = self.clone();
        move |step| {
            let dirty = agent.books().take_dirty();
            let books = agent.clone();
            let put_back: PutBack = Box::new(move |dirty| books.books().put_back(dirty));
            let writing = Writing::new(dirty, put_back);
            let reserved = store::save(step, &agent.books(), writing.dirty())?;
            Ok(Written { reserved, writing })
        }
    }

    async fn keep(&self, point: &'static str) -> Result<(), GateError> {
        self.flush(point).await.map_err(books_failed)
    }
}

type PutBack = Box<dyn FnOnce(books::Dirty) + Send>;

/// What was written of the books, in a step that may still fail.
struct Written {
    /// Up to where counters are set aside by it.
    reserved: Vec<(B256, u64)>,
    writing: Writing<books::Dirty, PutBack>,
}

impl Written {
    /// The step is on disk.
    fn keep(self, agent: &ChainAgent) {
        let dirty = self.writing.kept();
        agent.books().written(&dirty, &self.reserved);
    }
}

#[async_trait]
impl PaymentAgent for ChainAgent {
    async fn credential(
        &self,
        purchase: &Purchase,
        range: ByteRange,
    ) -> Result<Option<Bytes>, GateError> {
        self.check_open()?;
        if purchase.offer.price.is_free() || range.is_empty() {
            return Ok(None);
        }
        let Some(key) = key(purchase) else {
            return Ok(None);
        };
        loop {
            let taken = {
                let mut books = self.books();
                match books.usable(&key, self.now()) {
                    None => {
                        let (cid, payer) = (purchase.cid, self.inner.payer);
                        return Ok(Some(Message::QuoteRequest { cid, payer }.encode()));
                    }
                    Some((agreement, deal)) if deal.next_counter < deal.reserved => {
                        let counter = deal.next_counter;
                        deal.next_counter += 1;
                        deal.requested.insert(range);
                        Some((agreement, counter, Arc::clone(&deal.session)))
                    }
                    Some((agreement, _)) => {
                        books.touch(agreement);
                        None
                    }
                }
            };
            let Some((agreement, counter, session)) = taken else {
                self.keep("agent-counters").await?;
                continue;
            };
            let request = Request {
                agreement,
                counter,
                range,
            };
            let request = self.sign(request, &session).await?;
            return Ok(Some(Message::Request(request).encode()));
        }
    }

    async fn respond(
        &self,
        purchase: &Purchase,
        message: Bytes,
    ) -> Result<Option<Bytes>, GateError> {
        if message.len() > MAX_PAYMENT_MESSAGE {
            return Err(GateError::Message {
                reason: "over the limit",
            });
        }
        let decoded = Message::decode(&message)?;
        self.check_open()?;
        if purchase.offer.price.is_free() {
            return Err(GateError::Terms {
                reason: "it was announced as free",
            });
        }
        match decoded {
            Message::Quote(quote) => self.consider(purchase, quote).await,
            Message::Accepted { agreement } => self.agreed(purchase, agreement).await,
            Message::Acked {
                agreement,
                sequence,
            } => {
                let mut books = self.books();
                let deal = books.deals.get_mut(&agreement);
                if deal.is_some_and(|deal| deal.confirm(sequence)) {
                    books.touch(agreement);
                }
                Ok(None)
            }
            Message::Due {
                agreement,
                amount,
                prepay_bytes,
            } => {
                self.pay_what_is_due(purchase, agreement, amount, prepay_bytes)
                    .await
            }
            Message::Receipt(receipt) => {
                let payee = receipt.body.payee;
                self.take_receipt(receipt, message).await?;
                self.next_notice(payee).await
            }
            Message::Channel(message) => self.about_channel(purchase, message).await,
            Message::NotYet { retry_after } => self.pause(purchase, retry_after).await,
            Message::Ended { agreement } => Ok(self.ended(purchase, agreement)),
            Message::Refused { reason } => {
                tracing::debug!(offer = %purchase.offer.endpoint, %reason, "the seeder refuses");
                self.give_up(purchase);
                Err(GateError::Terms {
                    reason: "the seeder refuses",
                })
            }
            _ => Err(GateError::Message {
                reason: "not a message for an agent",
            }),
        }
    }

    async fn verified(&self, purchase: &Purchase, range: ByteRange) {
        if purchase.offer.price.is_free() {
            return;
        }
        let Some(key) = key(purchase) else {
            return;
        };
        let full = {
            let mut books = self.books();
            books.verified(&key, range);
            books.unwritten >= self.inner.config.flush.0
        };
        if full && let Err(error) = self.flush("agent-verified").await {
            tracing::warn!(%error, "what was verified is not on disk");
        }
    }

    async fn due(&self, purchase: &Purchase) -> Result<Option<Bytes>, GateError> {
        self.check_open()?;
        let Some(key) = key(purchase).filter(|_| !purchase.offer.price.is_free()) else {
            return Ok(None);
        };
        if let Some(pay) = self.due_before(&key).await? {
            return Ok(Some(pay));
        }
        if self.is_in_channel(&key) {
            return self.due_in_channel(&key, false).await;
        }
        let is_due = {
            let mut books = self.books();
            books.usable(&key, self.now()).is_some_and(|(_, deal)| {
                deal.pending.is_some() || deal.unacked() >= self.inner.config.ack_bytes
            })
        };
        match is_due {
            true => self.acknowledgement(&key).await,
            false => Ok(None),
        }
    }

    async fn last_due(&self, purchase: &Purchase) -> Result<Option<Bytes>, GateError> {
        self.check_open()?;
        let paid = key(purchase).filter(|_| !purchase.offer.price.is_free());
        match paid.filter(|key| self.is_in_channel(key)) {
            Some(key) => match self.due_before(&key).await? {
                Some(pay) => Ok(Some(pay)),
                None => self.due_in_channel(&key, true).await,
            },
            None => self.due(purchase).await,
        }
    }

    fn most_at_once(&self, purchase: &Purchase) -> u64 {
        self.most_at_once_of(purchase)
    }

    fn is_sealed(&self, purchase: &Purchase) -> bool {
        self.is_sealed_by(purchase)
    }

    fn pending(&self, purchase: &Purchase) -> Option<ByteRange> {
        self.pending_of(purchase)
    }

    async fn inspect(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: Sealed,
    ) -> Result<Sealed, GateError> {
        self.check_open()?;
        self.inspect_sealed(purchase, range, sealed)
    }

    async fn pay_and_lock(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<PayAndLock>, GateError> {
        self.check_open()?;
        self.pay_and_lock_sealed(purchase, range, sealed).await
    }

    async fn lock(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, GateError> {
        self.check_open()?;
        self.lock_sealed(purchase, range, sealed).await
    }

    async fn unseal(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
        answer: Bytes,
    ) -> Result<Bytes, GateError> {
        self.check_open()?;
        self.unseal_with(purchase, range, sealed, &answer).await
    }

    async fn unseal_by_ledger(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<Bytes>, GateError> {
        self.check_open()?;
        self.unseal_by_claim(purchase, range, sealed).await
    }

    async fn bills(&self, cid: Option<Cid>) -> Result<Vec<Bill>, GateError> {
        self.check_open()?;
        let made = {
            let now = self.now();
            self.books().make_bills(cid, None, now)
        };
        made.map_err(|_| GateError::Price)?;
        self.keep("agent-bills").await?;
        Ok(self.books().unsettled(cid, None))
    }

    async fn settled(
        &self,
        bill: BillId,
        status: &SettlementStatus,
    ) -> Result<Option<Bytes>, GateError> {
        self.check_open()?;
        let SettlementStatus::Settled { transaction } = status else {
            return Ok(None);
        };
        if !self.books().settled(bill, *transaction) {
            return Ok(None);
        }
        self.keep("agent-settled").await?;
        let notice = {
            let books = self.books();
            books.open.get(&bill).and_then(books::Owed::notice)
        };
        match notice {
            Some(notice) => self.sign_notice(notice).await,
            None => Ok(None),
        }
    }

    async fn receipt(&self, bill: BillId, answer: Bytes) -> Result<bool, GateError> {
        self.check_open()?;
        match Message::decode(&answer)? {
            Message::Receipt(receipt) if receipt.body.bill == bill => {
                self.take_receipt(receipt, answer).await
            }
            Message::NotYet { .. } => Ok(false),
            Message::Refused { reason } => {
                tracing::warn!(%bill, %reason, "the seeder does not take the payment");
                Err(GateError::Terms {
                    reason: "the seeder does not take the payment",
                })
            }
            Message::Ended { .. } => Err(GateError::Terms {
                reason: "the seeder knows no such agreement",
            }),
            _ => Err(GateError::Message {
                reason: "not an answer to a notice",
            }),
        }
    }
}

impl fmt::Debug for ChainAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainAgent")
            .field("payer", &self.inner.payer)
            .finish_non_exhaustive()
    }
}

/// For whom a purchase is; `None` without a wallet.
fn key(purchase: &Purchase) -> Option<Key> {
    Some(Key {
        cid: purchase.cid,
        payee: purchase.offer.wallet?,
        endpoint: purchase.offer.endpoint.clone(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
