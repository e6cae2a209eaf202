//! Partial seeders are asked anew what they hold: one that downloads what it seeds has more
//! every second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chiral_core::transfer::TransferEventKind;
use chiral_core::{ChunkSource, Coverage, TransferError};
use tokio::task::{AbortHandle, JoinSet};

use super::active::{Active, Mode};
use super::run::describe;
use crate::scheduler::SourceId;

/// Questions under way at once.
const AT_ONCE: usize = 4;

/// A source that could be asked for nothing is asked this many times as often.
const IDLE_FACTOR: u32 = 5;

/// A source that says by itself that something changed is heard at most so often.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// What a source said, if it did.
pub(super) enum Told {
    /// This is what it holds.
    Holds(Coverage),
    /// It is gone.
    Gone(TransferError),
}

/// Who is to be asked when, and who speaks by himself.
#[derive(Default)]
pub(super) struct Refresh {
    asked_at: BTreeMap<SourceId, Duration>,
    asking: BTreeSet<SourceId>,
    questions: JoinSet<(SourceId, Option<Coverage>)>,
    watched: BTreeMap<SourceId, AbortHandle>,
    watches: JoinSet<(SourceId, Option<Told>)>,
}

impl Refresh {
    /// The next answer; pending for ever while nobody is asked.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<(SourceId, Told)> {
        tokio::select! {
            Some(answer) = self.questions.join_next() => match answer {
                Ok((source, coverage)) => {
                    self.asking.remove(&source);
                    Some((source, Told::Holds(coverage?)))
                }
                // A panic in a protocol costs an answer, not the download.
                Err(_) => None,
            },
            Some(Ok((source, told))) = self.watches.join_next() => {
                self.watched.remove(&source);
                Some((source, told?))
            }
            else => std::future::pending().await,
        }
    }

    /// Waits for a source to say that something changed, and asks it then.
    fn watch(
        &mut self,
        id: SourceId,
        source: Arc<dyn ChunkSource>,
        pause: Duration,
        limit: Duration,
    ) {
        if self.watched.contains_key(&id) {
            return;
        }
        let watch = self.watches.spawn(async move {
            tokio::time::sleep(pause).await;
            source.changed().await;
            let told = match tokio::time::timeout(limit, source.coverage()).await {
                Ok(Ok(coverage)) => Some(Told::Holds(coverage)),
                Ok(Err(error)) => Some(Told::Gone(error)),
                Err(_) => None,
            };
            (id, told)
        });
        self.watched.insert(id, watch);
    }
}

impl Active<'_> {
    /// Hears a source from now on, if it speaks by itself.
    pub(super) fn watch_coverage(&mut self, id: SourceId, pause: Duration) {
        if let Some(connected) = self.run.known.get(&id) {
            let limit = self.run.config().request_timeout;
            self.refresh
                .watch(id, connected.source.clone(), pause, limit);
        }
    }

    /// Asks those partial seeders whose last word is old.
    pub(super) fn refresh_coverage(&mut self) {
        let now = self.run.now();
        let config = self.run.config();
        let (every, limit) = (config.coverage_refresh, config.request_timeout);
        let known = &self.run.known;
        self.refresh.asked_at.retain(|id, _| known.contains_key(id));
        self.refresh.watched.retain(|id, watch| {
            let stays = known.contains_key(id);
            if !stays {
                watch.abort();
            }
            stays
        });
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

    /// A source was asked, or spoke by itself.
    pub(super) fn told(&mut self, mode: &Mode, source: SourceId, told: Told) {
        match told {
            Told::Holds(coverage) => {
                self.coverage_told(mode, source, coverage);
                self.watch_coverage(source, WATCH_PAUSE);
            }
            Told::Gone(error) => self.lost(source, &error),
        }
    }

    /// A source is gone; its place is connected to again, if it was not one that came to us.
    fn lost(&mut self, id: SourceId, error: &TransferError) {
        let Some(connected) = self.run.known.remove(&id) else {
            return;
        };
        self.abort_all(id);
        self.scheduler.source_down(self.run.now(), id);
        let reason = describe(error);
        let source = connected.name().to_owned();
        tracing::debug!(source, reason, "source lost");
        self.run.last_trouble = Some(reason.clone());
        self.run
            .driver
            .emit(TransferEventKind::SourceDown { source, reason });
        self.run.connections.again(connected.offer().clone());
    }
}
