//! [`MemoryStore`]: content in memory, under a limit on bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::{
    ImportRequest, ImportSource, Location, ObjectInfo, PartialInfo, PartialRequest,
};
use chiral_core::sidecar::MAX_SIDECARS;
use chiral_core::{
    ChunkHash, ChunkHasher, ChunkLayout, ChunkStore, Cid, MAX_FILE_SIZE, ManifestHeader,
    PartialFile, StoreError, StoredContent, TransferId, merkle,
};

use crate::beside::{Beside, Sidecar};
use crate::blocking::{blocking, lock};
use crate::requests;

mod object;
mod partial;
mod spans;

use object::{MemoryObject, ObjectContent};
use partial::{MemoryPartial, PartialContent};

/// A [`ChunkStore`] in memory. Nothing outlives the process, and nothing is read in place:
/// an imported file is copied.
///
/// Objects and partial files together hold at most the limit; beyond it,
/// [`StoreError::TooLarge`]. Clones share the content.
///
/// ```
/// use chiral_core::chunk_store::{ChunkStore, ImportRequest, ImportSource};
/// use chiral_storage::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = MemoryStore::new(1 << 20);
/// let object = store.import(ImportRequest::new(ImportSource::Bytes("abc".into()))).await?;
/// let content = store.open(object.header.cid).await?.expect("just imported");
/// assert_eq!(content.read((1..3).into()).await?, "bc");
/// # Ok::<(), chiral_core::StoreError>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Cid, Entry>,
    partials: HashMap<TransferId, Arc<MemoryPartial>>,
}

#[derive(Debug)]
struct Entry {
    object: Arc<MemoryObject>,
    location: Location,
    pins: BTreeSet<String>,
    sidecars: BTreeMap<String, Bytes>,
}

impl Entry {
    fn info(&self) -> ObjectInfo {
        let pins = self.pins.iter().cloned().collect();
        ObjectInfo::new(self.object.header.clone(), self.location.clone(), pins)
    }
}

impl MemoryStore {
    /// An empty store that holds at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                limit: limit_bytes,
                used: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                state: Mutex::default(),
            }),
        }
    }

    /// Bytes held by objects and partial files.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.check_open()?;
        Ok(lock(&self.state))
    }

    fn too_large(&self) -> StoreError {
        StoreError::TooLarge {
            what: "content of the memory store",
            limit: self.limit,
        }
    }

    /// Takes room for `bytes`.
    fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| self.too_large())
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Registers an object for whose bytes there is room; gives the room back if it is
    /// there already.
    fn add(&self, object: MemoryObject, location: Location) -> Result<ObjectInfo, StoreError> {
        let mut state = self.open()?;
        let (cid, size) = (object.header.cid, object.header.size);
        let entry = match state.objects.entry(cid) {
            btree_map::Entry::Occupied(held) => {
                self.release(size);
                held.into_mut()
            }
            btree_map::Entry::Vacant(free) => {
                let object = Arc::new(object);
                free.insert(Entry {
                    object,
                    location,
                    pins: BTreeSet::new(),
                    sidecars: BTreeMap::new(),
                })
            }
        };
        Ok(entry.info())
    }

    fn remove(&self, state: &mut State, cid: Cid) {
        if let Some(entry) = state.objects.remove(&cid) {
            let sidecars = entry.sidecars.values().map(|bytes| bytes.len() as u64);
            self.release(entry.object.header.size + sidecars.sum::<u64>());
        }
    }

    /// Keeps sidecars of an object; with `replace`, in place of those of the same names.
    fn set_sidecars(
        &self,
        cid: Cid,
        sidecars: Vec<Sidecar>,
        replace: bool,
    ) -> Result<(), StoreError> {
        let mut state = self.open()?;
        let held = &mut state.entry(cid)?.sidecars;
        for (name, bytes) in sidecars {
            if held.contains_key(&name) && !replace {
                continue;
            }
            if !held.contains_key(&name) && held.len() >= MAX_SIDECARS {
                return Err(StoreError::TooLarge {
                    what: "number of sidecars",
                    limit: MAX_SIDECARS as u64,
                });
            }
            self.reserve(bytes.len() as u64)?;
            if let Some(old) = held.insert(name, bytes) {
                self.release(old.len() as u64);
            }
        }
        Ok(())
    }

    fn drop_partial(&self, transfer: TransferId) -> Option<Arc<MemoryPartial>> {
        lock(&self.state).partials.remove(&transfer)
    }
}

