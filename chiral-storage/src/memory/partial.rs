//! Partial files in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::{Destination, Location, ObjectInfo, PartialInfo, PartialRequest};
use chiral_core::{
    Bitmap, ByteRange, CHUNK_SIZE, ChunkClaim, ChunkHash, ChunkLayout, Coverage, FileSpans,
    ManifestHeader, ManifestPage, MerkleRoot, PartialFile, ProvenLink, StoreError, StoredContent,
    TransferId, VerifiedChunk, VerifiedPage, chain, merkle,
};

use super::object::{MemoryObject, gather};
use super::{Shared, spans, with_hints};
use crate::blocking::{blocking, lock};
use crate::junction;
use crate::requests::{self, check_range};

/// A download in memory.
#[derive(Debug)]
pub(super) struct MemoryPartial {
    shared: Arc<Shared>,
    transfer: TransferId,
    request: PartialRequest,
    layout: ChunkLayout,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    chunks: BTreeMap<u32, Bytes>,
    hashes: BTreeMap<u32, ChunkHash>,
    present: Bitmap,
    proven: Bitmap,
    pages: BTreeMap<u32, ManifestPage>,
    header: Option<ManifestHeader>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Live,
    Complete,
    Discarded,
}

impl State {
    /// The hashes of all chunks, if all are proven.
    fn all_hashes(&self) -> Option<Vec<ChunkHash>> {
        self.proven
            .is_full()
            .then(|| self.hashes.values().copied().collect())
    }

    fn record(&mut self, link: &ProvenLink) {
        let odd = junction::at_odds(
            link,
            |index| self.proven.get(index),
            |index| {
                Ok::<_, std::convert::Infallible>(
                    self.hashes.get(&index).copied().unwrap_or(chain::INITIAL),
                )
            },
        );
        for index in odd.unwrap_or_else(|never| match never {}) {
            self.proven.set(index, false);
        }
        if let Some(previous) = link.index().checked_sub(1) {
            self.hashes.insert(previous, link.before());
        }
        self.hashes.insert(link.index(), link.after());
        self.proven.set(link.index(), true);
    }

    fn held(&self) -> u64 {
        self.chunks.values().map(|bytes| bytes.len() as u64).sum()
    }
}

impl MemoryPartial {
    pub(super) fn new(shared: &Arc<Shared>, request: &PartialRequest, layout: ChunkLayout) -> Self {
        let state = State {
            phase: Phase::Live,
            chunks: BTreeMap::new(),
            hashes: BTreeMap::new(),
            present: Bitmap::new(layout.count()),
            proven: Bitmap::new(layout.count()),
            pages: BTreeMap::new(),
            header: None,
        };
        Self {
            shared: Arc::clone(shared),
            transfer: request.transfer,
            request: request.clone(),
            layout,
            state: Mutex::new(state),
        }
    }

    pub(super) fn is_of(&self, request: &PartialRequest) -> bool {
        let header = lock(&self.state).header.clone();
        self.request.size == request.size
            && requests::same_target(&self.request.target, header.as_ref(), &request.target)
    }

    pub(super) fn info(&self) -> PartialInfo {
        let state = lock(&self.state);
        let (present, proven) = (state.present.count_ones(), state.proven.count_ones());
        let PartialRequest { target, size, .. } = self.request;
        PartialInfo::new(self.transfer, target, size, present, proven)
    }

    pub(super) fn served_as(&self) -> Option<ManifestHeader> {
        lock(&self.state).header.clone()
    }

    /// Forgets everything; calls answer [`StoreError::Closed`] from now on.
    pub(super) fn abandon(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Live {
            let held = state.held();
            state.chunks.clear();
            state.phase = Phase::Discarded;
            drop(state);
            self.shared.release(held);
        }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.shared.check_open()?;
        let state = lock(&self.state);
        if state.phase == Phase::Discarded {
            Err(StoreError::Closed)
        } else {
            Ok(state)
        }
    }

