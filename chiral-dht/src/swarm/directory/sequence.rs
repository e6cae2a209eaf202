//! [`Sequence`]: the numbers of this node's announcements, of which the greatest holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::records::announcement::{MAX_SKEW, next_seq};
use crate::swarm::data_dir::{self, Unsaved};
use crate::swarm::error::Libp2pError;

/// Numbers, which are milliseconds, that are set aside at once: so seldom it is written.
const AHEAD: u64 = 10_000;

/// With fewer left than this it is written again.
const SPARE: u64 = 2_000;

/// Limit on the file, in bytes.
const MAX_FILE: u64 = 64;

/// Numbers that rise, also over a restart after which the clock shows an earlier time: with a
/// lower one than before a seeder would be stale to all who hold its last announcement. Kept is
/// a number that is as great as any that may have been used.
#[derive(Debug, Default)]
pub(in crate::swarm) struct Sequence {
    path: Option<PathBuf>,
    last: u64,
    reserved: u64,
}

impl Sequence {
    /// Goes on from what is kept in this directory; without one nothing is kept. What is
    /// farther in the future than others would accept is not gone on from.
    pub(in crate::swarm) fn open(
        directory: Option<&Path>,
        now: Duration,
    ) -> Result<Self, Libp2pError> {
        let Some(directory) = directory else {
            return Ok(Self::default());
        };
        let path = directory.join("sequence");
        let bytes = data_dir::read(&path, MAX_FILE)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let kept: u64 = text.trim().parse().unwrap_or(0);
        let last = if u128::from(kept) > (now + MAX_SKEW).as_millis() {
            tracing::warn!(
                kept,
                "announcements had numbers of a far future: not gone on from"
            );
            0
        } else {
            kept
        };
        Ok(Self {
            path: Some(path),
            last,
            reserved: last,
        })
    }

    /// The number of an announcement made now.
    pub(super) fn next(&mut self, now: Duration) -> u64 {
        self.last = next_seq(self.last, now);
        self.last
    }

    /// What is to be written before the next announcement is made, if anything, and what to
    /// tell [`Sequence::saved`] then.
    pub(super) fn unsaved(&self, now: Duration) -> Option<(Unsaved, u64)> {
        let path = self.path.clone()?;
        let next = next_seq(self.last, now);
        if next.saturating_add(SPARE) <= self.reserved {
            return None;
        }
        let reserved = next.saturating_add(AHEAD);
        Some((Unsaved::new(path, format!("{reserved}\n")), reserved))
    }

    /// Numbers up to this one may be used.
    pub(super) fn saved(&mut self, reserved: u64) {
        self.reserved = self.reserved.max(reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn save(sequence: &mut Sequence, now: Duration) -> bool {
        let Some((unsaved, reserved)) = sequence.unsaved(now) else {
            return false;
        };
        unsaved.save().unwrap();
        sequence.saved(reserved);
        true
    }

    #[test]
    fn numbers_rise_over_restarts_with_a_clock_that_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut sequence = Sequence::open(Some(dir.path()), NOW).unwrap();
        let mut last = 0;
        for restart in 0..5u64 {
            // Each time the clock is a minute behind the last.
            let now = NOW - Duration::from_secs(60 * restart);
            for step in 0..20 {
                let now = now + Duration::from_secs(step);
                save(&mut sequence, now);
                let next = sequence.next(now);
                assert!(next > last, "{next} after {last}");
                assert!(next <= sequence.reserved);
                last = next;
            }
            sequence = Sequence::open(Some(dir.path()), now).unwrap();
        }
        // Few are skipped, so that it is no announcement from the future.
        assert!(u128::from(last) <= (NOW + Duration::from_secs(120)).as_millis());
    }

    #[test]
    fn it_is_written_once_for_many_and_nonsense_is_not_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let mut sequence = Sequence::open(Some(dir.path()), NOW).unwrap();
        let times = (0..1000).filter(|_| {
            let written = save(&mut sequence, NOW);
            sequence.next(NOW);
            written
        });
        assert_eq!(times.count(), 1);
        let path = dir.path().join("sequence");
        let future = (NOW + MAX_SKEW).as_millis() + 1;
        for text in ["", "x", "-1", "18446744073709551616", &future.to_string()] {
            std::fs::write(&path, text).unwrap();
            let mut sequence = Sequence::open(Some(dir.path()), NOW).unwrap();
            assert_eq!(u128::from(sequence.next(NOW)), NOW.as_millis(), "{text}");
        }
        let mut nowhere = Sequence::open(None, NOW).unwrap();
        assert!(!save(&mut nowhere, NOW));
    }
}
