//! Downloads on their way to disk.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::Instant;

use chiral_core::chunk_store::PartialInfo;
use chiral_core::manifest::{MAX_PAGE_LEN, ManifestPage};
use chiral_core::{ChunkHash, ChunkLayout, ManifestHeader, StoreError, TransferId};
use tokio::sync::{Notify, Semaphore};

use super::disk::DiskFile;
use super::hash_list;
use super::meta::partials::PartialState;
use super::meta::record::PartialRecord;
use super::shared::Shared;
use super::vfs::OpenMode;
use crate::blocking::lock;

mod complete;
mod complete_spans;
mod data;
mod handle;
mod open;
mod pending;
mod serve;
mod spans_list;
mod spread;
mod write;

use data::Data;
use spans_list::SpansList;
use spread::Spread;

pub(super) use handle::PartialHandle;
pub(super) use open::{begin, discard, list, open_known};
pub(super) use pending::Pending;
pub(super) use serve::PartialContent;

/// Bytes from one page to the next in the file of pages; whole blocks, so that unused pages
/// are holes.
const PAGE_SLOT: u64 = (MAX_PAGE_LEN as u64).next_multiple_of(4096);

/// Locks for the places in the file.
const CHUNK_LOCKS: usize = 16;

/// A partial file that somebody holds.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) shared: Arc<Shared>,
    pub(super) transfer: TransferId,
    /// [`PartialHandle`]s that there are of it.
    handles: AtomicUsize,
    layout: ChunkLayout,
    data: Data,
    hashes: DiskFile,
    /// Made when the first page comes.
    pages: Mutex<Option<DiskFile>>,
    record: Mutex<PartialRecord>,
    /// Shared by writers, alone for whoever ends the download.
    phase: RwLock<Phase>,
    /// Held while the bytes at some places change, by index.
    chunks: [Mutex<()>; CHUNK_LOCKS],
    /// Held while hashes and what they prove change together.
    proving: Mutex<()>,
    /// Has one permit, for whoever writes bytes. Of several that write to one file all but one
    /// would wait in the kernel, and keep a processor busy with that.
    turn: Semaphore,
    /// The same for threads that have chunks to check meanwhile.
    writing: Mutex<()>,
    /// Held through a commit.
    pub(super) commit: Mutex<()>,
    pub(super) pending: Mutex<Pending>,
    /// A commit ended.
    pub(super) room: Notify,
}

/// Where a download is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// The file has become an object; what was opened can still be read.
    Complete,
    /// Discarded, or ended in a way that only opening it again can tell.
    Gone,
}

impl Partial {
    fn new(
        shared: &Arc<Shared>,
        transfer: TransferId,
        record: PartialRecord,
        layout: ChunkLayout,
        state: PartialState,
    ) -> Result<Self, StoreError> {
        let open = |path: std::path::PathBuf| shared.disk.open(&path, OpenMode::ReadWrite);
        let pages = match state.pages.is_empty() {
            true => None,
            false => Some(open(shared.places.partial_pages(transfer))?),
        };
        let own = open(shared.places.partial_data(transfer))?;
        let data = match SpansList::load(shared, transfer)? {
            None => Data::Whole(own),
            Some(list) => Data::Spread(Spread::new(&shared.disk, list, own)),
        };
        Ok(Self {
            shared: Arc::clone(shared),
            transfer,
            handles: AtomicUsize::new(0),
            layout,
            data,
            hashes: open(shared.places.partial_hashes(transfer))?,
            pages: Mutex::new(pages),
            record: Mutex::new(record),
            phase: RwLock::new(Phase::Live),
            chunks: std::array::from_fn(|_| Mutex::default()),
            proving: Mutex::default(),
            turn: Semaphore::new(1),
            writing: Mutex::default(),
            commit: Mutex::default(),
            pending: Mutex::new(Pending::new(state)),
            room: Notify::new(),
        })
    }

    /// Whether a new call may go on with this one, or must open the files again.
    fn is_usable(&self) -> bool {
        let live = match self.phase.try_read() {
            Ok(phase) => *phase == Phase::Live,
            // Being ended; calls wait for that and see what became of it.
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        };
        live && lock(&self.pending).is_sound()
    }

