//! The seeder's books in the journal.

use std::collections::{HashMap, HashSet};

use alloy_primitives::{Address, B256};
use chiral_core::{BillId, Cid, Price, Protocol};
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};

use super::account::{Account, Terms};
use super::allowance::Gift;
use super::books::{Books, Dirty};
use super::credit::Standing;
use super::terms::FileTerms;
use super::window::CounterWindow;
use crate::JournalError;
use crate::channel::past::About;
use crate::messages::{Concessions, Discount, Message, ranges};
use crate::receipt::Receipt;
use crate::records::{self, DAMAGED, Table, table};

mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        struct Account {
            bytes accept;
            string protocol;
            uint64 counter;
            uint64 sent;
            bytes served;
            bytes acked;
            uint32 ackSequence;
            uint64 paid;
            uint64 writtenOff;
            uint64 active;
        }

        struct Standing {
            uint256 paid;
            uint256 defaulted;
            uint256 unbacked;
            uint256 drawn;
            uint64 day;
        }

        struct Gift {
            uint64 given;
            uint64 today;
            uint64 day;
        }

        struct FileTerms {
            uint256 price;
            uint256[] floor;
            uint64[] fromBytes;
            uint256[] prices;
        }

        struct Earning {
            bytes32 agreement;
            uint32 sequence;
            string protocol;
            bytes receipt;
        }
    }
}

const ACCOUNTS: Table = table("gate-accounts");
const WALLETS: Table = table("gate-wallets");
/// By wallet, or by the hash of wallet and file.
const GIFTS: Table = table("gate-gifts");
/// By bill: what is in here was paid, for ever.
const EARNINGS: Table = table("gate-earnings");
/// What is asked for a file, by its cid.
const FILES: Table = table("gate-files");
const SCANNED: TableDefinition<'static, &str, u64> = TableDefinition::new("gate-scanned");

/// A bill that was paid to this node.
#[derive(Clone, Debug)]
pub(crate) struct Earning {
    pub(crate) agreement: B256,
    pub(crate) sequence: u32,
    pub(crate) protocol: Protocol,
    /// The message, and what it says.
    pub(crate) message: bytes::Bytes,
    pub(crate) receipt: Receipt,
}