impl State {
    fn entry(&mut self, cid: Cid) -> Result<&mut Entry, StoreError> {
        self.objects
            .get_mut(&cid)
            .ok_or(StoreError::NotFound { cid })
    }
}

fn read_file(path: PathBuf, limit: u64, over: StoreError) -> Result<Bytes, StoreError> {
    let io = |operation| {
        let path = path.clone();
        move |source| StoreError::Io {
            operation,
            path,
            source,
        }
    };
    let about = std::fs::metadata(&path).map_err(io("open"))?;
    if !about.is_file() {
        return Err(StoreError::NotAFile { path });
    }
    if about.len() > limit {
        return Err(over);
    }
    let bytes = std::fs::read(&path).map_err(io("read"))?;
    if bytes.len() as u64 != about.len() {
        return Err(StoreError::Changed { path });
    }
    Ok(bytes.into())
}

/// Chunks of bytes, without copying.
fn cut(bytes: &Bytes, layout: ChunkLayout) -> Vec<Bytes> {
    let range = |index| layout.range(index).start as usize..layout.range(index).end as usize;
    (0..layout.count())
        .map(|index| bytes.slice(range(index)))
        .collect()
}

fn identify(
    bytes: &Bytes,
    request: &ImportRequest,
    beside: &mut Beside,
) -> Result<(Vec<ChunkHash>, Cid), StoreError> {
    let mut hasher = ChunkHasher::new();
    for part in bytes.chunks(1 << 20) {
        beside.take(part);
        hasher.update(part);
        if let Some(progress) = &request.progress {
            progress(hasher.size(), bytes.len() as u64);
        }
    }
    hasher.finish().map_err(|_| StoreError::TooLarge {
        what: "file",
        limit: MAX_FILE_SIZE,
    })
}

#[async_trait]
impl ChunkStore for MemoryStore {
    async fn import(&self, request: ImportRequest) -> Result<ObjectInfo, StoreError> {
        let shared = Arc::clone(&self.shared);
        shared.check_open()?;
        let (object, sidecars) = blocking(move || {
            let bytes = match request.source.clone() {
                ImportSource::Bytes(bytes) => bytes,
                ImportSource::Path(path) => read_file(path, shared.limit, shared.too_large())?,
                _ => {
                    return Err(StoreError::Unsupported {
                        what: "this source",
                    });
                }
            };
            let mut beside = Beside::start(&request, bytes.len() as u64, false)?;
            let (hashes, cid) = identify(&bytes, &request, &mut beside)?;
            let size = bytes.len() as u64;
            let root = merkle::seal(size, merkle::tree_hash(&hashes));
            let header = requests::imported(&request, size, cid, root)?;
            let layout = requests::layout(size)?;
            let object = MemoryObject {
                header,
                layout,
                chunks: cut(&bytes, layout),
                hashes,
            };
            Ok((object, beside.finish()))
        })
        .await?;
        let cid = object.header.cid;
        let held = self.shared.open()?.objects.get(&cid).map(Entry::info);
        let info = match held {
            Some(held) => held,
            None => {
                self.shared.reserve(object.header.size)?;
                self.shared.add(object, Location::Store)?
            }
        };
        match self.shared.set_sidecars(cid, sidecars, false) {
            // Removed already: it went with what it had.
            Err(StoreError::NotFound { .. }) => {}
            kept => kept?,
        }
        Ok(info)
    }

