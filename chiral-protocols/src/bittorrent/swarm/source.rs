//! [`PeerSource`]: a connection to a peer as a [`ChunkSource`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::{
    ByteRange, ChunkSource, Coverage, Delivery, DeliveryStream, ManifestHeader, ManifestPage,
    PeerOffer, Protocol, RangeSet, RequestGrid, TransferError,
};
use futures_core::Stream;
use futures_util::StreamExt;

use super::handle::{Ask, PeerHandle};
use super::torrent::Torrent;
use crate::bittorrent::wire::Geometry;

/// Ranges asked for at once: the blocks of them wait in line here.
const MAX_REQUESTS: usize = 8;

/// How long a request waits for a peer that chokes us to let go.
const CHOKED_PATIENCE: Duration = Duration::from_secs(10);

/// The same, once it was choked while it was worked off; and how often that may be.
const AGAIN: Duration = Duration::from_secs(1);
const MAX_TRIES: u32 = 3;

/// Pause before what was refused is asked for again.
const MOMENT: Duration = Duration::from_millis(50);

/// One peer of a torrent's swarm. See [`ChunkSource`] for what is promised.
///
/// A peer that chokes us holds nothing, as far as this says, but for pieces that it allows all
/// the same; [`ChunkSource::changed`] tells when that is over.
#[derive(Debug)]
pub struct PeerSource {
    handle: Arc<PeerHandle>,
    torrent: Arc<Torrent>,
    geometry: Geometry,
    offer: PeerOffer,
    /// Which change of the coverage was told last.
    told: AtomicU64,
    closed: AtomicBool,
}

impl PeerSource {
    /// Of a connection that the caller has claimed.
    pub(super) fn new(
        handle: Arc<PeerHandle>,
        torrent: Arc<Torrent>,
        geometry: Geometry,
        mut offer: PeerOffer,
    ) -> Self {
        offer.coverage = handle.coverage().ok().map(|(coverage, _)| coverage);
        torrent.source_opened();
        handle.set_wanting(true);
        Self {
            handle,
            torrent,
            geometry,
            offer,
            told: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
        }
    }

    fn name(&self) -> String {
        self.offer.endpoint.as_str().to_owned()
    }
}

fn failed(error: TransferError) -> DeliveryStream {
    futures_util::stream::iter([Err(error)]).boxed()
}

/// A range that is asked for again as far as it did not come, if that is because we were choked
/// for a moment: a choke that is on its way while we ask is nobody's fault.
struct Asked {
    handle: Arc<PeerHandle>,
    left: RangeSet,
    tries: u32,
    now: Option<Fetching>,
}

type Item = Result<Delivery, TransferError>;

impl Asked {
    async fn next(this: Option<Self>) -> Option<(Item, Option<Self>)> {
        let mut this = this?;
        loop {
            let fetching = match &mut this.now {
                Some(fetching) => fetching,
                None => {
                    let range = this.left.next_run(0)?;
                    let patience = if this.tries == 0 {
                        CHOKED_PATIENCE
                    } else {
                        AGAIN
                    };
                    let introduced = this.handle.introduced();
                    // If it goes on choking us, that is the error.
                    let _ = tokio::time::timeout(patience, introduced).await;
                    match this.handle.fetch(range) {
                        Ok(token) => this.now.insert(Fetching {
                            handle: this.handle.clone(),
                            token,
                        }),
                        Err(error) => return Some((Err(error), None)),
                    }
                }
            };
            match fetching.next().await {
                None => this.now = None,
                Some(Ok(delivery)) => {
                    this.left.remove(delivery.range());
                    return Some((Ok(delivery), Some(this)));
                }
                Some(Err(TransferError::Refused {
                    retryable: true, ..
                })) if this.tries < MAX_TRIES => {
                    (this.tries, this.now) = (this.tries + 1, None);
                    // What it says of this is heard by then.
                    tokio::time::sleep(MOMENT).await;
                }
                Some(Err(error)) => return Some((Err(error), None)),
            }
        }
    }
}

/// The blocks of one range.
struct Fetching {
    handle: Arc<PeerHandle>,
    token: u64,
}

impl Stream for Fetching {
    type Item = Result<Delivery, TransferError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.handle.poll_fetch(self.token, cx)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.handle.drop_fetch(self.token);
    }
}

#[async_trait]
impl ChunkSource for PeerSource {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        Some(self.geometry.length())
    }

    fn grid(&self) -> RequestGrid {
        self.geometry.grid()
    }

    fn max_requests(&self) -> usize {
        MAX_REQUESTS
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        let (coverage, version) = self.handle.coverage()?;
        self.told.store(version, Ordering::Relaxed);
        Ok(coverage)
    }

    async fn changed(&self) {
        self.handle.changed(self.told.load(Ordering::Relaxed)).await;
    }

    /// Chiral nodes have one.
    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        let answer = self.handle.ask(Ask::Header).await?;
        // A malformed one is none: the node is a peer like others then.
        Ok(answer.and_then(|bytes| ManifestHeader::decode(&bytes).ok()))
    }

    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError> {
        let missing = || TransferError::Missing {
            source_name: self.name(),
            what: "that page of the manifest",
        };
        let bytes = self
            .handle
            .ask(Ask::Page(index))
            .await?
            .ok_or_else(missing)?;
        ManifestPage::decode(&bytes).map_err(|_| TransferError::Protocol {
            source_name: self.name(),
            reason: "a malformed manifest page",
        })
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let size = self.geometry.length();
        if range.is_empty() {
            return Box::pin(futures_util::stream::empty());
        }
        let error = if self.closed.load(Ordering::Relaxed) {
            TransferError::Closed
        } else if range.end > size {
            TransferError::Missing {
                source_name: self.name(),
                what: "bytes past its end",
            }
        } else if self.geometry.grid().expand(range, size) != range {
            TransferError::Unsupported {
                protocol: Protocol::BitTorrent,
                operation: "parts of a block",
            }
        } else {
            let asked = Asked {
                handle: self.handle.clone(),
                left: range.into(),
                tries: 0,
                now: None,
            };
            return futures_util::stream::unfold(Some(asked), Asked::next).boxed();
        };
        failed(error)
    }

    /// The connection stays if the torrent is seeded.
    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.handle.set_wanting(false);
    }
}

impl Drop for PeerSource {
    fn drop(&mut self) {
        self.handle.set_wanting(false);
        self.handle.unclaim();
        self.torrent.source_closed();
    }
}
