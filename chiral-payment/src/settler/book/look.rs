//! What the settler's tables say: read, never written.

use chiral_core::{Bill, BillId, SettleError, SettlementStatus};
use redb::{ReadTransaction, ReadableTable, TableError};

use super::{BILLS, Book, FLIGHTS, OPEN, ORDER, WAITING, missing_bill, missing_flight};
use crate::journal::JournalError;
use crate::settler::record::{BillRecord, Flight, FlightState, digest};

/// What the driver works on.
#[derive(Debug, Default)]
pub(in crate::settler) struct Work {
    /// Transactions that are looked at, oldest first.
    pub(in crate::settler) flights: Vec<(u64, Flight)>,
    /// Bills that wait, oldest first, as many as were asked for.
    pub(in crate::settler) waiting: Vec<(BillId, BillRecord)>,
    /// When the first of the bills that rest may be tried again.
    pub(in crate::settler) next_try: Option<u64>,
}

/// How far a bill is, in a journal that no settler has open.
pub(crate) fn status_of(
    step: &ReadTransaction,
    bill: BillId,
) -> Result<Option<SettlementStatus>, JournalError> {
    let table = match step.open_table(BILLS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        other => other?,
    };
    let Some(stored) = table.get(bill.0.0)? else {
        return Ok(None);
    };
    Ok(Some(BillRecord::decode(stored.value())?.status()))
}

impl Book {
    /// Statuses of the bills if every one of them is known already.
    pub(in crate::settler) async fn known(
        &self,
        bills: &[Bill],
    ) -> Result<Result<Option<Vec<SettlementStatus>>, SettleError>, JournalError> {
        let wanted: Vec<_> = bills.iter().map(|bill| (bill.id, digest(bill))).collect();
        self.journal
            .read(move |step| {
                let table = step.open_table(BILLS)?;
                let mut statuses = Vec::with_capacity(wanted.len());
                for (bill, digest) in wanted {
                    let Some(stored) = table.get(bill.0.0)? else {
                        return Ok(Ok(None));
                    };
                    let record = BillRecord::decode(stored.value())?;
                    if record.digest != digest {
                        return Ok(Err(SettleError::Conflict { bill }));
                    }
                    statuses.push(record.status());
                }
                Ok(Ok(Some(statuses)))
            })
            .await
    }

    /// What is known of a bill.
    pub(in crate::settler) async fn bill(
        &self,
        bill: BillId,
    ) -> Result<Option<BillRecord>, JournalError> {
        self.journal
            .read(move |step| {
                let table = step.open_table(BILLS)?;
                let stored = table.get(bill.0.0)?;
                stored
                    .map(|stored| BillRecord::decode(stored.value()))
                    .transpose()
            })
            .await
    }

    /// The newest bills, newest first.
    pub(in crate::settler) async fn newest(
        &self,
        limit: usize,
    ) -> Result<Vec<(BillId, BillRecord)>, JournalError> {
        self.journal
            .read(move |step| {
                let (order, table) = (step.open_table(ORDER)?, step.open_table(BILLS)?);
                let mut newest = Vec::new();
                for entry in order.iter()?.rev().take(limit) {
                    let id = entry?.1.value();
                    let stored = table.get(id)?.ok_or(missing_bill())?;
                    newest.push((BillId(id.into()), BillRecord::decode(stored.value())?));
                }
                Ok(newest)
            })
            .await
    }

    /// What there is to do, with at most `limit` of the waiting bills that may be tried at
    /// `now`.
    pub(in crate::settler) async fn work(
        &self,
        limit: usize,
        now: u64,
    ) -> Result<Work, JournalError> {
        let chain_id = self.chain_id;
        self.journal
            .read(move |step| {
                let (bills, flights) = (step.open_table(BILLS)?, step.open_table(FLIGHTS)?);
                let mut work = Work::default();
                for entry in step.open_table(OPEN)?.iter()? {
                    let number = entry?.0.value();
                    let stored = flights.get(number)?.ok_or(missing_flight())?;
                    let flight = Flight::decode(stored.value(), chain_id)?;
                    work.flights.push((number, flight));
                }
                for entry in step.open_table(WAITING)?.iter()? {
                    let id = entry?.1.value();
                    let stored = bills.get(id)?.ok_or(missing_bill())?;
                    let record = BillRecord::decode(stored.value())?;
                    if record.not_before <= now {
                        work.waiting.push((BillId(id.into()), record));
                    } else {
                        let next = work.next_try.unwrap_or(u64::MAX);
                        work.next_try = Some(next.min(record.not_before));
                    }
                    if work.waiting.len() >= limit {
                        break;
                    }
                }
                Ok(work)
            })
            .await
    }

    /// The newest transaction with this nonce that nobody looks at any more because it was
    /// deep enough, if there is one.
    pub(in crate::settler) async fn closed_with(
        &self,
        nonce: u64,
    ) -> Result<Option<u64>, JournalError> {
        let chain_id = self.chain_id;
        self.journal
            .read(move |step| {
                for entry in step.open_table(FLIGHTS)?.iter()?.rev() {
                    let (number, stored) = entry?;
                    let flight = Flight::decode(stored.value(), chain_id)?;
                    if flight.nonce == nonce && flight.state == FlightState::Closed {
                        return Ok(Some(number.value()));
                    }
                }
                Ok(None)
            })
            .await
    }
}
