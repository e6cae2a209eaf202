//! [`Channels`]: all channels of a node, in the journal, on the chain, and in between.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256};
use chiral_chain::{ChainClient, ChainError};
use chiral_core::wallet::SignerError;
use chiral_core::{ByteRange, SettleError, WalletSignature, WalletSigner};
use tokio::sync::{MutexGuard as MutexGuardAsync, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::book::{Book, ChannelView};
use super::on_chain::{CallSender, Contract};
use super::payee::{ClaimRules, TakeFault};
use super::payer::PayFault;
use super::voucher::{ChannelDomain, Word};
use super::{cipher, store, watcher};
use crate::clock::Clock;
use crate::writing::Writing;
use crate::{Journal, JournalError};

mod payee;
mod payer;

pub(crate) use payer::{NextLock, call_id};

/// Why something about a channel was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelsError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A call cannot be handed over.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The wallet does not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Nothing was promised.
    #[error(transparent)]
    Pay(#[from] PayFault),
    /// Nothing was taken.
    #[error(transparent)]
    Take(#[from] TakeFault),
    /// There is no such channel.
    #[error("no such channel")]
    Unknown,
    /// The chain has no such channel between these two, or not with these terms.
    #[error("the channel is not what was agreed on: {reason}")]
    Terms {
        /// What differs.
        reason: &'static str,
    },
    /// Not signed by the other party.
    #[error("not signed by the other party")]
    Signature,
    /// The code on the chain is not that of the contract.
    #[error("the chain does not have the contract")]
    NoContract,
    /// The chain did not show it in time.
    #[error("the chain does not show it yet")]
    NotYet,
}

impl ChannelsError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_retryable(),
            Self::Chain(error) => error.is_retryable(),
            Self::Settle(error) => error.is_retryable(),
            Self::Signer(error) => error.is_retryable(),
            Self::NotYet => true,
            _ => false,
        }
    }
}

/// Settings of [`Channels`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelsConfig {
    /// Blocks that have to lie on a deposit, its own included, before it counts.
    pub confirmations: u32,
    /// How long a locked voucher of ours holds: so long its price is frozen if the payee falls
    /// silent.
    pub lock_lifetime: Duration,
    /// Locked vouchers that expire sooner are not taken: so long a claim may take.
    pub least_lock: Duration,
    /// How long before a lock expires it is claimed, if its payment has not come.
    pub lock_margin: Duration,
    /// Wei that are claimed at once, whether the channel ends or not.
    pub claim_at_least: u128,
    /// Pause between looks at the chain.
    pub poll: Duration,
    /// How long to wait for a transaction of ours.
    pub patience: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl Default for ChannelsConfig {
    /// One confirmation, locks of ten minutes (five at least) claimed two before they expire,
    /// claims from 1 CHI on, a look every five seconds, two minutes of patience.
    fn default() -> Self {
        Self {
            confirmations: 1,
            lock_lifetime: Duration::from_secs(600),
            least_lock: Duration::from_secs(300),
            lock_margin: Duration::from_secs(120),
            claim_at_least: chiral_core::money::WEI_PER_CHI,
            poll: Duration::from_secs(5),
            patience: Duration::from_secs(120),
            clock: Clock::system(),
        }
    }
}

