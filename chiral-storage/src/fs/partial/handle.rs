//! [`PartialFile`] for a partial file on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::{Destination, ObjectInfo};
use chiral_core::{
    Bitmap, ChunkClaim, ChunkHash, ChunkLayout, ManifestHeader, ManifestPage, MerkleRoot,
    PartialFile, ProvenLink, StoreError, TransferId, VerifiedChunk, VerifiedPage,
};

use super::Partial;
use crate::blocking::{blocking, lock};
use crate::requests;

/// What the engine holds of a download. While there is one the download lies where it lies; the
/// flusher alone, which keeps what is not durable, does not hold it there.
#[derive(Debug)]
pub(in crate::fs) struct PartialHandle(Arc<Partial>);

impl Drop for PartialHandle {
    fn drop(&mut self) {
        self.0.handles.fetch_sub(1, Ordering::Release);
    }
}

/// The turn of one that writes.
#[derive(Debug)]
struct Turn(Arc<Partial>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.turn.add_permits(1);
    }
}

impl PartialHandle {
    pub(super) fn new(partial: Arc<Partial>) -> Self {
        partial.handles.fetch_add(1, Ordering::Relaxed);
        Self(partial)
    }

    /// The same for what writes bytes: one at a time. The turn lasts until the work ends, even
    /// if nobody waits for that any more.
    async fn run_in_turn(
        &self,
        work: impl FnOnce(&Arc<Partial>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let place = self.0.admit().await?;
        // Never closed.
        let turn = self.0.turn.acquire().await;
        turn.map_err(|_| StoreError::Closed)?.forget();
        let turn = Turn(Arc::clone(&self.0));
        self.run(move |partial| {
            let _held = (place, turn);
            work(partial)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Partial>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // It goes on if nobody waits for it any more, and is one that holds it meanwhile.
        let held = Self::new(Arc::clone(&self.0));
        blocking(move || work(&held.0)).await
    }
}

#[async_trait]
impl PartialFile for PartialHandle {
    fn transfer(&self) -> TransferId {
        self.0.transfer
    }

    fn layout(&self) -> ChunkLayout {
        self.0.layout
    }

    fn present(&self) -> Bitmap {
        lock(&self.0.pending).present.clone()
    }

    fn proven(&self) -> Bitmap {
        lock(&self.0.pending).proven.clone()
    }

    async fn proven_hash(&self, index: u32) -> Result<Option<ChunkHash>, StoreError> {
        self.run(move |partial| partial.proven_hash(index)).await
    }

    async fn write(&self, chunk: VerifiedChunk) -> Result<(), StoreError> {
        self.run_in_turn(move |partial| partial.write(&chunk)).await
    }

    async fn write_checked(&self, claims: Vec<ChunkClaim>) -> Result<Vec<bool>, StoreError> {
        let mut places = Vec::with_capacity(claims.len());
        for _ in &claims {
            places.push(self.0.admit().await?);
        }
        self.run(move |partial| {
            let _held = places;
            partial.write_checked(claims)
        })
        .await
    }

    async fn write_unproven(&self, index: u32, bytes: Bytes) -> Result<(), StoreError> {
        self.run_in_turn(move |partial| partial.write_unproven(index, &bytes))
            .await
    }

    async fn prove(&self, links: Vec<ProvenLink>) -> Result<(), StoreError> {
        self.run(move |partial| partial.prove(&links)).await
    }

    async fn forget(&self, index: u32) -> Result<(), StoreError> {
        self.run(move |partial| partial.forget(index)).await
    }

    async fn read(&self, index: u32) -> Result<Bytes, StoreError> {
        self.run(move |partial| partial.read(index)).await
    }

    async fn store_page(&self, page: &VerifiedPage) -> Result<(), StoreError> {
        if page.layout() != self.0.layout {
            return Err(StoreError::Chunk {
                index: page.chunks().start,
            });
        }
        let page = page.page().clone();
        self.run(move |partial| {
            partial.store_page(&page)?;
            partial.commit_if_due()
        })
        .await
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        self.run(move |partial| partial.page(index)).await
    }

    async fn set_header(&self, header: ManifestHeader) -> Result<(), StoreError> {
        requests::encode(&header)?;
        if header.size != self.0.layout.size() {
            return Err(StoreError::Chunk {
                index: self.0.layout.count(),
            });
        }
        self.run(move |partial| partial.set_header(header)).await
    }

    async fn header(&self) -> Result<Option<ManifestHeader>, StoreError> {
        drop(self.0.enter()?);
        Ok(self.0.header())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.run(|partial| {
            let _phase = partial.enter()?;
            partial.flush()
        })
        .await
    }

    async fn complete(
        &self,
        destination: Destination,
        header: ManifestHeader,
    ) -> Result<ObjectInfo, StoreError> {
        self.run(move |partial| partial.complete(destination, header))
            .await
    }

    async fn recomputed_root(&self) -> Result<Option<MerkleRoot>, StoreError> {
        self.run(|partial| {
            let _phase = partial.enter()?;
            partial.recomputed_root()
        })
        .await
    }
}
