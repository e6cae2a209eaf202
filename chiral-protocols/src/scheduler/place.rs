//! Where in the file a source looks for its next request.

use std::collections::{BTreeMap, BTreeSet};

use chiral_core::{ByteRange, RequestGrid};

use super::assign::{COARSE_CELL, MAX_MEMBERS, MAX_PLACES};
use super::portion::ASSUMED_RATE;
use super::source::Source;
use super::{Order, Scheduler, SourceId};

/// An open run of fewer cells is not split between grids.
const MIN_CELLS_TO_SPLIT: u64 = 16;
/// Most sources whose work is compared.
const MAX_COMPARED: usize = 64;
/// Most overloaded partial seeders that a source tries to help.
const MAX_RELIEVED: usize = 4;

impl Scheduler {
    /// Where sources with this grid go on. Fine grids fill gaps from the start; each coarse
    /// one begins in a place of its own, so that few cells are cut by others.
    pub(super) fn cursor(&self, grid: RequestGrid) -> u64 {
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

    /// Where a source with a coarse grid begins in an open run. If that is not where the last
    /// such source ended, it met others: it goes to the middle, so that they do not take
    /// turns and cut each other's cells.
    pub(super) fn apart(&self, grid: RequestGrid, cursor: u64, run: ByteRange) -> ByteRange {
        let met = cursor != 0 && cursor != run.start && grid.cell() > COARSE_CELL;
        if met && run.len() / grid.cell() >= MIN_CELLS_TO_SPLIT {
            ByteRange::new(grid.floor(run.start + run.len() / 2), run.end)
        } else {
            run
        }
    }

    /// The place (rank, offset) among its rarest and those of the most loaded partial seeders
    /// that the others would get to last. Bytes that no other partial seeder has go first anyway.
    pub(super) fn relief(&self, id: SourceId, source: &Source) -> Option<(u32, u64)> {
        let pool = &self.ledger.pool;
        let first = pool.rarest(source.list(id), 1).next()?;
        let alone = pool.members(first).len() <= usize::from(!source.is_complete());
        if alone || self.order != Order::Rarest || source.grid.cell() > COARSE_CELL {
            return None;
        }
        // Seconds of work that each partial seeder could do: of all, or, if there are many, of
        // those that have what is rarest.
        let near: BTreeSet<SourceId> = if self.sources.len() <= MAX_COMPARED {
            self.sources.keys().copied().collect()
        } else {
            let rarest = pool.rarest(source.list(id), MAX_PLACES);
            let members = rarest.flat_map(|at| pool.members(at).iter().take(MAX_MEMBERS));
            members.copied().take(MAX_COMPARED).collect()
        };
        self.index.count(0, near.len() as u64);
        let partial = near.into_iter().filter_map(|other| {
            let peer = self.sources.get(&other)?;
            (other != id && !peer.is_complete() && !peer.is_demoted()).then_some((other, peer))
        });
        let mut loads: Vec<(f64, SourceId)> = partial
            .map(|(other, peer)| {
                let rate = peer.meter.rate().unwrap_or(ASSUMED_RATE);
                let load = (pool.backlog(other) + peer.out) as f64 / rate.max(1.0);
                (load, other)
            })
            .collect();
        let speed: BTreeMap<SourceId, f64> = loads
            .iter()
            .map(|&(load, other)| (other, 1.0 / load.max(1e-3)))
            .collect();
        loads.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut found: Option<(f64, u64)> = None;
        let loaded = loads
            .iter()
            .take(MAX_RELIEVED)
            .map(|&(_, other)| Some(other));
        for list in [source.list(id)].into_iter().chain(loaded) {
            for at in pool.rarest(list, MAX_PLACES) {
                let members = pool.members(at);
                if !source.is_complete() && members.binary_search(&id).is_err() {
                    continue;
                }
                let known = members.iter().take(MAX_COMPARED);
                let reached: f64 = known.filter_map(|member| speed.get(member)).sum();
                if found.is_none_or(|(least, _)| reached < least) {
                    found = Some((reached, at));
                }
            }
        }
        found.map(|(_, at)| (pool.rank_at(at), at))
    }
}
