//! [`Limiter`] and [`Flow`]: a [`Shaper`] that can be waited for.
//!
//! There is no task behind it. Of those who wait one keeps the time for all; when it is served
//! or goes away, another does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chiral_core::Rate;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::shaper::{FlowId, Shaper, Ticket};

/// Limits the rate of flows, all together and each alone. Cheap to clone; all clones are one
/// limiter. A new one limits nothing.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Whether there is a limit on all together: so that without one nothing is locked.
    limited: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    shaper: Shaper,
    waiters: BTreeMap<Ticket, Waiter>,
    /// Who keeps the time, and until when it sleeps.
    keeper: Option<(Ticket, Instant)>,
    epoch: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    wake: Arc<Notify>,
    granted: Option<u64>,
}

impl State {
    fn now(&mut self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.epoch.get_or_insert(now))
    }

    /// Grants what can be granted; answers when there may be more, if anybody waits.
    fn grant(&mut self) -> Option<Instant> {
        let now = self.now();
        while let Some(grant) = self.shaper.poll(now) {
            if let Some(waiter) = self.waiters.get_mut(&grant.ticket) {
                waiter.granted = Some(grant.bytes);
                waiter.wake.notify_one();
            }
        }
        let next = self.shaper.next_at(now)?;
        let wait = next.saturating_sub(now).min(LONGEST_SLEEP);
        Some(Instant::now() + wait)
    }

    /// Something is different: whoever keeps the time has to look again.
    fn changed(&mut self) {
        self.grant();
        if let Some((keeper, _)) = self.keeper
            && let Some(waiter) = self.waiters.get(&keeper)
        {
            waiter.wake.notify_one();
        }
    }

    /// The keeper is gone: anybody else keeps the time.
    fn succeed(&mut self, gone: Ticket) {
        if self.keeper.is_some_and(|(keeper, _)| keeper == gone) {
            self.keeper = None;
            if let Some(waiter) = self.waiters.values().next() {
                waiter.wake.notify_one();
            }
        }
    }
}

/// The keeper of the time looks at least so often, however slow the rate.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limiter {
    /// A limiter that limits nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits all flows together, from now on.
    pub fn set_limit(&self, limit: Option<Rate>) {
        let mut state = self.shared.state();
        let now = state.now();
        state.shaper.set_total(now, limit);
        self.shared
            .limited
            .store(limit.is_some(), Ordering::Release);
        state.changed();
    }

    /// The limit on all flows together.
    pub fn limit(&self) -> Option<Rate> {
        self.shared.state().shaper.total()
    }

    /// A new flow, which counts as much as its weight beside others. It is gone when its last
    /// clone is dropped.
    pub fn flow(&self, weight: u32, limit: Option<Rate>) -> Flow {
        let mut state = self.shared.state();
        let now = state.now();
        let id = state.shaper.add(now, weight, limit);
        drop(state);
        Flow {
            inner: Arc::new(Inner {
                shared: self.shared.clone(),
                id,
                limited: AtomicBool::new(limit.is_some()),
                held_up: AtomicBool::new(false),
            }),
        }
    }
}

/// Something that moves bytes under a [`Limiter`]. Cheap to clone; all clones are one flow.
#[derive(Clone, Debug)]
pub struct Flow {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    id: FlowId,
    limited: AtomicBool,
    held_up: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.state().shaper.remove(self.id);
    }
}

impl Flow {
    /// Whether anything limits it now.
    pub fn is_limited(&self) -> bool {
        self.inner.limited.load(Ordering::Acquire)
            || self.inner.shared.limited.load(Ordering::Acquire)
    }

    /// Whether anybody ever had to wait in it: what it moved says less about the other side.
    pub fn was_held_up(&self) -> bool {
        self.inner.held_up.load(Ordering::Relaxed)
    }

    /// Waits for leave to move bytes: at least 1 of them, at most so many. They count as moved.
    /// Without a limit all of them, at once.
    ///
    /// Must be awaited in a tokio runtime with time.
    ///
    /// # Cancel safety
    /// Dropping the future takes the wish back, and the leave too if it was just given.
    pub async fn acquire(&self, bytes: u64) -> u64 {
        if bytes == 0 || !self.is_limited() {
            return bytes;
        }
        let wish = Wish::new(self, bytes);
        loop {
            match wish.look() {
                Look::Granted(bytes) => return bytes,
                Look::Keeps(until) => {
                    self.inner.held_up.store(true, Ordering::Relaxed);
                    // Which of them it was is found out by looking.
                    let woken = wish.wake.notified();
                    tokio::time::timeout_at(until, woken)
                        .await
                        .unwrap_or_default();
                }
                Look::Waits => {
                    self.inner.held_up.store(true, Ordering::Relaxed);
                    wish.wake.notified().await;
                }
            }
        }
    }

    /// Changes what it gets beside others.
    pub fn set_weight(&self, weight: u32) {
        self.inner
            .shared
            .state()
            .shaper
            .set_weight(self.inner.id, weight);
    }

    /// Limits it alone, from now on.
    pub fn set_limit(&self, limit: Option<Rate>) {
        let mut state = self.inner.shared.state();
        let now = state.now();
        state.shaper.set_limit(now, self.inner.id, limit);
        self.inner.limited.store(limit.is_some(), Ordering::Release);
        state.changed();
    }

    /// The limit on it alone.
    pub fn limit(&self) -> Option<Rate> {
        self.inner.shared.state().shaper.limit(self.inner.id)
    }

