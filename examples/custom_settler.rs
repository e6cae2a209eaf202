//! A settler of the application's own: bills are not paid on the chain but written into an
//! account book, as a company would that settles once a month. Nothing else is changed: quotes,
//! agreements, verification and the seeder's credit line are the ordinary ones.
//!
//! ```text
//! cargo run --release --example custom_settler
//! ```
//!
//! The book is a file with one line for each bill, durable before it is acknowledged; a bill
//! that comes again is not written again. Prints the book:
//!
//! ```text
//! 0x3f1c…  8000000000000000 wei  to 0x7099…79C8
//! ```

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chiral::core::{B256, Bill, BillId, PaymentSettler, SettleError, SettlementStatus, U256};
use chiral::{Loopback, Node};

type Failure = Box<dyn Error + Send + Sync>;

/// Writes bills into a file. A line that is there is a bill that counts as settled; the
/// number of the line stands where a chain would have a transaction.
#[derive(Debug)]
struct AccountBook {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    lines: BTreeMap<BillId, (u64, U256)>,
    closed: bool,
}

impl AccountBook {
    fn create(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)?;
        Ok(Self {
            state: Mutex::new(State {
                file,
                lines: BTreeMap::new(),
                closed: false,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of a bill, as what the settlement refers to.
fn settled(line: u64) -> SettlementStatus {
    SettlementStatus::Settled {
        transaction: B256::from(U256::from(line)),
    }
}

impl State {
    fn enter(&mut self, bills: &[Bill]) -> Result<Vec<SettlementStatus>, SettleError> {
        if self.closed {
            return Err(SettleError::Closed);
        }
        // All or none: what is wrong with any of them is found before the first is written.
        for bill in bills.iter().filter(|bill| !bill.is_free()) {
            if bill.payee.is_none() {
                return Err(SettleError::NoPayee { bill: bill.id });
            }
            if self
                .lines
                .get(&bill.id)
                .is_some_and(|(_, amount)| *amount != bill.amount)
            {
                return Err(SettleError::Conflict { bill: bill.id });
            }
        }
        let mut text = String::new();
        let mut states = Vec::new();
        let mut entered = Vec::new();
        let mut next = self.lines.len() as u64 + 1;
        for bill in bills {
            let known = self.lines.get(&bill.id).map(|(line, _)| *line);
            states.push(match (known, bill.payee) {
                _ if bill.is_free() => SettlementStatus::Free,
                (Some(line), _) => settled(line),
                (None, Some(payee)) => {
                    text += &format!("{}  {} wei  to {payee}\n", bill.id, bill.amount);
                    entered.push((bill.id, (next, bill.amount)));
                    next += 1;
                    settled(next - 1)
                }
                (None, None) => return Err(SettleError::NoPayee { bill: bill.id }),
            });
        }
        let written = self.file.write_all(text.as_bytes());
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|error| SettleError::Unreachable(error.into()))?;
        self.lines.extend(entered);
        Ok(states)
    }
}

#[async_trait]
impl PaymentSettler for AccountBook {
    async fn settle(&self, bills: Vec<Bill>) -> Result<Vec<SettlementStatus>, SettleError> {
        self.state().enter(&bills)
    }

    async fn status(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError> {
        let state = self.state();
        Ok(state.lines.get(&bill).map(|(line, _)| settled(*line)))
    }

    async fn shutdown(&self) -> Result<(), SettleError> {
        self.state().closed = true;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let book = directory.path().join("book.txt");
    let network = Loopback::start().await?;
    let mut nodes = Vec::new();
    let result = buy(&network, &book, &mut nodes).await;
    for node in nodes.iter().rev() {
        node.shutdown().await?;
    }
    network.shutdown().await;
    result?;
    print!("{}", std::fs::read_to_string(&book)?);
    Ok(())
}

async fn buy(network: &Loopback, book: &Path, nodes: &mut Vec<Node>) -> Result<(), Failure> {
    let asking = network.payments(1).with_price("0.001".parse()?);
    let seeder = network.node(1).payments(asking).start().await?;
    nodes.push(seeder.clone());
    let shared = seeder.share(vec![7; 8 << 20]).await?;

    let paying = network.payments(2).with_max_price("0.001".parse()?);
    let buyer = network
        .node(2)
        .payments(paying)
        .settler(Arc::new(AccountBook::create(book)?))
        .start()
        .await?;
    nodes.push(buyer.clone());
    let before = buyer.balance().await?;
    let got = buyer.get(shared.cid()).to_bytes().await?;
    buyer
        .wait_settled(got.settled.iter().map(|(bill, _)| bill.id))
        .await?;
    if got.settled.is_empty() || buyer.balance().await? != before {
        return Err("the bill is to be in the book, and the money in the wallet".into());
    }
    Ok(())
}
