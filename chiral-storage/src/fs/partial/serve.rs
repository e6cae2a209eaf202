//! The proven chunks of a download being served.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{ByteRange, Coverage, ManifestHeader, ManifestPage, StoreError, StoredContent};

use super::Partial;
use crate::blocking::{blocking, lock};
use crate::requests::check_range;

/// A partial file under a header whose root is pinned or proven.
#[derive(Debug, Clone)]
pub(in crate::fs) struct PartialContent {
    partial: Arc<Partial>,
    header: ManifestHeader,
}

impl PartialContent {
    /// What may be served of a partial file, if it has been given a header.
    pub(in crate::fs) fn of(partial: &Arc<Partial>) -> Option<Self> {
        let header = partial.header()?;
        Some(Self {
            partial: Arc::clone(partial),
            header,
        })
    }
}

impl Partial {
    fn read_proven(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let _phase = self.enter()?;
        let held = {
            let proven = &lock(&self.pending).proven;
            self.layout.touched(range).all(|index| proven.get(index))
        };
        if !held {
            return Err(StoreError::Range { range });
        }
        self.data
            .read(range.start, range.len() as usize)
            .map(Bytes::from)
    }
}

#[async_trait]
impl StoredContent for PartialContent {
    fn header(&self) -> &ManifestHeader {
        &self.header
    }

    fn coverage(&self) -> Coverage {
        let proven = &lock(&self.partial.pending).proven;
        if proven.is_full() {
            Coverage::Complete
        } else {
            Coverage::Partial(proven.to_runs())
        }
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        check_range(self.partial.layout, range)?;
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.read_proven(range)).await
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.page(index)).await
    }
}
