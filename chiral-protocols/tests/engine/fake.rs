//! Sources in memory that behave as they are told: what strangers may do to a download.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::content_protocol::SourceStream;
use chiral_core::{
    ByteRange, CHUNK_SIZE, ChunkHash, ChunkHasher, ChunkLayout, ChunkSource, Cid, Coverage,
    Delivery, DeliveryStream, Endpoint, FileIdentification, ManifestHeader, ManifestPage,
    PageRoots, PeerOffer, Protocol, RangeSet, RequestGrid, TransferError, TransferRegistry,
};
use chiral_protocols::Connector;
use futures_util::StreamExt;

/// A file and everything that follows from it.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) data: Bytes,
    pub(crate) layout: ChunkLayout,
    pub(crate) hashes: Vec<ChunkHash>,
    pub(crate) header: ManifestHeader,
}

impl File {
    pub(crate) fn new(size: usize) -> Self {
        let data: Vec<u8> = (0..size as u64)
            .map(|i| ((i.wrapping_mul(2_654_435_761)) >> 13) as u8)
            .collect();
        Self::of(data)
    }

    pub(crate) fn of(data: Vec<u8>) -> Self {
        let mut hasher = ChunkHasher::new();
        hasher.update(&data);
        let (hashes, cid) = hasher.finish().unwrap();
        let layout = ChunkLayout::new(data.len() as u64).unwrap();
        let root = PageRoots::from_hashes(layout, &hashes).unwrap().root();
        let header = ManifestHeader {
            size: layout.size(),
            cid,
            root,
            name: Some("file.bin".into()),
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        Self {
            data: data.into(),
            layout,
            hashes,
            header,
        }
    }

    pub(crate) fn cid(&self) -> Cid {
        self.header.cid
    }

    pub(crate) fn link(&self) -> FileIdentification {
        FileIdentification::from(&self.header.link())
    }

    /// The same cid under a list of chunk hashes that is wrong at one place.
    pub(crate) fn with_wrong_hash(&self, index: usize) -> Self {
        let mut other = self.clone();
        other.hashes[index] = ChunkHash::from_bytes([7; 32]);
        let roots = PageRoots::from_hashes(other.layout, &other.hashes).unwrap();
        other.header.root = roots.root();
        other
    }
}

/// What a source does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Chunks in which it flips a bit.
    pub(crate) corrupt: BTreeSet<u32>,
    /// It says that it holds everything and does not have these chunks.
    pub(crate) pretends: BTreeSet<u32>,
    /// It sends this many bytes and then nothing more, ever.
    pub(crate) stalls_after: Option<u64>,
    /// It ends each answer this many bytes early.
    pub(crate) short: u64,
    /// It sends this many bytes more than it was asked for.
    pub(crate) long: u64,
    /// Time taken for each 64 KiB.
    pub(crate) slow: Option<Duration>,
    /// It knows no manifest.
    pub(crate) mirror: bool,
    /// It holds only these.
    pub(crate) coverage: Option<Coverage>,
    /// It holds what this says at the time.
    pub(crate) growing: Option<Arc<Mutex<Coverage>>>,
    /// It cuts files like this.
    pub(crate) grid: Option<RequestGrid>,
    /// It claims this size.
    pub(crate) size: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    offer: PeerOffer,
    file: File,
    manners: Manners,
    sent: Arc<AtomicU64>,
    told: Arc<Mutex<Told>>,
}

/// What a source was told and asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    pub(crate) verified: RangeSet,
    /// It was told that the root is known, before anything was verified.
    pub(crate) root_known: bool,
    pub(crate) closed: bool,
    /// What it was asked for, and when.
    pub(crate) asked: Vec<(tokio::time::Instant, ByteRange)>,
}

impl Fake {
    fn broken(&self) -> TransferError {
        TransferError::Missing {
            source_name: self.offer.endpoint.to_string(),
            what: "the bytes",
        }
    }

    fn bytes(&self, range: ByteRange) -> Vec<u8> {
        let mut bytes = self.file.data[range.start as usize..range.end as usize].to_vec();
        for index in &self.manners.corrupt {
            let at = self.file.layout.range(*index).start + 100;
            if range.contains(at) {
                bytes[(at - range.start) as usize] ^= 0x40;
            }
        }
        bytes
    }
}

