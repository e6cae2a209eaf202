//! In which order payments and requests of a session are looked at: a request that came behind
//! a payment is not refused before that was looked at, or it would be for want of what is there.
//! One that is served anyway does not wait: each payment is a step of the journal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Longest time that a request waits for a payment: one that is looked for on the chain may
/// take longer, and holds up no chunks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts the payment messages of a session.
#[derive(Debug, Default)]
pub(super) struct Payments {
    come: AtomicU64,
    seen: AtomicU64,
    progress: Notify,
}

impl Payments {
    /// One has come.
    pub(super) fn come(&self) {
        self.come.fetch_add(1, Ordering::SeqCst);
    }

    /// One was looked at. They are in order.
    pub(super) fn seen(&self) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.progress.notify_waiters();
    }

    pub(super) fn come_so_far(&self) -> u64 {
        self.come.load(Ordering::SeqCst)
    }

    pub(super) fn seen_so_far(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Waits until so many were looked at, but not long.
    pub(super) async fn wait_for(&self, behind: u64) {
        let work = async {
            loop {
                let mut progress = std::pin::pin!(self.progress.notified());
                progress.as_mut().enable();
                if self.seen.load(Ordering::SeqCst) >= behind {
                    return;
                }
                progress.await;
            }
        };
        // Too late is what the gate says then.
        timeout(PATIENCE, work).await.unwrap_or_default();
    }
}
