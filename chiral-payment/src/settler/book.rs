//! The settler's tables in the journal, and the durable steps over them. Each step checks
//! what it builds on, so that none is ever taken twice.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, U256};
use bytes::Bytes;
use chiral_core::{Bill, BillId, SettleError, SettlementStatus};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::record::{
    BillRecord, BillState, Flight, FlightState, Identity, call_digest, digest, leg_nonce,
};
use crate::journal::{Journal, JournalError};

mod look;

pub(crate) use look::status_of;

/// Bills that wait at most; more are refused until some are paid.
pub const MAX_WAITING_BILLS: u64 = 65_536;

type Bytes32 = [u8; 32];

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("settler-meta");
const IDENTITY: &str = "identity";
/// Every bill, by its id.
const BILLS: TableDefinition<'static, Bytes32, &[u8]> = TableDefinition::new("settler-bills");
/// Every bill, in the order in which they came.
const ORDER: TableDefinition<'static, u64, Bytes32> = TableDefinition::new("settler-order");
/// The bills that wait for a transaction, in that order.
const WAITING: TableDefinition<'static, u64, Bytes32> = TableDefinition::new("settler-waiting");
/// Every transaction, by its number.
const FLIGHTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("settler-flights");
/// The transactions that are looked at.
const OPEN: TableDefinition<'static, u64, ()> = TableDefinition::new("settler-open");

/// The settler's part of a journal.
#[derive(Clone, Debug)]
pub(super) struct Book {
    journal: Journal,
    chain_id: u64,
}

/// Why the journal is not for this settler.
#[derive(Debug)]
pub(super) enum OpenError {
    Journal(JournalError),
    /// It has payments of another wallet or chain.
    Foreign(Box<Identity>),
}

impl Book {
    /// Takes the journal for this wallet and chain.
    pub(super) async fn open(journal: Journal, mine: Identity) -> Result<Self, OpenError> {
        let chain_id = mine.chain_id;
        let book = Self { journal, chain_id };
        let found = book
            .journal
            .write("settle-open", move |step| {
                step.open_table(BILLS)?;
                step.open_table(ORDER)?;
                step.open_table(WAITING)?;
                step.open_table(FLIGHTS)?;
                step.open_table(OPEN)?;
                let found = match step.open_table(META)?.get(IDENTITY)? {
                    Some(stored) => Some(Identity::decode(stored.value())?),
                    None => None,
                };
                let same = |found: &Identity| {
                    let identity = |of: &Identity| (of.chain_id, of.genesis, of.wallet);
                    identity(found) == identity(&mine)
                };
                match found {
                    Some(found) if !same(&found) => Ok(Some(found)),
                    Some(found) => {
                        let salt = mine.salt;
                        put_identity(step, &Identity { salt, ..found })?;
                        Ok(None)
                    }
                    None => {
                        put_identity(step, &mine)?;
                        Ok(None)
                    }
                }
            })
            .await
            .map_err(OpenError::Journal)?;
        match found {
            None => Ok(book),
            Some(foreign) => Err(OpenError::Foreign(Box::new(foreign))),
        }
    }

