//! The registry of transfers and the handle to one of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, listener};
use serde::Serialize;

use super::driver::TransferDriver;
use super::events::{EventSink, EventStream, TransferEvent, TransferEventKind, TransferOutcome};
use super::{SourceReport, TransferId};
use crate::FileIdentification;

/// Limit on transfers that are under way at once in one registry.
pub const MAX_TRANSFERS: usize = 4096;

/// What a transfer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Working.
    Running,
    /// Waiting for its turn: as many as may work at once are at work.
    Queued,
    /// Waiting for [`Transfer::resume`].
    Paused,
    /// Over.
    Ended,
}

/// How far a transfer is. Always the latest state, never a history.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Size in bytes, once known.
    pub size: Option<u64>,
    /// Bytes that this transfer is to get: the size, or the part that was asked for.
    pub wanted: u64,
    /// Bytes on disk, proven or not.
    pub present: u64,
    /// Bytes proven.
    pub proven: u64,
    /// Chunks in the file.
    pub chunks: u32,
    /// Chunks present but not proven.
    pub chunks_unproven: u32,
    /// Sources connected.
    pub sources: u32,
    /// Received bytes per second, all sources together, over the last seconds.
    pub bytes_per_second: u64,
}

/// Why the registry refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The same content is being transferred already.
    #[error("transfer {transfer} already gets this file")]
    Running {
        /// The transfer under way.
        transfer: TransferId,
    },
    /// [`MAX_TRANSFERS`] are under way.
    #[error("{MAX_TRANSFERS} transfers are under way")]
    Full,
}

pub(super) struct Shared {
    pub(super) id: TransferId,
    pub(super) target: FileIdentification,
    pub(super) state: Mutex<State>,
    /// Notified at every change of `state` but progress.
    pub(super) changed: Event,
    pub(super) registry: Arc<Mutex<Entries>>,
}

pub(super) struct State {
    pub(super) paused: bool,
    pub(super) queued: bool,
    pub(super) cancelled: bool,
    pub(super) outcome: Option<TransferOutcome>,
    pub(super) progress: Progress,
    pub(super) sources: Vec<SourceReport>,
    pub(super) sequence: u64,
}

#[derive(Default)]
pub(super) struct Entries {
    transfers: BTreeMap<TransferId, Arc<Shared>>,
    sinks: Vec<EventSink>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers and queues an event. Locks are taken state first, then entries.
    pub(super) fn emit(&self, state: &mut State, kind: TransferEventKind) {
        let event = TransferEvent {
            transfer: self.id,
            sequence: state.sequence,
            kind,
        };
        state.sequence += 1;
        self.entries().sinks.retain(|sink| sink.push(&event));
    }

    /// Ends the transfer unless it has ended.
    pub(super) fn end(&self, outcome: TransferOutcome) {
        let mut state = self.state();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome.clone());
        self.emit(&mut state, TransferEventKind::Ended { outcome });
        self.entries().transfers.remove(&self.id);
        drop(state);
        self.changed.notify(usize::MAX);
    }
}

/// The transfers of one node. Cheap to clone; all clones are one registry.
#[derive(Clone, Default)]
pub struct TransferRegistry {
    entries: Arc<Mutex<Entries>>,
}

impl fmt::Debug for TransferRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.lock().transfers.keys().copied().collect();
        f.debug_struct("TransferRegistry")
            .field("transfers", &ids)
            .finish_non_exhaustive()
    }
}

