//! Chunks that have to come whole from one source, so that blame is certain.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};

use super::ledger::clip;
use super::source::{Source, Standing};
use super::{RequestId, Scheduler, SourceId};

/// A source leaves a whole chunk to another that would deliver it this many times sooner.
const MUCH_SOONER: f64 = 2.0;

/// Among how many of the swiftest sources such another one is looked for.
const MAX_SWIFT: usize = 16;

/// A range that one source must deliver from its first to its last byte.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) range: ByteRange,
    pub(super) excluded: Vec<SourceId>,
    pub(super) request: Option<RequestId>,
}

impl Whole {
    /// Whether a source may be asked for the range.
    pub(super) fn suits(&self, id: SourceId, source: &Source, size: u64) -> bool {
        !self.excluded.contains(&id) && source.covers(source.grid.expand(self.range, size))
    }
}

impl Scheduler {
    /// The bytes of `range`, which arrived or not, must be fetched again and all from one
    /// source that is not in `excluded`. Ranges that overlap one which is already being
    /// fetched so are joined with it. If no source qualifies, they are
    /// [unserved](Self::unserved).
    pub fn retry_whole(&mut self, now: Duration, range: ByteRange, excluded: &[SourceId]) {
        let mut range = clip(range, self.ledger.size);
        if range.is_empty() {
            return;
        }
        let mut excluded = excluded.to_vec();
        for start in self.held_within(range) {
            if let Some(old) = self.held.get(&start)
                && let Some(request) = old.request
            {
                self.end_request(now, request, true);
            }
            if let Some(old) = self.held.remove(&start) {
                let end = range.end.max(old.range.end);
                range = ByteRange::new(range.start.min(start), end);
                excluded.extend(old.excluded);
            }
        }
        excluded.sort_unstable();
        excluded.dedup();
        let losses = self.ledger.hold(range);
        self.held.insert(
            range.start,
            Whole {
                range,
                excluded,
                request: None,
            },
        );
        for (lost, holder) in losses {
            if let Some(holding) = self.requests.get_mut(&holder) {
                holding.claim.remove(lost);
                self.shorten(now, holder);
            }
        }
        self.wake_all();
    }

    /// Starts of the held ranges that overlap `range`.
    pub(super) fn held_within(&self, range: ByteRange) -> Vec<u64> {
        if range.is_empty() || self.held.is_empty() {
            return Vec::new();
        }
        let first = self.held.range(..range.start).next_back();
        let rest = self.held.range(range.start..range.end);
        first
            .into_iter()
            .chain(rest)
            .filter(|(_, whole)| whole.range.intersection(range).is_some())
            .map(|(&start, _)| start)
            .collect()
    }

    /// Bytes of `range` are about to be wanted again: what is being fetched whole around
    /// them starts over.
    pub(super) fn rehold_within(&mut self, range: ByteRange) {
        for start in self.held_within(range) {
            let Some(whole) = self.held.get(&start) else {
                continue;
            };
            if let Some(request) = whole.request
                && self
                    .requests
                    .get(&request)
                    .is_some_and(|r| r.claim.len() < whole.range.len())
            {
                self.end_request(Duration::ZERO, request, true);
            }
        }
    }

    /// The request for a held range ended. If `left` of it did not arrive, all of it is
    /// wanted again.
    pub(super) fn rehold(&mut self, start: u64, left: &RangeSet) {
        if left.is_empty() {
            self.held.remove(&start);
        } else if let Some(whole) = self.held.get_mut(&start) {
            whole.request = None;
            let range = whole.range;
            self.ledger.hold(range);
        }
    }

    /// Gives the source a range to fetch whole, if one is waiting for it.
    pub(super) fn feed_whole(&mut self, now: Duration, id: SourceId) -> bool {
        let size = self.ledger.size;
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        let found = self.held.values().find(|whole| {
            whole.request.is_none()
                && self.ledger.window.covers(whole.range)
                && whole.suits(id, source, size)
                && !self.someone_is_sooner(now, id, whole)
        });
        let Some(range) = found.map(|whole| whole.range) else {
            return false;
        };
        self.give_whole(now, id, range);
        true
    }

    /// Asks the source for a range that nobody fetches.
    fn give_whole(&mut self, now: Duration, id: SourceId, range: ByteRange) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let (start, ask) = (range.start, source.grid.expand(range, self.ledger.size));
        let request = self.issue(now, id, ask);
        self.ledger.first.insert(range, request);
        if let Some(known) = self.requests.get_mut(&request) {
            known.claim.insert(range);
            known.whole = Some(start);
        }
        if let Some(whole) = self.held.get_mut(&start) {
            whole.request = Some(request);
        }
    }

    /// Whether nobody but demoted sources can fetch some waiting range that suits this one.
    pub(super) fn alone_for_a_whole(&self, id: SourceId) -> bool {
        let size = self.ledger.size;
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        self.held.values().any(|whole| {
            whole.request.is_none()
                && whole.suits(id, source, size)
                && !self.sources.iter().any(|(other, s)| {
                    *other != id && !s.is_demoted() && whole.suits(*other, s, size)
                })
        })
    }

    /// Gives an idle source a range that another one fetches whole, from its first byte on,
    /// if the other is expected to take much longer than that.
    pub(super) fn take_whole(&mut self, now: Duration, id: SourceId) -> bool {
        let size = self.ledger.size;
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        if source.standing != Standing::Active || source.meter.rate().is_none() {
            return false;
        }
        let found = self.held.values().find_map(|whole| {
            let request = whole
                .request
                .filter(|request| !self.is_new(now, *request))?;
            let holder = self.requests.get(&request)?.source;
            let victim = self.victim(now, holder, self.sources.get(&holder)?);
            let mine = self.time_for(now, id, whole.range.len());
            let suits = holder != id && whole.suits(id, source, size);
            (suits && self.ledger.window.covers(whole.range) && mine * MUCH_SOONER < victim.finish)
                .then_some((request, holder, whole.range))
        });
        let Some((request, holder, range)) = found else {
            return false;
        };
        self.end_request(now, request, true);
        self.doubt(now, holder);
        // Without the request its holder looks as good as before, and would get it again.
        self.give_whole(now, id, range);
        true
    }

    fn someone_is_sooner(&self, now: Duration, id: SourceId, whole: &Whole) -> bool {
        let length = whole.range.len();
        let active = |source: &Source| source.standing == Standing::Active;
        let mine = match self.sources.get(&id) {
            Some(source) if active(source) => self.time_for(now, id, length),
            _ => f64::INFINITY,
        };
        self.index.swiftest().take(MAX_SWIFT).any(|other| {
            self.index.count(0, 1);
            self.sources.get(&other).is_some_and(|source| {
                other != id
                    && active(source)
                    && source.queue.len() < source.max_requests
                    && whole.suits(other, source, self.ledger.size)
                    && self.time_for(now, other, length) * MUCH_SOONER < mine
            })
        })
    }

    /// Seconds until a source would have delivered that many bytes more.
    fn time_for(&self, now: Duration, id: SourceId, bytes: u64) -> f64 {
        let Some(source) = self.sources.get(&id) else {
            return f64::INFINITY;
        };
        let pace = self.pace_or_guess(now, source);
        source.latency() + (source.out + bytes) as f64 / pace.max(1.0)
    }
}
