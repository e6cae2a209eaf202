//! [`ChainSettler`]: pays bills on the chain, each exactly once.
//!
//! A bill goes intent → signed → broadcast → included → final, and each of these steps is in
//! the [`Journal`] before its effect:
//!
//! - What was signed is sent again, byte for byte, until a block has it. A lost answer, a
//!   restart, a reorganisation: always the same nonce, so that only one of them is ever paid.
//! - If the chain wants a higher fee by then, the same nonce is signed again with more. Every
//!   variant is kept, and any of them settles the bill.
//! - Another transaction for a bill is made only when the first can never pay it any more: it
//!   was reverted, or another transaction took its nonce, and that is as deep as is asked
//!   for. (In `BatchPay` the bill's own nonce makes a second payment impossible besides.)
//! - While the chain is away, or money is short, bills wait; nothing else does.
//!
//! Several bills go into one transaction through `BatchPay`, one bill is a plain transfer. Of
//! an ordinary payee with 150 bytes of metadata the transfer uses 23,400 gas; a batch of 1, 2,
//! 5 and 20 bills 44,000, 62,000, 115,000 and 378,000 (and 25,000 for each payee that the
//! chain has never seen): up to four bills cost more together, and are still one transaction,
//! guarded by the contract.

use std::fmt;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use async_trait::async_trait;
use chiral_chain::ChainClient;
use chiral_core::{Bill, BillId, PaymentSettler, SettleError, SettlementStatus, WalletSigner};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, JournalError};

mod board;
mod book;
mod calls;
mod config;
mod driver;
mod flight;
mod ledger;
mod payment;
mod plan;
mod problem;
mod record;
mod split;

pub use book::MAX_WAITING_BILLS;
pub use config::SettlerConfig;
pub use payment::{Payment, PaymentState};
pub use problem::Problem;
pub use split::{MAX_PEERS, PeerHeads, WORD_SECONDS, decode_head, encode_head, firm_block};

use board::Board;
pub(crate) use book::status_of;
use book::{Book, OpenError};
use driver::{Driver, unix_now};
use ledger::Ledger;
use record::Identity;

/// Why a settler was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has the payments of another wallet, or on another chain.
    #[error("the journal is of wallet {wallet} on chain {chain_id} with first block {genesis}")]
    OtherJournal {
        /// Whose it is.
        wallet: Address,
        /// On which chain.
        chain_id: u64,
        /// Hash of that chain's first block.
        genesis: B256,
    },
    /// No confirmations, or fewer watched blocks than that.
    #[error("a payment needs a confirmation, and is watched for as many blocks at least")]
    Depth,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
}

impl StartError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_retryable(),
            Self::Randomness => true,
            Self::OtherJournal { .. } | Self::Depth => false,
        }
    }
}

/// [`MAX_WAITING_BILLS`] wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WAITING_BILLS} bills wait already")]
pub struct QueueFull;

/// Pays bills on a chain from one wallet. The module's documentation says how.
///
/// One settler for a journal. The wallet may be used elsewhere too, at the price of payments
/// that are made anew when another transaction took their nonce.
pub struct ChainSettler {
    book: Book,
    board: Arc<Board>,
    wallet: Address,
    end: CancellationToken,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl ChainSettler {
    /// Goes on where the journal ends, and takes bills. The chain need not be there: it is
    /// asked in the background.
    ///
    /// # Errors
    /// [`StartError`], by case.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(
        journal: Journal,
        chain: Arc<dyn ChainClient>,
        wallet: Arc<dyn WalletSigner>,
        config: SettlerConfig,
    ) -> Result<Arc<Self>, StartError> {
        if config.confirmations == 0 || config.watched_blocks < config.confirmations {
            return Err(StartError::Depth);
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| StartError::Randomness)?;
        let mine = Identity {
            chain_id: config.chain_id,
            genesis: config.genesis,
            wallet: wallet.address(),
            salt: u128::from_be_bytes(salt),
            bills: 0,
            flights: 0,
        };
        let book = match Book::open(journal, mine).await {
            Ok(book) => book,
            Err(OpenError::Journal(error)) => return Err(error.into()),
            Err(OpenError::Foreign(found)) => {
                return Err(StartError::OtherJournal {
                    wallet: found.wallet,
                    chain_id: found.chain_id,
                    genesis: found.genesis,
                });
            }
        };
        let board = Arc::new(Board::new());
        let end = CancellationToken::new();
        let address = wallet.address();
        let ledger = Ledger {
            chain,
            wallet: address,
            config,
        };
        let driver = Driver::new(book.clone(), ledger, wallet, Arc::clone(&board));
        let task = tokio::spawn(driver.run(end.clone()));
        Ok(Arc::new(Self {
            book,
            board,
            wallet: address,
            end,
            driver: Mutex::new(Some(task)),
        }))
    }

