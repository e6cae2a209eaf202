//! Writing and proving chunks.
//!
//! Bytes go to their place before the hashes, and hashes before the bits; a commit syncs
//! both files before it writes the bits. What a proof contradicts is taken back durably
//! before anything of it is overwritten, so that a bit on disk is never ahead.

use std::sync::{Arc, TryLockError};
use std::time::Instant;

use bytes::Bytes;
use chiral_core::{ChunkClaim, ProvenLink, StoreError, VerifiedChunk};

use super::super::hash_list;
use super::{CHUNK_LOCKS, Partial, Phase};
use crate::blocking::lock;
use crate::junction;

/// A place among the chunks that are not durable.
#[derive(Debug)]
pub(super) struct Place(Arc<Partial>);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.pending).release();
    }
}

impl Partial {
    /// Waits while too much is not durable.
    pub(super) async fn admit(self: &Arc<Self>) -> Result<Place, StoreError> {
        loop {
            let room = self.room.notified();
            if lock(&self.pending).reserve(&self.shared.config, Instant::now())? {
                return Ok(Place(Arc::clone(self)));
            }
            room.await;
            self.shared.check_open()?;
        }
    }

    pub(super) fn write(self: &Arc<Self>, chunk: &VerifiedChunk) -> Result<(), StoreError> {
        let index = chunk.index();
        self.check_fits(index, chunk.bytes())?;
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        {
            let _chunk = lock(&self.chunks[index as usize % CHUNK_LOCKS]);
            if self.is_proven(index) {
                let _proving = lock(&self.proving);
                if self.at_odds(&chunk.link())?.is_empty() {
                    return Ok(());
                }
                self.take_back(&[index], true)?;
            }
            self.data
                .write(self.layout.range(index).start, chunk.bytes())?;
            let _proving = lock(&self.proving);
            self.keep_hashes(&chunk.link())?;
            let mut pending = lock(&self.pending);
            pending.wrote(index, Instant::now());
            pending.set_proven(index, Instant::now());
        }
        self.commit_if_due()
    }

    /// Checks chunks and writes those that pass. Of several that do so at once one writes, and
    /// the others go on with their next chunk.
    pub(super) fn write_checked(
        self: &Arc<Self>,
        claims: Vec<ChunkClaim>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut passed = Vec::with_capacity(claims.len());
        let mut waiting: Vec<VerifiedChunk> = Vec::new();
        let mut left = claims.len();
        for claim in claims {
            let chunk = claim.check(self.layout);
            passed.push(chunk.is_ok());
            waiting.extend(chunk);
            left -= 1;
            let turn = match self.writing.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) if left > 0 => continue,
                Err(TryLockError::WouldBlock) => lock(&self.writing),
            };
            for chunk in waiting.drain(..) {
                self.write(&chunk)?;
            }
            drop(turn);
        }
        Ok(passed)
    }

    pub(super) fn write_unproven(
        self: &Arc<Self>,
        index: u32,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        self.check_fits(index, bytes)?;
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        {
            let _chunk = lock(&self.chunks[index as usize % CHUNK_LOCKS]);
            if self.is_proven(index) {
                return Ok(());
            }
            self.data.write(self.layout.range(index).start, bytes)?;
            lock(&self.pending).wrote(index, Instant::now());
        }
        self.commit_if_due()
    }

    pub(super) fn prove(self: &Arc<Self>, links: &[ProvenLink]) -> Result<(), StoreError> {
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        for link in links {
            let index = link.index();
            let _chunk = lock(&self.chunks[index as usize % CHUNK_LOCKS]);
            if !lock(&self.pending).present.get(index) {
                return Err(StoreError::Chunk { index });
            }
            let _proving = lock(&self.proving);
            self.keep_hashes(link)?;
            lock(&self.pending).set_proven(index, Instant::now());
        }
        self.commit_if_due()
    }

    pub(super) fn forget(self: &Arc<Self>, index: u32) -> Result<(), StoreError> {
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        {
            let _chunk = lock(&self.chunks[index as usize % CHUNK_LOCKS]);
            let mut pending = lock(&self.pending);
            if !pending.present.get(index) || pending.proven.get(index) {
                return Ok(());
            }
            pending.clear(index, true, Instant::now());
        }
        self.commit_if_due()
    }

    pub(super) fn read(&self, index: u32) -> Result<Bytes, StoreError> {
        let _phase = self.enter()?;
        let range = self.layout.range(index);
        if !lock(&self.pending).present.get(index) {
            return Err(StoreError::Range { range });
        }
        self.data
            .read(range.start, range.len() as usize)
            .map(Bytes::from)
    }

    fn check_fits(&self, index: u32, bytes: &Bytes) -> Result<(), StoreError> {
        let fits =
            self.layout.contains(index) && bytes.len() as u64 == self.layout.range(index).len();
        if fits {
            Ok(())
        } else {
            Err(StoreError::Chunk { index })
        }
    }

    fn is_proven(&self, index: u32) -> bool {
        lock(&self.pending).proven.get(index)
    }

    /// Proven chunks that the link contradicts; with `proving` held.
    fn at_odds(&self, link: &ProvenLink) -> Result<Vec<u32>, StoreError> {
        let index = link.index();
        let first = index.saturating_sub(1);
        let near: Vec<bool> = {
            let proven = &lock(&self.pending).proven;
            (first..=index.saturating_add(1))
                .map(|index| proven.get(index))
                .collect()
        };
        let proven = |index: u32| near.get((index - first) as usize).copied().unwrap_or(false);
        junction::at_odds(link, proven, |index| self.hash(index))
    }

    /// Writes the hashes around a chunk, after taking back what they contradict; with
    /// `proving` held.
    fn keep_hashes(&self, link: &ProvenLink) -> Result<(), StoreError> {
        let odd = self.at_odds(link)?;
        if !odd.is_empty() {
            tracing::warn!(transfer = %self.transfer, chunks = ?odd, "proofs contradict each other");
            self.take_back(&odd, false)?;
        }
        let (first, hashes) = match link.index().checked_sub(1) {
            None => (0, vec![link.after()]),
            Some(previous) => (previous, vec![link.before(), link.after()]),
        };
        self.hashes
            .write(hash_list::offset(first), &hash_list::to_bytes(&hashes))
    }

    /// Durably takes bits away.
    fn take_back(&self, indices: &[u32], present: bool) -> Result<(), StoreError> {
        {
            let mut pending = lock(&self.pending);
            for index in indices {
                pending.clear(*index, present, Instant::now());
            }
        }
        self.flush()
    }

    /// Wakes whoever commits; without a thread for that, this caller does.
    pub(super) fn commit_if_due(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.shared.config.background {
            self.shared.flusher.note(self);
            return Ok(());
        }
        let now = Instant::now();
        let due = lock(&self.pending).due(&self.shared.config, now);
        if due.is_some_and(|due| due <= now) {
            self.flush()
        } else {
            Ok(())
        }
    }
}
