//! [`CounterWindow`]: each counter once, although requests overtake each other.

use std::collections::BTreeSet;

/// How far behind the highest counter a late one may be.
const WINDOW: u64 = 1024;

/// The counters that were seen, as far back as matters.
#[derive(Debug, Default)]
pub(super) struct CounterWindow {
    /// All counters up to this one are used up.
    floor: u64,
    seen: BTreeSet<u64>,
}

impl CounterWindow {
    /// One in which everything up to `floor` is used up.
    pub(super) fn above(floor: u64) -> Self {
        Self {
            floor,
            seen: BTreeSet::new(),
        }
    }

    /// The highest counter that was seen.
    pub(super) fn highest(&self) -> u64 {
        self.seen.last().copied().unwrap_or(self.floor)
    }

    /// Whether a counter is still unused.
    pub(super) fn is_fresh(&self, counter: u64) -> bool {
        counter > self.floor && !self.seen.contains(&counter)
    }

    /// Uses a counter up; false if it was.
    pub(super) fn take(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        self.seen.insert(counter);
        self.floor = self.floor.max(self.highest().saturating_sub(WINDOW));
        self.seen = self.seen.split_off(&self.floor.saturating_add(1));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn late_ones_are_taken_within_the_window_only() {
        let mut window = CounterWindow::default();
        assert!(!window.take(0));
        assert!(window.take(5));
        assert!(window.take(3));
        assert!(!window.take(3));
        assert!(window.take(5 + WINDOW));
        assert!(!window.take(4));
        assert!(window.take(6));
        assert_eq!(window.highest(), 5 + WINDOW);
        let mut window = CounterWindow::above(window.highest());
        assert!(!window.take(7));
        assert!(window.take(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn none_is_taken_twice(counters in proptest::collection::vec(0u64..3000, 0..300)) {
            let mut window = CounterWindow::default();
            let mut taken = HashSet::new();
            for counter in counters {
                if window.take(counter) {
                    prop_assert!(taken.insert(counter));
                }
                prop_assert!(window.seen.len() as u64 <= WINDOW + 1);
            }
        }
    }
}
