//! Chunks under a root, on their way through the check to disk. They are handed to the store
//! several at a time: at a gigabyte a second, to wake a thread for each takes longer than half
//! of what it has to do.

use std::collections::VecDeque;

use chiral_core::{ChunkClaim, ChunkHash};

use super::active::Active;
use super::assembly::{Assembled, Contributions};
use super::jobs::JobDone;

/// Most chunks in one batch: 2 MiB, which fit into a processor's cache.
const BATCH: usize = 8;

/// Most batches at once, whatever the number of processors.
const MAX_BATCHES: usize = 8;

/// A chunk that was checked.
pub(super) struct Checked {
    pub(super) index: u32,
    pub(super) from: Contributions,
    /// Whether it passed; then it is written.
    pub(super) passed: bool,
}

/// Chunks that are to be checked.
#[derive(Debug)]
pub(super) struct Checks {
    waiting: VecDeque<(ChunkClaim, Contributions)>,
    /// Batches under way, how many there may be, and the chunks in them.
    batches: usize,
    most: usize,
    chunks: usize,
}

impl Checks {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            waiting: VecDeque::new(),
            batches: 0,
            most: processors.clamp(1, MAX_BATCHES),
            chunks: 0,
        }
    }

    /// Chunks that are not checked yet.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.chunks
    }

    /// A batch is over.
    pub(super) fn done(&mut self, chunks: usize) {
        self.batches -= 1;
        self.chunks -= chunks;
    }

    /// What is to be checked next, if there is anything and room for a batch.
    fn next_batch(&mut self) -> Option<Vec<(ChunkClaim, Contributions)>> {
        let free = self.most.saturating_sub(self.batches);
        if free == 0 || self.waiting.is_empty() {
            return None;
        }
        let share = self.waiting.len().div_ceil(free).min(BATCH);
        self.batches += 1;
        self.chunks += share;
        Some(self.waiting.drain(..share).collect())
    }
}

impl Active<'_> {
    /// Has a chunk checked between two hashes that count as known, and written if it passes.
    pub(super) fn check(&mut self, chunk: Assembled, before: ChunkHash, after: ChunkHash) {
        let Assembled {
            index,
            bytes,
            from,
            checked,
        } = chunk;
        let claim = ChunkClaim {
            index,
            before,
            after,
            bytes,
            checked,
        };
        self.checks.waiting.push_back((claim, from));
    }

    /// Begins with what waits, as far as there are processors for it.
    pub(super) fn start_checks(&mut self) {
        while let Some(batch) = self.checks.next_batch() {
            let partial = self.partial.clone();
            self.jobs.spawn(async move {
                let (claims, from): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                let indices: Vec<u32> = claims.iter().map(|claim| claim.index).collect();
                let passed = match partial.write_checked(claims).await {
                    Ok(passed) => passed,
                    Err(error) => return JobDone::StoreFailed(error),
                };
                let checked = indices.into_iter().zip(from).zip(passed);
                let checked = checked.map(|((index, from), passed)| Checked {
                    index,
                    from,
                    passed,
                });
                JobDone::Checked(checked.collect())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use chiral_core::chain::INITIAL;

    fn waiting(checks: &mut Checks, count: u32) {
        for index in 0..count {
            let claim = ChunkClaim {
                index,
                before: INITIAL,
                after: INITIAL,
                bytes: Bytes::new(),
                checked: None,
            };
            checks.waiting.push_back((claim, Vec::new()));
        }
    }

    #[test]
    fn what_waits_is_shared_among_the_processors_and_nothing_is_lost() {
        let mut checks = Checks {
            most: 2,
            ..Checks::new()
        };
        assert!(checks.next_batch().is_none());
        waiting(&mut checks, 5);
        let sizes: Vec<_> = std::iter::from_fn(|| checks.next_batch())
            .map(|batch| batch.len())
            .collect();
        assert_eq!((sizes, checks.len()), (vec![3, 2], 5));
        waiting(&mut checks, 30);
        assert!(checks.next_batch().is_none(), "both are at work");
        checks.done(3);
        assert_eq!(checks.next_batch().map(|batch| batch.len()), Some(BATCH));
        assert_eq!(checks.len(), 2 + 30);
        checks.done(2);
        checks.done(BATCH);
        assert_eq!(checks.len(), 30 - BATCH);
    }
}
