//! Content of a torrent that is not one object of the store: [`Arriving`], what has come of a
//! download so far; [`Joined`], the files that it became.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chiral_core::{
    Bitmap, ByteRange, CHUNK_SIZE, ChunkLayout, Cid, Coverage, ManifestHeader, ManifestPage,
    MerkleRoot, PartialFile, RangeSet, StoreError, StoredContent,
};

use super::layout::TorrentLayout;
use super::mapped::chunks_within;
use super::selection::Selection;

/// A header of something whose identity is not known: of nothing but its size anything is said.
fn unknown(size: u64) -> ManifestHeader {
    ManifestHeader {
        size,
        cid: Cid::from_bytes([0; 32]),
        root: MerkleRoot::from_bytes([0; 32]),
        name: None,
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    }
}

/// What has come of a download and passed, as the torrent's stream.
#[derive(Debug)]
pub(super) struct Arriving {
    header: ManifestHeader,
    selection: Arc<Selection>,
    partial: Arc<dyn PartialFile>,
    passed: Mutex<Bitmap>,
}

impl Arriving {
    pub(super) fn new(selection: Arc<Selection>, partial: Arc<dyn PartialFile>) -> Self {
        let count = partial.layout().count();
        Self {
            header: unknown(selection.stream_size()),
            selection,
            partial,
            passed: Mutex::new(Bitmap::new(count)),
        }
    }

    fn passed(&self) -> MutexGuard<'_, Bitmap> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk of the download passed.
    pub(super) fn note_passed(&self, chunk: u32) {
        let mut passed = self.passed();
        if chunk < passed.len() {
            passed.set(chunk, true);
        }
    }
}

#[async_trait]
impl StoredContent for Arriving {
    fn header(&self) -> &ManifestHeader {
        &self.header
    }

    fn coverage(&self) -> Coverage {
        let passed = self.passed().to_runs();
        if self.selection.is_all() {
            return Coverage::Partial(passed);
        }
        let mut held = RangeSet::new();
        for range in passed.to_ranges(self.partial.layout()).iter() {
            for run in self.selection.to_stream(range) {
                held.insert(run.there());
            }
        }
        match ChunkLayout::new(self.header.size) {
            Ok(stream) => Coverage::Partial(chunks_within(&held, stream)),
            Err(_) => Coverage::Partial(Default::default()),
        }
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let mut bytes = BytesMut::with_capacity(range.len() as usize);
        let runs: Vec<_> = self.selection.from_stream(range).collect();
        for run in runs {
            let here = run.here();
            for index in self.partial.layout().touched(here) {
                let chunk = self.partial.read(index).await?;
                let start = u64::from(index) * CHUNK_SIZE;
                let whole = ByteRange::new(start, start + chunk.len() as u64);
                if let Some(part) = whole.intersection(here) {
                    let from = (part.start - start) as usize;
                    bytes.extend_from_slice(&chunk[from..from + part.len() as usize]);
                }
            }
        }
        enough(bytes, range)
    }

    async fn page(&self, _: u32) -> Result<Option<ManifestPage>, StoreError> {
        Ok(None)
    }
}

/// All of a range, or an error.
fn enough(bytes: BytesMut, range: ByteRange) -> Result<Bytes, StoreError> {
    match bytes.len() as u64 == range.len() {
        true => Ok(bytes.freeze()),
        false => Err(StoreError::Range { range }),
    }
}

/// A torrent's stream out of its files; of those that were not selected there is nothing.
#[derive(Debug)]
pub struct Joined {
    header: ManifestHeader,
    layout: TorrentLayout,
    files: Vec<Option<Arc<dyn StoredContent>>>,
}

impl Joined {
    /// Of a torrent whose stream has this identity, as far as one is known, and its files by
    /// their numbers.
    pub fn new(
        header: Option<ManifestHeader>,
        layout: TorrentLayout,
        mut files: Vec<Option<Arc<dyn StoredContent>>>,
    ) -> Self {
        files.resize(layout.file_count() as usize, None);
        let header = header.filter(|header| header.size == layout.size());
        Self {
            header: header.unwrap_or_else(|| unknown(layout.size())),
            layout,
            files,
        }
    }

    fn has(&self, file: u32, range: ByteRange) -> bool {
        let content = self.files.get(file as usize).and_then(Option::as_ref);
        content.is_some_and(|content| {
            let header = content.header();
            let layout = ChunkLayout::new(header.size);
            let held = layout.map(|layout| content.coverage().to_ranges(layout));
            range.is_empty() || held.is_ok_and(|held| held.covers(range))
        })
    }
}

#[async_trait]
impl StoredContent for Joined {
    fn header(&self) -> &ManifestHeader {
        &self.header
    }

    fn coverage(&self) -> Coverage {
        let mut held = RangeSet::new();
        let whole = ByteRange::new(0, self.layout.size());
        for segment in self.layout.segments(whole) {
            let range = ByteRange::new(segment.offset, segment.offset + segment.stream.len());
            if segment.file.is_none_or(|file| self.has(file, range)) {
                held.insert(segment.stream);
            }
        }
        if held.covers(whole) {
            return Coverage::Complete;
        }
        match ChunkLayout::new(self.header.size) {
            Ok(stream) => Coverage::Partial(chunks_within(&held, stream)),
            Err(_) => Coverage::Partial(Default::default()),
        }
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let mut bytes = BytesMut::with_capacity(range.len() as usize);
        let segments: Vec<_> = self.layout.segments(range).collect();
        for segment in segments {
            let len = segment.stream.len();
            let Some(file) = segment.file else {
                bytes.resize(bytes.len() + len as usize, 0);
                continue;
            };
            let content = self.files.get(file as usize).and_then(Option::as_ref);
            let content = content.ok_or(StoreError::Range { range })?;
            let part = ByteRange::new(segment.offset, segment.offset + len);
            bytes.extend_from_slice(&content.read(part).await?);
        }
        enough(bytes, range)
    }

    async fn page(&self, _: u32) -> Result<Option<ManifestPage>, StoreError> {
        Ok(None)
    }
}