#[async_trait]
impl ChunkSource for Fake {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        Some(self.manners.size.unwrap_or(self.file.layout.size()))
    }

    fn grid(&self) -> RequestGrid {
        self.manners.grid.unwrap_or(RequestGrid::ANY)
    }

    fn max_requests(&self) -> usize {
        2
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        if let Some(growing) = &self.manners.growing {
            return Ok(growing.lock().unwrap().clone());
        }
        Ok(self.manners.coverage.clone().unwrap_or(Coverage::Complete))
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok((!self.manners.mirror).then(|| self.file.header.clone()))
    }

    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError> {
        if self.manners.mirror {
            return Err(self.broken());
        }
        let roots = PageRoots::from_hashes(self.file.layout, &self.file.hashes).unwrap();
        let pages: Vec<_> = self.file.hashes.chunks(4096).collect();
        let before = index.checked_sub(1).and_then(|at| pages.get(at as usize));
        let own = pages.get(index as usize).ok_or_else(|| self.broken())?;
        roots
            .page(index, own.to_vec(), before.copied().unwrap_or(&[]))
            .ok_or_else(|| self.broken())
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let held = |index| match &self.manners.growing {
            Some(growing) => growing.lock().unwrap().contains(index),
            None => true,
        };
        let outside = !self.file.layout.touched(range).all(held);
        let asked = (tokio::time::Instant::now(), range);
        self.told.lock().unwrap().asked.push(asked);
        let missing = self
            .manners
            .pretends
            .iter()
            .any(|index| self.file.layout.range(*index).intersection(range).is_some());
        if missing || outside || range.end > self.file.layout.size() {
            return futures_util::stream::iter([Err(self.broken())]).boxed();
        }
        let mut bytes = self.bytes(range);
        bytes.truncate(bytes.len().saturating_sub(self.manners.short as usize));
        bytes.resize(bytes.len() + self.manners.long as usize, 0x5a);
        let bytes = Bytes::from(bytes);
        let length = bytes.len() as u64;
        let sent = self.sent.clone();
        let (slow, stalls_after) = (self.manners.slow, self.manners.stalls_after);
        let parts = (0..length).step_by(65_536);
        futures_util::stream::iter(parts)
            .then(move |at| {
                let end = length.min(at + 65_536);
                let part = bytes.slice(at as usize..end as usize);
                let sent = sent.clone();
                async move {
                    if let Some(slow) = slow {
                        tokio::time::sleep(slow).await;
                    }
                    let before = sent.fetch_add(part.len() as u64, Ordering::SeqCst);
                    if stalls_after.is_some_and(|limit| before >= limit) {
                        std::future::pending::<()>().await;
                    }
                    Ok(Delivery {
                        offset: range.start + at,
                        bytes: part,
                    })
                }
            })
            .boxed()
    }

    async fn verified(&self, range: ByteRange) {
        let mut told = self.told.lock().unwrap();
        assert!(!told.closed, "told after it was closed");
        let new = told.verified.insert(range);
        assert_eq!(new, range.len(), "{range:?} was told twice");
    }

    fn root_known(&self) {
        let mut told = self.told.lock().unwrap();
        assert!(!told.root_known, "told twice");
        told.root_known = told.verified.is_empty();
    }

    async fn close(&self) {
        self.told.lock().unwrap().closed = true;
    }
}

/// What a seeder has, how it behaves, and how many bytes it has sent.
type Seeder = (File, Manners, Arc<AtomicU64>, Arc<Mutex<Told>>);

/// A network of such sources, by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeNetwork {
    seeders: Arc<Mutex<BTreeMap<String, Seeder>>>,
    pub(crate) registry: TransferRegistry,
}

impl FakeNetwork {
    pub(crate) fn seeder(&self, name: &str, file: &File, manners: Manners) -> PeerOffer {
        let entry = (file.clone(), manners, Arc::default(), Arc::default());
        self.seeders.lock().unwrap().insert(name.to_owned(), entry);
        offer(name)
    }

    /// Another download begins: what was told is forgotten.
    pub(crate) fn tell_anew(&self) {
        for seeder in self.seeders.lock().unwrap().values() {
            *seeder.3.lock().unwrap() = Told::default();
        }
    }

    /// What each seeder was told in the last download.
    pub(crate) fn told(&self) -> BTreeMap<String, Told> {
        let seeders = self.seeders.lock().unwrap();
        let told = |seeder: &Seeder| seeder.3.lock().unwrap().clone();
        seeders
            .iter()
            .map(|(name, seeder)| (name.clone(), told(seeder)))
            .collect()
    }

    /// Bytes that a seeder has sent.
    pub(crate) fn sent(&self, name: &str) -> u64 {
        self.seeders.lock().unwrap()[name].2.load(Ordering::SeqCst)
    }
}

pub(crate) fn offer(name: &str) -> PeerOffer {
    PeerOffer::new(
        "fake".parse::<Protocol>().unwrap(),
        Endpoint::new(name).unwrap(),
    )
}

#[async_trait]
impl Connector for FakeNetwork {
    async fn connect(
        &self,
        offer: &PeerOffer,
        _: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let seeders = self.seeders.lock().unwrap();
        let Some((file, manners, sent, told)) = seeders.get(offer.endpoint.as_str()) else {
            return Err(TransferError::Missing {
                source_name: offer.endpoint.to_string(),
                what: "anything",
            });
        };
        Ok(Arc::new(Fake {
            offer: offer.clone(),
            file: file.clone(),
            manners: manners.clone(),
            sent: sent.clone(),
            told: told.clone(),
        }))
    }

    async fn arrivals(&self, _: &FileIdentification) -> SourceStream {
        futures_util::stream::empty().boxed()
    }
}

/// Bytes of so many chunks.
pub(crate) const fn chunks(count: u64) -> usize {
    (count * CHUNK_SIZE) as usize
}
