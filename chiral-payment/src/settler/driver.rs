//! The task that pays: it asks the chain, takes the durable steps, signs and sends.
//!
//! It remembers nothing that matters: every pass begins with what the journal says, so that
//! a crash between any two lines of it is a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::{B256, U256};
use chiral_chain::{
    BlockRef, ChainError, Fees, HeadStream, RefusalKind, Transaction, TransactionError,
};
use chiral_core::{BillId, WalletSigner};
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Problems};
use super::book::Book;
use super::flight::{Depths, Sighting, Step, next};
use super::ledger::{Ledger, Obstacle, higher};
use super::plan::{Group, plan};
use super::problem::Problem;
use super::record::Flight;
use crate::contracts::batch_pay::{BatchPayment, MAX_LEGS, skipped};
use crate::journal::JournalError;

/// Transactions of which no block has any yet, at most: nodes keep few for one wallet.
const MAX_UNMINED: usize = 16;
/// Waiting bills that one pass looks at.
const MAX_BILLS_A_PASS: usize = 4 * MAX_LEGS;
/// Times that one transaction is signed.
const MAX_VARIANTS: usize = 8;
/// Durable steps that one transaction makes in a pass.
const MAX_STEPS: usize = 8;
/// First pause after the chain did not answer.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// Pause while nothing is to be done.
const IDLE: Duration = Duration::from_secs(60);

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
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
        if work.waiting.is_empty() {
            self.gathering = None;
        }
        let poll = self.ledger.config.poll;
        if work.flights.is_empty() && work.waiting.is_empty() {
            let rest = work.next_try.map(|at| at.saturating_sub(unix_now()));
            return Ok(rest.map_or(IDLE, |rest| IDLE.min(Duration::from_secs(rest)).max(poll)));
        }
        let head = self.ledger.chain.head().await?;
        let mut flights = Vec::with_capacity(work.flights.len());
        let nonces: HashSet<u64> = work.flights.iter().map(|(_, f)| f.nonce).collect();
        for (number, flight) in work.flights {
            flights.push(self.advance(number, flight, head, &nonces).await?);
        }
        if work.waiting.is_empty() {
            return Ok(poll);
        }
        let since = *self.gathering.get_or_insert_with(Instant::now);
        let gather = self.ledger.config.gather;
        if work.waiting.len() < MAX_LEGS && since.elapsed() < gather {
            return Ok(poll.min(gather.saturating_sub(since.elapsed())));
        }
        self.pay(work.waiting, flights, head).await?;
        Ok(poll)
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
                        self.note(&flight, &Problem::NonceGap);
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
                    if !self.shows_all(&flight).await? {
                        self.note(&flight, &Problem::NotShown);
                        break;
                    }
                    self.book.settled(number, unix_now()).await?
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

    /// Sends the newest variant, if it is time, and signs a dearer one if that is due.
    async fn send(
        &mut self,
        number: u64,
        mut flight: Flight,
        head: BlockRef,
    ) -> Result<Flight, Stop> {
        use super::record::FlightState::Signed;
        let now = Instant::now();
        let sent = self.sent.get(&number).copied();
        let config = &self.ledger.config;
        let due = |sent: &Sent| sent.head != head.hash || sent.last.elapsed() >= config.poll;
        if sent.as_ref().is_some_and(|sent| !due(sent)) {
            return Ok(flight);
        }
        // The bytes hold on every chain of this id.
        self.ledger.check_identity().await?;
        let long = |sent: Sent| sent.first.elapsed() >= self.ledger.config.replace_after;
        if sent.is_some_and(long) && flight.variants.len() < MAX_VARIANTS {
            flight = self.replace(number, flight).await?;
        }
        let signed = flight.newest();
        let entry = self.sent.entry(number).or_insert(Sent {
            variant: signed.hash,
            first: now,
            last: now,
            head: head.hash,
        });
        if entry.variant != signed.hash {
            (entry.variant, entry.first) = (signed.hash, now);
        }
        (entry.last, entry.head) = (now, head.hash);
        let chain = &self.ledger.chain;
        match chain.send_raw_transaction(signed.raw.clone()).await {
            Ok(hash) if hash != signed.hash => {
                tracing::debug!(%hash, "the node answers another transaction's hash");
            }
            Ok(_) => {}
            Err(ChainError::Refused { kind, reason }) => match kind {
                RefusalKind::AlreadyKnown => {}
                RefusalKind::NonceTooLow => {
                    // It may be in a block since we looked: the next pass sees.
                    self.note(&flight, &Problem::NonceUsed);
                    return Ok(flight);
                }
                RefusalKind::Funds => {
                    self.note(&flight, &Problem::Funds);
                    return Ok(flight);
                }
                _ => {
                    self.note(&flight, &Problem::Refused { reason });
                    return Ok(flight);
                }
            },
            Err(error) => return Err(error.into()),
        }
        if flight.state == Signed {
            flight = self.book.broadcast(number).await?;
            self.board.changed();
        }
        Ok(flight)
    }

    /// Signs the same transaction with a higher fee, if the chain wants more by now.
    async fn replace(&mut self, number: u64, flight: Flight) -> Result<Flight, Stop> {
        let old = &flight.newest().transaction;
        let wanted = match self.ledger.fees().await {
            Ok(wanted) => wanted,
            Err(Obstacle::Problem(problem)) => {
                self.note(&flight, &problem);
                return Ok(flight);
            }
            Err(other) => return Err(other.into()),
        };
        let Some(fees) = higher(old.fees, wanted, &self.ledger.config) else {
            return Ok(flight);
        };
        let dearer = Transaction {
            fees,
            ..old.clone()
        };
        let signed = dearer.sign(&*self.signer).await.map_err(signer_problem)?;
        let flight = self.book.replaced(number, signed).await?;
        self.board.changed();
        Ok(flight)
    }

    /// Whether the receipt of a batch shows each of its bills as paid. A plain transfer that
    /// succeeded shows itself.
    async fn shows_all(&self, flight: &Flight) -> Result<bool, Stop> {
        if !flight.batch {
            return Ok(true);
        }
        let signed = &flight.variants[flight.variant];
        let (Some(contract), Some(receipt)) = (
            signed.transaction.to,
            self.ledger.chain.receipt(signed.hash).await?,
        ) else {
            return Ok(false);
        };
        let wallet = self.ledger.wallet;
        let shown: HashSet<BillId> = receipt
            .logs
            .iter()
            .filter_map(|log| {
                // A nonce that was used before stands for this bill, paid then.
                let payment = BatchPayment::from_log(log, contract);
                let payment = payment.filter(|payment| payment.payer == wallet);
                let paid = payment.map(|payment| payment.bill);
                paid.or_else(|| skipped(log, contract, wallet))
            })
            .collect();
        Ok(receipt.block == flight.block && flight.bills.iter().all(|bill| shown.contains(bill)))
    }

    /// Signs transactions for waiting bills, and sends them.
    async fn pay(
        &mut self,
        waiting: Vec<super::plan::Waiting>,
        flights: Vec<Flight>,
        head: BlockRef,
    ) -> Result<(), Stop> {
        let unmined: Vec<_> = flights.iter().filter(|f| f.is_unmined()).collect();
        let mut room = MAX_UNMINED.saturating_sub(unmined.len());
        if room == 0 {
            return Ok(());
        }
        self.ledger.check_identity().await?;
        let fees = self.ledger.fees().await?;
        let has_contract = self.ledger.has_batch_contract().await?;
        let (next, balance) = self.ledger.account().await?;
        let open = flights.iter().filter(|f| !is_over(f));
        let mut nonce = open.fold(next, |next, flight| next.max(flight.nonce + 1));
        let reserved = unmined
            .iter()
            .filter_map(|f| f.newest().transaction.max_cost());
        let mut available = reserved.fold(balance, |left, cost| left.saturating_sub(cost));
        let plan = plan(waiting, has_contract, available, fees.max_per_gas());
        for bill in plan.short {
            self.problems.bills.insert(bill, Problem::Funds);
        }
        for group in plan.groups {
            if room == 0 {
                break;
            }
            let Some((group, transaction)) = self
                .build(group, nonce, fees, available, has_contract)
                .await?
            else {
                continue;
            };
            let cost = transaction.max_cost().unwrap_or(U256::MAX);
            let signed = transaction.sign(&*self.signer).await;
            let signed = signed.map_err(signer_problem)?;
            let bills = group.bills.iter().map(|(bill, _)| *bill).collect();
            let flight = Flight::new(signed, group.batch, bills, head.number, unix_now());
            let number = self.book.signed(flight.clone()).await?;
            self.board.changed();
            self.send(number, flight, head).await?;
            (nonce, room) = (nonce + 1, room - 1);
            available = available.saturating_sub(cost);
        }
        self.gathering = None;
        Ok(())
    }

    /// The transaction for a group of bills, or for as many of them as there is money for.
    async fn build(
        &mut self,
        mut group: Group,
        nonce: u64,
        fees: Fees,
        available: U256,
        has_contract: bool,
    ) -> Result<Option<(Group, Transaction)>, Stop> {
        loop {
            let first = group.bills[0].1.payee;
            let contract = self.ledger.config.batch_contract;
            let mut transaction = Transaction {
                chain_id: self.ledger.config.chain_id,
                nonce,
                gas_limit: 0,
                fees,
                to: Some(contract.filter(|_| group.batch).unwrap_or(first)),
                value: group.value(),
                input: group.input(),
            };
            let gas = match group.batch {
                // Nodes refuse to execute what the balance does not cover.
                _ if transaction.value > available => None,
                true => Some(
                    self.ledger
                        .batch_gas(&transaction, group.bills.len())
                        .await?,
                ),
                false => match self.ledger.transfer_gas(&transaction).await {
                    Ok(gas) => Some(gas),
                    Err(Obstacle::Problem(Problem::PayeeRefuses)) if has_contract => {
                        group.batch = true;
                        continue;
                    }
                    Err(Obstacle::Problem(problem)) => {
                        let bill = group.bills[0].0;
                        self.problems.bills.insert(bill, problem);
                        let rest = self.ledger.config.retry_after.as_secs();
                        self.book.deferred(bill, unix_now(), rest).await?;
                        return Ok(None);
                    }
                    Err(other) => return Err(other.into()),
                },
            };
            transaction.gas_limit = gas.unwrap_or(u64::MAX);
            if transaction.max_cost().is_some_and(|cost| cost <= available) {
                return Ok(Some((group, transaction)));
            }
            for (bill, _) in &group.bills[group.bills.len() / 2..] {
                self.problems.bills.insert(*bill, Problem::Funds);
            }
            match group.halved() {
                Some(half) => group = half,
                None => return Ok(None),
            }
        }
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
