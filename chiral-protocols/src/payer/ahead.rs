//! How much is asked for ahead of payment: no more than the gate serves, so that requests are
//! not refused only to be made again.

#[cfg(feature = "private")]
use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(feature = "private")]
use std::time::Duration;

#[cfg(feature = "private")]
use chiral_core::{ByteRange, CHUNK_SIZE};
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

/// Most bytes of one request: a gate lends only so much at once.
#[cfg(feature = "private")]
const MAX_REQUEST: u64 = 8 << 20;

/// What to ask for in one request where so much is lent.
#[cfg(feature = "private")]
pub(crate) fn at_once(most: u64) -> u64 {
    (most / 4).clamp(CHUNK_SIZE, MAX_REQUEST)
}

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Asked for and not paid.
    asked: u64,
    /// Of which verified.
    verified: u64,
    /// When anything was last asked for, delivered, verified or paid.
    moved: Option<Instant>,
    /// Where what is proven begins, if the file is proven from its end.
    frontier: Option<u64>,
}

impl Ahead {
    /// Whether a range fits into what is lent. Of that, room for a request is kept for what is
    /// proven next: what is further down cannot be paid before, whoever brings what lies
    /// between, and would take up what these need.
    #[cfg(feature = "private")]
    fn fits(&self, range: ByteRange, most: u64) -> bool {
        let kept = match self.frontier {
            Some(frontier) if range.end < frontier => at_once(most),
            _ if self.asked == 0 => return true,
            _ => 0,
        };
        let asked = self.asked.saturating_add(range.len());
        asked.saturating_add(kept) <= most
    }

    /// Nothing is on its way.
    #[cfg(feature = "private")]
    fn forget(&mut self) {
        let frontier = self.frontier;
        *self = Self {
            frontier,
            ..Self::default()
        };
    }
}

impl Payer {
    fn with_ahead<T>(&self, f: impl FnOnce(&mut Ahead) -> T) -> T {
        f(&mut self.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All from here on is proven, and what lies before it is next.
    #[cfg(feature = "private")]
    pub(crate) fn proven_from(&self, offset: u64) {
        self.with_ahead(|ahead| {
            ahead.frontier = Some(offset);
            ahead.moved = Some(Instant::now());
        });
        self.progress.notify_waiters();
    }

    /// Whether what comes is proven from the end of the file towards its start.
    #[cfg(feature = "private")]
    pub(crate) fn is_backward(&self) -> bool {
        self.with_ahead(|ahead| ahead.frontier.is_some())
    }

    /// What comes is checked whatever its place, from now on.
    pub(super) fn in_any_order(&self) {
        self.with_ahead(|ahead| ahead.frontier = None);
        self.progress.notify_waiters();
    }

    /// Waits until a range fits into what is served ahead of payment, but not long.
    #[cfg(feature = "private")]
    pub(crate) async fn room(self: &Arc<Self>, want: ByteRange) -> Room {
        loop {
            // What happens in between is waited for in vain, and not long.
            if let Some(room) = self.try_room(want) {
                return room;
            }
            self.more_room().await;
        }
    }

    /// Room for a range more, if there is any now.
    #[cfg(feature = "private")]
    pub(crate) fn try_room(self: &Arc<Self>, range: ByteRange) -> Option<Room> {
        let want = range.len();
        let most = self.most_at_once();
        let left = self.with_ahead(|ahead| {
            if most == u64::MAX {
                return Some(0);
            }
            ahead.fits(range, most).then(|| {
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
                    ahead.forget();
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
