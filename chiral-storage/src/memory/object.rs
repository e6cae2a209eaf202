//! Complete objects in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chiral_core::manifest::PAGE_CHUNKS;
use chiral_core::{
    ByteRange, ChunkHash, ChunkLayout, Coverage, ManifestHeader, ManifestPage, PageRoots,
    StoreError, StoredContent,
};

use super::Shared;
use crate::requests::check_range;

/// A complete file, cut in chunks.
#[derive(Debug)]
pub(super) struct MemoryObject {
    pub(super) header: ManifestHeader,
    pub(super) layout: ChunkLayout,
    pub(super) chunks: Vec<Bytes>,
    pub(super) hashes: Vec<ChunkHash>,
}

impl MemoryObject {
    fn page(&self, index: u32) -> Option<ManifestPage> {
        let part = |index: u32| {
            let first = index as usize * PAGE_CHUNKS as usize;
            let end = self.hashes.len().min(first + PAGE_CHUNKS as usize);
            self.hashes.get(first..end)
        };
        let previous = index.checked_sub(1).and_then(part).unwrap_or_default();
        PageRoots::from_hashes(self.layout, &self.hashes)?.page(
            index,
            part(index)?.to_vec(),
            previous,
        )
    }
}

/// Bytes of `range`, which lies in the file, from its chunks; `None` if one is missing.
pub(super) fn gather(
    layout: ChunkLayout,
    range: ByteRange,
    chunk: impl Fn(u32) -> Option<Bytes>,
) -> Option<Bytes> {
    let part = |index: u32| {
        let whole = layout.range(index);
        let wanted = whole.intersection(range)?;
        let from = (wanted.start - whole.start) as usize;
        Some(chunk(index)?.slice(from..from + wanted.len() as usize))
    };
    let touched = layout.touched(range);
    if touched.len() == 1 {
        return part(touched.start);
    }
    let mut bytes = BytesMut::with_capacity(range.len() as usize);
    for index in touched {
        bytes.extend_from_slice(&part(index)?);
    }
    Some(bytes.freeze())
}

/// A complete object being served.
#[derive(Debug)]
pub(super) struct ObjectContent {
    shared: Arc<Shared>,
    object: Arc<MemoryObject>,
}

impl ObjectContent {
    pub(super) fn new(shared: &Arc<Shared>, object: Arc<MemoryObject>) -> Self {
        Self {
            shared: Arc::clone(shared),
            object,
        }
    }
}

#[async_trait]
impl StoredContent for ObjectContent {
    fn header(&self) -> &ManifestHeader {
        &self.object.header
    }

    fn coverage(&self) -> Coverage {
        Coverage::Complete
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        self.shared.check_open()?;
        let object = &self.object;
        check_range(object.layout, range)?;
        gather(object.layout, range, |index| {
            object.chunks.get(index as usize).cloned()
        })
        .ok_or(StoreError::Range { range })
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        self.shared.check_open()?;
        Ok(self.object.page(index))
    }
}
