//! How many bytes may come twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scheduler;

/// Bytes that may be asked for twice in any download, however small: two chunks, so that the
/// last one need not be waited for from whoever is slow.
const FLOOR: u64 = 512 << 10;
/// One request may cost this part of what is left, so that many small ones go on after a few
/// large ones.
const PARTS: (u64, u64) = (2, 6);
/// This part of the allowance, besides it, is kept for the very end: the last bytes of a source
/// that has become slow.
const RESERVE: u64 = 4;
/// Most risks that are remembered one by one.
const MAX_RISKS: usize = 1_024;

/// Bytes that came twice, and bytes that may.
///
/// Whoever asks for bytes that somebody else may have sent already takes a risk, which counts
/// until the time is over in which they could come twice. That the second request ended says
/// nothing: what the first one sent may still be on its way.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Bytes that were ever wanted.
    wanted: u64,
    /// Bytes that came although nobody needed them.
    duplicate: u64,
    /// Bytes that may still come so, by when that ends.
    risks: BTreeMap<Duration, u64>,
    at_risk: u64,
}

impl Budget {
    /// More bytes are wanted.
    pub(super) fn want(&mut self, bytes: u64) {
        self.wanted = self.wanted.saturating_add(bytes);
    }

    /// Bytes came that nobody needed.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.duplicate = self.duplicate.saturating_add(bytes);
    }

    /// Bytes may come twice until then.
    pub(super) fn risk(&mut self, until: Duration, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.at_risk = self.at_risk.saturating_add(bytes);
        let until = match self.risks.last_key_value() {
            Some((&last, _)) if self.risks.len() >= MAX_RISKS => last,
            _ => until,
        };
        let risk = self.risks.entry(until).or_default();
        *risk = risk.saturating_add(bytes);
    }

    /// Forgets the risks whose time is over.
    fn settle(&mut self, now: Duration) {
        while let Some(first) = self.risks.first_entry()
            && *first.key() <= now
        {
            self.at_risk = self.at_risk.saturating_sub(first.remove());
        }
    }
}

impl Scheduler {
    /// Bytes that one request may bring twice now: all that may, and a reserve, if no more than
    /// that is missing at all, and otherwise a part. What probably comes twice is granted from the
    /// first half only: for the same price more can be had of what may have been sent.
    pub(super) fn budget(&mut self, now: Duration, probably: bool) -> u64 {
        self.budget.settle(now);
        let Budget {
            wanted,
            duplicate,
            at_risk,
            ..
        } = self.budget;
        let whole = wanted / 1_000 * u64::from(self.config.duplicate_permille);
        let spent = duplicate.saturating_add(at_risk);
        let left = |of: u64| of.max(FLOOR).saturating_sub(spent);
        let last = whole.saturating_add(whole / RESERVE);
        if self.ledger.wanted.len() <= left(last) {
            return left(last);
        }
        let left = left(if probably { whole / 2 } else { whole });
        left / u64::from(self.index.busy()).clamp(PARTS.0, PARTS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_risk_counts_until_its_time_is_over() {
        let at = Duration::from_secs;
        let mut budget = Budget::default();
        budget.risk(at(5), 100);
        budget.risk(at(9), 50);
        budget.spend(120);
        assert_eq!((budget.duplicate, budget.at_risk), (120, 150));
        budget.settle(at(5));
        assert_eq!(budget.at_risk, 50);
        budget.settle(at(9));
        assert_eq!((budget.at_risk, budget.risks.len()), (0, 0));
        for n in 0..2 * MAX_RISKS as u64 {
            budget.risk(at(20 + n), 1);
        }
        assert_eq!(budget.risks.len(), MAX_RISKS);
        budget.settle(Duration::MAX);
        assert_eq!(budget.at_risk, 0);
    }
}
