//! [`FsStore`]: content in a directory, through crashes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::{
    ImportMode, ImportRequest, ImportSource, ObjectInfo, PartialInfo, PartialRequest,
};
use chiral_core::{ChunkStore, Cid, PartialFile, StoreError, StoredContent, TransferId};

use crate::blocking::blocking;
use crate::requests;

mod config;
mod content;
mod disk;
mod flusher;
mod hash_list;
mod import;
mod intake;
mod meta;
mod opened;
mod partial;
mod places;
mod recovery;
mod registry;
mod shared;
mod vfs;

pub use config::FsStoreConfig;

use content::FileContent;
use disk::Disk;
use meta::Meta;
use meta::record::ObjectState;
use partial::PartialContent;
use places::Places;
use shared::Shared;
use vfs::{OpenMode, OsVfs, Vfs};

/// A [`ChunkStore`] in a directory of its own, which one process at a time may open.
///
/// All calls need a tokio runtime, for its threads for blocking work. Call
/// [`ChunkStore::shutdown`] at the end: a store that is dropped without it loses what a
/// crash would lose.
#[derive(Debug)]
pub struct FsStore {
    shared: Arc<Shared>,
}

impl FsStore {
    /// Opens the store in `dir`, which is made if need be, and finishes or undoes what a
    /// crash interrupted.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if it is open elsewhere, [`StoreError::Metadata`] if its
    /// records are damaged, I/O.
    pub async fn open(dir: impl Into<PathBuf>, config: FsStoreConfig) -> Result<Self, StoreError> {
        let dir = dir.into();
        blocking(move || Self::open_on(Arc::new(OsVfs), dir, config)).await
    }

