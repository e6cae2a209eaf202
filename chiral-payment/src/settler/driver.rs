//! The task that pays: it asks the chain, takes the durable steps, signs and sends.
//!
//! It remembers nothing that matters: every pass begins with what the journal says, so that
//! a crash between any two lines of it is a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::{B256, U256};
use chiral_chain::{BlockRef, ChainError, HeadStream, TransactionError};
use chiral_core::{BillId, WalletSigner};
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod pay;
mod send;

use super::board::{Board, Problems};
use super::book::Book;
use super::flight::{Depths, Sighting, Step, next};
use super::ledger::{Ledger, Obstacle};
use super::plan::Waiting;
use super::problem::Problem;
use super::record::Flight;
use crate::contracts::batch_pay::{BatchPayment, MAX_LEGS, skipped};
use crate::journal::JournalError;

/// Waiting bills that one pass looks at.
const MAX_BILLS_A_PASS: usize = 4 * MAX_LEGS;
/// Durable steps that one transaction makes in a pass.
const MAX_STEPS: usize = 8;
/// First pause after the chain did not answer.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The chain is first asked of a transaction this long after it was sent.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// Shortest pause while bills wait for others.
const MIN_REST: Duration = Duration::from_millis(100);
/// Pause while nothing is to be done.
const IDLE: Duration = Duration::from_secs(60);

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What a receipt shows of the bills of a transaction.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// All are paid.
    All,
    /// Not of all what became of them.
    NotAll,
    /// These were skipped, and were never paid.
    Skipped(Vec<BillId>),
}

/// Why a pass ended early.
#[derive(Debug)]
enum Stop {
    Journal(JournalError),
    Obstacle(Obstacle),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<Obstacle> for Stop {
    fn from(obstacle: Obstacle) -> Self {
        Self::Obstacle(obstacle)
    }
}

impl From<ChainError> for Stop {
    fn from(error: ChainError) -> Self {
        Self::Obstacle(Obstacle::Chain(error))
    }
}

/// What was sent when; forgotten in a restart, when everything is sent again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    variant: B256,
    first: Instant,
    last: Instant,
    head: B256,
}

pub(super) struct Driver {
    book: Book,
    ledger: Ledger,
    signer: Arc<dyn WalletSigner>,
    board: Arc<Board>,
    /// By number of the transaction; only of open ones.
    sent: HashMap<u64, Sent>,
    /// The best block when a settled transaction was last looked at.
    looked: HashMap<u64, B256>,
    /// A nonce that the chain lacks, and no transaction of the journal has, and since when.
    gap: Option<(u64, Instant)>,
    /// Since when bills wait for others.
    gathering: Option<Instant>,
    problems: Problems,
}

impl Driver {
    pub(super) fn new(
        book: Book,
        ledger: Ledger,
        signer: Arc<dyn WalletSigner>,
        board: Arc<Board>,
    ) -> Self {
        Self {
            book,
            ledger,
            signer,
            board,
            sent: HashMap::new(),
            looked: HashMap::new(),
            gap: None,
            gathering: None,
            problems: Problems::default(),
        }
    }