    /// Takes bills: all of them, or none. `None` if too many wait.
    pub(super) async fn take(
        &self,
        bills: Vec<Bill>,
        now: u64,
    ) -> Result<Result<Option<Vec<SettlementStatus>>, SettleError>, JournalError> {
        self.journal
            .write("settle-intent", move |step| {
                let mut identity = identity(step)?;
                let mut table = step.open_table(BILLS)?;
                let mut new: HashMap<BillId, B256> = HashMap::new();
                for bill in &bills {
                    let digest = digest(bill);
                    let known = match table.get(bill.id.0.0)? {
                        Some(stored) => Some(BillRecord::decode(stored.value())?.digest),
                        None => new.get(&bill.id).copied(),
                    };
                    if known.is_some_and(|known| known != digest) {
                        return Ok(Err(SettleError::Conflict { bill: bill.id }));
                    }
                    new.entry(bill.id).or_insert(digest);
                }
                let mut waiting = step.open_table(WAITING)?;
                if waiting.len()? + new.len() as u64 > MAX_WAITING_BILLS {
                    return Ok(Ok(None));
                }
                let mut order = step.open_table(ORDER)?;
                let mut statuses = Vec::with_capacity(bills.len());
                for bill in &bills {
                    let id = bill.id.0.0;
                    if let Some(stored) = table.get(id)? {
                        statuses.push(BillRecord::decode(stored.value())?.status());
                        continue;
                    }
                    let record = BillRecord::new(bill, identity.bills, identity.salt, now);
                    identity.bills += 1;
                    table.insert(id, &*record.encode())?;
                    order.insert(record.order, id)?;
                    if record.state == BillState::Waiting {
                        waiting.insert(record.order, id)?;
                    }
                    statuses.push(record.status());
                }
                put_identity(step, &identity)?;
                Ok(Ok(Some(statuses)))
            })
            .await
    }

    /// Takes a call of a contract; `None` if too many bills wait.
    pub(super) async fn take_call(
        &self,
        id: BillId,
        to: Address,
        value: U256,
        input: Bytes,
        now: u64,
    ) -> Result<Result<Option<SettlementStatus>, SettleError>, JournalError> {
        let digest = call_digest(to, value, &input);
        if let Some(known) = self.bill(id).await? {
            return Ok(match known.digest == digest {
                true => Ok(Some(known.status())),
                false => Err(SettleError::Conflict { bill: id }),
            });
        }
        self.journal
            .write("settle-call", move |step| {
                let mut identity = identity(step)?;
                let mut table = step.open_table(BILLS)?;
                if let Some(stored) = table.get(id.0.0)? {
                    // Taken by another at the same time.
                    let record = BillRecord::decode(stored.value())?;
                    return Ok(match record.digest == digest {
                        true => Ok(Some(record.status())),
                        false => Err(SettleError::Conflict { bill: id }),
                    });
                }
                let mut waiting = step.open_table(WAITING)?;
                if waiting.len()? >= MAX_WAITING_BILLS {
                    return Ok(Ok(None));
                }
                let call = (to, value, input);
                let record = BillRecord::call(call, identity.bills, identity.salt, now);
                identity.bills += 1;
                table.insert(id.0.0, &*record.encode())?;
                step.open_table(ORDER)?.insert(record.order, id.0.0)?;
                waiting.insert(record.order, id.0.0)?;
                put_identity(step, &identity)?;
                Ok(Ok(Some(record.status())))
            })
            .await
    }

    /// A signed transaction takes its bills off the queue. Answers its number.
    pub(super) async fn signed(&self, flight: Flight) -> Result<u64, JournalError> {
        self.journal
            .write("settle-signed", move |step| {
                let mut identity = identity(step)?;
                let number = identity.flights;
                identity.flights += 1;
                put_identity(step, &identity)?;
                let hash = flight.newest().hash;
                for &bill in &flight.bills {
                    change_bill(step, bill, |record| {
                        if record.state != BillState::Waiting {
                            return Err(damaged("a bill would be in two transactions"));
                        }
                        record.state = BillState::InFlight;
                        record.flight = number;
                        record.transaction = hash;
                        Ok(())
                    })?;
                }
                let mut flights = step.open_table(FLIGHTS)?;
                flights.insert(number, &*flight.encode())?;
                step.open_table(OPEN)?.insert(number, ())?;
                Ok(number)
            })
            .await
    }

    /// A bill that its payee refuses is put off.
    pub(super) async fn deferred(
        &self,
        bill: BillId,
        now: u64,
        rest: u64,
    ) -> Result<(), JournalError> {
        self.journal
            .write("settle-deferred", move |step| {
                change_bill(step, bill, |record| {
                    record.put_off(now, rest);
                    Ok(())
                })
            })
            .await
    }

