//! Gives a source its next request out of the bytes that nobody was asked for yet.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

use super::ahead::Ahead;
use super::portion::Portion;
use super::source::{Request, Source, Standing};
use super::{Action, Order, RequestId, Scheduler, SourceId};

/// Requests that are cut fine end at multiples of this.
pub(super) const FINE_CUT: u64 = 16 << 10;
/// A source whose cells are longer keeps to its own part of the file.
pub(super) const COARSE_CELL: u64 = 64 << 10;
/// Most grids whose sources are kept apart.
const MAX_CURSORS: usize = 16;
/// Most runs of open bytes that one decision looks at.
const MAX_RUNS: usize = 24;
/// Most partial seeders of one place that a decision looks at.
pub(super) const MAX_MEMBERS: usize = 16;
/// Most places of one partial seeder that one decision looks at.
pub(super) const MAX_PLACES: usize = 16;

impl Scheduler {
    /// Gives one source at most one request. Returns whether it did.
    pub(super) fn feed(&mut self, now: Duration, id: SourceId) -> bool {
        self.index.count(1, 1);
        let Some(limit) = self.allowance(now, id) else {
            self.index.waiting.insert(id);
            return false;
        };
        let Some(source) = self.sources.get(&id) else {
            return false;
        };
        // What it delivers wakes it.
        if source.queue.len() >= limit {
            return false;
        }
        if self.feed_whole(now, id) {
            return true;
        }
        let ahead = self.pick_ahead(now, id);
        match ahead {
            Ahead::Ask(ask) => {
                self.assign(now, id, ask);
                return true;
            }
            Ahead::Busy => return false,
            Ahead::Leave | Ahead::Nothing => {}
        }
        let Some(mut portion) = self.portion(now, id) else {
            self.index.waiting.insert(id);
            return false;
        };
        portion.waste = self.waste(now, id, portion.late);
        if let Some(source) = self.sources.get(&id)
            && source.out as f64 >= portion.depth
            && source.queue.len() >= 2
        {
            return false;
        }
        if self.steal_early(now, id) {
            return true;
        }
        if portion.bytes > 0
            && let Some(ask) = self.pick(now, id, portion, ahead == Ahead::Leave)
        {
            self.assign(now, id, ask);
            return true;
        }
        if self.steal(now, id) {
            return true;
        }
        self.index.waiting.insert(id);
        false
    }

    /// How many requests a source may have now; `None` if it rests.
    fn allowance(&mut self, now: Duration, id: SourceId) -> Option<usize> {
        let source = self.sources.get(&id)?;
        match source.standing {
            Standing::Active => Some(source.max_requests),
            Standing::Probing => Some(1),
            Standing::Held => None,
            Standing::Demoted { until, .. } if until <= now => {
                self.sources.get_mut(&id)?.standing = Standing::Probing;
                self.touch(id);
                Some(1)
            }
            Standing::Demoted {
                until, lone_until, ..
            } => {
                if !self.is_needed(id) {
                    return None;
                }
                if lone_until <= now {
                    return Some(1);
                }
                self.sources.get_mut(&id)?.look_at = Some(lone_until.min(until));
                self.touch(id);
                None
            }
        }
    }

    /// Most bytes that a source may be asked for in vain, for cells that are open in part: none
    /// while it has other work and others could fill the gaps; whatever it takes if nobody else
    /// does anything.
    fn waste(&mut self, now: Duration, id: SourceId, late: bool) -> u64 {
        let idle = self.sources.get(&id).is_none_or(|s| s.queue.is_empty());
        match self.index.busy() {
            0 => u64::MAX,
            1 if !idle => self.budget(now, false),
            _ if late || idle => self.budget(now, false),
            _ => 0,
        }
    }

