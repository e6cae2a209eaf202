//! One rate: tokens that come in with time and go out with bytes.

use std::time::Duration;

use chiral_core::Rate;

/// Tokens are counted in billionths of a byte, so that any rate is exact to the nanosecond.
const BYTE: u128 = 1_000_000_000;

/// Tokens that may pile up while nobody is there to take them: as many as come in this time.
/// A timer that is late by less costs no throughput.
const BURST: Duration = Duration::from_millis(100);

/// The part of a rate that is given out at once: what comes in this time…
const QUANTUM: Duration = Duration::from_millis(20);

/// …but neither less nor more bytes than these.
const QUANTUM_BYTES: (u64, u64) = (1 << 10, 256 << 10);

/// A token bucket that begins empty: over any time from its beginning, or from when it was last
/// empty, no more is taken than its rate lets.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    level: u128,
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            level: 0,
            filled: now,
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Changes the rate; what has piled up stays, as far as the new rate lets.
    pub(super) fn set_rate(&mut self, now: Duration, rate: Rate) {
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(self.capacity());
    }

    /// Bytes that are given out at once.
    pub(super) fn quantum(&self) -> u64 {
        let bytes = self.coming_in(QUANTUM) / BYTE;
        let (least, most) = QUANTUM_BYTES;
        u64::try_from(bytes).unwrap_or(most).clamp(least, most)
    }

    pub(super) fn fill(&mut self, now: Duration) {
        let more = self.coming_in(now.saturating_sub(self.filled));
        self.level = self.level.saturating_add(more).min(self.capacity());
        self.filled = self.filled.max(now);
    }

    /// Somebody comes where nobody was: what piled up to the brim meanwhile is forfeited, so that
    /// whoever begins anew gets no more than the rate from the beginning.
    pub(super) fn begin(&mut self, now: Duration) {
        self.fill(now);
        if self.level >= self.capacity() {
            self.level = 0;
        }
    }

    /// Whether so many bytes can be taken, at the time of the last `fill`.
    pub(super) fn has(&self, bytes: u64) -> bool {
        self.level >= u128::from(bytes) * BYTE
    }

    /// When so many bytes can be taken, if nobody takes any before.
    pub(super) fn ready_at(&self, bytes: u64) -> Duration {
        let lacking = (u128::from(bytes) * BYTE).saturating_sub(self.level);
        let nanos = lacking.div_ceil(u128::from(self.rate.bytes_per_second()));
        let wait = u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos);
        self.filled.saturating_add(wait)
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(u128::from(bytes) * BYTE);
    }

    /// Bytes that were taken and not used come back.
    pub(super) fn put_back(&mut self, bytes: u64) {
        let level = self.level.saturating_add(u128::from(bytes) * BYTE);
        self.level = level.min(self.capacity());
    }

    fn coming_in(&self, time: Duration) -> u128 {
        // At most 2^40 times 2^94.
        u128::from(self.rate.bytes_per_second()).saturating_mul(time.as_nanos())
    }

    fn capacity(&self) -> u128 {
        self.coming_in(BURST)
            .max(2 * u128::from(self.quantum()) * BYTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(bytes_per_second: u64) -> Bucket {
        Bucket::new(Rate::new(bytes_per_second).unwrap(), Duration::ZERO)
    }

    #[test]
    fn tokens_come_with_time_to_the_byte_and_pile_up_only_so_far() {
        let mut bucket = bucket(1 << 20);
        assert!(!bucket.has(1));
        let at = bucket.ready_at(20_000);
        bucket.fill(at.saturating_sub(Duration::from_nanos(1)));
        assert!(!bucket.has(20_000));
        bucket.fill(at);
        assert!(bucket.has(20_000) && !bucket.has(20_001));
        bucket.fill(Duration::from_secs(3600));
        assert!(bucket.has((1 << 20) / 10) && !bucket.has((1 << 20) / 10 + 1));
        // A clock that goes back takes nothing away and gives nothing twice.
        bucket.take((1 << 20) / 10);
        bucket.fill(Duration::ZERO);
        bucket.fill(Duration::from_secs(3600));
        assert!(!bucket.has(1));
    }

    #[test]
    fn what_is_given_out_at_once_suits_the_rate() {
        assert_eq!(bucket(1 << 10).quantum(), 1 << 10);
        assert_eq!(bucket(1 << 20).quantum(), (1 << 20) / 50);
        assert_eq!(bucket(1 << 40).quantum(), 256 << 10);
        for rate in [1 << 10, 5_000, 1 << 20, 1 << 40] {
            let mut bucket = bucket(rate);
            bucket.fill(Duration::from_secs(10));
            assert!(bucket.has(bucket.quantum()), "{rate}");
        }
    }
}
