//! Stalls, failures, and how long a source rests after them.

use std::time::Duration;

use super::meter::span;
use super::source::{Source, Standing};
use super::{Action, DemoteReason, FailureKind, RequestId, Scheduler, SchedulerConfig, SourceId};

/// Stalls after which each further one doubles the rest. While a source is tried again it is
/// seen to go on at once, and while it rests it is not: short rests lose little of one that goes
/// on, and a try costs little of one that does not.
const ALIKE_STALLS: u32 = 4;
/// Doublings after which a rest does not get longer.
const MAX_DOUBLINGS: u32 = 16;
/// A request that later ones overtake is given up after this many stall timeouts.
const OVERTAKEN_TIMEOUTS: u32 = 3;

impl Scheduler {
    /// A request failed. What did not arrive of it is free again.
    pub fn failed(&mut self, now: Duration, request: RequestId, kind: FailureKind) {
        let Some(known) = self.requests.get(&request) else {
            return;
        };
        let (id, issued) = (known.source, known.issued);
        let undelivered: Vec<_> = known.due.iter().collect();
        if kind != FailureKind::Temporary {
            for run in undelivered {
                self.uncover(id, run);
                if kind == FailureKind::Missing
                    && let Some(source) = self.sources.get_mut(&id)
                {
                    source.denied.add(now, run, &self.config);
                }
            }
        }
        let reason = match kind {
            FailureKind::Missing => None,
            FailureKind::Refused => Some(DemoteReason::Refused),
            FailureKind::Temporary => Some(DemoteReason::Failing),
        };
        if let Some(reason) = reason
            && let Some(source) = self.sources.get_mut(&id)
        {
            // What it stood still for has come to an end, and not to a good one.
            if source.standing == Standing::Held {
                source.standing = Standing::Active;
            }
            // Requests that were made before the last setback fail for the same reason.
            let known_trouble = matches!(
                source.standing,
                Standing::Demoted { since, .. } if issued <= since
            );
            if known_trouble {
                self.touch(id);
            } else {
                self.demote(now, id, reason);
            }
        }
        self.end_request(now, request, false);
    }

    /// Time passed: finds stalls, ends demotions, and believes what sources list again.
    pub fn tick(&mut self, now: Duration) {
        self.settle(now);
        while let Some(id) = self.index.due(now) {
            let Some(source) = self.sources.get(&id) else {
                break;
            };
            if stall_deadline(source, &self.config).is_some_and(|at| at <= now) {
                self.stalled(now, id);
            } else if let Some((at, request)) = self.overtaken(source)
                && at <= now
            {
                self.end_request(now, request, true);
            }
            self.believe(now, id);
            if let Some(source) = self.sources.get_mut(&id)
                && matches!(source.standing, Standing::Demoted { until, .. } if until <= now)
            {
                source.standing = Standing::Probing;
                self.wake(id);
            }
            self.refresh(now, id);
        }
        self.wake_due(now);
    }

    /// When [`tick`](Self::tick) and [`poll`](Self::poll) should be called at the latest,
    /// even if nothing happens.
    pub fn next_deadline(&self) -> Option<Duration> {
        let [care, look] = self.index.next();
        let look = look.filter(|_| !self.paused);
        // What changed since the last poll is not in order yet.
        let changed = self.index.dirty();
        let changed = changed.filter_map(|id| self.deadline(self.sources.get(id)?));
        changed.chain(care).chain(look).min()
    }

    /// When a source has to be looked after, if it owes bytes, rests or is not believed.
    pub(super) fn deadline(&self, source: &Source) -> Option<Duration> {
        let rest = match source.standing {
            Standing::Held => return None,
            Standing::Demoted { until, .. } => Some(until),
            _ => None,
        };
        let stall = stall_deadline(source, &self.config);
        let overtaken = self.overtaken(source).map(|(at, _)| at);
        let denied = source.denied.until();
        [rest, stall, overtaken, denied].into_iter().flatten().min()
    }

    /// A source owes bytes and sends none: it loses its requests and rests.
    fn stalled(&mut self, now: Duration, id: SourceId) {
        self.demote(now, id, DemoteReason::Stalled);
        let queue: Vec<RequestId> = match self.sources.get(&id) {
            Some(source) => source.queue.iter().copied().collect(),
            None => return,
        };
        for request in queue {
            self.end_request(now, request, true);
        }
    }

