//! How much is asked for ahead of payment: no more than the gate serves, so that requests are
//! not refused only to be made again.

#[cfg(feature = "private")]
use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(feature = "private")]
use std::time::Duration;

use tokio::time::Instant;
#[cfg(feature = "private")]
use tokio::time::timeout;

use super::Payer;

/// Pause between looks for room.
#[cfg(feature = "private")]
const LOOK: Duration = Duration::from_millis(250);

/// How long nothing may move while somebody waits for room. After that the gate is asked: it
/// may count otherwise than we do.
#[cfg(feature = "private")]
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Asked for and not paid.
    asked: u64,
    /// Of which verified.
    verified: u64,
    /// When anything was last asked for, delivered, verified or paid.
    moved: Option<Instant>,
}

impl Payer {
    fn with_ahead<T>(&self, f: impl FnOnce(&mut Ahead) -> T) -> T {
        f(&mut self.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so many bytes more fit into what is served ahead of payment, but not long.
    #[cfg(feature = "private")]
    pub(crate) async fn room(self: &Arc<Self>, want: u64) -> Room {
        loop {
            // What happens in between is waited for in vain, and not long.
            if let Some(room) = self.try_room(want) {
                return room;
            }
            self.more_room().await;
        }
    }

    /// Room for so many bytes more, if there is any now.
    #[cfg(feature = "private")]
    pub(crate) fn try_room(self: &Arc<Self>, want: u64) -> Option<Room> {
        let most = self.most_at_once();
        let left = self.with_ahead(|ahead| {
            if most == u64::MAX {
                return Some(0);
            }
            let fits = ahead.asked == 0 || ahead.asked.saturating_add(want) <= most;
            fits.then(|| {
                ahead.asked = ahead.asked.saturating_add(want);
                ahead.moved = Some(Instant::now());
                want
            })
        });
        let payer = self.clone();
        left.map(|left| Room { payer, left })
    }

    /// Waits until there may be more room, but not long.
    #[cfg(feature = "private")]
    pub(crate) async fn more_room(&self) {
        if timeout(LOOK, self.progress.notified()).await.is_err() {
            self.with_ahead(|ahead| {
                if ahead.moved.is_none_or(|moved| moved.elapsed() > PATIENCE) {
                    *ahead = Ahead::default();
                }
            });
        }
    }

    pub(super) fn count_verified(&self, bytes: u64) {
        self.with_ahead(|ahead| {
            ahead.verified = ahead.verified.saturating_add(bytes);
            ahead.moved = Some(Instant::now());
        });
    }

    /// Bytes that are verified and for which nothing is on its way to the gate.
    pub(super) fn unsettled(&self) -> u64 {
        self.with_ahead(|ahead| ahead.verified)
    }

    /// What pays for so many verified bytes is on its way.
    pub(super) fn settled(&self, bytes: u64) {
        self.with_ahead(|ahead| {
            ahead.asked = ahead.asked.saturating_sub(bytes);
            ahead.verified = ahead.verified.saturating_sub(bytes);
            ahead.moved = Some(Instant::now());
        });
        self.progress.notify_waiters();
    }
}

/// Room for a request. What was not delivered when this is dropped is free again.
#[cfg(feature = "private")]
#[derive(Debug)]
pub(crate) struct Room {
    payer: Arc<Payer>,
    left: u64,
}

#[cfg(feature = "private")]
impl Room {
    /// So many bytes have come.
    pub(crate) fn delivered(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.payer
            .with_ahead(|ahead| ahead.moved = Some(Instant::now()));
    }
}

#[cfg(feature = "private")]
impl Drop for Room {
    fn drop(&mut self) {
        if self.left > 0 {
            let left = self.left;
            self.payer
                .with_ahead(|ahead| ahead.asked = ahead.asked.saturating_sub(left));
            self.payer.progress.notify_waiters();
        }
    }
}
