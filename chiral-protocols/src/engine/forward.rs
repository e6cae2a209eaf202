//! With only the cid and nobody who knows a manifest: all chunks in parallel, hashed in
//! order, proven at the end or not at all. If they are not the file, it is fetched from one
//! source at a time until one has it. Then it is known who had sent something else.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use chiral_core::transfer::TransferEventKind;
use chiral_core::{ForwardChain, PartialFile, TransferError};

use super::active::{Active, Step};
use super::assembly::sole;
use super::jobs::JobDone;
use crate::scheduler::{Blame, SourceId};

/// Chunks hashed in one job.
const STRIDE: u32 = 16;

/// Proofs handed to the store at once.
const PROOFS: usize = 1024;

/// Chunks that were thrown away without it being known whether they were wrong: who had sent
/// them, and a digest that nobody else can compute. Only who is put out in the end depends on
/// it, so that a limit costs nobody but the liar's next victim.
#[derive(Default)]
struct Rejected {
    chunks: BTreeMap<u32, (SourceId, u64)>,
    key: RandomState,
}

impl Rejected {
    /// Remembers a chunk that is about to be thrown away, if there are fewer than `most`.
    async fn note(
        &mut self,
        partial: &dyn PartialFile,
        index: u32,
        from: SourceId,
        most: usize,
    ) -> Result<(), TransferError> {
        if self.chunks.len() < most && !self.chunks.contains_key(&index) {
            let digest = self.key.hash_one(&partial.read(index).await?[..]);
            self.chunks.insert(index, (from, digest));
        }
        Ok(())
    }

    /// Who had sent something else than what proved right, and one chunk of each.
    async fn wrong(self, partial: Arc<dyn PartialFile>) -> JobDone {
        let mut wrong = BTreeMap::new();
        for (index, (from, digest)) in self.chunks {
            if wrong.contains_key(&from) {
                continue;
            }
            match partial.read(index).await {
                Ok(bytes) if self.key.hash_one(&bytes[..]) == digest => {}
                Ok(_) => {
                    wrong.insert(from, index);
                }
                Err(error) => return JobDone::StoreFailed(error),
            }
        }
        JobDone::Wrong(wrong.into_iter().collect())
    }
}

pub(super) struct Forward {
    /// Not here while chunks are being hashed.
    chain: Option<ForwardChain>,
    /// After a mismatch: the only source that is used now.
    alone: Option<SourceId>,
    /// Sources that had their turn alone.
    had_turn: BTreeSet<SourceId>,
    rejected: Rejected,
    done: bool,
}

impl Forward {
    /// Whether a source is not to be used now.
    pub(super) fn shuns(&self, id: SourceId) -> bool {
        self.alone.is_some_and(|alone| alone != id)
    }
}

impl Active<'_> {
    pub(super) fn begin_forward(&mut self) -> Forward {
        for index in 0..self.layout.count() {
            if !self.present.get(index) {
                self.scheduler.want(self.layout.range(index));
            }
        }
        let chain = Some(ForwardChain::new(self.layout));
        Forward {
            chain,
            alone: None,
            had_turn: BTreeSet::new(),
            rejected: Rejected::default(),
            done: false,
        }
    }

    pub(super) fn step_forward(
        &mut self,
        forward: &mut Forward,
    ) -> Result<Option<Step>, TransferError> {
        if forward.done {
            return Ok(Some(Step::Done));
        }
        if let Some(chain) = forward
            .chain
            .take_if(|chain| self.present.get(chain.next_index()))
        {
            let first = chain.next_index();
            let end = (first..self.layout.count().min(first.saturating_add(STRIDE)))
                .find(|index| !self.present.get(*index))
                .unwrap_or(self.layout.count().min(first.saturating_add(STRIDE)));
            self.hash_on(chain, vec![None; (end - first) as usize]);
        }
        Ok(None)
    }

    pub(super) async fn forward_done(
        &mut self,
        forward: &mut Forward,
        done: JobDone,
    ) -> Result<(), TransferError> {
        match done {
            JobDone::Stored { index, from, .. } => {
                self.note_present(index);
                self.run.unproven_from.insert(index, from);
            }
            JobDone::Hashed { chain } if chain.next_index() < self.layout.count() => {
                forward.chain = Some(chain);
            }
            JobDone::Hashed { chain } => {
                match chain.finish(self.cid.ok_or_else(|| self.unknown())?) {
                    Ok(links) => {
                        let links: Vec<_> = links.collect();
                        for batch in links.chunks(PROOFS) {
                            self.partial.prove(batch.to_vec()).await?;
                            for link in batch {
                                let from = self.run.unproven_from.remove(&link.index());
                                self.note_proven(link.index(), &from.unwrap_or_default());
                            }
                        }
                        // Only now is it certain how long the file is.
                        self.open_to_readers();
                        let rejected = std::mem::take(&mut forward.rejected);
                        self.jobs.spawn(rejected.wrong(self.partial.clone()));
                    }
                    Err(_) => self.one_at_a_time(forward).await?,
                }
            }
            JobDone::Wrong(wrong) => {
                for (source, index) in wrong {
                    self.ban(source, &format!("chunk {index} is not the file's"));
                }
                forward.done = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The whole is not the file. Whoever sent all of it is out; else the source that
    /// delivered most has its turn alone.
    async fn one_at_a_time(&mut self, forward: &mut Forward) -> Result<(), TransferError> {
        let mut share = std::collections::BTreeMap::new();
        let mut strangers = false;
        for index in 0..self.layout.count() {
            match self.run.unproven_from.get(&index) {
                Some(from) => from.iter().for_each(|(range, id)| {
                    *share.entry(*id).or_insert(0) += range.len();
                }),
                None => strangers |= !self.proven.get(index),
            }
        }
        if !strangers && let [(&only, _)] = share.iter().collect::<Vec<_>>()[..] {
            self.ban(only, "what it sent is not the file");
        }
        let next = self
            .run
            .known
            .iter()
            .filter(|(id, c)| !forward.had_turn.contains(id) && c.fits(self.layout))
            .map(|(id, _)| *id)
            .max_by_key(|id| (share.get(id).copied(), std::cmp::Reverse(*id)));
        let Some(next) = next else {
            self.run.last_trouble = Some("no source has bytes with this cid".to_owned());
            return Err(self.run.no_sources(self.layout.size()));
        };
        forward.had_turn.insert(next);
        forward.alone = Some(next);
        let now = self.run.now();
        self.stop_requests();
        for id in self
            .run
            .known
            .keys()
            .copied()
            .filter(|id| *id != next)
            .collect::<Vec<_>>()
        {
            self.scheduler.source_down(now, id);
        }
        for index in 0..self.layout.count() {
            self.assemblies.forget(index);
            let kept = self.run.unproven_from.get(&index).and_then(sole) == Some(next);
            if kept || self.proven.get(index) {
                continue;
            }
            let from = self.run.unproven_from.remove(&index);
            if let Some(sender) = from.as_ref().and_then(sole)
                && self.present.get(index)
            {
                let (partial, most) = (&*self.partial, self.run.config().max_rejected);
                forward.rejected.note(partial, index, sender, most).await?;
            }
            if self.present.set(index, false) {
                self.partial.forget(index).await?;
                self.run
                    .driver
                    .emit(TransferEventKind::ChunkRefetched { index });
            }
            self.scheduler
                .invalidate(now, self.layout.range(index), Blame::Nobody);
        }
        self.engage(next);
        forward.chain = Some(ForwardChain::new(self.layout));
        Ok(())
    }
}