    fn put(&self, index: u32, bytes: Bytes, link: Option<ProvenLink>) -> Result<(), StoreError> {
        let expected = self.layout.range(index).len();
        if !self.layout.contains(index) || bytes.len() as u64 != expected {
            return Err(StoreError::Chunk { index });
        }
        // What is short may be a part of a buffer that is long.
        let bytes = match expected < CHUNK_SIZE / 2 {
            true => Bytes::copy_from_slice(&bytes),
            false => bytes,
        };
        let mut state = self.state()?;
        if state.phase == Phase::Complete || (link.is_none() && state.proven.get(index)) {
            return Ok(());
        }
        if !state.present.get(index) {
            self.shared.reserve(expected)?;
        }
        state.chunks.insert(index, bytes);
        state.present.set(index, true);
        if let Some(link) = link {
            state.record(&link);
        }
        Ok(())
    }

    /// Ends as several files, of which nothing stays here.
    async fn complete_spans(
        &self,
        object: MemoryObject,
        chunks: Vec<Bytes>,
        spans: Arc<FileSpans>,
    ) -> Result<ObjectInfo, StoreError> {
        if spans.size() != self.layout.size() {
            return Err(StoreError::Unsupported {
                what: requests::OTHER_SIZE,
            });
        }
        blocking(move || spans::write(&chunks, &spans)).await?;
        let held = {
            let mut state = lock(&self.state);
            let held = state.held();
            state.chunks.clear();
            state.phase = Phase::Discarded;
            held
        };
        self.shared.release(held);
        self.shared.drop_partial(self.transfer);
        Ok(ObjectInfo::new(object.header, Location::Files, Vec::new()))
    }

    pub(super) fn write_out(chunks: &[Bytes], path: &Path) -> Result<(), StoreError> {
        let io = |operation, source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AlreadyExists => StoreError::AlreadyExists {
                path: path.to_path_buf(),
            },
            std::io::ErrorKind::StorageFull => StoreError::NoSpace {
                operation,
                path: path.to_path_buf(),
            },
            _ => StoreError::Io {
                operation,
                path: path.to_path_buf(),
                source,
            },
        };
        let mut file = std::fs::File::create_new(path).map_err(|error| io("create", error))?;
        let written = chunks.iter().try_for_each(|chunk| file.write_all(chunk));
        written.and_then(|()| file.sync_all()).map_err(|error| {
            // The file is this call's own: it was made new above.
            let _ = std::fs::remove_file(path);
            io("write", error)
        })
    }
}

#[async_trait]
impl PartialFile for MemoryPartial {
    fn transfer(&self) -> TransferId {
        self.transfer
    }

    fn layout(&self) -> ChunkLayout {
        self.layout
    }

    fn present(&self) -> Bitmap {
        lock(&self.state).present.clone()
    }

    fn proven(&self) -> Bitmap {
        lock(&self.state).proven.clone()
    }

    async fn proven_hash(&self, index: u32) -> Result<Option<ChunkHash>, StoreError> {
        let state = self.state()?;
        let told = state.proven.get(index)
            || index
                .checked_add(1)
                .is_some_and(|after| state.proven.get(after));
        Ok(told.then(|| state.hashes.get(&index).copied()).flatten())
    }

    async fn write(&self, chunk: VerifiedChunk) -> Result<(), StoreError> {
        self.put(chunk.index(), chunk.bytes().clone(), Some(chunk.link()))
    }

    async fn write_checked(&self, claims: Vec<ChunkClaim>) -> Result<Vec<bool>, StoreError> {
        let layout = self.layout;
        let check = move || {
            Ok(claims
                .into_iter()
                .map(|claim| claim.check(layout))
                .collect())
        };
        let checked: Vec<_> = blocking(check).await?;
        let mut passed = Vec::with_capacity(checked.len());
        for chunk in checked {
            passed.push(chunk.is_ok());
            if let Ok(chunk) = chunk {
                self.write(chunk).await?;
            }
        }
        Ok(passed)
    }

    async fn write_unproven(&self, index: u32, bytes: Bytes) -> Result<(), StoreError> {
        self.put(index, bytes, None)
    }

    async fn prove(&self, links: Vec<ProvenLink>) -> Result<(), StoreError> {
        let mut state = self.state()?;
        for link in links {
            if !state.present.get(link.index()) {
                return Err(StoreError::Chunk {
                    index: link.index(),
                });
            }
            state.record(&link);
        }
        Ok(())
    }

    async fn forget(&self, index: u32) -> Result<(), StoreError> {
        let mut state = self.state()?;
        if state.present.get(index) && !state.proven.get(index) {
            state.present.set(index, false);
            let held = state
                .chunks
                .remove(&index)
                .map_or(0, |bytes| bytes.len() as u64);
            drop(state);
            self.shared.release(held);
        }
        Ok(())
    }

