//! Sources in memory that behave as they are told: what strangers may do to a download.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use tokio::time::Instant;

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
    /// It asks a price, and arranging that takes so long.
    pub(crate) pays: Option<Duration>,
    /// It claims this size.
    pub(crate) size: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    offer: PeerOffer,
    file: File,
    manners: Arc<Mutex<Manners>>,
    sent: Arc<AtomicU64>,
    told: Arc<Mutex<Told>>,
    knows_root: AtomicBool,
    paying: Arc<AtomicBool>,
}

/// What a source was told and asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    pub(crate) verified: RangeSet,
    /// It was told that the root is known, before anything was verified.
    pub(crate) root_known: bool,
    pub(crate) closed: bool,
    /// What it was asked for.
    pub(crate) asked: Vec<Asked>,
    pub(crate) sent: Vec<Sent>,
}

/// Bytes that a source sent, of those that it was asked for.
#[allow(
    dead_code,
    reason = "shared with the hostile downloads, which look at all of it"
)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// For which request, as a position in [`Told::asked`].
    pub(crate) request: usize,
    pub(crate) range: ByteRange,
}

/// One request to a source.
#[allow(
    dead_code,
    reason = "shared with the hostile downloads, which look at all of it"
)]
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) range: ByteRange,
    /// When nobody waited for an answer any more, because it was complete or otherwise.
    pub(crate) over: Option<Instant>,
}

/// The answer to one request, until it is dropped.
struct Answer {
    told: Arc<Mutex<Told>>,
    number: usize,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(asked) = self.told.lock().unwrap().asked.get_mut(self.number) {
            asked.over = Some(Instant::now());
        }
    }
}

impl Fake {
    fn broken(&self) -> TransferError {
        TransferError::Missing {
            source_name: self.offer.endpoint.to_string(),
            what: "the bytes",
        }
    }

    fn manners(&self) -> Manners {
        self.manners.lock().unwrap().clone()
    }

