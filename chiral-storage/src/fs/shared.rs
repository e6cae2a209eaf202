//! What the parts of an open store have in common.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use chiral_core::buffers::Buffers;
use chiral_core::{Cid, StoreError, TransferId};

use super::config::FsStoreConfig;
use super::disk::{Disk, DiskFile, failed};
use super::flusher::Flusher;
use super::meta::Meta;
use super::opened::Opened;
use super::partial::Partial;
use super::places::Places;
use super::vfs::{LockGuard, OpenMode};
use crate::blocking::lock;

/// An open store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) places: Places,
    pub(super) config: FsStoreConfig,
    pub(super) meta: Meta,
    pub(super) flusher: Flusher,
    pub(super) sampler: Sampler,
    /// Objects served a moment ago.
    pub(super) opened: Arc<Opened>,
    pub(super) buffers: Arc<Buffers>,
    /// Partial files that somebody holds.
    pub(super) partials: Mutex<HashMap<TransferId, Weak<Partial>>>,
    /// Held from the intent to the end of every operation on objects of several steps, so
    /// that an intent found while holding it was left behind.
    pub(super) registry: Mutex<()>,
    /// Downloads being ended without holding `registry` all the time.
    pub(super) completing: Mutex<HashSet<TransferId>>,
    pub(super) closed: AtomicBool,
    /// The lock of the directory.
    pub(super) guard: Mutex<Option<LockGuard>>,
    temporary: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        disk: Disk,
        places: Places,
        config: FsStoreConfig,
        meta: Meta,
        guard: LockGuard,
    ) -> Result<Self, StoreError> {
        let opened = Arc::<Opened>::default();
        let flusher = Flusher::start(&config, &opened)
            .map_err(|error| failed("start a thread for", places.root(), error))?;
        Ok(Self {
            disk,
            places,
            meta,
            flusher,
            sampler: Sampler::new(config.verify_served_one_in),
            opened,
            buffers: Arc::default(),
            config,
            partials: Mutex::default(),
            registry: Mutex::default(),
            completing: Mutex::default(),
            closed: AtomicBool::new(false),
            guard: Mutex::new(Some(guard)),
            temporary: AtomicU64::new(0),
        })
    }

    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    /// Stops the flusher, closes the metadata and lets go of the lock. With `flush`, what
    /// was written is made durable first.
    pub(super) fn close(&self, flush: bool) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        self.flusher.stop();
        self.opened.close();
        let held: Vec<_> = lock(&self.partials)
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for partial in &held {
            partial.wait_for_writers();
        }
        let flushed = if flush {
            super::flusher::commit(&self.meta, &held)
        } else {
            Ok(())
        };
        // Who comes after this finds the metadata closed before changing any file.
        let _registry = lock(&self.registry);
        self.meta.close();
        lock(&self.guard).take();
        match flushed {
            // Another call closed the store first, and what was written with it.
            Err(StoreError::Closed) => Ok(()),
            other => other,
        }
    }

    /// A path of its own in the directory for temporary files.
    pub(super) fn temporary_path(&self) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        // Another process may have opened the store while an import of this one goes on.
        self.places
            .temporary()
            .join(format!("{}-{number}", self.sampler.draw(0)))
    }
}

/// A new file that is unlinked when dropped, unless it has been renamed.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    shared: &'a Shared,
    pub(super) path: PathBuf,
}

impl<'a> Temporary<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            path: shared.temporary_path(),
        }
    }

    pub(super) fn create(&self) -> Result<DiskFile, StoreError> {
        self.shared.disk.open(&self.path, OpenMode::CreateNew)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.shared.disk.remove(&self.path) {
            tracing::debug!(%error, "temporary file stays until the next start");
        }
    }
}

/// Picks a random share of what passes.
#[derive(Debug)]
pub(super) struct Sampler {
    one_in: u32,
    drawn: AtomicU64,
    random: RandomState,
}

impl Sampler {
    fn new(one_in: u32) -> Self {
        Self {
            one_in,
            drawn: AtomicU64::new(0),
            random: RandomState::new(),
        }
    }

    /// Whether this one is picked.
    pub(super) fn pick(&self) -> bool {
        self.one_in > 0 && {
            let number = self.drawn.fetch_add(1, Ordering::Relaxed);
            self.draw(number).is_multiple_of(u64::from(self.one_in))
        }
    }

    /// A random number, always the same for the same `number`.
    fn draw(&self, number: u64) -> u64 {
        self.random.hash_one(number)
    }
}

/// Reports an object that is not what it was.
pub(super) fn report_changed(shared: &Shared, cid: Cid, path: PathBuf) -> StoreError {
    match shared.meta.mark_changed(cid) {
        Ok(true) => {
            tracing::error!(%cid, path = %path.display(), "content changed on disk; no longer served")
        }
        Ok(false) => {}
        Err(error) => tracing::error!(%cid, %error, "could not record that content changed"),
    }
    StoreError::Changed { path }
}
