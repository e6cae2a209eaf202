//! Measures one source: its rate while it serves, and its time to the first byte.

use std::collections::VecDeque;
use std::time::Duration;

/// Time constant of the moving average of the rate, in seconds.
const MEMORY: f64 = 1.5;
/// A sample is taken over this many seconds, or over less while little is known.
const SAMPLE: f64 = 0.1;
/// Bytes that should have taken this many seconds make a sample however soon they came, of at
/// most so many times the rate that was known: they may have been held up and come all at once.
const BURST: f64 = 0.25;
const BURST_GROWTH: f64 = 8.0;
/// How much of a single pause counts as service.
const STANDSTILL: Duration = Duration::from_millis(500);
/// How many samples are remembered one by one.
const RECENT: usize = 4;
/// The rate is at most so many times the highest of them, and the lowest so many times the rate.
const AGREED: f64 = 1.5;
/// Bytes that a source may send at once, and seconds that it may pause besides.
const LARGE_PIECE: f64 = 512.0 * 1024.0;
const LONGEST_PAUSE: f64 = 0.25;
/// A first sample needs this many bytes or a whole [`SAMPLE`].
const FIRST_SAMPLE_BYTES: u64 = 96 << 10;

/// Moving averages of one source.
///
/// The clock of the rate runs only while the source has something to send: the time to the
/// first byte after idling, and gaps in which the request had not reached it, are latency.
#[derive(Debug, Default)]
pub(super) struct Meter {
    rate: Option<f64>,
    /// The last samples, the latest last.
    recent: VecDeque<f64>,
    /// Seconds of service that `rate` rests on.
    measured: f64,
    /// Rate that the first piece proves at least, while there is no sample.
    at_least: f64,
    latency: Option<f64>,
    gap: f64,
    since: Option<Duration>,
    bytes: u64,
    last: Option<Duration>,
    delivered: u64,
}

impl Meter {
    /// A meter that starts from an expected rate in bytes per second.
    pub(super) fn new(hint: Option<u64>) -> Self {
        Self {
            rate: hint.filter(|&r| r > 0).map(|r| r as f64),
            ..Self::default()
        }
    }

