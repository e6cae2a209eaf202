//! Gives a source its next request out of the bytes that nobody was asked for yet.

use std::collections::BTreeMap;
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

use super::source::{Request, Source, Standing};
use super::{Action, Order, RequestId, Scheduler, SourceId};

/// Bytes per second assumed of a source while nothing at all is known.
const ASSUMED_RATE: f64 = 128.0 * 1024.0;
/// Requests that are cut fine end at multiples of this.
pub(super) const FINE_CUT: u64 = 16 << 10;
/// A source whose cells are longer keeps to its own part of the file.
const COARSE_CELL: u64 = 64 << 10;
/// Most grids whose sources are kept apart.
const MAX_CURSORS: usize = 16;
/// Most runs of open bytes that one decision looks at.
const MAX_RUNS: usize = 24;
/// Most places of one partial seeder that one decision looks at.
const MAX_PLACES: usize = 16;
/// Most overloaded partial seeders that a source tries to help.
const MAX_RELIEVED: usize = 4;
/// A source that takes one request at a time gets requests this many latencies long.
const LONE_REQUEST_LATENCIES: f64 = 20.0;

/// How much a source should be asked for.
#[derive(Clone, Copy, Debug)]
struct Portion {
    /// Length to aim at; 0 leaves the bytes to others.
    bytes: u64,
    /// Bytes that it should have outstanding.
    depth: f64,
    /// Shortest requests that hide the latency: up to here rarity does not end them.
    least: u64,
    /// Whether the end is near: cut fine rather than at chunks.
    late: bool,
}

impl Scheduler {
    /// Gives one source at most one request. Returns whether it did.
    pub(super) fn feed(&mut self, now: Duration, id: SourceId) -> bool {
        let Some(limit) = self.allowance(now, id) else {
            return false;
        };
        if self.sources.get(&id).is_none_or(|source| source.queue.len() >= limit) {
            return false;
        }
        if self.feed_whole(now, id) {
            return true;
        }
        let Some(portion) = self.portion(now, id) else {
            return false;
        };
        if let Some(source) = self.sources.get(&id)
            && source.out as f64 >= portion.depth
            && source.queue.len() >= 2
        {
            return false;
        }
        if portion.bytes > 0
            && let Some(ask) = self.pick(id, portion)
        {
            self.assign(now, id, ask);
            return true;
        }
        self.steal(now, id)
    }

    /// How many requests a source may have now; `None` if it rests.
    fn allowance(&mut self, now: Duration, id: SourceId) -> Option<usize> {
        let source = self.sources.get(&id)?;
        match source.standing {
            Standing::Active => Some(source.max_requests),
            Standing::Probing => Some(1),
            Standing::Demoted { until, .. } if until <= now => {
                self.sources.get_mut(&id)?.standing = Standing::Probing;
                Some(1)
            }
            Standing::Demoted { until, lone_until, .. } => {
                if !self.is_needed(id) {
                    return None;
                }
                if lone_until <= now {
                    return Some(1);
                }
                self.sources.get_mut(&id)?.look_at = Some(lone_until.min(until));
                None
            }
        }
    }

    /// Whether nobody but demoted sources has some of what this one could be asked for.
    fn is_needed(&self, id: SourceId) -> bool {
        if self.alone_for_a_whole(id) {
            return true;
        }
        if self.sources.values().any(|s| s.is_complete() && !s.is_demoted()) {
            return false;
        }
        let resting = |at: u64| {
            let mut members = self.ledger.pool.members(at).iter();
            members.all(|id| self.sources.get(id).is_none_or(Source::is_demoted))
        };
        match self.sources.get(&id).map(|source| source.list(id)) {
            None => false,
            Some(list) => self.ledger.pool.rarest(list, MAX_PLACES).any(resting),
        }
    }

    /// The measured pace of a source, or a cautious guess from the others.
    pub(super) fn pace_or_guess(&self, now: Duration, source: &Source) -> f64 {
        source.pace(now).unwrap_or_else(|| {
            let known = self.sources.values().filter_map(|s| s.meter.rate());
            let (sum, count) = known.fold((0.0, 0u32), |(sum, n), rate| (sum + rate, n + 1));
            let mean = if count == 0 { ASSUMED_RATE } else { sum / f64::from(count) };
            (mean / 4.0).min(ASSUMED_RATE)
        })
    }