    fn open_on(vfs: Arc<dyn Vfs>, dir: PathBuf, config: FsStoreConfig) -> Result<Self, StoreError> {
        let disk = Disk::new(vfs);
        let places = Places::new(dir);
        disk.create_dir(places.root())?;
        let Some(guard) = disk.try_lock(&places.lock())? else {
            return Err(StoreError::Locked {
                path: places.root().to_path_buf(),
            });
        };
        if !disk.exists(&places.meta())? {
            // Under another name until it is whole: half a database cannot be opened.
            disk.remove(&places.new_meta())?;
            let file = disk.open(&places.new_meta(), OpenMode::CreateNew)?;
            Meta::open(file, &config)?.close();
            disk.rename(&places.new_meta(), &places.meta())?;
            disk.sync_dir(places.root())?;
        }
        let meta = Meta::open(disk.open(&places.meta(), OpenMode::ReadWrite)?, &config)?;
        let shared = Shared::new(disk, places, config, meta, guard)?;
        shared.start_up()?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Objects that are not served because their bytes are not what they were, with the
    /// files. Importing the right bytes again, or removing the object, ends it.
    ///
    /// # Errors
    /// [`StoreError::Metadata`], I/O.
    pub async fn changed(&self) -> Result<Vec<(Cid, PathBuf)>, StoreError> {
        self.run(|shared| {
            let changed = shared
                .meta
                .objects()?
                .into_iter()
                .filter_map(|(record, _)| {
                    let is = record.state == ObjectState::Changed;
                    is.then(|| (record.header.cid, shared.data_path(&record)))
                });
            Ok(changed.collect())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.check_open()?;
        let shared = Arc::clone(&self.shared);
        blocking(move || work(&shared)).await
    }
}

impl Drop for FsStore {
    fn drop(&mut self) {
        if !self.shared.closed.load(Ordering::Acquire) {
            tracing::error!(dir = %self.shared.places.root().display(), "store dropped without shutdown");
            if let Err(error) = self.shared.close(false) {
                tracing::error!(%error, "store could not be closed");
            }
        }
    }
}

/// Tells the pass over a file that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl ChunkStore for FsStore {
    async fn import(&self, request: ImportRequest) -> Result<ObjectInfo, StoreError> {
        let cancel = CancelOnDrop(Arc::default());
        let cancelled = Arc::clone(&cancel.0);
        self.run(move |shared| match &request.source {
            ImportSource::Bytes(bytes) => shared.take_bytes(&request, bytes, &cancelled),
            ImportSource::Path(path) => {
                let path = shared.absolute(path)?;
                match request.mode {
                    ImportMode::InPlace => shared.take_in_place(&request, path, &cancelled),
                    ImportMode::Copy => shared.take_copy(&request, path, &cancelled),
                }
            }
            _ => Err(StoreError::Unsupported {
                what: "this source",
            }),
        })
        .await
    }

    async fn object(&self, cid: Cid) -> Result<Option<ObjectInfo>, StoreError> {
        self.run(move |shared| {
            let found = shared.visible_object(cid)?;
            Ok(found.map(|(record, pins)| registry::info(record, pins)))
        })
        .await
    }

    async fn objects(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        self.run(|shared| {
            let visible = shared.meta.objects()?.into_iter();
            let visible = visible.filter(|(record, _)| record.state != ObjectState::Deleting);
            Ok(visible
                .map(|(record, pins)| registry::info(record, pins))
                .collect())
        })
        .await
    }

    async fn open(&self, cid: Cid) -> Result<Option<Arc<dyn StoredContent>>, StoreError> {
        self.shared.check_open()?;
        if let Some(content) = self.shared.still_open(cid) {
            return Ok(Some(Arc::new(content)));
        }
        self.run(move |shared| {
            let of_cid = |header: &chiral_core::ManifestHeader| header.cid == cid;
            // Twice: between the two looks a download may have become an object.
            for _ in 0..2 {
                let version = shared.meta.version();
                if let Some((record, _)) = shared.visible_object(cid)? {
                    let content = FileContent::open(shared, record)?;
                    shared.keep_open(&content, version);
                    return Ok(Some(Arc::new(content) as Arc<dyn StoredContent>));
                }
                for (transfer, record) in shared.meta.partials()? {
                    if record.header.as_ref().is_some_and(of_cid) {
                        let partial = partial::open_known(shared, transfer, &record)?;
                        let content = PartialContent::of(&partial);
                        return Ok(content.map(|content| Arc::new(content) as _));
                    }
                }
            }
            Ok(None)
        })
        .await
    }

    async fn sidecar(&self, cid: Cid, name: &str) -> Result<Option<Bytes>, StoreError> {
        let name = name.to_owned();
        self.run(move |shared| {
            let Some(_) = shared.visible_object(cid)? else {
                return Ok(None);
            };
            Ok(shared.meta.sidecar(cid, &name)?.map(Bytes::from))
        })
        .await
    }

    async fn set_sidecar(&self, cid: Cid, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        requests::check_sidecar(name, &bytes)?;
        let sidecar = [(name.to_owned(), bytes)];
        self.run(move |shared| shared.meta.set_sidecars(cid, &sidecar, true))
            .await
    }

    async fn pin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        requests::check_pin(pin)?;
        let pin = pin.to_owned();
        self.run(move |shared| shared.pin(cid, &pin)).await
    }

    async fn unpin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        let pin = pin.to_owned();
        self.run(move |shared| shared.unpin(cid, &pin)).await
    }

    async fn remove(&self, cid: Cid) -> Result<bool, StoreError> {
        self.run(move |shared| shared.remove(cid)).await
    }

    async fn begin(&self, request: PartialRequest) -> Result<Arc<dyn PartialFile>, StoreError> {
        self.run(move |shared| {
            let handle = partial::begin(shared, &request)?;
            Ok(Arc::new(handle) as Arc<dyn PartialFile>)
        })
        .await
    }

    async fn partials(&self) -> Result<Vec<PartialInfo>, StoreError> {
        self.run(partial::list).await
    }

    async fn discard(&self, transfer: TransferId) -> Result<bool, StoreError> {
        self.run(move |shared| partial::discard(shared, transfer))
            .await
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.close(true)).await
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