    /// A node took it.
    pub(super) async fn broadcast(&self, number: u64) -> Result<Flight, JournalError> {
        self.change("settle-broadcast", number, |flight, _| {
            flight.state = FlightState::Broadcast;
            Ok(())
        })
        .await
    }

    /// It was signed again, with a higher fee.
    pub(super) async fn replaced(
        &self,
        number: u64,
        variant: chiral_chain::SignedTransaction,
    ) -> Result<Flight, JournalError> {
        self.change("settle-replaced", number, move |flight, bills| {
            let hash = variant.hash;
            flight.variants.push(variant.clone());
            flight.state = FlightState::Signed;
            bills.each(|bill| bill.transaction = hash)
        })
        .await
    }

    /// It is in a block.
    pub(super) async fn included(
        &self,
        number: u64,
        variant: usize,
        block: chiral_chain::BlockRef,
        succeeded: bool,
    ) -> Result<Flight, JournalError> {
        self.change("settle-included", number, move |flight, bills| {
            let signed = flight.variants.get(variant);
            let hash = signed.ok_or(damaged("a variant that is not there"))?.hash;
            flight.state = FlightState::Included;
            (flight.variant, flight.block, flight.succeeded) = (variant, block, succeeded);
            bills.each(|bill| {
                bill.back_in_flight();
                bill.transaction = hash;
                bill.block = block;
            })
        })
        .await
    }

    /// A reorganisation took it out of its block.
    pub(super) async fn reorganised(&self, number: u64) -> Result<Flight, JournalError> {
        self.change("settle-reorganised", number, |flight, bills| {
            flight.state = FlightState::Broadcast;
            bills.each(BillRecord::back_in_flight)
        })
        .await
    }

    /// It is deep enough: its bills are settled.
    pub(super) async fn settled(&self, number: u64, now: u64) -> Result<Flight, JournalError> {
        self.change("settle-final", number, move |flight, bills| {
            flight.state = FlightState::Final;
            bills.each(|bill| {
                bill.state = BillState::Settled;
                bill.settled_at = now;
            })
        })
        .await
    }

    /// A batch skipped these of its bills, and nothing has ever paid them: they wait for
    /// another, under other nonces of the contract. The rest is settled.
    pub(super) async fn skipped(
        &self,
        number: u64,
        skipped: Vec<BillId>,
        now: u64,
    ) -> Result<Flight, JournalError> {
        self.change("settle-skipped", number, move |flight, bills| {
            let mut identity = identity(bills.step)?;
            for &bill in &skipped {
                let nonce = leg_nonce(identity.salt, identity.bills);
                identity.bills += 1;
                change_bill(bills.step, bill, |record| {
                    if record.flight != number || record.state != BillState::InFlight {
                        return Err(damaged("a bill is in another transaction"));
                    }
                    record.leg_nonce = nonce;
                    record.back_to_waiting();
                    Ok(())
                })?;
            }
            put_identity(bills.step, &identity)?;
            bills.ids.retain(|bill| !skipped.contains(bill));
            if bills.ids.is_empty() {
                // It paid nothing, and never will.
                flight.state = FlightState::Reverted;
                return Ok(());
            }
            flight.bills.clone_from(&bills.ids);
            flight.state = FlightState::Final;
            bills.each(|bill| {
                bill.state = BillState::Settled;
                bill.settled_at = now;
            })
        })
        .await
    }

    /// Nobody looks at it any more.
    pub(super) async fn closed(&self, number: u64) -> Result<Flight, JournalError> {
        self.change("settle-closed", number, |flight, _| {
            flight.state = FlightState::Closed;
            Ok(())
        })
        .await
    }

    /// The chain has lost it from deeper than anybody looked: it is in flight again.
    pub(super) async fn reopened(&self, number: u64) -> Result<Flight, JournalError> {
        self.change("settle-reopened", number, move |flight, bills| {
            if flight.state != FlightState::Closed {
                return Err(damaged("a transaction that was not closed"));
            }
            flight.state = FlightState::Broadcast;
            bills.step.open_table(OPEN)?.insert(number, ())?;
            bills.each(BillRecord::back_in_flight)
        })
        .await
    }

