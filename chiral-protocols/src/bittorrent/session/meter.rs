//! [`RateMeter`]: bytes, and bytes per second of late.

use std::time::Duration;

use super::Now;

/// Length of a step.
const STEP: Duration = Duration::from_millis(500);

/// Weight of a step's rate: a time constant of about two seconds.
const WEIGHT: f64 = 0.25;

/// Counts bytes and how fast they come.
#[derive(Debug, Clone)]
pub struct RateMeter {
    total: u64,
    rate: f64,
    step_from: Now,
    step_bytes: u64,
    steps: u32,
}

impl RateMeter {
    /// Nothing yet.
    pub fn new(now: Now) -> Self {
        Self {
            total: 0,
            rate: 0.0,
            step_from: now,
            step_bytes: 0,
            steps: 0,
        }
    }

    /// All bytes so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes came.
    pub fn add(&mut self, now: Now, bytes: u64) {
        self.total += bytes;
        self.step_bytes += bytes;
        if now >= self.step_from + STEP {
            self.step(now);
        }
    }

    /// Bytes per second.
    pub fn rate(&mut self, now: Now) -> f64 {
        if now >= self.step_from + STEP {
            self.step(now);
        }
        self.rate
    }

    fn step(&mut self, now: Now) {
        let span = (now - self.step_from).as_secs_f64();
        let current = self.step_bytes as f64 / span;
        // Several steps without anything weigh as several.
        let steps = (span / STEP.as_secs_f64()).clamp(1.0, 1000.0);
        let weight = if self.steps == 0 {
            1.0
        } else {
            1.0 - (1.0 - WEIGHT).powf(steps)
        };
        self.rate += (current - self.rate) * weight;
        self.steps = self.steps.saturating_add(1);
        (self.step_from, self.step_bytes) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten() {
        let mut meter = RateMeter::new(Duration::ZERO);
        for ms in (0..5000).step_by(10) {
            meter.add(Duration::from_millis(ms), 1000);
        }
        let rate = meter.rate(Duration::from_millis(5000));
        assert!((90_000.0..110_000.0).contains(&rate), "{rate}");
        assert!(meter.rate(Duration::from_secs(30)) < 1000.0);
        assert_eq!(meter.total(), 500_000);
    }
}