    /// The wallet that pays.
    pub fn wallet(&self) -> Address {
        self.wallet
    }

    /// Waits until nothing more need happen to a bill: it was free, or the chain shows it as
    /// deep as is asked for. `None` for a bill that was never handed in.
    ///
    /// # Errors
    /// [`SettleError::Closed`] once the settler is shut down, and as
    /// [`status`](PaymentSettler::status).
    ///
    /// # Cancel safety
    /// Only looks.
    pub async fn wait(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError> {
        let mut changes = self.board.subscribe();
        loop {
            let status = self.status(bill).await?;
            if !matches!(status, Some(SettlementStatus::Pending { .. })) {
                return Ok(status);
            }
            if self.end.is_cancelled() || changes.changed().await.is_err() {
                return Err(SettleError::Closed);
            }
        }
    }

    /// The newest payments, newest first, `limit` at most: the statement.
    ///
    /// # Errors
    /// As [`status`](PaymentSettler::status).
    pub async fn payments(&self, limit: usize) -> Result<Vec<Payment>, SettleError> {
        let bills = self.book.newest(limit).await.map_err(journal_error)?;
        let payment = |(bill, record)| {
            let problem = self.board.of_bill(bill);
            Payment::new(bill, record, problem)
        };
        Ok(bills.into_iter().map(payment).collect())
    }

    /// One payment, as in the statement.
    ///
    /// # Errors
    /// As [`status`](PaymentSettler::status).
    pub async fn payment(&self, bill: BillId) -> Result<Option<Payment>, SettleError> {
        let record = self.book.bill(bill).await.map_err(journal_error)?;
        Ok(record.map(|record| Payment::new(bill, record, self.board.of_bill(bill))))
    }

    /// Why no payment goes on, if that is so. What holds up a single one is in
    /// [`Payment::problem`].
    pub fn problem(&self) -> Option<Problem> {
        self.board.general()
    }
}

#[async_trait]
impl PaymentSettler for ChainSettler {
    /// Answers as soon as the bills are in the journal; they are paid in the background.
    ///
    /// # Cancel safety
    /// The bills may have been taken when it is dropped; handing them in again is harmless.
    async fn settle(&self, bills: Vec<Bill>) -> Result<Vec<SettlementStatus>, SettleError> {
        if self.end.is_cancelled() {
            return Err(SettleError::Closed);
        }
        if let Some(bill) = bills.iter().find(|bill| !has_payee(bill)) {
            return Err(SettleError::NoPayee { bill: bill.id });
        }
        let known = self.book.known(&bills).await.map_err(journal_error)??;
        if let Some(statuses) = known {
            return Ok(statuses);
        }
        let taken = self.book.take(bills, unix_now()).await;
        let statuses = taken
            .map_err(journal_error)??
            .ok_or_else(|| SettleError::Unreachable(Box::new(QueueFull)))?;
        self.board.work.notify_one();
        self.board.changed();
        Ok(statuses)
    }

    async fn expedite(&self, bills: &[BillId]) -> Result<(), SettleError> {
        for bill in bills {
            let record = self.book.bill(*bill).await.map_err(journal_error)?;
            if record.is_some_and(|record| record.is_waiting()) {
                self.board.hurry(*bill);
            }
        }
        self.board.work.notify_one();
        Ok(())
    }

    async fn status(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError> {
        let record = self.book.bill(bill).await.map_err(journal_error)?;
        Ok(record.map(|record| record.status()))
    }

    /// Stops paying; what is not paid waits in the journal for the next start. The journal
    /// stays open: it belongs to whoever opened it.
    async fn shutdown(&self) -> Result<(), SettleError> {
        self.end.cancel();
        if let Some(driver) = self.driver.lock().await.take()
            && let Err(error) = driver.await
        {
            tracing::error!(%error, "the settler's task panicked");
        }
        Ok(())
    }
}

/// Whether there is somebody to pay, where something is to be paid.
fn has_payee(bill: &Bill) -> bool {
    bill.is_free() || bill.payee.is_some_and(|payee| !payee.is_zero())
}

fn journal_error(error: JournalError) -> SettleError {
    match error {
        JournalError::Closed => SettleError::Closed,
        other => SettleError::Unreachable(Box::new(other)),
    }
}

impl Drop for ChainSettler {
    fn drop(&mut self) {
        if !self.end.is_cancelled() {
            tracing::error!(wallet = %self.wallet, "a settler was dropped without shutdown");
            self.end.cancel();
        }
    }
}

impl fmt::Debug for ChainSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainSettler")
            .field("wallet", &self.wallet)
            .field("problem", &self.problem())
            .finish_non_exhaustive()
    }
}