    async fn read(&self, index: u32) -> Result<Bytes, StoreError> {
        let held = self.state()?.chunks.get(&index).cloned();
        held.ok_or(StoreError::Range {
            range: self.layout.range(index),
        })
    }

    async fn store_page(&self, page: &VerifiedPage) -> Result<(), StoreError> {
        let index = page.page().index;
        if page.layout() != self.layout {
            return Err(StoreError::Chunk {
                index: page.chunks().start,
            });
        }
        self.state()?.pages.insert(index, page.page().clone());
        Ok(())
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        Ok(self.state()?.pages.get(&index).cloned())
    }

    async fn set_header(&self, header: ManifestHeader) -> Result<(), StoreError> {
        requests::encode(&header)?;
        if header.size != self.layout.size() {
            return Err(StoreError::Chunk {
                index: self.layout.count(),
            });
        }
        self.state()?.header = Some(header);
        Ok(())
    }

    async fn header(&self) -> Result<Option<ManifestHeader>, StoreError> {
        Ok(self.state()?.header.clone())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        drop(self.state()?);
        Ok(())
    }

    async fn complete(
        &self,
        destination: Destination,
        header: ManifestHeader,
    ) -> Result<ObjectInfo, StoreError> {
        let (object, chunks) = {
            let state = self.state()?;
            if state.phase == Phase::Complete {
                return Err(StoreError::Closed);
            }
            let missing = self.layout.count() - state.proven.count_ones();
            let Some(hashes) = state.all_hashes() else {
                return Err(StoreError::Incomplete { missing });
            };
            let cid = hashes
                .last()
                .map_or(chain::EMPTY_CID, |last| last.into_cid());
            if self
                .request
                .target
                .cid()
                .is_some_and(|wanted| wanted != cid)
            {
                return Err(StoreError::Incomplete { missing: 1 });
            }
            let header = with_hints(header, self.layout.size(), cid, &hashes);
            requests::encode(&header)?;
            let chunks: Vec<_> = state.chunks.values().cloned().collect();
            (
                MemoryObject {
                    header,
                    layout: self.layout,
                    chunks: chunks.clone(),
                    hashes,
                },
                chunks,
            )
        };
        let location = match destination {
            Destination::Store => Location::Store,
            Destination::File(path) => {
                let to = path.clone();
                blocking(move || Self::write_out(&chunks, &to)).await?;
                Location::External(path)
            }
            Destination::Files(spans) => {
                return self.complete_spans(object, chunks, spans).await;
            }
            _ => {
                return Err(StoreError::Unsupported {
                    what: "this destination",
                });
            }
        };
        lock(&self.state).phase = Phase::Complete;
        // In this order, so that whoever opens it meanwhile finds one of them.
        let object = self.shared.add(object, location)?;
        self.shared.drop_partial(self.transfer);
        Ok(object)
    }

    async fn recomputed_root(&self) -> Result<Option<MerkleRoot>, StoreError> {
        let hashes = self.state()?.all_hashes();
        Ok(hashes.map(|hashes| merkle::seal(self.layout.size(), merkle::tree_hash(&hashes))))
    }
}

/// The proven chunks of a partial file being served.
#[derive(Debug)]
pub(super) struct PartialContent {
    partial: Arc<MemoryPartial>,
    header: ManifestHeader,
}

impl PartialContent {
    pub(super) fn new(partial: Arc<MemoryPartial>, header: ManifestHeader) -> Self {
        Self { partial, header }
    }
}

#[async_trait]
impl StoredContent for PartialContent {
    fn header(&self) -> &ManifestHeader {
        &self.header
    }

    fn coverage(&self) -> Coverage {
        let state = lock(&self.partial.state);
        if state.proven.is_full() {
            return Coverage::Complete;
        }
        Coverage::Partial(state.proven.to_runs())
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let layout = self.partial.layout;
        check_range(layout, range)?;
        let state = self.partial.state()?;
        gather(layout, range, |index| {
            state
                .proven
                .get(index)
                .then(|| state.chunks.get(&index).cloned())
                .flatten()
        })
        .ok_or(StoreError::Range { range })
    }

    async fn page(&self, index: u32) -> Result<Option<ManifestPage>, StoreError> {
        Ok(self.partial.state()?.pages.get(&index).cloned())
    }
}
