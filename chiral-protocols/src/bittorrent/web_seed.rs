//! [`WebSeed`]: a web server that has a torrent's files (BEP 19) as a source of its stream.
//!
//! The server has one URL for each file. What is asked of the stream is cut where files begin and
//! end, and each part is asked of its file, over whatever connects to mirrors; padding is nowhere
//! to be had, and answered with zeros. A file that the server has not, or has in another length,
//! is none of what the source says that it holds; the others are.
//!
//! Whoever wrote the torrent, or the link to it, wrote the URL: it is
//! [hearsay](PeerOffer::hearsay), and leads only where strangers may have us dial. What comes is
//! checked by the torrent's own hashes, as what comes from anybody else.

mod files;
mod urls;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    ByteRange, ChunkLayout, ChunkRuns, ChunkSource, Coverage, Delivery, DeliveryStream, Endpoint,
    FileIdentification, ManifestHeader, ManifestPage, PeerOffer, Protocol, RangeSet, RequestGrid,
    TransferError,
};
use futures_util::StreamExt;

use self::files::Files;
use self::urls::Urls;
use super::download::Plan;
use super::layout::Segment;
use super::mapped::chunks_within;
use super::metainfo::Metainfo;
use crate::engine::Connector;

/// Ranges of the stream asked for at once.
const MAX_REQUESTS: usize = 4;

/// Files asked for, at most, before a server counts as one that has none of them.
const PROBES: usize = 3;

/// Zeros of padding in one delivery, in bytes.
const ZEROS: &[u8] = &[0; 64 << 10];

/// An offer of the web seed at this URL, for a download of this torrent; nothing for what is no
/// URL. A penalty on it is one for this torrent only: who makes a torrent of other bytes is not
/// to have us shun a server that is right.
pub(super) fn offer(url: &str, torrent: &str) -> Option<PeerOffer> {
    if url.contains('#') {
        return None;
    }
    let endpoint = Endpoint::new(format!("{url}#{torrent}")).ok()?;
    let offer = PeerOffer::new(Protocol::Http, endpoint).as_mirror();
    Some(offer.as_hearsay())
}

/// The URL of an offer that [`offer`] made.
fn base(offer: &PeerOffer) -> &str {
    let endpoint = offer.endpoint.as_str();
    endpoint.split_once('#').map_or(endpoint, |(url, _)| url)
}

/// Whether an offer is one of a web seed.
pub(super) fn is_one(offer: &PeerOffer) -> bool {
    offer.protocol == Protocol::Http && offer.mirror && offer.hearsay
}

/// A web server that has a torrent's files. See [`ChunkSource`] for what is promised.
#[derive(Debug)]
pub struct WebSeed {
    offer: PeerOffer,
    torrent: Arc<Metainfo>,
    files: Arc<Files>,
}

impl WebSeed {
    /// Asks the server for the first of the files that are wanted.
    ///
    /// # Errors
    /// [`TransferError`] if it cannot be asked, or has none of the first few.
    pub(super) async fn connect(
        connector: Arc<dyn Connector>,
        offer: &PeerOffer,
        target: FileIdentification,
        plan: &Plan,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let torrent = plan.torrent.clone();
        let urls = Urls::new(base(offer), &torrent);
        let files = Files::new(connector, urls, torrent.clone(), target);
        let len = |file: &u32| torrent.files().get(*file as usize).map_or(0, |it| it.len);
        let wanted = plan.files.iter().copied().filter(|file| len(file) > 0);
        let mut failed = None;
        for file in wanted.take(PROBES) {
            match files.open(file).await {
                Ok(_) => {
                    failed = None;
                    break;
                }
                Err(error) if files.is_absent(file) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut offer = offer.clone();
        offer.coverage = Some(Coverage::Complete);
        Ok(Arc::new(Self {
            offer,
            torrent,
            files: Arc::new(files),
        }))
    }

    fn size(&self) -> u64 {
        self.torrent.layout().size()
    }
}

/// What is asked of one file, or of padding.
fn part(files: Arc<Files>, segment: Segment) -> DeliveryStream {
    match segment.file {
        None => padding(segment.stream),
        Some(file) => {
            let begun = async move {
                let within = ByteRange::new(segment.offset, segment.offset + segment.stream.len());
                match files.fetch(file, within).await {
                    Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
                    Ok(bytes) => {
                        let place = segment.stream.start - segment.offset;
                        bytes.map(move |item| moved(item, place)).boxed()
                    }
                }
            };
            futures_util::stream::once(begun).flatten().boxed()
        }
    }
}

/// What lies in a file, where it lies in the stream.
fn moved(item: Result<Delivery, TransferError>, place: u64) -> Result<Delivery, TransferError> {
    item.map(|delivery| Delivery::new(place + delivery.offset, delivery.bytes))
}

fn padding(range: ByteRange) -> DeliveryStream {
    let zeros = futures_util::stream::unfold(range, |left| async move {
        let len = left.len().min(ZEROS.len() as u64);
        let bytes = Bytes::from_static(&ZEROS[..len as usize]);
        let delivery = Delivery::new(left.start, bytes);
        let rest = ByteRange::new(left.start + len, left.end);
        (len > 0).then_some((Ok(delivery), rest))
    });
    zeros.boxed()
}

#[async_trait]
impl ChunkSource for WebSeed {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        Some(self.size())
    }

    fn grid(&self) -> RequestGrid {
        RequestGrid::ANY
    }

    fn max_requests(&self) -> usize {
        MAX_REQUESTS
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        let absent = self.files.absent();
        if absent.is_empty() {
            return Ok(Coverage::Complete);
        }
        let mut held = RangeSet::from(ByteRange::new(0, self.size()));
        for file in absent {
            if let Some(range) = self.torrent.layout().file_range(file) {
                held.remove(range);
            }
        }
        let layout = ChunkLayout::new(self.size()).ok();
        let runs = layout.map_or_else(ChunkRuns::default, |layout| chunks_within(&held, layout));
        Ok(Coverage::Partial(runs))
    }

    /// It knows nothing of Chiral.
    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok(None)
    }

    async fn manifest_page(&self, _: u32) -> Result<ManifestPage, TransferError> {
        Err(self.files.missing("a manifest"))
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        if range.end > self.size() {
            let error = self.files.missing("bytes past its end");
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        let (torrent, files) = (self.torrent.clone(), self.files.clone());
        // One part after the other; where each of them lies is found as it is its turn.
        let parts = futures_util::stream::unfold(range, move |left| {
            let segment = torrent.layout().segments(left).next();
            let rest = |segment: &Segment| ByteRange::new(segment.stream.end, left.end);
            let next = segment.filter(|_| !left.is_empty());
            std::future::ready(next.map(|segment| (segment, rest(&segment))))
        });
        let deliveries = parts.flat_map(move |segment| part(files.clone(), segment));
        // Nothing comes behind an error.
        let until_error = deliveries.scan(false, |failed, item: Result<Delivery, _>| {
            let before = std::mem::replace(failed, item.is_err());
            std::future::ready((!before).then_some(item))
        });
        until_error.boxed()
    }

    async fn close(&self) {
        self.files.close().await;
    }
}