    /// It was reverted for good: its bills wait for another, the longer the more often it
    /// happens.
    pub(super) async fn reverted(
        &self,
        number: u64,
        now: u64,
        rest: u64,
    ) -> Result<Flight, JournalError> {
        self.change("settle-reverted", number, move |flight, bills| {
            flight.state = FlightState::Reverted;
            bills.each(|bill| {
                bill.back_to_waiting();
                bill.put_off(now, rest);
            })
        })
        .await
    }

    /// Another transaction took its nonce, for good: its bills wait for another.
    pub(super) async fn lost(&self, number: u64) -> Result<Flight, JournalError> {
        self.change("settle-lost", number, |flight, bills| {
            flight.state = FlightState::Lost;
            bills.each(BillRecord::back_to_waiting)
        })
        .await
    }

    /// One step of an open transaction, and of those of its bills that are in it.
    async fn change<F>(
        &self,
        point: &'static str,
        number: u64,
        change: F,
    ) -> Result<Flight, JournalError>
    where
        F: FnOnce(&mut Flight, &mut Bills<'_>) -> Result<(), JournalError> + Send + 'static,
    {
        let chain_id = self.chain_id;
        self.journal
            .write(point, move |step| {
                let mut flights = step.open_table(FLIGHTS)?;
                let mut flight = {
                    let stored = flights.get(number)?.ok_or(missing_flight())?;
                    Flight::decode(stored.value(), chain_id)?
                };
                let ids = flight.bills.clone();
                let mut bills = Bills { step, ids, number };
                change(&mut flight, &mut bills)?;
                flights.insert(number, &*flight.encode())?;
                use FlightState::{Closed, Lost, Reverted};
                if matches!(flight.state, Closed | Lost | Reverted) {
                    step.open_table(OPEN)?.remove(number)?;
                }
                Ok(flight)
            })
            .await
    }
}

/// The bills of a transaction, in a step.
struct Bills<'a> {
    step: &'a WriteTransaction,
    ids: Vec<BillId>,
    number: u64,
}

impl Bills<'_> {
    fn each(&mut self, mut change: impl FnMut(&mut BillRecord)) -> Result<(), JournalError> {
        for &bill in &self.ids {
            let number = self.number;
            change_bill(self.step, bill, |record| {
                if record.flight != number {
                    return Err(damaged("a bill is in another transaction"));
                }
                change(record);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Changes a bill, and has it in the queue exactly while it waits.
fn change_bill(
    step: &WriteTransaction,
    bill: BillId,
    change: impl FnOnce(&mut BillRecord) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let id = bill.0.0;
    let mut bills = step.open_table(BILLS)?;
    let mut record = {
        let stored = bills.get(id)?.ok_or(missing_bill())?;
        BillRecord::decode(stored.value())?
    };
    change(&mut record)?;
    bills.insert(id, &*record.encode())?;
    let mut waiting = step.open_table(WAITING)?;
    match record.state {
        BillState::Waiting => waiting.insert(record.order, id)?,
        _ => waiting.remove(record.order)?,
    };
    Ok(())
}

fn identity(step: &WriteTransaction) -> Result<Identity, JournalError> {
    let meta = step.open_table(META)?;
    let stored = meta
        .get(IDENTITY)?
        .ok_or(damaged("the settler's identity"))?;
    Identity::decode(stored.value())
}

fn put_identity(step: &WriteTransaction, identity: &Identity) -> Result<(), JournalError> {
    let mut meta = step.open_table(META)?;
    meta.insert(IDENTITY, &*identity.encode())?;
    Ok(())
}

fn damaged(what: &'static str) -> JournalError {
    JournalError::Damaged { what }
}

fn missing_bill() -> JournalError {
    damaged("a bill that is listed is missing")
}

fn missing_flight() -> JournalError {
    damaged("a transaction that is listed is missing")
}