    /// Pays until it is cancelled. Dropping it anywhere is safe.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let board = Arc::clone(&self.board);
        tokio::select! {
            () = end.cancelled() => {}
            error = self.drive() => {
                if !matches!(error, JournalError::Closed | JournalError::Crashed { .. }) {
                    tracing::error!(%error, "no payments go out: the journal failed");
                }
            }
        }
        // Whoever waits looks again, and finds it closed.
        end.cancel();
        board.changed();
    }

    async fn drive(&mut self) -> JournalError {
        let mut heads: Option<HeadStream> = None;
        let mut backoff = FIRST_BACKOFF;
        loop {
            if heads.is_none() {
                heads = self.ledger.chain.heads().await.ok();
            }
            self.problems = Problems::default();
            let pause = match self.pass().await {
                Ok(pause) => {
                    backoff = FIRST_BACKOFF;
                    pause
                }
                Err(Stop::Journal(error)) if !error.is_retryable() => return error,
                Err(stop) => {
                    self.problems.general = Some(problem(stop));
                    let pause = backoff;
                    backoff = (backoff * 2).min(self.ledger.config.max_backoff);
                    pause
                }
            };
            self.board.set(std::mem::take(&mut self.problems));
            let over = Instant::now() + pause;
            tokio::select! {
                () = self.board.work.notified() => {}
                () = next_head(&mut heads) => {}
                () = tokio::time::sleep_until(over) => {}
            }
        }
    }

    /// One look at everything; answers how long nothing need be done.
    async fn pass(&mut self) -> Result<Duration, Stop> {
        let work = self.book.work(MAX_BILLS_A_PASS, unix_now()).await?;
        let open: HashSet<u64> = work.flights.iter().map(|(number, _)| *number).collect();
        self.sent.retain(|number, _| open.contains(number));
        self.looked.retain(|number, _| open.contains(number));
        let is_bill = |(_, record): &&Waiting| !record.is_call();
        let bills = work.waiting.iter().filter(is_bill).count();
        let calls = work.waiting.len() - bills;
        if bills == 0 {
            self.gathering = None;
        }
        let poll = self.ledger.config.poll;
        if work.flights.is_empty() && work.waiting.is_empty() {
            let rest = work.next_try.map(|at| at.saturating_sub(unix_now()));
            return Ok(rest.map_or(IDLE, |rest| IDLE.min(Duration::from_secs(rest)).max(poll)));
        }
        let rest = self.rest(&work.waiting);
        if let Some(rest) = rest
            && work.flights.is_empty()
            && calls == 0
        {
            return Ok(rest.clamp(MIN_REST, IDLE));
        }
        let head = self.ledger.chain.head().await?;
        let mut flights = Vec::with_capacity(work.flights.len());
        let nonces: HashSet<u64> = work.flights.iter().map(|(_, f)| f.nonce).collect();
        for (number, flight) in work.flights {
            flights.push(self.advance(number, flight, head, &nonces).await?);
        }
        let mut pause = poll;
        let mut ready = work.waiting;
        if bills > 0 && rest.is_some() {
            ready.retain(|(_, record)| record.is_call());
        } else if bills > 0 {
            let since = *self.gathering.get_or_insert_with(Instant::now);
            let left = self.ledger.config.gather.saturating_sub(since.elapsed());
            if bills < MAX_LEGS && !left.is_zero() {
                pause = poll.min(left);
                // A call shares its transaction with nothing, so there is nothing it waits for.
                ready.retain(|(_, record)| record.is_call());
            } else {
                self.gathering = None;
            }
        }
        if !ready.is_empty() {
            self.pay(ready, flights, head).await?;
        }
        Ok(pause.min(self.next_look()))
    }

    /// When the chain is to be asked again of what was sent: soon after, and less and less often.
    fn next_look(&self) -> Duration {
        let since = self.sent.values().map(|sent| sent.first.elapsed()).min();
        since.map_or(Duration::MAX, |since| since.max(FIRST_LOOK))
    }

    /// How long bills wait for more to share their transaction; `None` if they wait no more.
    fn rest(&self, waiting: &[Waiting]) -> Option<Duration> {
        let (enough, deadline) = self.ledger.config.aggregate;
        let waiting = || waiting.iter().filter(|(_, record)| !record.is_call());
        let sum = waiting().fold(U256::ZERO, |sum, (_, record)| {
            sum.saturating_add(record.amount)
        });
        let bills: HashSet<BillId> = waiting().map(|(bill, _)| *bill).collect();
        if sum >= enough || bills.len() >= MAX_LEGS || self.board.is_urgent(&bills) {
            return None;
        }
        let oldest = waiting().map(|(_, record)| record.taken_at).min()?;
        let over = oldest.saturating_add(deadline.as_secs());
        let left = over.saturating_sub(unix_now());
        (left > 0).then(|| Duration::from_secs(left))
    }

    /// Takes a transaction as far as it goes now.
    async fn advance(
        &mut self,
        number: u64,
        mut flight: Flight,
        head: BlockRef,
        nonces: &HashSet<u64>,
    ) -> Result<Flight, Stop> {
        use super::record::FlightState::Final;
        let confirmations = self.ledger.config.confirmations.max(1);
        let depths = Depths {
            confirmations,
            failed: self.ledger.config.failed_depth(),
            watched: self.ledger.config.watched_blocks.max(confirmations),
        };
        for _ in 0..MAX_STEPS {
            if flight.state == Final && self.looked.get(&number) == Some(&head.hash) {
                break;
            }
            let sighting = self.ledger.sight(&flight, head).await?;
            let step = next(&flight, sighting, depths);
            tracing::debug!(number, nonce = flight.nonce, ?step, "payment");
            flight = match step {
                Step::Wait => {
                    if sighting == Sighting::Unclear {
                        self.note(&flight, &Problem::NonceUsed);
                    }
                    if flight.state == Final {
                        self.looked.insert(number, head.hash);
                    }
                    break;
                }
                Step::Send => {
                    if let Sighting::Absent { next } = sighting
                        && next < flight.nonce
                        && !nonces.contains(&next)
                    {
                        self.fill_gap(&flight, next).await?;
                    }
                    return self.send(number, flight, head).await;
                }
                Step::Include {
                    variant,
                    block,
                    succeeded,
                } => {
                    let book = &self.book;
                    book.included(number, variant, block, succeeded).await?
                }
                Step::Settle => {
                    let deep = match sighting {
                        Sighting::Mined { depth, .. } => depth >= depths.failed,
                        _ => false,
                    };
                    match self.shown(&flight, head).await? {
                        Shown::All => self.book.settled(number, unix_now()).await?,
                        Shown::NotAll => {
                            self.note(&flight, &Problem::NotShown);
                            break;
                        }
                        Shown::Skipped(bills) if deep => {
                            tracing::error!(?bills, "nonces of the batch contract were used");
                            self.book.skipped(number, bills, unix_now()).await?
                        }
                        Shown::Skipped(_) => {
                            self.note(&flight, &Problem::LegNonceUsed);
                            break;
                        }
                    }
                }
                Step::Revert => {
                    tracing::warn!(nonce = flight.nonce, "a payment was reverted");
                    let rest = self.ledger.config.retry_after.as_secs();
                    self.book.reverted(number, unix_now(), rest).await?
                }
                Step::Reorganise => {
                    tracing::warn!(nonce = flight.nonce, "a payment's block is gone");
                    self.sent.remove(&number);
                    self.book.reorganised(number).await?
                }
                Step::Lose { by } => {
                    tracing::warn!(nonce = flight.nonce, %by, "a payment's nonce was taken");
                    self.book.lost(number).await?
                }
                Step::Close => self.book.closed(number).await?,
            };
            self.board.changed();
            if is_over(&flight) {
                break;
            }
        }
        Ok(flight)
    }

    /// What the receipt of a batch shows of its bills. A plain transfer that succeeded shows
    /// itself.
    async fn shown(&self, flight: &Flight, head: BlockRef) -> Result<Shown, Stop> {
        if !flight.batch {
            return Ok(Shown::All);
        }
        let signed = &flight.variants[flight.variant];
        let (Some(contract), Some(receipt)) = (
            signed.transaction.to,
            self.ledger.chain.receipt(signed.hash).await?,
        ) else {
            return Ok(Shown::NotAll);
        };
        if receipt.block != flight.block {
            return Ok(Shown::NotAll);
        }
        let wallet = self.ledger.wallet;
        let paid: HashSet<BillId> = receipt
            .logs
            .iter()
            .filter_map(|log| BatchPayment::from_log(log, contract))
            .filter(|payment| payment.payer == wallet)
            .map(|payment| payment.bill)
            .collect();
        let skipped: HashSet<BillId> = receipt
            .logs
            .iter()
            .filter_map(|log| skipped(log, contract, wallet))
            .collect();
        let mut unpaid = Vec::new();
        for bill in flight.bills.iter().filter(|bill| !paid.contains(*bill)) {
            if !skipped.contains(bill) {
                return Ok(Shown::NotAll);
            }
            // A nonce that was used before is no payment by itself: it may have been used for
            // this bill, or, by a journal that is lost, for another.
            let record = self.book.bill(*bill).await?;
            let record = record.ok_or(Stop::Journal(JournalError::Damaged {
                what: "a bill of a transaction is missing",
            }))?;
            let ledger = &self.ledger;
            if !ledger.has_paid(contract, *bill, &record, head).await? {
                unpaid.push(*bill);
            }
        }
        Ok(match unpaid.is_empty() {
            true => Shown::All,
            false => Shown::Skipped(unpaid),
        })
    }

    /// The chain lacks transactions that came before this one, and they are not looked at any
    /// more: it was reset, or reorganised deeper than that. The same bytes fill the gap. If
    /// there are none, a node said that more nonces were used than are: after a while a
    /// transfer of nothing to the wallet itself takes the place.
    async fn fill_gap(&mut self, flight: &Flight, nonce: u64) -> Result<(), Stop> {
        self.note(flight, &Problem::NonceGap);
        if let Some((known, since)) = self.gap
            && known == nonce
        {
            if since.elapsed() < self.ledger.config.retry_after {
                return Ok(());
            }
            self.gap = Some((nonce, Instant::now()));
            return self.send_nothing(nonce).await;
        }
        self.ledger.check_identity().await?;
        if let Some(number) = self.book.closed_with(nonce).await? {
            tracing::warn!(nonce, "the chain lost a payment that was settled long ago");
            self.book.reopened(number).await?;
            self.board.changed();
            self.board.work.notify_one();
        } else {
            self.gap = Some((nonce, Instant::now()));
        }
        Ok(())
    }

    fn note(&mut self, flight: &Flight, problem: &Problem) {
        for &bill in &flight.bills {
            self.problems.bills.insert(bill, problem.clone());
        }
    }
}

/// Whether nothing can come of its nonce any more.
fn is_over(flight: &Flight) -> bool {
    use super::record::FlightState::{Closed, Lost, Reverted};
    matches!(flight.state, Closed | Lost | Reverted)
}

fn signer_problem(error: TransactionError) -> Stop {
    let reason = error.to_string();
    Stop::Obstacle(Obstacle::Problem(Problem::Signer { reason }))
}

fn problem(stop: Stop) -> Problem {
    match stop {
        Stop::Obstacle(Obstacle::Problem(problem)) => problem,
        Stop::Obstacle(Obstacle::Chain(error)) => Problem::ChainAway {
            reason: error.to_string(),
        },
        Stop::Journal(error) => Problem::Journal {
            reason: error.to_string(),
        },
    }
}

/// The next head; never, once there are none, until the subscription is made again.
async fn next_head(heads: &mut Option<HeadStream>) {
    if let Some(stream) = heads {
        if stream.next().await.is_some() {
            return;
        }
        *heads = None;
    }
    std::future::pending::<()>().await;
}
