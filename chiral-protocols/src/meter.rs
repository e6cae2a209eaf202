//! [`Meter`]: how much is being sent, over the last seconds. It has no clock: seconds since
//! any fixed moment are given to it.

use std::sync::{Mutex, PoisonError};

/// Seconds that a rate is the average of.
pub(crate) const WINDOW: u64 = 10;

/// Counts bytes.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// The last second that was counted in.
    newest: u64,
    /// Bytes of each second, at its number modulo the window.
    seconds: [u64; WINDOW as usize],
    total: u64,
}

impl Window {
    fn advance(&mut self, now: u64) {
        // A clock that goes back counts in the newest second.
        let passed = now.saturating_sub(self.newest).min(WINDOW);
        for second in 0..passed {
            let at = now.saturating_sub(second) % WINDOW;
            if let Some(bytes) = self.seconds.get_mut(at as usize) {
                *bytes = 0;
            }
        }
        self.newest = self.newest.max(now);
    }
}

impl Meter {
    /// Bytes went out in this second.
    pub(crate) fn add(&self, now: u64, bytes: u64) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance(now);
        let at = window.newest % WINDOW;
        if let Some(second) = window.seconds.get_mut(at as usize) {
            *second = second.saturating_add(bytes);
        }
        window.total = window.total.saturating_add(bytes);
    }

    /// Bytes per second over the [`WINDOW`], and bytes in all.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn read(&self, now: u64) -> (u64, u64) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance(now);
        let sum = window
            .seconds
            .iter()
            .fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        (sum / WINDOW, window.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let meter = Meter::default();
        assert_eq!(meter.read(0), (0, 0));
        meter.add(3, 100);
        meter.add(3, 100);
        meter.add(7, 50);
        assert_eq!(meter.read(7), (25, 250));
        assert_eq!(meter.read(12), (25, 250));
        assert_eq!(meter.read(13), (5, 250));
        assert_eq!(meter.read(16), (5, 250));
        assert_eq!(meter.read(17), (0, 250));
        meter.add(1_000_000, 10);
        // Of a clock that goes back nothing is lost.
        meter.add(5, 10);
        assert_eq!(meter.read(1_000_000), (2, 270));
    }

    proptest! {
        #[test]
        fn it_is_what_a_list_of_all_would_say(
            mut events in proptest::collection::vec((0u64..60, 0u64..1 << 40), 0..50), later in 0u64..30,
        ) {
            events.sort_by_key(|(second, _)| *second);
            let meter = Meter::default();
            for &(second, bytes) in &events {
                meter.add(second, bytes);
            }
            let now = events.last().map_or(0, |(second, _)| *second) + later;
            let recent = events.iter().filter(|(second, _)| now - second < WINDOW);
            let rate = recent.map(|(_, bytes)| bytes).sum::<u64>() / WINDOW;
            let total = events.iter().map(|(_, bytes)| bytes).sum::<u64>();
            prop_assert_eq!(meter.read(now), (rate, total));
        }
    }
}