impl TransferRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a transfer; its driver goes to whoever works on it.
    ///
    /// # Errors
    /// [`RegistryError::Running`] if one with this id, cid or root is under way.
    pub fn begin(
        &self,
        id: TransferId,
        target: FileIdentification,
    ) -> Result<(Transfer, TransferDriver), RegistryError> {
        let mut entries = self.lock();
        let same = |other: &Shared| other.id == id || same_content(&other.target, &target);
        if let Some(running) = entries.transfers.values().find(|other| same(other)) {
            return Err(RegistryError::Running {
                transfer: running.id,
            });
        }
        if entries.transfers.len() >= MAX_TRANSFERS {
            return Err(RegistryError::Full);
        }
        let shared = Arc::new(Shared {
            id,
            target,
            state: Mutex::new(State {
                paused: false,
                queued: false,
                cancelled: false,
                outcome: None,
                progress: Progress::default(),
                sources: Vec::new(),
                sequence: 0,
            }),
            changed: Event::new(),
            registry: self.entries.clone(),
        });
        entries.transfers.insert(id, shared.clone());
        Ok((
            Transfer {
                shared: shared.clone(),
            },
            TransferDriver::new(shared),
        ))
    }

    /// The transfer with this id, if it is under way.
    pub fn get(&self, id: TransferId) -> Option<Transfer> {
        self.lock().transfers.get(&id).map(|shared| Transfer {
            shared: shared.clone(),
        })
    }

    /// The transfer of this content, if one is under way.
    pub fn find(&self, target: &FileIdentification) -> Option<Transfer> {
        let entries = self.lock();
        let shared = entries
            .transfers
            .values()
            .find(|s| same_content(&s.target, target))?;
        Some(Transfer {
            shared: shared.clone(),
        })
    }

    /// All transfers under way.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.lock()
            .transfers
            .values()
            .map(|s| Transfer { shared: s.clone() })
            .collect()
    }

    /// Events of all transfers from now on; the stream ends with [`TransferRegistry::close`].
    pub fn events(&self) -> EventStream {
        let (sink, stream) = EventStream::new(None);
        self.lock().sinks.push(sink);
        stream
    }

    /// Cancels every transfer and ends all subscriptions to the registry.
    pub fn close(&self) {
        for transfer in self.transfers() {
            transfer.cancel();
        }
        let mut entries = self.lock();
        entries.sinks.drain(..).for_each(|sink| sink.close());
    }
}

fn same_content(a: &FileIdentification, b: &FileIdentification) -> bool {
    match (a, b) {
        (FileIdentification::Alias(a), FileIdentification::Alias(b)) => a == b,
        _ => {
            (a.cid().is_some() && a.cid() == b.cid())
                || (a.root().is_some()
                    && a.root() == b.root()
                    && a.cid().is_none_or(|_| b.cid().is_none()))
        }
    }
}

/// A handle to a transfer. Dropping it changes nothing.
#[derive(Clone)]
pub struct Transfer {
    shared: Arc<Shared>,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("id", &self.shared.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Transfer {
    /// Its id.
    pub fn id(&self) -> TransferId {
        self.shared.id
    }

    /// What it gets.
    pub fn target(&self) -> FileIdentification {
        self.shared.target
    }

    /// What it is doing.
    pub fn state(&self) -> TransferState {
        let state = self.shared.state();
        match &state.outcome {
            Some(_) => TransferState::Ended,
            None if state.paused => TransferState::Paused,
            None if state.queued => TransferState::Queued,
            None => TransferState::Running,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.shared.state().progress.clone()
    }

    /// What each source has done so far.
    pub fn sources(&self) -> Vec<SourceReport> {
        self.shared.state().sources.clone()
    }

    /// Pauses; true if it was running or waiting for its turn.
    pub fn pause(&self) -> bool {
        self.set_paused(true)
    }

    /// Resumes; true if it was paused.
    pub fn resume(&self) -> bool {
        self.set_paused(false)
    }

    fn set_paused(&self, paused: bool) -> bool {
        let mut state = self.shared.state();
        if state.outcome.is_some() || state.cancelled || state.paused == paused {
            return false;
        }
        state.paused = paused;
        let kind = if paused {
            TransferEventKind::Paused
        } else {
            TransferEventKind::Resumed
        };
        self.shared.emit(&mut state, kind);
        drop(state);
        self.shared.changed.notify(usize::MAX);
        true
    }

    /// Waits until it is paused, or not any more: until that is not as `known`. `None` once it
    /// has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn pause_changed(&self, known: bool) -> Option<bool> {
        loop {
            listener!(self.shared.changed => changed);
            let now = {
                let state = self.shared.state();
                state.outcome.is_none().then_some(state.paused)
            };
            if now != Some(known) {
                return now;
            }
            changed.await;
        }
    }

    /// Asks the transfer to end; true the first time, unless it has ended.
    pub fn cancel(&self) -> bool {
        let mut state = self.shared.state();
        let first = state.outcome.is_none() && !std::mem::replace(&mut state.cancelled, true);
        drop(state);
        self.shared.changed.notify(usize::MAX);
        first
    }

    /// Events of this transfer from now on, up to and including its end.
    pub fn events(&self) -> EventStream {
        let (sink, stream) = EventStream::new(Some(self.shared.id));
        // Held throughout, so that the end cannot slip in between.
        let state = self.shared.state();
        if state.outcome.is_some() {
            sink.close();
        } else {
            self.shared.entries().sinks.push(sink);
        }
        stream
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<TransferOutcome> {
        self.shared.state().outcome.clone()
    }

    /// Waits for the end.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ended(&self) -> TransferOutcome {
        loop {
            listener!(self.shared.changed => changed);
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            changed.await;
        }
    }
}
