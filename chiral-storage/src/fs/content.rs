//! Complete objects being served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    ByteRange, ChunkLayout, Coverage, ManifestHeader, ManifestPage, StoreError, StoredContent,
    chain,
};

use super::disk::{DiskFile, is_cut_short, is_missing};
use super::hash_list::{HashList, has_file};
use super::meta::record::{ObjectRecord, ObjectState, Place};
use super::shared::{Shared, report_changed};
use super::vfs::{FileStat, OpenMode};
use crate::blocking::blocking;
use crate::requests::{self, check_range};

/// A complete object, read from a file that is open once.
#[derive(Debug, Clone)]
pub(super) struct FileContent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    header: ManifestHeader,
    layout: ChunkLayout,
    data: DiskFile,
    /// Of a file seeded in place, as it was when it was hashed.
    stat: Option<FileStat>,
    hashes: HashList,
    dropped: AtomicBool,
}

impl FileContent {
    /// Opens an object.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if its file is not what it was.
    pub(super) fn open(shared: &Arc<Shared>, record: ObjectRecord) -> Result<Self, StoreError> {
        let path = shared.data_path(&record);
        if record.state != ObjectState::Live {
            return Err(StoreError::Changed { path });
        }
        let header = record.header;
        let changed = || report_changed(shared, header.cid, path.clone());
        let data = match shared.disk.open(&path, OpenMode::Read) {
            Ok(data) => data,
            Err(error) if is_missing(&error) => return Err(changed()),
            Err(error) => return Err(error),
        };
        let now = data.stat()?;
        let stat = match record.place {
            Place::Owned => None,
            Place::External { stat, .. } => Some(stat),
        };
        if now.len != header.size || stat.is_some_and(|stat| stat != now) {
            return Err(changed());
        }
        let layout = requests::layout(header.size)?;
        let list = match has_file(layout) {
            true => Some(
                shared
                    .disk
                    .open(&shared.places.object_hashes(header.cid), OpenMode::Read)?,
            ),
            false => None,
        };
        let hashes = HashList::new(layout, header.cid, header.root, list);
        let shared = Arc::clone(shared);
        let dropped = AtomicBool::new(false);
        let inner = Inner {
            shared,
            header,
            layout,
            data,
            stat,
            hashes,
            dropped,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl Inner {
    fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        self.shared.check_open()?;
        let moved_on = match self.stat {
            Some(stat) => self.data.stat()? != stat,
            None => false,
        };
        if moved_on || self.dropped.load(Ordering::Relaxed) {
            return Err(self.changed());
        }
        for index in self.layout.touched(range) {
            if self.shared.sampler.pick() {
                self.verify(index)?;
            }
        }
        self.read_exactly(range)
    }

    fn read_exactly(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        match self.data.read(range.start, range.len() as usize) {
            Err(error) if is_cut_short(&error) => Err(self.changed()),
            result => result.map(Bytes::from),
        }
    }

    /// Hashes a chunk again.
    fn verify(&self, index: u32) -> Result<(), StoreError> {
        let bytes = self.read_exactly(self.layout.range(index))?;
        let (before, after) = self.hashes.around(index)?;
        chain::check(self.layout, index, before, after, &bytes).map_err(|_| self.changed())
    }

    fn changed(&self) -> StoreError {
        self.dropped.store(true, Ordering::Relaxed);
        report_changed(
            &self.shared,
            self.header.cid,
            self.data.path().to_path_buf(),
        )
    }
}

#[async_trait]
impl StoredContent for FileContent {
    fn header(&self) -> &ManifestHeader {
        &self.inner.header
    }

    fn coverage(&self) -> Coverage {
        Coverage::Complete
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        check_range(self.inner.layout, range)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.read(range)).await
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.shared.check_open()?;
            inner.hashes.page(index)
        })
        .await
    }
}
