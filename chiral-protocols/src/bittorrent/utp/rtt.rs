//! [`Rtt`]: how long an acknowledgement takes, and how long to wait for one (RFC 6298).

use std::time::Duration;

/// Shortest and longest wait (BEP 29).
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Before anything was measured.
const FIRST_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Rtt {
    measured: Option<(Duration, Duration)>,
    /// How often the wait was in vain, in a row.
    doubled: u32,
}

impl Rtt {
    pub(super) fn measure(&mut self, sample: Duration) {
        self.measured = Some(match self.measured {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                let off = mean.abs_diff(sample);
                ((mean * 7 + sample) / 8, (deviation * 3 + off) / 4)
            }
        });
    }

    /// An acknowledgement has come.
    pub(super) fn calm(&mut self) {
        self.doubled = 0;
    }

    /// None has. How often in a row.
    pub(super) fn expired(&mut self) -> u32 {
        self.doubled += 1;
        self.doubled
    }

    pub(super) fn wait(&self) -> Duration {
        let wait = match self.measured {
            None => FIRST_WAIT,
            Some((mean, deviation)) => (mean + deviation * 4).max(WAIT.0),
        };
        (wait * 2_u32.saturating_pow(self.doubled.min(6))).min(WAIT.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_what_is_measured() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.wait(), FIRST_WAIT);
        rtt.measure(Duration::from_millis(10));
        assert_eq!(rtt.wait(), WAIT.0);
        for _ in 0..50 {
            rtt.measure(Duration::from_secs(1));
        }
        assert!((1000..1100).contains(&rtt.wait().as_millis()));
        assert_eq!(rtt.expired(), 1);
        assert!((2000..2200).contains(&rtt.wait().as_millis()));
        for _ in 0..20 {
            rtt.expired();
        }
        assert_eq!(rtt.wait(), WAIT.1);
        rtt.calm();
        assert!(rtt.wait() < Duration::from_secs(2));
    }
}