    /// How long the next request of a source should be; `None` if nothing is open for it and
    /// nothing is claimed either.
    fn portion(&self, now: Duration, id: SourceId) -> Option<Portion> {
        let config = &self.config;
        let source = self.sources.get(&id)?;
        let claimed = self.ledger.first.len();
        let left = (self.ledger.pool.open().len() + claimed) as f64;
        if left == 0.0 {
            return None;
        }
        let minimum = config.min_request_bytes.max(source.grid.cell());
        if source.standing != Standing::Active {
            return Some(Portion { bytes: minimum, depth: 0.0, least: minimum, late: true });
        }
        let Some(pace) = source.pace(now) else {
            let fair = left / (2.0 * self.sources.len() as f64);
            let bytes = (fair as u64).clamp(minimum, config.initial_request_bytes.max(minimum));
            let late = bytes < config.initial_request_bytes;
            return Some(Portion { bytes, depth: 2.0 * bytes as f64, least: bytes, late });
        };
        let latency = source.latency();
        let in_flight = 2.0 * pace * latency;
        let mut bytes = (pace * config.slice.as_secs_f64()).min(config.max_request_bytes as f64);
        let stretched = if source.max_requests == 1 {
            pace * latency * LONE_REQUEST_LATENCIES
        } else {
            in_flight / (source.max_requests - 1) as f64
        };
        bytes = bytes.max(stretched.min(config.max_stretched_request_bytes as f64));
        let ramp = 3.0 * source.meter.delivered() as f64;
        bytes = bytes.min(ramp.max(config.initial_request_bytes as f64)).max(minimum as f64);
        let depth = (in_flight + bytes).min(ramp.max(2.0 * config.initial_request_bytes as f64));
        let (share, late) = self.share(now, id, bytes);
        let behind = source.max_requests.saturating_sub(1).max(1) as f64;
        let least = ((0.75 * in_flight / behind) as u64).max(config.chunk_bytes);
        Some(Portion { bytes: share.min(bytes) as u64, depth, least, late })
    }

    /// How many more bytes the source can deliver until everything outstanding and open in
    /// the window could be done, and whether that is less than it would like.
    fn share(&self, now: Duration, id: SourceId, wish: f64) -> (f64, bool) {
        let Some(source) = self.sources.get(&id) else {
            return (wish, false);
        };
        let pool = &self.ledger.pool;
        let place = pool.best_rank(source.list(id)).and_then(|r| pool.seek(source.list(id), r, 0));
        let members = place.map_or(&[][..], |(_, run)| pool.members(run.start));
        let peers = self.sources.iter().filter(|(other, s)| {
            !s.is_demoted() && (s.is_complete() || members.binary_search(other).is_ok())
        });
        // All are done together at the time t where the sum of rate * (t - lead) is what is
        // left, an idle source's lead being its latency.
        let lead =
            |s: &Source, pace: f64| if s.queue.is_empty() { s.latency() * pace } else { 0.0 };
        let mut left = (pool.open().len() + self.ledger.first.len()) as f64;
        let (mut rate, mut others_busy) = (0.0, false);
        for (other, peer) in peers {
            let pace = peer.pace(now).unwrap_or(0.0);
            rate += pace;
            left += lead(peer, pace);
            others_busy |= *other != id && !peer.queue.is_empty();
        }
        if !others_busy || rate <= 0.0 {
            return (wish, false);
        }
        let pace = self.pace_or_guess(now, source);
        let lead = lead(source, pace);
        let share = left / rate * pace - source.out as f64 - lead;
        if share >= 2.0 * wish {
            return (wish, false);
        }
        let minimum = FINE_CUT.max(source.grid.cell() / 2) as f64;
        (if share < minimum { 0.0 } else { share.max(source.grid.cell() as f64) }, true)
    }

