//! [`Habits`]: what becomes of requests behind others at one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// What all connections to one server share.
#[derive(Debug, Default)]
pub(in crate::http) struct Habits {
    /// Told whenever there may be room for another request, on a connection or for a new one.
    pub(in crate::http) room: Notify,
    /// Whether requests behind others have come to grief: the server is asked for one thing at
    /// a time then.
    pub(in crate::http) one_by_one: AtomicBool,
}

impl Habits {
    /// A request behind others, or the answer before it, was lost.
    pub(in crate::http) fn came_to_grief(&self) {
        self.one_by_one.store(true, Ordering::Relaxed);
    }
}

/// A place among the connections that are counted, if it has one; `room` is told when it is free.
#[derive(Debug)]
pub(in crate::http) struct Counted {
    permit: Option<OwnedSemaphorePermit>,
    habits: Arc<Habits>,
}

impl Counted {
    pub(in crate::http) fn new(permit: Option<OwnedSemaphorePermit>, habits: Arc<Habits>) -> Self {
        Self { permit, habits }
    }

    /// Whether it has a place.
    pub(super) fn counts(&self) -> bool {
        self.permit.is_some()
    }

    pub(super) fn habits(&self) -> &Arc<Habits> {
        &self.habits
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // In this order: who looks when it is told has to find it.
        self.permit = None;
        self.habits.room.notify_waiters();
    }
}
