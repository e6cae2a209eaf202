//! What the store has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chiral_core::manifest::page_count;
use chiral_core::{
    CHUNK_SIZE, ChunkHash, ChunkHasher, ChunkLayout, ChunkLink, Cid, FileHasher,
    FileIdentification, ManifestHeader, PageRoots, PartialFile, ProvenLink, SidecarHasher,
    VerifiedChunk, VerifiedPage, chain,
};

/// A file that the workload works with.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) bytes: Bytes,
    /// As many bytes, wrong everywhere.
    inverse: Bytes,
    pub(super) layout: ChunkLayout,
    pub(super) hashes: Vec<ChunkHash>,
    pub(super) header: ManifestHeader,
}

const SIZES: [u64; 5] = [0, 3, CHUNK_SIZE - 1, CHUNK_SIZE + 5, 3 * CHUNK_SIZE + 1000];

/// All files of the workload.
pub(super) fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| SIZES.iter().map(|size| Sample::new(*size)).collect())
}

pub(super) fn sample_of(cid: Cid) -> Option<&'static Sample> {
    samples().iter().find(|sample| sample.header.cid == cid)
}

/// Where the user has file `index`.
pub(super) fn user_file(index: usize) -> PathBuf {
    PathBuf::from(format!("/user/in-{index}"))
}

impl Sample {
    fn new(size: u64) -> Self {
        let byte = |i: u64| (i.wrapping_mul(2_654_435_761) >> 13 & 0xff) as u8;
        // Never zero, so that a hole is told from data.
        let bytes: Bytes = (0..size).map(|i| byte(i) | 1).collect::<Vec<_>>().into();
        let inverse = bytes.iter().map(|byte| !byte).collect::<Vec<_>>().into();
        let layout = ChunkLayout::new(size).unwrap();
        let mut hasher = ChunkHasher::new();
        hasher.update(&bytes);
        let (hashes, cid) = hasher.finish().unwrap();
        let root = PageRoots::from_hashes(layout, &hashes).unwrap().root();
        let (name, mime, created_at, aliases) = (None, None, 0, Vec::new());
        let header = ManifestHeader {
            size,
            cid,
            root,
            name,
            mime,
            created_at,
            aliases,
        };
        Self {
            bytes,
            inverse,
            layout,
            hashes,
            header,
        }
    }

    pub(super) fn chunk(&self, index: u32) -> Bytes {
        let range = self.layout.range(index);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    /// Bytes of a chunk that are wrong everywhere.
    pub(super) fn wrong(&self, index: u32) -> Bytes {
        let range = self.layout.range(index);
        self.inverse.slice(range.start as usize..range.end as usize)
    }

    fn before(&self, index: u32) -> ChunkHash {
        index
            .checked_sub(1)
            .map_or(chain::INITIAL, |previous| self.hashes[previous as usize])
    }

    pub(super) fn verified(&self, index: u32) -> VerifiedChunk {
        let after = self.hashes[index as usize];
        VerifiedChunk::check(
            self.layout,
            index,
            self.before(index),
            after,
            self.chunk(index),
        )
        .unwrap()
    }

    pub(super) fn link(&self, index: u32) -> ProvenLink {
        let link = ChunkLink::compress(self.layout, index, self.before(index), &self.chunk(index));
        link.unwrap().prove(self.hashes[index as usize]).unwrap()
    }

    pub(super) fn page(&self) -> Option<VerifiedPage> {
        (page_count(self.layout) > 0).then(|| {
            let roots = PageRoots::from_hashes(self.layout, &self.hashes).unwrap();
            let page = roots.page(0, self.hashes.clone(), &[]).unwrap();
            page.verify(self.header.root, self.layout, 0).unwrap()
        })
    }

    pub(super) fn target(&self) -> FileIdentification {
        let (cid, size) = (self.header.cid, Some(self.header.size));
        FileIdentification::Content {
            cid,
            root: Some(self.header.root),
            size,
        }
    }
}

/// A sidecar: the sum of all bytes.
#[derive(Debug)]
pub(super) struct Sum;

impl Sum {
    pub(super) fn of(bytes: &[u8]) -> Bytes {
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        Bytes::copy_from_slice(&sum.to_be_bytes())
    }
}

impl SidecarHasher for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn start(&self) -> Box<dyn FileHasher> {
        Box::new(Summing(0))
    }
}

struct Summing(u64);

impl FileHasher for Summing {
    fn update(&mut self, bytes: &[u8]) {
        self.0 += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }

    fn finish(self: Box<Self>) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&self.0.to_be_bytes()))
    }
}

/// A download as the workload sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Download {
    /// Proven chunks at the last flush that was acknowledged.
    pub(super) flushed: BTreeSet<u32>,
    pub(super) handle: Option<Arc<dyn PartialFile>>,
}

/// What must, and what may be there.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Objects that were acknowledged, with their pins.
    pub(super) objects: BTreeMap<Cid, BTreeSet<String>>,
    /// Objects that may be there or not.
    pub(super) presence_in_doubt: BTreeSet<Cid>,
    /// Objects whose sidecar was acknowledged with them.
    pub(super) sidecars: BTreeSet<Cid>,
    /// Pins that may be there or not.
    pub(super) pins_in_doubt: BTreeSet<(Cid, String)>,
    /// Downloads that were begun, by sample.
    pub(super) downloads: BTreeMap<usize, Download>,
    /// Downloads that may have gone.
    pub(super) downloads_in_doubt: BTreeSet<usize>,
}

impl Model {
    pub(super) fn added(&mut self, cid: Cid) {
        self.objects.entry(cid).or_default();
        if self.presence_in_doubt.remove(&cid) {
            // It may have gone and come again.
            self.sidecars.remove(&cid);
        }
    }

    pub(super) fn removed(&mut self, cid: Cid) {
        self.objects.remove(&cid);
        self.sidecars.remove(&cid);
        self.presence_in_doubt.remove(&cid);
        self.pins_in_doubt.retain(|(pinned, _)| *pinned != cid);
    }

    /// The process ends: nothing is in flight any more, and handles are gone.
    pub(super) fn forget_handles(&mut self) {
        for download in self.downloads.values_mut() {
            download.handle = None;
        }
    }
}
