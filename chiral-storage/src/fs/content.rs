//! Complete objects being served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    ByteRange, ChunkLayout, Cid, Coverage, ManifestHeader, ManifestPage, StoreError, StoredContent,
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
    /// The file as it was when it was opened.
    opened: FileStat,
    /// Of a file seeded in place, as it was when it was hashed.
    stat: Option<FileStat>,
    hashes: HashList,
    dropped: AtomicBool,
    /// Something of it could not be read. Whoever asks for the object next opens it anew.
    failed: AtomicBool,
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
        let (dropped, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let inner = Inner {
            shared,
            header,
            layout,
            data,
            opened: now,
            stat,
            hashes,
            dropped,
            failed,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(super) fn cid(&self) -> Cid {
        self.inner.header.cid
    }

    /// Whether the file is, as far as can be seen at once, what it was when it was opened, and
    /// where it was.
    pub(super) fn is_current(&self) -> bool {
        let inner = &self.inner;
        !inner.dropped.load(Ordering::Relaxed)
            && !inner.failed.load(Ordering::Relaxed)
            && inner.shared.disk.stat(inner.data.path()).ok() == Some(inner.opened)
    }
}

impl Inner {
    /// Chunks of the range that are to be hashed again.
    fn picked(&self, range: ByteRange) -> Vec<u32> {
        let touched = self.layout.touched(range);
        touched.filter(|_| self.shared.sampler.pick()).collect()
    }

    /// Reads what is in memory, without waiting; `None` if that is not so, or if anything
    /// else is not as it should be.
    fn read_resident(&self, range: ByteRange) -> Option<Bytes> {
        self.shared.check_open().ok()?;
        let moved_on = match self.stat {
            Some(stat) => self.data.stat().ok()? != stat,
            None => false,
        };
        if moved_on || self.dropped.load(Ordering::Relaxed) {
            return None;
        }
        let mut buffer = self.shared.buffers.take(range.len() as usize)?;
        let filled = self.data.read_resident(range.start, buffer.bytes_mut());
        filled.then(|| buffer.into_bytes())
    }

    fn read(&self, range: ByteRange, picked: &[u32]) -> Result<Bytes, StoreError> {
        self.shared.check_open()?;
        let moved_on = match self.stat {
            Some(stat) => self.data.stat()? != stat,
            None => false,
        };
        if moved_on || self.dropped.load(Ordering::Relaxed) {
            return Err(self.changed());
        }
        for index in picked {
            self.verify(*index)?;
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

    /// Notes a failure.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
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
        let picked = self.inner.picked(range);
        // What is in memory is copied sooner than another thread is woken.
        if picked.is_empty()
            && let Some(bytes) = self.inner.read_resident(range)
        {
            return Ok(bytes);
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.noted(inner.read(range, &picked))).await
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.shared.check_open()?;
            inner.noted(inner.hashes.page(index))
        })
        .await
    }
}
