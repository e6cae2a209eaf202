//! Partial seeders are asked anew what they hold: one that downloads what it seeds has more
//! every second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chiral_core::Coverage;
use tokio::task::JoinSet;

use super::active::{Active, Mode};
use crate::scheduler::SourceId;

/// Questions under way at once.
const AT_ONCE: usize = 4;

/// A source that could be asked for nothing is asked this many times as often.
const IDLE_FACTOR: u32 = 5;

/// Who is to be asked when.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    asked_at: BTreeMap<SourceId, Duration>,
    asking: BTreeSet<SourceId>,
    questions: JoinSet<(SourceId, Option<Coverage>)>,
}

impl Refresh {
    /// The next answer; pending for ever while nobody is asked.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<(SourceId, Coverage)> {
        match self.questions.join_next().await {
            Some(Ok((source, coverage))) => {
                self.asking.remove(&source);
                Some((source, coverage?))
            }
            // A panic in a protocol costs an answer, not the download.
            Some(Err(_)) => None,
            None => std::future::pending().await,
        }
    }
}

impl Active<'_> {
    /// Asks those partial seeders whose last word is old.
    pub(super) fn refresh_coverage(&mut self) {
        let now = self.run.now();
        let config = self.run.config();
        let (every, limit) = (config.coverage_refresh, config.request_timeout);
        let known = &self.run.known;
        self.refresh.asked_at.retain(|id, _| known.contains_key(id));
        for (id, connected) in known {
            if connected.coverage == Coverage::Complete || self.refresh.asking.contains(id) {
                continue;
            }
            let stats = self.scheduler.source_stats(*id);
            let idle = stats.is_some_and(|stats| stats.outstanding_requests == 0);
            let pause = if idle { every / IDLE_FACTOR } else { every };
            let asked_at = self.refresh.asked_at.entry(*id).or_insert(now);
            if now - *asked_at < pause || self.refresh.questions.len() >= AT_ONCE {
                continue;
            }
            *asked_at = now;
            self.refresh.asking.insert(*id);
            let (id, source) = (*id, connected.source.clone());
            self.refresh.questions.spawn(async move {
                let answer = tokio::time::timeout(limit, source.coverage()).await;
                (id, answer.ok().and_then(Result::ok))
            });
        }
    }

    /// A source said again what it holds.
    pub(super) fn coverage_told(&mut self, mode: &Mode, source: SourceId, coverage: Coverage) {
        let Some(connected) = self.run.known.get_mut(&source) else {
            return;
        };
        let ranges = super::source::ranges(&coverage, self.layout);
        connected.coverage = coverage;
        if !matches!(mode, Mode::Forward(forward) if forward.shuns(source)) {
            let now = self.run.now();
            self.scheduler.coverage_changed(now, source, ranges);
        }
    }
}