/// All channels of a node: those that it pays out of, and those that it is paid out of.
///
/// What is promised is durable before anybody has it, what is taken before anything is served for
/// it. Promises of many callers share one durable step: who comes while a step is on its way is
/// in the next. A background task looks at the chain: it claims before a challenge or a lock
/// ends, and takes back what is left once a channel's end has come.
#[derive(Clone)]
pub struct Channels {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: ChannelsConfig,
    domain: ChannelDomain,
    wallet: Arc<dyn WalletSigner>,
    pub(super) me: Address,
    journal: Journal,
    pub(super) contract: Contract,
    pub(super) sender: Arc<dyn CallSender>,
    book: Mutex<Book>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
    /// All changes up to this number are on disk.
    durable: AtomicU64,
    secret: B256,
    pub(super) changed: Notify,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Channels {
    /// Opens the books in the journal, and begins to watch the chain.
    ///
    /// # Errors
    /// [`JournalError`]; [`JournalError::Damaged`] if the books cannot be read.
    pub async fn start(
        journal: Journal,
        wallet: Arc<dyn WalletSigner>,
        client: Arc<dyn ChainClient>,
        sender: Arc<dyn CallSender>,
        domain: ChannelDomain,
        config: ChannelsConfig,
    ) -> Result<Self, JournalError> {
        let (book, secret, known) = journal
            .read(move |step| {
                let mut book = Book::default();
                let known = store::domain(step)?;
                if known.is_some_and(|known| known != domain) {
                    return Err(JournalError::Damaged {
                        what: "its channels are those of another contract or chain",
                    });
                }
                let secret = store::load(step, &mut book, &domain)?;
                Ok((book, secret, known))
            })
            .await?;
        if known.is_none() {
            let keep = move |step: &redb::WriteTransaction| store::save_domain(step, domain);
            journal.write("channel-contract", keep).await?;
        }
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let mut secret = B256::ZERO;
                getrandom::fill(&mut secret.0).map_err(|error| {
                    JournalError::Store(format!("no random bytes: {error}").into())
                })?;
                let keep = move |step: &redb::WriteTransaction| store::save_secret(step, secret);
                journal.write("channel-secret", keep).await?;
                secret
            }
        };
        let channels = Self {
            inner: Arc::new(Inner {
                contract: Contract {
                    client,
                    address: domain.contract(),
                },
                config,
                domain,
                me: wallet.address(),
                wallet,
                journal,
                sender,
                book: Mutex::new(book),
                turn: tokio::sync::Mutex::default(),
                durable: AtomicU64::new(0),
                secret,
                changed: Notify::new(),
                closed: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        let (watching, closed) = (channels.clone(), channels.inner.closed.clone());
        channels.inner.tasks.spawn(async move {
            closed.run_until_cancelled(watcher::watch(watching)).await;
        });
        Ok(channels)
    }

    /// Where vouchers hold.
    pub fn domain(&self) -> &ChannelDomain {
        &self.inner.domain
    }

    /// All channels that are known, those that are over included.
    pub fn views(&self) -> Vec<ChannelView> {
        self.book().views()
    }

    /// All channels in a journal that no node has open; none if there never was one. Nothing is
    /// asked of a chain.
    ///
    /// # Errors
    /// [`JournalError`]; [`JournalError::Damaged`] if the books cannot be read.
    pub async fn views_in(journal: &Journal) -> Result<Vec<ChannelView>, JournalError> {
        let read = |step: &redb::ReadTransaction| Ok(store::read(step)?.views());
        journal.read(read).await
    }

    /// The key that seals a range under an agreement.
    pub fn key(&self, agreement: B256, range: ByteRange) -> B256 {
        cipher::key_of(&self.inner.secret, &agreement, range)
    }

    /// Ends what runs, and writes what is not written. Idempotent.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn shutdown(&self) -> Result<(), JournalError> {
        self.inner.closed.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        match self.write_down().await {
            Err(JournalError::Closed) => Ok(()),
            result => result,
        }
    }

    /// Makes durable what is not.
    pub(crate) async fn write_down(&self) -> Result<(), JournalError> {
        let unwritten = self.book().unwritten();
        match unwritten {
            None => Ok(()),
            Some(change) => self.durable(change, "channel-flush").await,
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        let book = self.inner.book.lock();
        book.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> u64 {
        self.inner.config.clock.now()
    }

    pub(super) fn rules(&self) -> ClaimRules {
        ClaimRules {
            at_least: self.inner.config.claim_at_least,
            lock_margin: self.inner.config.lock_margin.as_secs(),
        }
    }

    pub(super) async fn sign(&self, word: &impl Word) -> Result<WalletSignature, SignerError> {
        let digest = word.digest_in(&self.inner.domain);
        self.inner.wallet.sign(digest).await
    }

    /// Waits until a change is on disk. Whoever's turn it is writes for all that wait.
    pub(super) async fn durable(
        &self,
        change: u64,
        point: &'static str,
    ) -> Result<(), JournalError> {
        let is_durable = || self.inner.durable.load(Ordering::Acquire) >= change;
        if is_durable() {
            return Ok(());
        }
        let turn = self.inner.turn.lock().await;
        if is_durable() {
            return Ok(());
        }
        self.write(&turn, point, |_| Ok(())).await
    }

    /// Whether what is promised here can be written in one step with what belongs to it.
    pub(crate) fn is_in(&self, journal: &Journal) -> bool {
        self.inner.journal.is(journal)
    }

    /// Writes all that has changed in one durable step with what `beside` writes.
    pub(crate) async fn write_with<T: Send + 'static>(
        &self,
        point: &'static str,
        beside: impl FnOnce(&redb::WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let turn = self.inner.turn.lock().await;
        self.write(&turn, point, beside).await
    }

    /// One durable step with all that has changed, and what `beside` writes.
    async fn write<T: Send + 'static>(
        &self,
        _turn: &MutexGuardAsync<'_, ()>,
        point: &'static str,
        beside: impl FnOnce(&redb::WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let channels = self.clone();
        let (written, writing, value) = self
            .inner
            .journal
            .write(point, move |step| {
                let value = beside(step)?;
                let (dirty, upto) = channels.book().take_dirty();
                let books = channels.clone();
                let writing = Writing::new(dirty, move |dirty| books.book().put_back(dirty));
                store::save(step, &channels.book(), writing.dirty())?;
                Ok((upto, writing, value))
            })
            .await?;
        writing.kept();
        self.inner.durable.fetch_max(written, Ordering::AcqRel);
        Ok(value)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("wallet", &self.inner.me)
            .field("domain", &self.inner.domain)
            .finish_non_exhaustive()
    }
}
