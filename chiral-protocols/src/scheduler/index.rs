//! What the sources are expected to do, kept in order, so that no decision has to look at all
//! of them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::source::{Source, Standing};
use super::victim::at_most;
use super::{Scheduler, SourceId};

/// A silent source is judged anew when its silence has grown by this factor.
const SILENCE_GROWS: f64 = 1.25;
/// And no sooner than after this time.
const JUDGE_AGAIN: Duration = Duration::from_millis(20);

/// What one source adds to the index.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// How long a chunk would take that it were asked for while idle; `None` unless it is in
    /// use and was measured.
    swift: Option<Duration>,
    /// When it is expected to have delivered what it owes; `None` if it owes nothing.
    finish: Option<Duration>,
    /// When it has to be looked after at the latest.
    deadline: Option<Duration>,
    /// When it wants to look for work again.
    look: Option<Duration>,
    /// When what is expected of it changes by mere waiting.
    stale: Option<Duration>,
    /// Its measured rate, bytes per second.
    rate: Option<u64>,
    /// The rate to count on; 0 if it gets no work.
    pace: u64,
    /// At most so much if it slowed down just now; 0 if it owes nothing.
    busy_pace: u64,
    /// Bytes that it would deliver in the time that its first byte will take.
    lead: u64,
    complete: bool,
    busy: bool,
    complete_and_active: bool,
}

/// All sources in order of what is asked about them. A change costs O(log n).
#[derive(Debug, Default)]
pub(super) struct Index {
    swift: BTreeSet<(Duration, SourceId)>,
    finish: BTreeSet<(Duration, SourceId)>,
    deadlines: BTreeSet<(Duration, SourceId)>,
    looks: BTreeSet<(Duration, SourceId)>,
    stale: BTreeSet<(Duration, SourceId)>,
    rates: u128,
    rated: u32,
    busy_paces: u128,
    complete_paces: u128,
    complete_leads: u128,
    busy: u32,
    complete_and_active: u32,
    /// Sources whose entries may have changed.
    dirty: Vec<SourceId>,
    /// Sources that found nothing to do.
    pub(super) waiting: BTreeSet<SourceId>,
    /// Decisions made and sources looked at for them, for the test of what they cost.
    #[cfg(test)]
    pub(super) work: std::cell::Cell<(u64, u64)>,
}

impl Index {
    /// Counts decisions, and sources looked at for them.
    pub(super) fn count(&self, decisions: u64, sources: u64) {
        #[cfg(test)]
        self.work.update(|(d, s)| (d + decisions, s + sources));
        #[cfg(not(test))]
        let _ = (decisions, sources);
    }

    fn replace(&mut self, id: SourceId, old: Entry, new: Entry) {
        for (set, before, after) in [
            (&mut self.swift, old.swift, new.swift),
            (&mut self.finish, old.finish, new.finish),
            (&mut self.deadlines, old.deadline, new.deadline),
            (&mut self.looks, old.look, new.look),
            (&mut self.stale, old.stale, new.stale),
        ] {
            if before != after {
                before.map(|at| set.remove(&(at, id)));
                after.map(|at| set.insert((at, id)));
            }
        }
        let wide = |rate: Option<u64>| u128::from(rate.unwrap_or(0));
        self.rates = self.rates - wide(old.rate) + wide(new.rate);
        self.rated = self.rated - u32::from(old.rate.is_some()) + u32::from(new.rate.is_some());
        self.busy_paces = self.busy_paces - u128::from(old.busy_pace) + u128::from(new.busy_pace);
        let whole = |entry: Entry, of: u64| if entry.complete { u128::from(of) } else { 0 };
        self.complete_paces = self.complete_paces - whole(old, old.pace) + whole(new, new.pace);
        self.complete_leads = self.complete_leads - whole(old, old.lead) + whole(new, new.lead);
        self.busy = self.busy - u32::from(old.busy) + u32::from(new.busy);
        self.complete_and_active = self.complete_and_active - u32::from(old.complete_and_active)
            + u32::from(new.complete_and_active);
    }

    /// The mean of the measured rates, if any was measured.
    pub(super) fn mean_rate(&self) -> Option<f64> {
        (self.rated > 0).then(|| self.rates as f64 / f64::from(self.rated))
    }

    /// Bytes per second that are expected of all sources that get work and owe bytes.
    pub(super) fn busy_pace(&self) -> f64 {
        self.busy_paces as f64
    }

    /// Bytes per second of those among them that have the whole file, and bytes that those which
    /// are idle now would deliver in the time that their first byte takes.
    pub(super) fn complete_pace_and_lead(&self) -> (f64, f64) {
        (self.complete_paces as f64, self.complete_leads as f64)
    }