    /// If others had to take everything from a source while it was silent, it rests until it
    /// is clear whether it stalled, rather than take the work back.
    pub(super) fn doubt(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let last = source
            .meter
            .last()
            .map_or(source.busy_since, |l| l.max(source.busy_since));
        let silence = now.saturating_sub(last);
        if source.queue.is_empty() && span(source.latency()) < silence {
            source.robbed_at = Some(now);
            source.robbed = source.robbed.saturating_add(1);
        }
        let usual = span(2.0 * (source.latency() + source.meter.gap()));
        if source.queue.is_empty() && !source.is_demoted() && silence > usual {
            let until = now.saturating_add(silence.max(self.config.failure_demotion));
            source.standing = Standing::Demoted {
                since: now,
                until,
                lone_until: until,
            };
            let reason = DemoteReason::Stalled;
            self.actions.push_back(Action::Demote {
                source: id,
                until,
                reason,
            });
            self.touch(id);
        }
    }

    /// A source stands still for a reason that is not its fault. Until it is
    /// [released](Self::release) it gets no new work, idle sources take over what it has, and
    /// nothing is held against it: neither the time that passes nor what it is long in
    /// beginning. Meanwhile it still counts as one that has its bytes.
    pub fn hold(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.standing = Standing::Held;
        }
        self.touch(id);
    }

    /// A source that was [held](Self::hold) goes on as if it had been asked just now.
    pub fn release(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        if source.standing != Standing::Held {
            return;
        }
        source.standing = Standing::Active;
        (source.busy_since, source.head_since) = (now, now);
        for request in &source.queue {
            if let Some(known) = self.requests.get_mut(request)
                && !known.started
            {
                (known.issued, known.last) = (now, now);
            }
        }
        self.touch(id);
        self.wake(id);
        self.wake_all();
    }

    /// Somebody who knows better took back what is held against a source that rests: it goes on
    /// as if nothing had been.
    pub fn forgive(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        if !matches!(source.standing, Standing::Demoted { .. }) {
            return;
        }
        (source.stalls, source.failures) = (0, 0);
        source.standing = Standing::Active;
        (source.busy_since, source.head_since) = (now, now);
        self.touch(id);
        self.wake(id);
    }

    /// What a source said of the file turned out wrong, though its bytes need not be: it
    /// rests, longer each time. What it owes stays with it.
    pub fn distrust(&mut self, now: Duration, id: SourceId) {
        self.demote(now, id, DemoteReason::Misleading);
    }

    fn demote(&mut self, now: Duration, id: SourceId, reason: DemoteReason) {
        let config = &self.config;
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.good = 0;
        let (first, count, alike) = if reason == DemoteReason::Stalled {
            (config.stall_demotion, &mut source.stalls, ALIKE_STALLS)
        } else {
            (config.failure_demotion, &mut source.failures, 0)
        };
        let doublings = count.saturating_sub(alike);
        let doubled = |first: Duration| first.saturating_mul(1 << doublings.min(MAX_DOUBLINGS));
        let until = now.saturating_add(doubled(first).min(config.max_demotion));
        let lone = doubled(config.failure_demotion).min(config.max_lone_demotion);
        let lone_until = now.saturating_add(lone).min(until);
        *count = count.saturating_add(1);
        if source.standing == Standing::Held {
            return;
        }
        source.standing = Standing::Demoted {
            since: now,
            until,
            lone_until,
        };
        self.actions.push_back(Action::Demote {
            source: id,
            until,
            reason,
        });
        self.touch(id);
        self.wake_all();
    }

    /// The oldest request of a source that serves others instead, and until when it may.
    fn overtaken(&self, source: &Source) -> Option<(Duration, RequestId)> {
        let head = *source.queue.front()?;
        let known = self.requests.get(&head)?;
        let waited_from = known.last.max(source.head_since);
        let queue_time = source
            .meter
            .rate()
            .map_or(0.0, |rate| source.out as f64 / rate.max(1.0));
        let patience = timeout(source, &self.config).max(span(queue_time));
        let patience = patience.saturating_mul(OVERTAKEN_TIMEOUTS);
        Some((waited_from.saturating_add(patience), head))
    }
}

/// How long a source may be silent.
fn timeout(source: &Source, config: &SchedulerConfig) -> Duration {
    if source.meter.last().is_none() {
        return config.first_byte_timeout.max(config.stall_timeout);
    }
    let usual = f64::from(config.stall_factor) * source.meter.gap();
    config
        .stall_timeout
        .max(span(usual + 2.0 * source.meter.latency().unwrap_or(0.0)))
}

/// When a source that owes bytes counts as stalled.
fn stall_deadline(source: &Source, config: &SchedulerConfig) -> Option<Duration> {
    if source.queue.is_empty() {
        return None;
    }
    let last = source
        .meter
        .last()
        .map_or(source.busy_since, |l| l.max(source.busy_since));
    Some(last.saturating_add(timeout(source, config)))
}