    /// Bytes per second, if anything is known.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate.or((self.at_least > 0.0).then_some(self.at_least))
    }

    /// Whether the rate was measured, or expected from the start.
    pub(super) fn is_measured(&self) -> bool {
        self.rate.is_some()
    }

    /// Seconds to the first byte of a request to the idle source, if known.
    pub(super) fn latency(&self) -> Option<f64> {
        self.latency
    }

    /// The longest recent time between two arrivals, in seconds. Longer ones than a large
    /// piece takes at the usual rate were stalls rather than habits, and do not count in full.
    pub(super) fn gap(&self) -> f64 {
        let habit = self
            .rate()
            .map_or(f64::INFINITY, |rate| LARGE_PIECE / rate.max(1.0));
        self.gap.min(habit + LONGEST_PAUSE)
    }

    /// The last sample of the rate in bytes per second, if any.
    pub(super) fn recent(&self) -> Option<f64> {
        self.recent.back().copied()
    }

    /// The highest of the last few samples.
    pub(super) fn peak(&self) -> Option<f64> {
        self.recent.iter().copied().reduce(f64::max)
    }

    /// When the source last sent anything.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }

    /// Bytes that the source ever sent.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Counts bytes. `issued` is when their request was made, if they are its first.
    pub(super) fn arrived(&mut self, now: Duration, bytes: u64, issued: Option<Duration>) {
        self.delivered = self.delivered.saturating_add(bytes);
        match self.since {
            None => self.first_after_idling(now, bytes, issued),
            Some(since) => {
                let last = self.last.unwrap_or(since);
                let gap = now.saturating_sub(last);
                self.gap = gap.as_secs_f64().max(self.gap * 0.8);
                if let (Some(issued), Some(latency)) = (issued, self.latency) {
                    let reached = issued.saturating_add(span(latency)).min(now);
                    self.since = Some(since + reached.saturating_sub(last));
                }
                // Of a standstill only so much counts: how fast it is afterwards is another
                // matter, and that it may happen again is for the demotions.
                let excess = gap.saturating_sub(STANDSTILL);
                self.since = self
                    .since
                    .map(|since| since.saturating_add(excess).min(now));
                self.bytes += bytes;
                self.sample(now, false);
            }
        }
        self.last = Some(now);
    }

    /// The source has nothing more to send.
    pub(super) fn idle(&mut self, now: Duration) {
        self.sample(now, true);
        self.since = None;
        self.bytes = 0;
    }

    /// The source was silent for this long and then went on after all.
    pub(super) fn was_silent(&mut self, silence: Duration) {
        self.gap = self.gap.max(silence.as_secs_f64());
    }

    fn first_after_idling(&mut self, now: Duration, bytes: u64, issued: Option<Duration>) {
        if let Some(issued) = issued {
            let waited = now.saturating_sub(issued).as_secs_f64();
            if waited > 0.0 {
                self.at_least = self.at_least.max(bytes as f64 / waited);
            }
            let sending = self.rate.map_or(0.0, |rate| bytes as f64 / rate);
            let sample = (waited - sending).max(0.0);
            self.latency = Some(
                self.latency
                    .map_or(sample, |old| old * 0.75 + sample * 0.25),
            );
        }
        self.since = Some(now);
        self.bytes = 0;
    }

    fn sample(&mut self, now: Duration, closing: bool) {
        let Some(since) = self.since else { return };
        let seconds = now.saturating_sub(since).as_secs_f64();
        if seconds <= 0.0 || self.bytes == 0 {
            return;
        }
        // How long it would have taken at the rate that is known: a source that is given too
        // little to do is done before it could be measured, and for ever.
        let expected = self.rate.map_or(0.0, |rate| self.bytes as f64 / rate);
        let enough = if self.measured == 0.0 {
            closing || seconds >= SAMPLE || self.bytes >= FIRST_SAMPLE_BYTES
        } else {
            seconds >= SAMPLE.min(self.measured)
                || (closing && seconds >= SAMPLE / 4.0)
                || expected >= BURST
        };
        if !enough {
            return;
        }
        let mut sample = self.bytes as f64 / seconds;
        if seconds < SAMPLE / 4.0 && self.measured > 0.0 {
            sample = sample.min(self.rate.unwrap_or(sample) * BURST_GROWTH);
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
        let evidence = seconds.max(expected.min(BURST));
        let weight = evidence / (evidence + self.measured.min(MEMORY));
        self.rate = Some(match self.rate {
            Some(old) if self.measured > 0.0 => old + (sample - old) * weight,
            _ => sample,
        });
        // An average lags behind a change that all of the last samples agree on.
        if self.recent.len() == RECENT
            && let Some(rate) = self.rate
        {
            let most = self.recent.iter().copied().fold(0.0, f64::max);
            let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
            self.rate = Some(rate.min(most * AGREED).max(least / AGREED));
        }
        self.measured += evidence;
        self.since = Some(now);
        self.bytes = 0;
    }
}

/// Seconds as a duration; what does not fit becomes the longest one.
pub(super) fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waiting_for_the_first_byte_is_latency_and_not_a_low_rate() {
        let mut meter = Meter::default();
        for round in 0..20u32 {
            let start = MS * 1_000 * round;
            meter.arrived(start + MS * 500, 16_384, Some(start));
            for piece in 1..5 {
                meter.arrived(start + MS * (500 + 10 * piece), 16_384, None);
            }
            meter.idle(start + MS * 540);
        }
        let rate = meter.rate().unwrap();
        assert!((rate - 1_638_400.0).abs() < 20_000.0, "{rate}");
        let latency = meter.latency().unwrap();
        assert!((0.45..=0.5).contains(&latency), "{latency}");
    }

    #[test]
    fn rate_follows_a_change_within_a_few_seconds() {
        let mut meter = Meter::default();
        let mut now = MS * 10;
        meter.arrived(now, 1, Some(Duration::ZERO));
        for _ in 0..500 {
            now += MS * 10;
            meter.arrived(now, 10_000, None);
        }
        assert!((meter.rate().unwrap() - 1e6).abs() < 1e4);
        for _ in 0..50 {
            now += MS * 100;
            meter.arrived(now, 10_000, None);
        }
        assert!(meter.rate().unwrap() < 1.5e5);
    }
}