    async fn sidecar(&self, cid: Cid, name: &str) -> Result<Option<Bytes>, StoreError> {
        let state = self.shared.open()?;
        let entry = state.objects.get(&cid);
        Ok(entry.and_then(|entry| entry.sidecars.get(name).cloned()))
    }

    async fn set_sidecar(&self, cid: Cid, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        requests::check_sidecar(name, &bytes)?;
        self.shared
            .set_sidecars(cid, vec![(name.to_owned(), bytes)], true)
    }

    async fn object(&self, cid: Cid) -> Result<Option<ObjectInfo>, StoreError> {
        Ok(self.shared.open()?.objects.get(&cid).map(Entry::info))
    }

    async fn objects(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        Ok(self
            .shared
            .open()?
            .objects
            .values()
            .map(Entry::info)
            .collect())
    }

    async fn open(&self, cid: Cid) -> Result<Option<Arc<dyn StoredContent>>, StoreError> {
        let state = self.shared.open()?;
        if let Some(entry) = state.objects.get(&cid) {
            let content = ObjectContent::new(&self.shared, Arc::clone(&entry.object));
            return Ok(Some(Arc::new(content)));
        }
        let partials: Vec<_> = state.partials.values().cloned().collect();
        drop(state);
        let served = partials.into_iter().find_map(|partial| {
            let header = partial.served_as().filter(|header| header.cid == cid)?;
            Some(Arc::new(PartialContent::new(partial, header)) as Arc<dyn StoredContent>)
        });
        Ok(served)
    }

    async fn pin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        requests::check_pin(pin)?;
        let mut state = self.shared.open()?;
        let pins = &mut state.entry(cid)?.pins;
        pins.insert(pin.to_owned());
        Ok(pins.len() as u32)
    }

    async fn unpin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        let mut state = self.shared.open()?;
        let pins = &mut state.entry(cid)?.pins;
        let taken = pins.remove(pin);
        let left = pins.len() as u32;
        if taken && left == 0 {
            self.shared.remove(&mut state, cid);
        }
        Ok(left)
    }

    async fn remove(&self, cid: Cid) -> Result<bool, StoreError> {
        let mut state = self.shared.open()?;
        let free = state
            .objects
            .get(&cid)
            .is_some_and(|entry| entry.pins.is_empty());
        if free {
            self.shared.remove(&mut state, cid);
        }
        Ok(free)
    }

    async fn begin(&self, request: PartialRequest) -> Result<Arc<dyn PartialFile>, StoreError> {
        let layout = requests::partial_layout(&request)?;
        if request.size > self.shared.limit {
            return Err(self.shared.too_large());
        }
        let mut state = self.shared.open()?;
        if let Some(held) = state.partials.values().find(|held| held.is_of(&request)) {
            return Ok(Arc::clone(held) as Arc<dyn PartialFile>);
        }
        if state.partials.contains_key(&request.transfer) {
            return Err(StoreError::AlreadyExists {
                path: request.transfer.to_string().into(),
            });
        }
        let partial = Arc::new(MemoryPartial::new(&self.shared, &request, layout));
        state
            .partials
            .insert(request.transfer, Arc::clone(&partial));
        Ok(partial)
    }

    async fn partials(&self) -> Result<Vec<PartialInfo>, StoreError> {
        Ok(self
            .shared
            .open()?
            .partials
            .values()
            .map(|partial| partial.info())
            .collect())
    }

    async fn discard(&self, transfer: TransferId) -> Result<bool, StoreError> {
        self.shared.check_open()?;
        let Some(partial) = self.shared.drop_partial(transfer) else {
            return Ok(false);
        };
        partial.abandon();
        Ok(true)
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        self.shared.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// A header's identity with another header's hints.
fn with_hints(header: ManifestHeader, size: u64, cid: Cid, hashes: &[ChunkHash]) -> ManifestHeader {
    let root = merkle::seal(size, merkle::tree_hash(hashes));
    ManifestHeader {
        size,
        cid,
        root,
        ..header
    }
}

#[cfg(test)]
mod tests;