    /// Whether nobody else has it.
    pub(super) fn is_sole(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }
}

enum Look {
    Granted(u64),
    /// It keeps the time for all, until then.
    Keeps(Instant),
    Waits,
}

/// A wish under way.
struct Wish<'a> {
    flow: &'a Flow,
    ticket: Ticket,
    wake: Arc<Notify>,
}

impl<'a> Wish<'a> {
    fn new(flow: &'a Flow, bytes: u64) -> Self {
        let wake = Arc::<Notify>::default();
        let mut state = flow.inner.shared.state();
        let now = state.now();
        let ticket = state.shaper.ask(now, flow.inner.id, bytes);
        let waiter = Waiter {
            wake: wake.clone(),
            granted: None,
        };
        state.waiters.insert(ticket, waiter);
        drop(state);
        Self { flow, ticket, wake }
    }

    fn look(&self) -> Look {
        let mut state = self.flow.inner.shared.state();
        let next = state.grant();
        let waiter = state.waiters.get_mut(&self.ticket);
        if let Some(bytes) = waiter.and_then(|waiter| waiter.granted.take()) {
            state.waiters.remove(&self.ticket);
            state.succeed(self.ticket);
            return Look::Granted(bytes);
        }
        // It waits itself, so there is a next time.
        let next = next.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP);
        match state.keeper {
            Some((keeper, until)) if keeper != self.ticket => {
                if next < until {
                    state.changed();
                }
                Look::Waits
            }
            _ => {
                state.keeper = Some((self.ticket, next));
                Look::Keeps(next)
            }
        }
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let mut state = self.flow.inner.shared.state();
        let Some(waiter) = state.waiters.remove(&self.ticket) else {
            return;
        };
        match waiter.granted {
            Some(bytes) => state.shaper.put_back(self.flow.inner.id, bytes),
            None => state.shaper.withdraw(self.flow.inner.id, self.ticket),
        }
        state.succeed(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rate(text: &str) -> Option<Rate> {
        Some(text.parse().unwrap())
    }

    /// Moves 64 KiB at a time until told to stop; answers how many bytes.
    fn mover(flow: Flow, until: Instant) -> tokio::task::JoinHandle<u64> {
        tokio::spawn(async move {
            let mut moved = 0;
            while let Ok(bytes) = tokio::time::timeout_at(until, flow.acquire(64 << 10)).await {
                moved += bytes;
            }
            moved
        })
    }

    async fn sum(movers: Vec<tokio::task::JoinHandle<u64>>) -> u64 {
        let mut moved = 0;
        for mover in movers {
            moved += mover.await.unwrap();
        }
        moved
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_mebibytes_a_second_are_that_and_no_more() {
        let limiter = Limiter::new();
        limiter.set_limit(rate("50MiB"));
        let end = Instant::now() + Duration::from_secs(10);
        let flows = (0..4).map(|_| limiter.flow(1, None));
        let movers = flows.flat_map(|flow| [mover(flow.clone(), end), mover(flow, end)]);
        let moved = sum(movers.collect()).await;
        assert!(moved <= 500 * MIB, "{moved}");
        assert!(moved as f64 >= 487.5 * MIB as f64, "{moved}");
        assert!(limiter.shared.state().waiters.is_empty());
        assert!(limiter.shared.state().keeper.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn limits_change_while_somebody_waits() {
        let limiter = Limiter::new();
        let flow = limiter.flow(1, rate("1KiB"));
        let start = Instant::now();
        let waiting = tokio::spawn({
            let flow = flow.clone();
            async move { flow.acquire(MIB).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        flow.set_limit(None);
        assert_eq!(waiting.await.unwrap(), MIB);
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        assert!(flow.was_held_up() && !flow.is_limited());
        assert_eq!(flow.acquire(u64::MAX).await, u64::MAX);
        limiter.set_limit(rate("1MiB"));
        assert!(flow.is_limited());
        assert!(flow.acquire(MIB).await < MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_flow_that_keeps_the_time_does_not_keep_the_others() {
        let limiter = Limiter::new();
        let (slow, fast) = (
            limiter.flow(1, rate("1KiB")),
            limiter.flow(1, rate("10MiB")),
        );
        let end = Instant::now() + Duration::from_secs(5);
        let slow = mover(slow, end);
        tokio::task::yield_now().await;
        let fast = mover(fast, end);
        let (slow, fast) = (slow.await.unwrap(), fast.await.unwrap());
        assert!((4 << 10..=5 << 10).contains(&slow), "{slow}");
        assert!((49 * MIB..=50 * MIB).contains(&fast), "{fast}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_goes_away_leaves_the_time_and_the_bytes_to_others() {
        let limiter = Limiter::new();
        limiter.set_limit(rate("1MiB"));
        let flow = limiter.flow(1, None);
        let end = Instant::now() + Duration::from_secs(10);
        let staying = mover(flow.clone(), end);
        for _ in 0..1_000 {
            let brief = Instant::now() + Duration::from_millis(9);
            let gone = tokio::time::timeout_at(brief, flow.acquire(MIB)).await;
            // What it was given it moves; what it was not, others do.
            drop(gone);
        }
        let moved = staying.await.unwrap();
        assert!(moved >= 4 * MIB, "{moved}");
        assert!(limiter.shared.state().waiters.is_empty());
        drop(flow);
        assert_eq!(limiter.shared.state().shaper.next_at(Duration::ZERO), None);
    }
}