    fn info(&self) -> PartialInfo {
        let PartialRecord { target, size, .. } = *lock(&self.record);
        let pending = lock(&self.pending);
        let (present, proven) = (pending.present.count_ones(), pending.proven.count_ones());
        PartialInfo::new(self.transfer, target, size, present, proven)
    }

    fn header(&self) -> Option<ManifestHeader> {
        lock(&self.record).header.clone()
    }

    /// Keeps others from ending the download. Reading goes on after completion.
    fn enter(&self) -> Result<RwLockReadGuard<'_, Phase>, StoreError> {
        self.shared.check_open()?;
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Gone {
            Err(StoreError::Closed)
        } else {
            Ok(phase)
        }
    }

    /// Returns when nobody writes any more; the store is closed already.
    pub(super) fn wait_for_writers(&self) {
        drop(self.phase.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes what has been written durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        super::flusher::commit(&self.shared.meta, &[self])?;
        lock(&self.pending).check_sound()
    }

    /// Syncs the files, before the commit that tells what is in them.
    pub(super) fn sync_files(&self, with_pages: bool) -> Result<(), StoreError> {
        self.data.sync()?;
        self.hashes.sync()?;
        if with_pages && let Some(pages) = &*lock(&self.pages) {
            pages.sync()?;
        }
        Ok(())
    }

    /// The kept hash of a chunk that has been told by a proof.
    fn hash(&self, index: u32) -> Result<ChunkHash, StoreError> {
        let hashes = hash_list::read_hashes(&self.hashes, index, 1)?;
        Ok(hashes
            .first()
            .copied()
            .unwrap_or(chiral_core::chain::INITIAL))
    }

    fn proven_hash(&self, index: u32) -> Result<Option<ChunkHash>, StoreError> {
        let _phase = self.enter()?;
        let _proving = lock(&self.proving);
        let told = {
            let proven = &lock(&self.pending).proven;
            proven.get(index) || index.checked_add(1).is_some_and(|next| proven.get(next))
        };
        match told && self.layout.contains(index) {
            true => self.hash(index).map(Some),
            false => Ok(None),
        }
    }

    /// A page kept before.
    fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        let _phase = self.enter()?;
        let Some(len) = lock(&self.pending).pages.get(&index).copied() else {
            return Ok(None);
        };
        let Some(file) = lock(&self.pages).clone() else {
            return Ok(None);
        };
        let bytes = file.read(u64::from(index) * PAGE_SLOT, len as usize)?;
        ManifestPage::decode(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Metadata {
                operation: "read a page",
                source: Box::new(error),
            })
    }

    fn store_page(&self, page: &ManifestPage) -> Result<(), StoreError> {
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        let bytes = page.encode();
        {
            let mut pages = lock(&self.pages);
            let file = match pages.take() {
                Some(file) => file,
                None => {
                    let path = self.shared.places.partial_pages(self.transfer);
                    let file = self.shared.disk.open(&path, OpenMode::OpenOrCreate)?;
                    self.shared.disk.sync_dir(&self.shared.places.partial())?;
                    file
                }
            };
            let written = file.write(u64::from(page.index) * PAGE_SLOT, &bytes);
            *pages = Some(file);
            written?;
        }
        lock(&self.pending).add_page(page.index, bytes.len() as u32, Instant::now());
        Ok(())
    }

    fn set_header(&self, header: ManifestHeader) -> Result<(), StoreError> {
        let phase = self.enter()?;
        if *phase != Phase::Live {
            return Ok(());
        }
        let mut record = lock(&self.record);
        let changed = PartialRecord {
            header: Some(header),
            ..record.clone()
        };
        self.shared.meta.set_partial(self.transfer, &changed)?;
        *record = changed;
        Ok(())
    }
}

/// The partial files that somebody holds.
fn held(shared: &Shared) -> BTreeMap<TransferId, Arc<Partial>> {
    let mut partials = lock(&shared.partials);
    partials.retain(|_, partial| partial.strong_count() > 0);
    partials
        .iter()
        .filter_map(|(id, partial)| Some((*id, partial.upgrade()?)))
        .collect()
}