    /// What to ask the source for, among the open bytes.
    fn pick(&mut self, id: SourceId, portion: Portion) -> Option<ByteRange> {
        let source = self.sources.get(&id)?;
        let picked = match self.order {
            Order::Backward => self.pick_last(id, source, portion),
            Order::Forward | Order::Rarest => self.pick_first(id, source, portion),
        }?;
        if self.order == Order::Rarest && source.grid.cell() > COARSE_CELL {
            let grid = source.grid;
            match self.cursors.iter().position(|(known, _)| *known == grid) {
                Some(at) => self.cursors[at].1 = picked.end,
                None if self.cursors.len() < MAX_CURSORS => self.cursors.push((grid, picked.end)),
                None => {}
            }
        }
        Some(picked)
    }

    /// Where sources with this grid go on. Fine grids fill gaps from the start; each coarse
    /// one begins in a place of its own, so that few cells are cut by others.
    fn cursor(&self, grid: RequestGrid) -> u64 {
        if self.order != Order::Rarest || grid.cell() <= COARSE_CELL {
            return 0;
        }
        if let Some((_, cursor)) = self.cursors.iter().find(|(known, _)| *known == grid) {
            return *cursor;
        }
        let window = self.ledger.window;
        let eighths = [4, 2, 6, 1, 5, 3, 7][self.cursors.len() % 7];
        window.start + window.len() / 8 * eighths
    }

    fn pick_first(&self, id: SourceId, source: &Source, portion: Portion) -> Option<ByteRange> {
        let pool = &self.ledger.pool;
        let list = source.list(id);
        let best = pool.best_rank(list)?;
        let cursor = self.cursor(source.grid);
        let (best, cursor) = match self.relief(id, source) {
            Some(place) => place,
            None => (best, cursor),
        };
        let starts = if cursor == 0 { &[0][..] } else { &[cursor, 0][..] };
        let mut partial = None;
        for &from in starts {
            let (mut rank, mut at) = (best, from);
            for _ in 0..MAX_RUNS {
                let Some((found, run)) = pool.seek(list, rank, at) else {
                    break;
                };
                let run = source.head_of(run);
                let run = ByteRange::new(run.start, pool.reach(run.start, run.end, portion.least));
                if let Some(ask) = self.fit_first(source.grid, run, portion) {
                    return Some(ask);
                }
                let cell = ByteRange::new(run.start, run.start.saturating_add(1).min(run.end));
                self.offer_partial(source, cell, portion.late, &mut partial);
                (rank, at) = (found, run.end.max(at.saturating_add(1)));
            }
        }
        partial.map(|(_, ask)| ask)
    }

    /// The place (rank, offset) among those of the most loaded partial seeders that the
    /// others would get to last. Bytes that no other partial seeder has go first anyway.
    fn relief(&self, id: SourceId, source: &Source) -> Option<(u32, u64)> {
        let pool = &self.ledger.pool;
        let first = pool.rarest(source.list(id), 1).next()?;
        let alone = pool.members(first).len() <= usize::from(!source.is_complete());
        if alone || self.order != Order::Rarest || source.grid.cell() > COARSE_CELL {
            return None;
        }
        // Seconds of work that each partial seeder could do.
        let mut loads: Vec<(f64, SourceId)> = self
            .sources
            .iter()
            .filter(|(other, peer)| **other != id && !peer.is_complete() && !peer.is_demoted())
            .map(|(other, peer)| {
                let rate = peer.meter.rate().unwrap_or(ASSUMED_RATE);
                ((pool.backlog(*other) + peer.out) as f64 / rate.max(1.0), *other)
            })
            .collect();
        let speed: BTreeMap<SourceId, f64> =
            loads.iter().map(|&(load, other)| (other, 1.0 / load.max(1e-3))).collect();
        loads.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut found: Option<(f64, u64)> = None;
        for &(_, other) in loads.iter().take(MAX_RELIEVED) {
            for at in pool.rarest(Some(other), MAX_PLACES) {
                let members = pool.members(at);
                if !source.is_complete() && members.binary_search(&id).is_err() {
                    continue;
                }
                let reached: f64 = members.iter().filter_map(|member| speed.get(member)).sum();
                if found.is_none_or(|(least, _)| reached < least) {
                    found = Some((reached, at));
                }
            }
        }
        found.map(|(_, at)| (pool.rank_at(at), at))
    }

