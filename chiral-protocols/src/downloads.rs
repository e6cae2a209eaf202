//! [`Downloads`]: whose turn it is, and how fast.
//!
//! Every download of an engine has a [`Turn`] here: it works while the turn is its own, gives
//! it away while it is paused, loses it to one that matters more, and receives as much as its
//! [`Flow`] lets.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::{Priority, Rate, TransferId};
use tokio::sync::Notify;

use crate::limits::{Flow, Limiter};

mod line;

pub use line::{Admitted, Line, Place};

/// The queue of an engine's downloads and the limits on what they receive. Cheap to clone; all
/// clones are one. A new one lets everybody run, and limits nothing.
#[derive(Clone, Debug, Default)]
pub struct Downloads {
    limiter: Limiter,
    state: Arc<Mutex<State>>,
    /// A download's priority or limit was changed.
    set: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    members: BTreeMap<TransferId, Member>,
}

#[derive(Debug)]
struct Member {
    flow: Flow,
    changed: Arc<Notify>,
}

impl State {
    fn admit(&mut self) {
        while let Some(Admitted { id, instead_of }) = self.line.admit() {
            for id in [Some(id), instead_of].into_iter().flatten() {
                if let Some(member) = self.members.get(&id) {
                    member.changed.notify_one();
                }
            }
        }
    }
}

impl Downloads {
    /// Lets everybody run, and limits nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many downloads work at once, at least one; the others wait for their turn. Those
    /// that have theirs keep it.
    pub fn set_max(&self, max: Option<usize>) {
        let mut state = self.state();
        state.line.set_max(max);
        state.admit();
    }

    /// How many downloads work at once.
    pub fn max(&self) -> Option<usize> {
        self.state().line.max()
    }

    /// Limits what all downloads receive together, from now on. They share it by priority.
    pub fn set_limit(&self, limit: Option<Rate>) {
        self.limiter.set_limit(limit);
    }

    /// The limit on what all downloads receive together.
    pub fn limit(&self) -> Option<Rate> {
        self.limiter.limit()
    }

    /// Changes a download's priority: its place in the queue, and its share of the limit. If it
    /// matters more now than one that has its turn, it takes that; if it matters less than one
    /// that waits, it loses its own. False if it is not under way.
    pub fn set_priority(&self, id: TransferId, priority: Priority) -> bool {
        let mut state = self.state();
        if let Some(member) = state.members.get(&id) {
            member.flow.set_weight(priority.weight());
        }
        let is_there = state.line.set_priority(id, priority);
        state.admit();
        drop(state);
        self.set.notify_waiters();
        is_there
    }

    /// A download's priority, if it is under way.
    pub fn priority(&self, id: TransferId) -> Option<Priority> {
        self.state().line.priority(id)
    }

    /// Limits what one download receives, from now on. False if it is not under way.
    pub fn set_download_limit(&self, id: TransferId, limit: Option<Rate>) -> bool {
        let state = self.state();
        let member = state.members.get(&id);
        let is_there = member.map(|member| member.flow.set_limit(limit)).is_some();
        drop(state);
        self.set.notify_waiters();
        is_there
    }

    /// The limit on one download, if it is under way and has one.
    pub fn download_limit(&self, id: TransferId) -> Option<Rate> {
        self.state().members.get(&id)?.flow.limit()
    }

    /// Waits until a download's priority or limit are not as `known`; `None` if it is not under
    /// way.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn settings_changed(
        &self,
        id: TransferId,
        known: (Priority, Option<Rate>),
    ) -> Option<(Priority, Option<Rate>)> {
        let mut set = pin!(self.set.notified());
        loop {
            // Before it is looked at, so that no change slips in between.
            set.as_mut().enable();
            let now = (self.priority(id)?, self.download_limit(id));
            if now != known {
                return Some(now);
            }
            set.as_mut().await;
            set.set(self.set.notified());
        }
    }

    /// A download comes and waits for its turn, which it may have at once: also in the place of
    /// one that matters less, which waits again then.
    pub fn enter(&self, id: TransferId, priority: Priority, limit: Option<Rate>) -> Turn {
        let flow = self.limiter.flow(priority.weight(), limit);
        let changed = Arc::<Notify>::default();
        let member = Member {
            flow: flow.clone(),
            changed: changed.clone(),
        };
        let mut state = self.state();
        state.members.insert(id, member);
        state.line.enter(id, priority);
        state.admit();
        drop(state);
        Turn {
            downloads: self.clone(),
            id,
            flow,
            changed,
        }
    }
}

