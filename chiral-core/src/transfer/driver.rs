//! The side of a transfer that does the work.

use std::fmt;
use std::sync::Arc;

use event_listener::listener;

use super::TransferId;
use super::events::{SourceReport, TransferEventKind, TransferOutcome};
use super::registry::{Progress, Shared};
use crate::FileIdentification;

/// The transfer was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer was cancelled")]
pub struct Stopped;

/// Held by whoever works on a transfer. Dropping it without [`TransferDriver::finish`] ends
/// the transfer as cancelled (if it was) or failed, so that it ends exactly once whatever
/// happens.
pub struct TransferDriver {
    shared: Arc<Shared>,
}

impl fmt::Debug for TransferDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferDriver")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl TransferDriver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Its id.
    pub fn id(&self) -> TransferId {
        self.shared.id
    }

    /// What it gets.
    pub fn target(&self) -> FileIdentification {
        self.shared.target
    }

    /// Tells subscribers of something.
    pub fn emit(&self, kind: TransferEventKind) {
        self.shared.emit(&mut self.shared.state(), kind);
    }

    /// Changes the progress.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.shared.state().progress);
    }

    /// Replaces what is known of the sources.
    pub fn set_sources(&self, sources: Vec<SourceReport>) {
        self.shared.state().sources = sources;
    }

    /// Says that it waits for its turn, or does not any more. Subscribers are told of a change.
    pub fn set_queued(&self, queued: bool) {
        let mut state = self.shared.state();
        if state.outcome.is_none() && std::mem::replace(&mut state.queued, queued) != queued {
            let kind = if queued {
                TransferEventKind::Queued
            } else {
                TransferEventKind::Dequeued
            };
            self.shared.emit(&mut state, kind);
        }
    }

    /// Whether it is paused now.
    pub fn is_paused(&self) -> bool {
        self.shared.state().paused
    }

    /// Whether it should end now.
    pub fn is_cancelled(&self) -> bool {
        self.shared.state().cancelled
    }

    /// Waits until the transfer is not paused.
    ///
    /// # Errors
    /// [`Stopped`] once it is cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn running(&self) -> Result<(), Stopped> {
        loop {
            listener!(self.shared.changed => changed);
            if self.is_cancelled() {
                return Err(Stopped);
            }
            if !self.is_paused() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Waits until somebody pauses, resumes or cancels: until the pair (paused, cancelled)
    /// is not `known` any more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn changed(&self, known: (bool, bool)) -> (bool, bool) {
        loop {
            listener!(self.shared.changed => changed);
            let now = (self.is_paused(), self.is_cancelled());
            if now != known {
                return now;
            }
            changed.await;
        }
    }

    /// Ends the transfer.
    pub fn finish(self, outcome: TransferOutcome) {
        self.shared.end(outcome);
    }
}

impl Drop for TransferDriver {
    fn drop(&mut self) {
        let outcome = if self.is_cancelled() {
            TransferOutcome::Cancelled
        } else {
            TransferOutcome::Failed {
                reason: "the transfer was abandoned".into(),
                retryable: true,
            }
        };
        self.shared.end(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RegistryError, TransferRegistry, TransferState};
    use super::*;
    use crate::chain::EMPTY_CID;
    use futures_util::StreamExt;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn id(n: u8) -> TransferId {
        TransferId::from_bytes([n; 16])
    }

    #[test]
    fn a_transfer_ends_exactly_once_and_its_events_have_no_gaps() {
        let registry = TransferRegistry::new();
        let all = registry.events();
        let (transfer, driver) = registry.begin(id(1), EMPTY_CID.into()).unwrap();
        let mut own = transfer.events();
        driver.emit(TransferEventKind::Started { chunks_resumed: 0 });
        assert!(transfer.pause() && !transfer.pause());
        assert_eq!(transfer.state(), TransferState::Paused);
        assert_eq!(ready(driver.running()), None);
        assert_eq!(ready(transfer.pause_changed(true)), None);
        assert_eq!(ready(transfer.pause_changed(false)), Some(Some(true)));
        assert!(transfer.resume() && !transfer.resume());
        assert_eq!(ready(transfer.pause_changed(true)), Some(Some(false)));
        assert_eq!(ready(driver.running()), Some(Ok(())));
        assert!(transfer.cancel() && !transfer.cancel());
        assert!(!transfer.pause());
        assert_eq!(ready(driver.running()), Some(Err(Stopped)));
        assert_eq!(ready(transfer.ended()), None);
        drop(driver);
        assert_eq!(ready(transfer.ended()), Some(TransferOutcome::Cancelled));
        assert_eq!(ready(transfer.pause_changed(false)), Some(None));
        let mut seen = Vec::new();
        while let Some(Some(event)) = ready(own.next()) {
            seen.push(event);
        }
        assert_eq!(
            seen.iter().map(|e| e.sequence).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        let ends =
            |e: &&super::super::TransferEvent| matches!(e.kind, TransferEventKind::Ended { .. });
        assert_eq!(seen.iter().filter(ends).count(), 1);
        assert!(registry.transfers().is_empty());
        registry.close();
        assert_eq!(
            ready(all.collect::<Vec<_>>()).map(|events| events.len()),
            Some(4)
        );
        assert_eq!(ready(transfer.events().next()), Some(None));
    }

    #[test]
    fn a_transfer_that_waits_for_its_turn_says_so_once_and_paused_is_paused() {
        let registry = TransferRegistry::new();
        let (transfer, driver) = registry.begin(id(1), EMPTY_CID.into()).unwrap();
        let mut events = transfer.events();
        driver.set_queued(false);
        driver.set_queued(true);
        driver.set_queued(true);
        assert_eq!(transfer.state(), TransferState::Queued);
        assert!(transfer.pause());
        assert_eq!(transfer.state(), TransferState::Paused);
        assert!(transfer.resume());
        assert_eq!(transfer.state(), TransferState::Queued);
        driver.set_queued(false);
        assert_eq!(transfer.state(), TransferState::Running);
        driver.finish(TransferOutcome::Cancelled);
        let mut seen = Vec::new();
        while let Some(Some(event)) = ready(events.next()) {
            seen.push(event.kind);
        }
        assert_eq!(
            seen[..4],
            [
                TransferEventKind::Queued,
                TransferEventKind::Paused,
                TransferEventKind::Resumed,
                TransferEventKind::Dequeued
            ]
        );
    }

    #[test]
    fn the_same_content_is_transferred_once_at_a_time() {
        let registry = TransferRegistry::new();
        let (_, driver) = registry.begin(id(1), EMPTY_CID.into()).unwrap();
        let again = registry.begin(id(2), EMPTY_CID.into()).map(|_| ());
        assert_eq!(again, Err(RegistryError::Running { transfer: id(1) }));
        driver.finish(TransferOutcome::Cancelled);
        assert!(registry.begin(id(2), EMPTY_CID.into()).is_ok());
    }

    #[test]
    fn a_slow_subscriber_loses_the_oldest_and_knows_how_many() {
        let registry = TransferRegistry::new();
        let (transfer, driver) = registry.begin(id(1), EMPTY_CID.into()).unwrap();
        let mut events = transfer.events();
        for index in 0..2000 {
            driver.emit(TransferEventKind::ChunkRefetched { index });
        }
        assert_eq!(events.lost(), 2000 - super::super::MAX_QUEUED_EVENTS as u64);
        let first = ready(events.next()).flatten().unwrap();
        assert_eq!(first.sequence, events.lost());
    }
}