    fn pick_last(&self, id: SourceId, source: &Source, portion: Portion) -> Option<ByteRange> {
        let list = source.list(id);
        let mut to = self.ledger.size;
        let mut partial = None;
        for _ in 0..MAX_RUNS {
            let Some(run) = self.ledger.pool.seek_back(list, to) else {
                break;
            };
            let run = source.tail_of(run);
            if let Some(ask) = self.fit_last(source.grid, run, portion) {
                return Some(ask);
            }
            let cell = ByteRange::new(run.end.saturating_sub(1).max(run.start), run.end);
            self.offer_partial(source, cell, portion.late, &mut partial);
            to = run.start.min(to.saturating_sub(1));
        }
        partial.map(|(_, ask)| ask)
    }

    /// Keeps the cell around `byte` if fewer of its bytes were given away than of `best`.
    fn offer_partial(
        &self,
        source: &Source,
        byte: ByteRange,
        late: bool,
        best: &mut Option<(u64, ByteRange)>,
    ) {
        let cell = source.grid.expand(byte, self.ledger.size);
        if cell.is_empty() || !source.covers(cell) {
            return;
        }
        let waste = cell.len() - self.ledger.free_in(cell);
        let fits = waste == 0 || late || source.queue.is_empty();
        if fits && best.is_none_or(|(least, _)| waste < least) {
            *best = Some((waste, cell));
        }
    }

    /// A request at the start of an open run, on the grid and wholly inside the run.
    fn fit_first(&self, grid: RequestGrid, run: ByteRange, aim: Portion) -> Option<ByteRange> {
        let size = self.ledger.size;
        let inside = grid.shrink(run, size)?;
        let goal = inside.start.saturating_add(aim.bytes);
        let chunk = self.config.chunk_bytes;
        let goal = match (aim.late, aim.bytes < 2 * chunk) {
            (true, true) => (goal / FINE_CUT * FINE_CUT).max(inside.start + 1),
            (true, false) => goal / chunk * chunk,
            (false, _) => goal.div_ceil(chunk).saturating_mul(chunk),
        };
        let end = grid.ceil(goal, size).min(inside.end);
        let rest = inside.end - end;
        let end = if rest < FINE_CUT.min(aim.bytes) { inside.end } else { end };
        Some(ByteRange::new(inside.start, end))
    }

    /// A request at the end of an open run, on the grid and wholly inside the run.
    fn fit_last(&self, grid: RequestGrid, run: ByteRange, aim: Portion) -> Option<ByteRange> {
        let size = self.ledger.size;
        let inside = grid.shrink(run, size)?;
        let goal = inside.end.saturating_sub(aim.bytes);
        let chunk = self.config.chunk_bytes;
        let goal = match (aim.late, aim.bytes < 2 * chunk) {
            (true, true) => goal.div_ceil(FINE_CUT).saturating_mul(FINE_CUT).min(inside.end - 1),
            (true, false) => goal.div_ceil(chunk).saturating_mul(chunk),
            (false, _) => goal / chunk * chunk,
        };
        let start = grid.floor(goal).max(inside.start);
        let rest = start - inside.start;
        let start = if rest < FINE_CUT.min(aim.bytes) { inside.start } else { start };
        Some(ByteRange::new(start, inside.end))
    }

    /// Asks the source for `ask`; all its free bytes become the request's.
    pub(super) fn assign(&mut self, now: Duration, id: SourceId, ask: ByteRange) -> RequestId {
        let request = self.issue(now, id, ask);
        let claim = self.ledger.take(ask, request);
        if let Some(known) = self.requests.get_mut(&request) {
            known.claim = claim;
        }
        request
    }

    /// Makes a request that claims nothing yet.
    pub(super) fn issue(&mut self, now: Duration, id: SourceId, ask: ByteRange) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        if let Some(source) = self.sources.get_mut(&id) {
            if source.queue.is_empty() {
                (source.busy_since, source.head_since) = (now, now);
            }
            source.queue.push_back(request);
            source.out += ask.len();
        }
        self.requests.insert(
            request,
            Request {
                source: id,
                range: ask,
                due: RangeSet::from(ask),
                claim: RangeSet::new(),
                issued: now,
                started: false,
                last: now,
                whole: None,
            },
        );
        self.actions.push_back(Action::Assign { request, source: id, range: ask });
        request
    }
}