    fn bytes(&self, manners: &Manners, range: ByteRange) -> Vec<u8> {
        let mut bytes = self.file.data[range.start as usize..range.end as usize].to_vec();
        for index in &manners.corrupt {
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
        Some(self.manners().size.unwrap_or(self.file.layout.size()))
    }

    fn grid(&self) -> RequestGrid {
        self.manners().grid.unwrap_or(RequestGrid::ANY)
    }

    fn max_requests(&self) -> usize {
        2
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        let manners = self.manners();
        if let Some(growing) = &manners.growing {
            return Ok(growing.lock().unwrap().clone());
        }
        Ok(manners.coverage.unwrap_or(Coverage::Complete))
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok((!self.manners().mirror).then(|| self.file.header.clone()))
    }

    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError> {
        if self.manners().mirror {
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
        let manners = self.manners();
        let held = |index| match &manners.growing {
            Some(growing) => growing.lock().unwrap().contains(index),
            None => true,
        };
        let outside = !self.file.layout.touched(range).all(held);
        let answer = {
            let mut told = self.told.lock().unwrap();
            let (at, over) = (Instant::now(), None);
            told.asked.push(Asked { at, range, over });
            Answer {
                told: self.told.clone(),
                number: told.asked.len() - 1,
            }
        };
        let missing = manners
            .pretends
            .iter()
            .any(|index| self.file.layout.range(*index).intersection(range).is_some());
        if missing || outside || range.end > self.file.layout.size() {
            return futures_util::stream::iter([Err(self.broken())]).boxed();
        }
        let mut bytes = self.bytes(&manners, range);
        bytes.truncate(bytes.len().saturating_sub(manners.short as usize));
        bytes.resize(bytes.len() + manners.long as usize, 0x5a);
        let bytes = Bytes::from(bytes);
        let length = bytes.len() as u64;
        let sent = self.sent.clone();
        let (slow, stalls_after) = (manners.slow, manners.stalls_after);
        let parts = (0..length).step_by(65_536);
        let (pays, paying) = (manners.pays, self.paying.clone());
        let agreed = async move {
            if let Some(pays) = pays {
                paying.store(true, Ordering::SeqCst);
                tokio::time::sleep(pays).await;
                paying.store(false, Ordering::SeqCst);
            }
            futures_util::stream::iter(parts)
        };
        futures_util::stream::once(agreed)
            .flatten()
            .then(move |at| {
                let end = length.min(at + 65_536);
                let part = bytes.slice(at as usize..end as usize);
                let (sent, told, request) = (sent.clone(), answer.told.clone(), answer.number);
                async move {
                    if let Some(slow) = slow {
                        tokio::time::sleep(slow).await;
                    }
                    let before = sent.fetch_add(part.len() as u64, Ordering::SeqCst);
                    if stalls_after.is_some_and(|limit| before >= limit) {
                        std::future::pending::<()>().await;
                    }
                    let offset = range.start + at;
                    let at = Instant::now();
                    let range = ByteRange::new(offset, range.end.min(range.start + end));
                    let news = Sent { at, request, range };
                    told.lock().unwrap().sent.push(news);
                    Ok(Delivery::new(offset, part))
                }
            })
            .boxed()
    }

    fn is_paying(&self) -> bool {
        self.paying.load(Ordering::SeqCst)
    }

    async fn verified(&self, range: ByteRange) {
        let mut told = self.told.lock().unwrap();
        assert!(!told.closed, "told after it was closed");
        let new = told.verified.insert(range);
        assert_eq!(new, range.len(), "{range:?} was told twice");
    }

    fn root_known(&self) {
        let before = self.knows_root.swap(true, Ordering::SeqCst);
        assert!(!before, "told twice");
        let mut told = self.told.lock().unwrap();
        told.root_known |= told.verified.is_empty();
    }

    async fn close(&self) {
        self.told.lock().unwrap().closed = true;
    }
}

/// What a seeder has, how it behaves, and how many bytes it has sent.
type Seeder = (File, Arc<Mutex<Manners>>, Arc<AtomicU64>, Arc<Mutex<Told>>);

/// A network of such sources, by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeNetwork {
    seeders: Arc<Mutex<BTreeMap<String, Seeder>>>,
    pub(crate) registry: TransferRegistry,
    /// In which order to connect; of whom it says nothing is a last resort.
    pub(crate) rank: Option<fn(&PeerOffer) -> Option<usize>>,
}

impl FakeNetwork {
    pub(crate) fn seeder(&self, name: &str, file: &File, manners: Manners) -> PeerOffer {
        let manners = Arc::new(Mutex::new(manners));
        let asks = manners.lock().unwrap().pays.is_some();
        let entry = (file.clone(), manners, Arc::default(), Arc::default());
        self.seeders.lock().unwrap().insert(name.to_owned(), entry);
        let mut offer = offer(name);
        if asks {
            offer.price = "0.001".parse().unwrap();
        }
        offer
    }

    /// A seeder behaves like this from now on.
    pub(crate) fn amend(&self, name: &str, manners: Manners) {
        *self.seeders.lock().unwrap()[name].1.lock().unwrap() = manners;
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
            knows_root: false.into(),
            paying: Arc::default(),
        }))
    }

    async fn arrivals(&self, _: &FileIdentification) -> SourceStream {
        futures_util::stream::empty().boxed()
    }

    fn order(&self, _: &FileIdentification, offers: &mut [PeerOffer]) -> usize {
        let Some(rank) = self.rank else {
            return offers.len();
        };
        offers.sort_by_key(|offer| rank(offer).unwrap_or(usize::MAX));
        offers.iter().filter(|offer| rank(offer).is_some()).count()
    }
}

/// Bytes of so many chunks.
pub(crate) const fn chunks(count: u64) -> usize {
    (count * CHUNK_SIZE) as usize
}
