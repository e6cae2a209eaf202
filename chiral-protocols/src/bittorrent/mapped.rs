//! [`MappedSource`]: a source of a torrent's stream, for a download of some of its pieces.

use std::sync::Arc;

use async_trait::async_trait;
use chiral_core::{
    ByteRange, ChunkLayout, ChunkRuns, ChunkSource, Coverage, Delivery, DeliveryStream,
    ManifestHeader, ManifestPage, PeerOffer, RangeSet, RequestGrid, TransferError,
};
use futures_util::StreamExt;

use super::selection::{Run, Selection};

/// A source whose bytes are elsewhere than in the download.
#[derive(Debug)]
pub struct MappedSource {
    inner: Arc<dyn ChunkSource>,
    selection: Arc<Selection>,
}

impl MappedSource {
    /// The source as the download is to see it: itself, if the download is the whole stream.
    pub fn wrap(inner: Arc<dyn ChunkSource>, selection: &Arc<Selection>) -> Arc<dyn ChunkSource> {
        match selection.is_all() {
            true => inner,
            false => Arc::new(Self {
                inner,
                selection: selection.clone(),
            }),
        }
    }

    fn fits(&self) -> bool {
        let size = self.inner.size();
        size.is_none_or(|size| size == self.selection.stream_size())
    }
}

/// The part of a run that lies within another.
fn fetch_run(inner: &dyn ChunkSource, run: Run, stream: u64) -> DeliveryStream {
    let wanted = run.there();
    let deliveries = inner.fetch(inner.grid().expand(wanted, stream));
    let cut = move |item: Result<Delivery, TransferError>| {
        let kept = match item {
            Err(error) => Some(Err(error)),
            Ok(delivery) => delivery.range().intersection(wanted).map(|part| {
                let from = (part.start - delivery.offset) as usize;
                let bytes = delivery.bytes.slice(from..from + part.len() as usize);
                let offset = run.at + (part.start - run.stream);
                Ok(Delivery::new(offset, bytes))
            }),
        };
        std::future::ready(kept)
    };
    deliveries.filter_map(cut).boxed()
}

/// The chunks of a file of `size` bytes that lie within these bytes.
pub(super) fn chunks_within(held: &RangeSet, layout: ChunkLayout) -> ChunkRuns {
    let whole = |run: ByteRange| {
        let touched = layout.touched(run);
        touched.filter(move |index| run.covers(layout.range(*index)))
    };
    ChunkRuns::from_sorted(held.iter().flat_map(whole))
}

#[async_trait]
impl ChunkSource for MappedSource {
    fn offer(&self) -> &PeerOffer {
        self.inner.offer()
    }

    /// Of a source of something else, a size that no download has.
    fn size(&self) -> Option<u64> {
        match self.fits() {
            true => Some(self.selection.size()),
            false => Some(u64::MAX),
        }
    }

    /// Pieces are of one length here and there, so what cuts them does so here too.
    fn grid(&self) -> RequestGrid {
        self.inner.grid()
    }

    fn max_requests(&self) -> usize {
        self.inner.max_requests()
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        let coverage = self.inner.coverage().await?;
        let nothing = Coverage::Partial(ChunkRuns::default());
        let (Ok(there), Ok(here)) = (
            ChunkLayout::new(self.selection.stream_size()),
            ChunkLayout::new(self.selection.size()),
        ) else {
            return Ok(nothing);
        };
        if !self.fits() {
            return Ok(nothing);
        }
        if coverage == Coverage::Complete {
            return Ok(coverage);
        }
        let mut held = RangeSet::new();
        for range in coverage.to_ranges(there).iter() {
            for run in self.selection.from_stream(range) {
                held.insert(run.here());
            }
        }
        Ok(Coverage::Partial(chunks_within(&held, here)))
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    /// It has one of the stream, which is no use here; it is asked all the same, for what else
    /// comes of that.
    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        self.inner.manifest_header().await.map(|_| None)
    }

    async fn manifest_page(&self, _: u32) -> Result<ManifestPage, TransferError> {
        Err(TransferError::Missing {
            source_name: self.inner.offer().endpoint.as_str().to_owned(),
            what: "a manifest of some of its pieces",
        })
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let (inner, stream) = (self.inner.clone(), self.selection.stream_size());
        let runs: Vec<Run> = self.selection.to_stream(range).collect();
        let each = move |run| fetch_run(&*inner, run, stream);
        let deliveries = futures_util::stream::iter(runs).flat_map(each);
        // Nothing comes behind an error.
        let until_error = deliveries.scan(false, |failed, item: Result<Delivery, _>| {
            let before = std::mem::replace(failed, item.is_err());
            std::future::ready((!before).then_some(item))
        });
        until_error.boxed()
    }

    async fn verified(&self, range: ByteRange) {
        let runs: Vec<Run> = self.selection.to_stream(range).collect();
        for run in runs {
            self.inner.verified(run.there()).await;
        }
    }

    fn root_known(&self) {
        self.inner.root_known();
    }

    fn is_paying(&self) -> bool {
        self.inner.is_paying()
    }

    fn banned(&self) {
        self.inner.banned();
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