/// Everything on disk, and the block up to which payments were looked for.
pub(super) fn load(
    step: &ReadTransaction,
    books: &mut Books,
    now: u64,
) -> Result<Option<u64>, JournalError> {
    for (key, record) in records::all::<sol::Account>(step, ACCOUNTS)? {
        books.restore(B256::from(key), account(&record)?);
    }
    for (key, record) in records::all::<sol::Standing>(step, WALLETS)? {
        let standing = Standing {
            paid: record.paid,
            defaulted: record.defaulted,
            unbacked: record.unbacked,
            drawn: record.drawn,
            day: record.day,
        };
        let wallet = Address::from_word(B256::from(key));
        books.credit.restore(wallet, standing, now);
    }
    for earning in earnings(step)? {
        if let Some(account) = books.accounts.get_mut(&earning.agreement) {
            let Receipt { bytes, amount, .. } = earning.receipt;
            account.receive(earning.sequence, bytes, amount);
        }
    }
    for (key, record) in records::all::<sol::Gift>(step, GIFTS)? {
        let gift = Gift {
            given: record.given,
            today: record.today,
            day: record.day,
        };
        books.gifts.restore(B256::from(key), gift, now);
    }
    match step.open_table(SCANNED) {
        Ok(table) => Ok(table.get("block")?.map(|block| block.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes what has changed.
pub(super) fn save(
    step: &WriteTransaction,
    books: &Books,
    dirty: &Dirty,
) -> Result<(), JournalError> {
    for agreement in &dirty.gone {
        records::remove(step, ACCOUNTS, &agreement.0)?;
    }
    for agreement in &dirty.accounts {
        if let Some(account) = books.accounts.get(agreement) {
            records::put(step, ACCOUNTS, &agreement.0, &record(account))?;
        }
    }
    for wallet in &dirty.wallets {
        let standing = books.credit.standing(*wallet);
        let key = wallet.into_word().0;
        if standing == Standing::default() {
            records::remove(step, WALLETS, &key)?;
            continue;
        }
        let record = sol::Standing {
            paid: standing.paid,
            defaulted: standing.defaulted,
            unbacked: standing.unbacked,
            drawn: standing.drawn,
            day: standing.day,
        };
        records::put(step, WALLETS, &key, &record)?;
    }
    for key in &dirty.gifts {
        match books.gifts.get(*key) {
            None => records::remove(step, GIFTS, &key.0)?,
            Some(gift) => {
                let record = sol::Gift {
                    given: gift.given,
                    today: gift.today,
                    day: gift.day,
                };
                records::put(step, GIFTS, &key.0, &record)?;
            }
        }
    }
    Ok(())
}

/// Files with terms of their own.
pub(super) fn load_terms(step: &ReadTransaction) -> Result<HashMap<Cid, FileTerms>, JournalError> {
    let all = records::all::<sol::FileTerms>(step, FILES)?;
    all.into_iter()
        .map(|(cid, record)| Ok((Cid::from_bytes(cid), file(record).ok_or(DAMAGED)?)))
        .collect()
}

fn file(record: sol::FileTerms) -> Option<FileTerms> {
    let price = Price::from_wei_per_mib;
    let discounts = record.fromBytes.iter().zip(&record.prices);
    let discounts = discounts.map(|(from, wei)| Discount {
        from_bytes: *from,
        price: price(*wei),
    });
    Some(FileTerms {
        price: price(record.price),
        floor: record.floor.first().copied().map(price),
        discounts: Concessions::new(0, discounts.collect()).ok()?,
    })
}

pub(super) fn save_terms(
    step: &WriteTransaction,
    terms: &HashMap<Cid, FileTerms>,
    changed: &HashSet<Cid>,
) -> Result<(), JournalError> {
    for cid in changed {
        let Some(terms) = terms.get(cid) else {
            records::remove(step, FILES, cid.as_bytes())?;
            continue;
        };
        let discounts = terms.discounts.discounts();
        let record = sol::FileTerms {
            price: terms.price.wei_per_mib(),
            floor: terms
                .floor
                .iter()
                .map(|floor| floor.wei_per_mib())
                .collect(),
            fromBytes: discounts.iter().map(|one| one.from_bytes).collect(),
            prices: discounts
                .iter()
                .map(|one| one.price.wei_per_mib())
                .collect(),
        };
        records::put(step, FILES, cid.as_bytes(), &record)?;
    }
    Ok(())
}

/// Payments up to this block were looked for.
pub(super) fn save_scanned(step: &WriteTransaction, block: u64) -> Result<(), JournalError> {
    step.open_table(SCANNED)?.insert("block", block)?;
    Ok(())
}

/// The earning for a bill, if it was paid before.
pub(super) fn earning(
    step: &WriteTransaction,
    bill: BillId,
) -> Result<Option<Earning>, JournalError> {
    let found = records::get::<sol::Earning>(step, EARNINGS, &bill.0.0)?;
    found.map(parse).transpose()
}

/// The same, without writing.
pub(super) fn find_earning(
    step: &ReadTransaction,
    bill: BillId,
) -> Result<Option<Earning>, JournalError> {
    let found = records::read::<sol::Earning>(step, EARNINGS, &bill.0.0)?;
    found.map(parse).transpose()
}

/// What an agreement is for, if the books still know it.
pub(crate) fn about(
    step: &ReadTransaction,
    agreement: B256,
) -> Result<Option<About>, JournalError> {
    let found = records::read::<sol::Account>(step, ACCOUNTS, &agreement.0)?;
    let about = |record| {
        let account = account(&record)?;
        Ok(About {
            cid: account.terms.cid,
            peer: None,
            protocol: account.protocol,
            time: account.active,
        })
    };
    found.map(about).transpose()
}

/// Everything that was ever earned.
pub(crate) fn earnings(step: &ReadTransaction) -> Result<Vec<Earning>, JournalError> {
    let all = records::all::<sol::Earning>(step, EARNINGS)?;
    all.into_iter().map(|(_, record)| parse(record)).collect()
}

pub(super) fn save_earning(step: &WriteTransaction, earning: &Earning) -> Result<(), JournalError> {
    let record = sol::Earning {
        agreement: earning.agreement,
        sequence: earning.sequence,
        protocol: earning.protocol.to_string(),
        receipt: earning.message.to_vec().into(),
    };
    records::put(step, EARNINGS, &earning.receipt.bill.0.0, &record)
}

fn parse(record: sol::Earning) -> Result<Earning, JournalError> {
    let message = bytes::Bytes::from(record.receipt.to_vec());
    let Ok(Message::Receipt(receipt)) = Message::decode(&message) else {
        return Err(DAMAGED);
    };
    Ok(Earning {
        agreement: record.agreement,
        sequence: record.sequence,
        protocol: record.protocol.parse().map_err(|_| DAMAGED)?,
        message,
        receipt: receipt.body,
    })
}

fn record(account: &Account) -> sol::Account {
    sol::Account {
        accept: account.terms.accept.to_vec().into(),
        protocol: account.protocol.to_string(),
        counter: account.window.highest(),
        sent: account.sent,
        served: ranges::encode(&account.served).into(),
        acked: ranges::encode(&account.acked).into(),
        ackSequence: account.ack_sequence,
        paid: account.paid,
        writtenOff: account.written_off,
        active: account.active,
    }
}

fn account(record: &sol::Account) -> Result<Account, JournalError> {
    let accept = bytes::Bytes::from(record.accept.to_vec());
    let terms = terms(accept).ok_or(DAMAGED)?;
    let set = |bytes: &[u8]| ranges::decode(bytes, usize::MAX).map_err(|_| DAMAGED);
    let mut account = Account::new(terms, record.active);
    account.protocol = record.protocol.parse().map_err(|_| DAMAGED)?;
    account.window = CounterWindow::above(record.counter);
    account.sent = record.sent;
    account.served = set(&record.served)?;
    account.acked = set(&record.acked)?;
    account.ack_sequence = record.ackSequence;
    account.paid = record.paid;
    account.written_off = record.writtenOff;
    Ok(account)
}

/// What an accepting message agrees on. Nothing is verified here.
pub(super) fn terms(message: bytes::Bytes) -> Option<Terms> {
    let Ok(Message::Accept { accept, quote }) = Message::decode(&message) else {
        return None;
    };
    Some(Terms {
        accept: message,
        cid: quote.body.cid,
        payer: accept.body.payer,
        session_key: accept.body.session_key,
        pricing: quote.body.pricing(),
        policy: quote.body.policy,
        channel: quote.body.channel,
        valid_until: quote.body.valid_until,
    })
}
