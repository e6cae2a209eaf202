//! [`Ledbat`]: how much may be under way (BEP 29, RFC 6817): more while packets are not
//! delayed by those before them, less when they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PAYLOAD;

/// The delay that we cause at most, in microseconds.
pub(super) const TARGET: u32 = 100_000;
/// Bytes by which the window grows in a round trip at most, once it is found.
const MAX_INCREASE: f64 = 3000.0;
/// Least window: two packets.
pub(super) const MIN_WINDOW: usize = 2 * PAYLOAD;
/// Most.
pub(super) const MAX_WINDOW: usize = 1 << 20;
/// The least delay is remembered for so many minutes: clocks drift, ways change.
const MINUTES: usize = 3;

#[derive(Debug)]
pub(super) struct Ledbat {
    window: f64,
    /// Whether the window still doubles with each round trip.
    searching: bool,
    /// Least delays, a minute each, the latest last.
    least: VecDeque<u32>,
    minute: Instant,
}

impl Ledbat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: (4 * PAYLOAD) as f64,
            searching: true,
            least: VecDeque::new(),
            minute: now,
        }
    }

    /// In bytes.
    pub(super) fn window(&self) -> usize {
        self.window as usize
    }

    /// So many bytes were acknowledged, after a delay in microseconds (of two clocks, so that
    /// only differences mean something). `full` is whether the window was used up.
    pub(super) fn acknowledged(&mut self, bytes: usize, delay: u32, full: bool, now: Instant) {
        let queued = self.queued(delay, now);
        if self.searching && queued > TARGET / 2 {
            self.searching = false;
        }
        let bytes = bytes as f64;
        let change = if self.searching {
            bytes
        } else {
            let off = f64::from(TARGET) - f64::from(queued);
            let off = (off / f64::from(TARGET)).max(-1.0);
            MAX_INCREASE * off * (bytes / self.window).min(1.0)
        };
        // What is not used is no reason for more.
        if change < 0.0 || full {
            self.set(self.window + change);
        }
    }

    /// A packet was lost.
    pub(super) fn lost(&mut self) {
        self.searching = false;
        self.set(self.window / 2.0);
    }

    /// Nothing came for long.
    pub(super) fn timed_out(&mut self) {
        self.searching = false;
        self.set(0.0);
    }

    fn set(&mut self, window: f64) {
        self.window = window.clamp(MIN_WINDOW as f64, MAX_WINDOW as f64);
    }

    /// How much of a delay is due to packets before it, in microseconds.
    fn queued(&mut self, delay: u32, now: Instant) -> u32 {
        if now.saturating_duration_since(self.minute) >= Duration::from_secs(60) {
            self.minute = now;
            self.least.push_back(delay);
            if self.least.len() > MINUTES {
                self.least.pop_front();
            }
        }
        match self.least.back_mut() {
            None => self.least.push_back(delay),
            Some(least) if is_less(delay, *least) => *least = delay,
            Some(_) => {}
        }
        let least = self.least.iter().copied();
        let least = least.reduce(|a, b| if is_less(a, b) { a } else { b });
        delay.wrapping_sub(least.unwrap_or(delay))
    }
}

/// Which of two numbers comes first, around their end.
fn is_less(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_without_delay_and_shrinks_with_it() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(now);
        let base = u32::MAX - 1000;
        for _ in 0..20 {
            ledbat.acknowledged(PAYLOAD, base, true, now);
        }
        let found = ledbat.window();
        assert_eq!(found, 24 * PAYLOAD);
        // The clock of delays goes around.
        ledbat.acknowledged(PAYLOAD, base.wrapping_add(60_000), true, now);
        let before = ledbat.window();
        for _ in 0..100 {
            ledbat.acknowledged(PAYLOAD, base.wrapping_add(50_000), true, now);
        }
        assert!(ledbat.window() > before + 1000 && ledbat.window() < before + 10_000);
        let before = ledbat.window();
        for _ in 0..100 {
            ledbat.acknowledged(PAYLOAD, base.wrapping_add(300_000), true, now);
        }
        assert!(ledbat.window() < before);
        // Who does not use it gets no more.
        let before = ledbat.window();
        ledbat.acknowledged(PAYLOAD, base, false, now);
        assert_eq!(ledbat.window(), before);
    }

    #[test]
    fn losses_halve_it_to_a_least() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(now);
        for _ in 0..10_000 {
            ledbat.acknowledged(PAYLOAD, 5, true, now);
        }
        assert_eq!(ledbat.window(), MAX_WINDOW);
        ledbat.lost();
        assert_eq!(ledbat.window(), MAX_WINDOW / 2);
        ledbat.timed_out();
        assert_eq!(ledbat.window(), MIN_WINDOW);
        ledbat.lost();
        assert_eq!(ledbat.window(), MIN_WINDOW);
    }

    #[test]
    fn an_old_least_delay_is_forgotten() {
        let mut now = Instant::now();
        let mut ledbat = Ledbat::new(now);
        assert_eq!(ledbat.queued(1000, now), 0);
        for _ in 0..5 {
            now += Duration::from_secs(61);
            ledbat.queued(50_000, now);
        }
        assert_eq!(ledbat.queued(50_000, now), 0);
    }
}