/// A download's place in the queue; it leaves when this is dropped.
#[derive(Debug)]
pub struct Turn {
    downloads: Downloads,
    id: TransferId,
    flow: Flow,
    changed: Arc<Notify>,
}

impl Turn {
    /// Whether it may work now.
    pub fn is_own(&self) -> bool {
        self.downloads.state().line.place(self.id) == Some(Place::Running)
    }

    /// Neither has nor wants a turn while it stands aside.
    pub fn set_aside(&self, aside: bool) {
        let mut state = self.downloads.state();
        if aside {
            state.line.step_aside(self.id);
        } else {
            state.line.step_back(self.id);
        }
        state.admit();
    }

    /// Waits until the turn is its own, if it does not stand aside.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn own(&self) {
        while !self.is_own() {
            self.changed.notified().await;
        }
    }

    /// Waits until the turn is not its own any more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) {
        while self.is_own() {
            self.changed.notified().await;
        }
    }

    /// What limits what it receives.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.downloads.state();
        state.line.leave(self.id);
        state.members.remove(&self.id);
        state.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn id(n: u8) -> TransferId {
        TransferId::from_bytes([n; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_when_a_turn_is_free() {
        let downloads = Downloads::new();
        downloads.set_max(Some(1));
        let first = downloads.enter(id(1), Priority::Normal, None);
        let second = downloads.enter(id(2), Priority::Normal, None);
        let third = downloads.enter(id(3), Priority::Normal, None);
        assert!(first.is_own() && !second.is_own());
        let patience = Duration::from_secs(1);
        assert!(timeout(patience, third.own()).await.is_err());
        let waiting = tokio::spawn(async move {
            third.own().await;
            third
        });
        tokio::task::yield_now().await;
        assert!(timeout(patience, first.lost()).await.is_err());
        // It matters more now than the one that works.
        assert!(downloads.set_priority(id(3), Priority::High));
        timeout(patience, first.lost()).await.unwrap();
        let third = timeout(patience, waiting).await.unwrap().unwrap();
        third.set_aside(true);
        timeout(patience, first.own()).await.unwrap();
        first.set_aside(true);
        third.set_aside(false);
        assert!(third.is_own());
        first.set_aside(false);
        assert!(!first.is_own() && !second.is_own());
        drop(third);
        timeout(patience, first.own()).await.unwrap();
        downloads.set_max(Some(2));
        timeout(patience, second.own()).await.unwrap();
        assert_eq!(downloads.priority(id(3)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_keeps_settings_hears_of_each_change() {
        let downloads = Downloads::new();
        let turn = downloads.enter(id(1), Priority::Low, None);
        let patience = Duration::from_secs(1);
        let known = (Priority::Low, None);
        let nothing = timeout(patience, downloads.settings_changed(id(1), known)).await;
        assert!(nothing.is_err());
        let (limit, other) = ("1MiB".parse().ok(), downloads.clone());
        let waiting = tokio::spawn(async move { other.settings_changed(id(1), known).await });
        tokio::task::yield_now().await;
        assert!(downloads.set_download_limit(id(1), limit));
        let known = (Priority::Low, limit);
        assert_eq!(waiting.await.unwrap(), Some(known));
        assert!(downloads.set_priority(id(1), Priority::High));
        let now = downloads.settings_changed(id(1), known).await;
        assert_eq!(now, Some((Priority::High, limit)));
        drop(turn);
        assert_eq!(downloads.settings_changed(id(1), known).await, None);
    }

    #[test]
    fn limits_and_priorities_are_changed_by_id() {
        let downloads = Downloads::new();
        let slow = "1MiB".parse().ok();
        let turn = downloads.enter(id(1), Priority::Low, slow);
        assert_eq!(downloads.download_limit(id(1)), slow);
        assert!(turn.flow().is_limited());
        assert!(downloads.set_download_limit(id(1), None));
        assert!(!turn.flow().is_limited());
        downloads.set_limit(slow);
        assert!(turn.flow().is_limited());
        assert_eq!(downloads.priority(id(1)), Some(Priority::Low));
        drop(turn);
        assert!(!downloads.set_download_limit(id(1), None));
        assert!(!downloads.set_priority(id(1), Priority::High));
    }
}
