//! [`Statement`]: what was earned, spent, and is outstanding, bill by bill.

use std::fmt;

use alloy_primitives::{Address, B256, U256};
use chiral_core::{BillId, Cid, PeerId, Protocol, SettlementStatus};
use redb::ReadTransaction;
use serde::{Serialize, Serializer};

use crate::agent::store::spendings;
use crate::payments::Payments;
use crate::{Journal, JournalError, gate, settler};

mod groups;
mod in_channels;

pub use groups::{Group, GroupBy};

/// What was earned, spent, and is outstanding. Serialises with hashes and wallets as `0x…`
/// and wei as decimal text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statement {
    /// Wei received, in payments that were seen on the ledger, and claimed out of channels.
    #[serde(serialize_with = "text")]
    pub earned: U256,
    /// Wei that others acknowledged to owe, and have not paid, and in vouchers not claimed.
    #[serde(serialize_with = "text")]
    pub receivable: U256,
    /// Wei paid, as the ledger shows; out of channels, once they are over.
    #[serde(serialize_with = "text")]
    pub spent: U256,
    /// Wei on bills that are not settled, and in vouchers of channels that are open.
    #[serde(serialize_with = "text")]
    pub payable: U256,
    /// Bill by bill, the newest first.
    pub entries: Vec<Entry>,
}

/// Which way the money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Direction {
    /// To this node.
    Earned,
    /// From it.
    Spent,
}

/// How far a bill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Owed; no transaction is known.
    Outstanding,
    /// A transaction is on its way.
    Pending,
    /// The ledger shows it.
    Settled,
}

/// One bill, or what is acknowledged and on no bill yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Which way the money goes.
    pub direction: Direction,
    /// The bill; what others owe has none before they pay.
    #[serde(serialize_with = "optional")]
    pub bill: Option<BillId>,
    /// The channel, of what is paid in one: then there is no bill, and it is pending until the
    /// payee has claimed it.
    #[serde(serialize_with = "optional")]
    pub channel: Option<B256>,
    /// The file.
    #[serde(serialize_with = "text")]
    pub cid: Cid,
    /// The other side's wallet.
    #[serde(serialize_with = "optional")]
    pub wallet: Option<Address>,
    /// The other side's id in the network, where it is known: of seeders.
    #[serde(serialize_with = "optional")]
    pub peer: Option<PeerId>,
    /// How it was delivered; for statistics only.
    pub protocol: Protocol,
    /// Bytes.
    pub bytes: u64,
    /// Wei.
    #[serde(serialize_with = "text")]
    pub amount: U256,
    /// How far it is.
    pub status: Status,
    /// The transaction, once there is one.
    #[serde(serialize_with = "optional")]
    pub transaction: Option<B256>,
    /// When the bill was made, the payment seen, or the last bytes served; of what this node
    /// pays in a channel, until when its terms hold: seconds since 1970 (UTC).
    pub time: u64,
    /// The payee's signed receipt is in the journal.
    pub receipt: bool,
}

impl Payments {
    /// Everything that is in the books.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn statement(&self) -> Result<Statement, JournalError> {
        let receivable = self.chain_gate().receivable();
        self.journal()
            .read(move |step| Statement::read(step, receivable))
            .await
    }
}

impl Statement {
    /// Everything that is in a journal which nothing else has open; no wallet and no chain is
    /// needed for that.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn of(journal: &Journal) -> Result<Self, JournalError> {
        journal
            .read(|step| Self::read(step, gate::receivable_in(step)?))
            .await
    }

    fn read(step: &ReadTransaction, receivable: Vec<Entry>) -> Result<Self, JournalError> {
        let mut statement = Self::default();
        for earning in gate::earnings(step)? {
            statement.add(Entry {
                direction: Direction::Earned,
                bill: Some(earning.receipt.bill),
                channel: None,
                cid: earning.receipt.cid,
                wallet: Some(earning.receipt.payer),
                peer: None,
                protocol: earning.protocol,
                bytes: earning.receipt.bytes,
                amount: earning.receipt.amount,
                status: Status::Settled,
                transaction: Some(earning.receipt.transaction),
                time: earning.receipt.time,
                receipt: true,
            });
        }
        for entry in receivable {
            statement.add(entry);
        }
        for entry in in_channels::entries(step)? {
            statement.add(entry);
        }
        for owed in spendings(step)? {
            let (status, transaction) = match owed.settled {
                Some(transaction) => (Status::Settled, Some(transaction)),
                None => how_far(settler::status_of(step, owed.bill.id)?),
            };
            statement.add(Entry {
                direction: Direction::Spent,
                bill: Some(owed.bill.id),
                channel: None,
                cid: owed.bill.cid,
                wallet: owed.bill.payee,
                peer: owed.bill.payee_peer,
                protocol: owed.bill.protocol,
                bytes: owed.bill.bytes,
                amount: owed.bill.amount,
                status,
                transaction,
                time: owed.made,
                receipt: owed.receipt.is_some(),
            });
        }
        statement
            .entries
            .sort_by_key(|entry| std::cmp::Reverse((entry.time, entry.bill)));
        Ok(statement)
    }

    fn add(&mut self, entry: Entry) {
        let total = match (entry.direction, entry.status) {
            (Direction::Earned, Status::Settled) => &mut self.earned,
            (Direction::Earned, _) => &mut self.receivable,
            (Direction::Spent, Status::Settled) => &mut self.spent,
            (Direction::Spent, _) => &mut self.payable,
        };
        *total = total.saturating_add(entry.amount);
        self.entries.push(entry);
    }
}

fn how_far(status: Option<SettlementStatus>) -> (Status, Option<B256>) {
    match status {
        Some(SettlementStatus::Settled { transaction }) => (Status::Settled, Some(transaction)),
        Some(SettlementStatus::Pending {
            transaction: Some(transaction),
        }) => (Status::Pending, Some(transaction)),
        _ => (Status::Outstanding, None),
    }
}

fn text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