    /// How many sources get work and owe bytes.
    pub(super) fn busy(&self) -> u32 {
        self.busy
    }

    /// Sources that may have changed since the index was brought up to date.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &SourceId> + '_ {
        self.dirty.iter()
    }

    /// Whether a source of the whole file is in use.
    pub(super) fn has_complete(&self) -> bool {
        self.complete_and_active > 0
    }

    /// The sources that owe bytes, those that are expected to be done last first.
    pub(super) fn last(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.finish.iter().rev().map(|(_, id)| *id)
    }

    /// The sources in use, those that would deliver a chunk soonest first.
    pub(super) fn swiftest(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.swift.iter().map(|(_, id)| *id)
    }

    /// When a source has to be looked after, and when one wants to look for work again.
    pub(super) fn next(&self) -> [Option<Duration>; 2] {
        [&self.deadlines, &self.looks].map(|set| set.first().map(|(at, _)| *at))
    }

    /// The next source that has to be looked after by now.
    pub(super) fn due(&self, now: Duration) -> Option<SourceId> {
        let first = self.deadlines.first().filter(|(at, _)| *at <= now);
        first.map(|(_, id)| *id)
    }

    /// The next source that wants to look for work by now.
    fn looking(&self, now: Duration) -> Option<SourceId> {
        let first = self.looks.first().filter(|(at, _)| *at <= now);
        first.map(|(_, id)| *id)
    }
}

impl Scheduler {
    /// Notes that a source changed.
    pub(super) fn touch(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id)
            && !std::mem::replace(&mut source.dirty, true)
        {
            self.index.dirty.push(id);
        }
    }

    /// Wakes the sources that wanted to look again by now.
    pub(super) fn wake_due(&mut self, now: Duration) {
        self.settle(now);
        while let Some(id) = self.index.looking(now) {
            if let Some(source) = self.sources.get_mut(&id) {
                source.look_at = None;
            }
            self.refresh(now, id);
            self.wake(id);
        }
    }

    /// Brings the index up to date. Costs O(log n) for each source that changed, or whose
    /// silence grew, since the last time.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some((at, id)) = self.index.stale.first().copied()
            && at <= now
        {
            self.refresh(now, id);
        }
        while let Some(id) = self.index.dirty.pop() {
            self.refresh(now, id);
        }
    }

    /// Brings the index up to date about one source.
    pub(super) fn refresh(&mut self, now: Duration, id: SourceId) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        self.index.count(0, 1);
        let entry = self.entry(now, id, source);
        if let Some(source) = self.sources.get_mut(&id) {
            let old = std::mem::replace(&mut source.entry, entry);
            source.dirty = false;
            self.index.replace(id, old, entry);
        }
    }

    /// Forgets a source that is about to go.
    pub(super) fn unlist(&mut self, id: SourceId) {
        self.index.waiting.remove(&id);
        if let Some(source) = self.sources.get_mut(&id) {
            let old = std::mem::take(&mut source.entry);
            self.index.replace(id, old, Entry::default());
        }
    }

    fn entry(&self, now: Duration, id: SourceId, source: &Source) -> Entry {
        let works = !source.is_demoted();
        let owes = !source.queue.is_empty();
        let pace = source.pace(now).filter(|_| works).unwrap_or(0.0);
        let lead = if owes { 0.0 } else { pace * source.latency() };
        let finish = (source.out > 0).then(|| {
            let seconds = self.victim(now, id, source).finish.min(1e9);
            now.saturating_add(Duration::from_secs_f64(seconds))
        });
        let stale = owes.then(|| {
            let quiet = source.quiet_after();
            let silence = source.silence(now).as_secs_f64();
            let next = if silence < quiet {
                quiet - silence
            } else {
                silence * (SILENCE_GROWS - 1.0)
            };
            now.saturating_add(super::meter::span(next).max(JUDGE_AGAIN))
        });
        let swift = (source.standing == Standing::Active && pace > 0.0).then(|| {
            let chunk = self.config.chunk_bytes as f64;
            super::meter::span(source.latency() + chunk / pace)
        });
        Entry {
            swift,
            finish,
            deadline: self.deadline(source),
            look: source.look_at.filter(|_| source.standing != Standing::Held),
            stale,
            rate: source.meter.rate().map(|rate| rate as u64),
            pace: pace as u64,
            busy_pace: if owes {
                pace.min(at_most(source)) as u64
            } else {
                0
            },
            lead: lead as u64,
            complete: source.is_complete(),
            busy: works && owes,
            complete_and_active: source.is_complete() && source.standing == Standing::Active,
        }
    }
}