    /// Whether nobody but demoted and probed sources has some of what this one could be asked for.
    pub(super) fn is_needed(&self, id: SourceId) -> bool {
        if self.alone_for_a_whole(id) {
            return true;
        }
        if self.index.has_complete() {
            return false;
        }
        let resting = |at: u64| {
            let mut members = self.ledger.pool.members(at).iter().take(MAX_MEMBERS);
            members.all(|id| {
                self.sources
                    .get(id)
                    .is_none_or(|s| s.standing != Standing::Active)
            })
        };
        match self.sources.get(&id).map(|source| source.list(id)) {
            None => false,
            Some(list) => self.ledger.pool.rarest(list, MAX_PLACES).any(resting),
        }
    }

    /// What to ask the source for, among the open bytes; `clear` of what is about to be read
    /// or not.
    fn pick(
        &mut self,
        now: Duration,
        id: SourceId,
        portion: Portion,
        clear: bool,
    ) -> Option<ByteRange> {
        let source = self.sources.get(&id)?;
        let picked = match self.order {
            Order::Backward => self.pick_last(now, id, source, portion),
            Order::Forward | Order::Rarest => self.pick_first(id, source, portion, clear),
        }?;
        let picked = match source.denied.is_contradictory() {
            true => self.within_a_chunk(source.grid, picked),
            false => picked,
        };
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

    /// The part of a request in the chunk that comes first in this order: whoever lacks some
    /// chunk says no to all of a request that touches it.
    fn within_a_chunk(&self, grid: RequestGrid, ask: ByteRange) -> ByteRange {
        let chunk = self.config.chunk_bytes;
        let part = match self.order {
            Order::Backward => {
                let start = ask.end.saturating_sub(1) / chunk * chunk;
                ByteRange::new(start.max(ask.start), ask.end)
            }
            Order::Forward | Order::Rarest => {
                let end = (ask.start / chunk + 1).saturating_mul(chunk);
                ByteRange::new(ask.start, end.min(ask.end))
            }
        };
        // Cells may be longer than chunks.
        grid.shrink(part, self.ledger.size).unwrap_or(ask)
    }

    fn pick_first(
        &self,
        id: SourceId,
        source: &Source,
        portion: Portion,
        clear: bool,
    ) -> Option<ByteRange> {
        let pool = &self.ledger.pool;
        let list = source.list(id);
        let best = pool.best_rank(list)?;
        let cursor = self.cursor(source.grid);
        let (best, cursor) = match self.relief(id, source) {
            Some(place) => place,
            None => (best, cursor),
        };
        let starts = if cursor == 0 {
            &[0][..]
        } else {
            &[cursor, 0][..]
        };
        let mut partial = None;
        for &from in starts {
            let (mut rank, mut at) = (best, from);
            for _ in 0..MAX_RUNS {
                let Some((found, run)) = pool.seek(list, rank, at) else {
                    break;
                };
                let run = self.apart(source.grid, cursor, run);
                let run = if clear {
                    self.clear_of_readers(run)
                } else {
                    run
                };
                let run = source.head_of(run);
                let run = ByteRange::new(run.start, pool.reach(run.start, run.end, portion.least));
                if let Some(ask) = self.fit_first(source.grid, run, portion) {
                    return Some(ask);
                }
                let cell = ByteRange::new(run.start, run.start.saturating_add(1).min(run.end));
                self.offer_partial(source, cell, portion.waste, &mut partial);
                (rank, at) = (found, run.end.max(at.saturating_add(1)));
            }
        }
        partial.map(|(_, ask)| ask)
    }

    fn pick_last(
        &self,
        now: Duration,
        id: SourceId,
        source: &Source,
        portion: Portion,
    ) -> Option<ByteRange> {
        let list = source.list(id);
        let (mut to, mut portion) = (self.ledger.size, portion);
        if self.is_held_up() {
            let pace = self.pace_or_guess(now, source);
            portion.bytes = portion.bytes.min(self.part_of_window(source, pace));
            to = self.in_time(now, id, source, portion.bytes)?;
        }
        let lowest = self.ledger.window.end.saturating_sub(source.reach);
        let mut partial = None;
        for _ in 0..MAX_RUNS {
            let Some(run) = self.ledger.pool.seek_back(list, to) else {
                break;
            };
            if run.end <= lowest {
                break;
            }
            let mut run = source.tail_of(ByteRange::new(run.start, run.end.min(to)));
            run.start = run.start.max(lowest).min(run.end);
            if self.is_for_others(now, id, source, run) {
                run.end = run
                    .end
                    .saturating_sub(self.config.chunk_bytes)
                    .max(run.start);
            }
            if let Some(ask) = self.fit_last(source.grid, run, portion) {
                return Some(ask);
            }
            let cell = ByteRange::new(run.end.saturating_sub(1).max(run.start), run.end);
            self.offer_partial(source, cell, portion.waste, &mut partial);
            to = run.start.min(to.saturating_sub(1));
        }
        partial.map(|(_, ask)| ask)
    }

    /// Keeps the cell around `byte` if fewer of its bytes were given away than of `best`.
    fn offer_partial(
        &self,
        source: &Source,
        byte: ByteRange,
        most: u64,
        best: &mut Option<(u64, ByteRange)>,
    ) {
        let cell = source.grid.expand(byte, self.ledger.size);
        if cell.is_empty() || !source.covers(cell) {
            return;
        }
        let waste = cell.len() - self.ledger.free_in(cell);
        if waste <= most && best.is_none_or(|(least, _)| waste < least) {
            *best = Some((waste, cell));
        }
    }

    /// A request at the start of an open run, on the grid and wholly inside the run.
    pub(super) fn fit_first(
        &self,
        grid: RequestGrid,
        run: ByteRange,
        aim: Portion,
    ) -> Option<ByteRange> {
        let size = self.ledger.size;
        let inside = grid.shrink(run, size)?;
        let goal = inside.start.saturating_add(aim.bytes);
        let chunk = self.config.chunk_bytes;
        let goal = match (aim.late, aim.bytes < 2 * chunk) {
            _ if grid.cell() > COARSE_CELL => grid.floor(goal).max(inside.start + 1),
            (true, true) => (goal / FINE_CUT * FINE_CUT).max(inside.start + 1),
            (true, false) => goal / chunk * chunk,
            (false, _) => goal.div_ceil(chunk).saturating_mul(chunk),
        };
        let end = grid.ceil(goal, size).min(inside.end);
        let rest = inside.end - end;
        let end = if rest < FINE_CUT.min(aim.bytes) {
            inside.end
        } else {
            end
        };
        Some(ByteRange::new(inside.start, end))
    }

    /// A request at the end of an open run, on the grid and wholly inside the run.
    fn fit_last(&self, grid: RequestGrid, run: ByteRange, aim: Portion) -> Option<ByteRange> {
        let size = self.ledger.size;
        let inside = grid.shrink(run, size)?;
        let goal = inside.end.saturating_sub(aim.bytes);
        let chunk = self.config.chunk_bytes;
        let goal = match (aim.late, aim.bytes < 2 * chunk) {
            _ if grid.cell() > COARSE_CELL => grid.ceil(goal, size).min(inside.end - 1),
            (true, true) => goal
                .div_ceil(FINE_CUT)
                .saturating_mul(FINE_CUT)
                .min(inside.end - 1),
            (true, false) => goal.div_ceil(chunk).saturating_mul(chunk),
            (false, _) => goal / chunk * chunk,
        };
        let start = grid.floor(goal).max(inside.start);
        let rest = start - inside.start;
        let start = if rest < FINE_CUT.min(aim.bytes) {
            inside.start
        } else {
            start
        };
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
        self.touch(id);
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
        self.actions.push_back(Action::Assign {
            request,
            source: id,
            range: ask,
        });
        request
    }
}
