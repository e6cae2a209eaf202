//! What driver and callers tell each other: problems, and that something has changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chiral_core::BillId;
use tokio::sync::{Notify, watch};

use super::problem::Problem;

/// Shared by the driver and the callers.
#[derive(Debug)]
pub(super) struct Board {
    problems: Mutex<Problems>,
    /// Bills that somebody waits for.
    urgent: Mutex<HashSet<BillId>>,
    /// Rises whenever a bill's status may have changed.
    changes: watch::Sender<u64>,
    /// There are new bills.
    pub(super) work: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Of all payments.
    pub(super) general: Option<Problem>,
    /// Of single bills; not more than one pass of the driver looks at.
    pub(super) bills: HashMap<BillId, Problem>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            problems: Mutex::default(),
            urgent: Mutex::default(),
            changes: watch::Sender::new(0),
            work: Notify::new(),
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set(&self, problems: Problems) {
        *self.problems() = problems;
    }

    pub(super) fn general(&self) -> Option<Problem> {
        self.problems().general.clone()
    }

    pub(super) fn of_bill(&self, bill: BillId) -> Option<Problem> {
        self.problems().bills.get(&bill).cloned()
    }

    /// Somebody waits for a bill that waits for a transaction.
    pub(super) fn hurry(&self, bill: BillId) {
        let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        urgent.insert(bill);
    }

    /// Whether somebody waits for one of these. Those that wait no more are forgotten.
    pub(super) fn is_urgent(&self, waiting: &HashSet<BillId>) -> bool {
        let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        urgent.retain(|bill| waiting.contains(bill));
        !urgent.is_empty()
    }

    fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
