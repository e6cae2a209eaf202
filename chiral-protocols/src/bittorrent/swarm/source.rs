//! [`PeerSource`]: a connection to a peer as a [`ChunkSource`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    ByteRange, ChunkSource, Coverage, Delivery, DeliveryStream, ManifestHeader, ManifestPage,
    PeerOffer, Protocol, Purchase, RangeSet, RequestGrid, Tariff, TransferError,
};
use futures_core::Stream;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::buyer::{self, Buyer, Talk};
use super::handle::{Ask, PeerHandle};
use super::node::Shared;
use super::torrent::Torrent;
use crate::bittorrent::extension::read_tariff;
use crate::bittorrent::wire::{BLOCK_LEN, Geometry};
use crate::payer::Payer;

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
    shared: Arc<Shared>,
    /// The offer with what the peer says that it asks, and who buys from it if that is
    /// anything; known once it was asked.
    sale: OnceLock<(PeerOffer, Option<Arc<Buyer>>)>,
    closing: CancellationToken,
    /// Which change of the coverage was told last.
    told: AtomicU64,
    closed: AtomicBool,
    is_root_known: AtomicBool,
}

impl PeerSource {
    /// Of a connection that the caller has claimed.
    pub(super) fn new(
        handle: Arc<PeerHandle>,
        torrent: Arc<Torrent>,
        geometry: Geometry,
        mut offer: PeerOffer,
        shared: Arc<Shared>,
    ) -> Self {
        offer.coverage = handle.coverage().ok().map(|(coverage, _)| coverage);
        torrent.source_opened();
        handle.set_wanting(true);
        Self {
            handle,
            torrent,
            geometry,
            offer,
            closing: shared.closed.child_token(),
            shared,
            sale: OnceLock::new(),
            told: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
            is_root_known: AtomicBool::new(false),
        }
    }

    fn name(&self) -> String {
        self.offer.endpoint.as_str().to_owned()
    }

    /// What of a range lies in files, and what in padding.
    fn without_padding(&self, range: ByteRange) -> (RangeSet, RangeSet) {
        let (mut bytes, mut padding) = (RangeSet::new(), RangeSet::new());
        let Some(info) = self.torrent.info() else {
            return (range.into(), padding);
        };
        for segment in info.metainfo().layout().segments(range) {
            match segment.file {
                Some(_) => bytes.insert(segment.stream),
                None => padding.insert(segment.stream),
            };
        }
        (bytes, padding)
    }

    fn buyer(&self) -> Option<&Arc<Buyer>> {
        self.sale.get()?.1.as_ref()
    }

    /// Asks a Chiral node what it wants for its content, unless it was announced: then it is
    /// held to that.
    async fn learn_price(&self, header: &ManifestHeader) -> Result<(), TransferError> {
        if self.sale.get().is_some() {
            return Ok(());
        }
        let cid = header.cid;
        let mut offer = self.offer.clone();
        offer.peer = offer.peer.or_else(|| self.handle.published().chiral);
        if offer.valid_until.is_none() && offer.wallet.is_none() {
            let said = self.handle.ask(Ask::Tariff).await?;
            let tariff = said.as_deref().map(read_tariff);
            let tariff = tariff.unwrap_or(Some(Tariff::default()));
            let tariff = tariff.ok_or_else(|| TransferError::Protocol {
                source_name: self.name(),
                reason: "a malformed price",
            })?;
            (offer.price, offer.wallet) = (tariff.price, tariff.wallet);
        }
        let agent = self.shared.agent.get().filter(|_| !offer.price.is_free());
        let buyer = agent.map(|agent| {
            let (handle, name) = (self.handle.clone(), offer.endpoint.clone());
            let talk = Talk {
                handle: handle.clone(),
                name: name.clone(),
            };
            let mut bought = offer.clone();
            // No more is paid in advance than there is.
            bought.header.get_or_insert_with(|| header.clone());
            let payer = Payer::new(
                agent.clone(),
                Purchase::new(cid, bought),
                Arc::new(talk),
                buyer::PATIENCE,
                self.closing.clone(),
                self.shared.tasks.clone(),
            );
            Arc::new(Buyer::new(handle, Arc::new(payer), name))
        });
        // Whoever was faster has learnt the same.
        let (_, buyer) = self.sale.get_or_init(|| (offer, buyer));
        if let Some(buyer) = buyer
            && self.is_root_known.load(Ordering::Relaxed)
        {
            buyer.payer.root_known();
        }
        Ok(())
    }
}

/// Blocks of a range for which leave is asked first, in parts.
fn fetch_paid(
    buyer: Arc<Buyer>,
    handle: Arc<PeerHandle>,
    geometry: Geometry,
    range: ByteRange,
) -> DeliveryStream {
    let asking = buyer.clone();
    let parts = futures_util::stream::unfold(range, move |left| {
        let part = asking.part(left, geometry.grid(), geometry.length());
        let rest = ByteRange::new(part.end, left.end);
        std::future::ready((!left.is_empty()).then_some((part, rest)))
    });
    let deliveries = parts.flat_map(move |part| {
        let (buyer, handle) = (buyer.clone(), handle.clone());
        let begun = async move {
            match buyer.leave(part).await {
                Ok(leave) => {
                    let asked = Some(Asked::new(handle, part.into()));
                    // The leave ends with the last block, or with whoever reads them.
                    let next = |(asked, leave)| async {
                        let (item, asked) = Asked::next(asked).await?;
                        Some((item, (asked, leave)))
                    };
                    futures_util::stream::unfold((asked, leave), next).boxed()
                }
                Err(error) => failed(error),
            }
        };
        futures_util::stream::once(begun).flatten().boxed()
    });
    // Nothing comes behind an error.
    let until_error = deliveries.scan(false, |failed, item: Item| {
        let before = std::mem::replace(failed, item.is_err());
        std::future::ready((!before).then_some(item))
    });
    until_error.boxed()
}

/// Padding, which nobody is asked for: what it is, is known.
fn zeros(padding: RangeSet) -> impl Stream<Item = Item> {
    const ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];
    let ranges: Vec<ByteRange> = padding.iter().collect();
    let blocks = ranges.into_iter().flat_map(|range| {
        let starts = (range.start..range.end).step_by(ZEROS.len());
        starts.map(move |offset| {
            let len = (range.end - offset).min(ZEROS.len() as u64) as usize;
            let bytes = Bytes::from_static(&ZEROS).slice(..len);
            Ok(Delivery::new(offset, bytes))
        })
    });
    futures_util::stream::iter(blocks)
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
    fn new(handle: Arc<PeerHandle>, ranges: RangeSet) -> Self {
        Self {
            handle,
            left: ranges,
            tries: 0,
            now: None,
        }
    }

    async fn next(this: Option<Self>) -> Option<(Item, Option<Self>)> {
        let mut this = this?;
        loop {
            let fetching = match &mut this.now {
                Some(fetching) => fetching,
                None => {
                    if this.left.is_empty() {
                        return None;
                    }
                    let patience = if this.tries == 0 {
                        CHOKED_PATIENCE
                    } else {
                        AGAIN
                    };
                    let introduced = this.handle.introduced();
                    // If it goes on choking us, that is the error.
                    let _ = tokio::time::timeout(patience, introduced).await;
                    match this.handle.fetch(&this.left) {
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
        self.sale.get().map_or(&self.offer, |(offer, _)| offer)
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
        let header = answer.and_then(|bytes| ManifestHeader::decode(&bytes).ok());
        if let Some(header) = &header
            && header.size == self.geometry.length()
        {
            self.learn_price(header).await?;
        }
        Ok(header)
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
            let handle = self.handle.clone();
            if let Some(buyer) = self.buyer() {
                return fetch_paid(buyer.clone(), handle, self.geometry, range);
            }
            let (bytes, padding) = self.without_padding(range);
            let asked = Asked::new(handle, bytes);
            let asked = futures_util::stream::unfold(Some(asked), Asked::next);
            return zeros(padding).chain(asked).boxed();
        };
        failed(error)
    }

    async fn verified(&self, range: ByteRange) {
        if let Some(buyer) = self.buyer() {
            buyer.payer.verified(range).await;
        }
    }

    fn root_known(&self) {
        self.is_root_known.store(true, Ordering::Relaxed);
        if let Some(buyer) = self.buyer() {
            buyer.payer.root_known();
        }
    }

    fn is_paying(&self) -> bool {
        self.buyer().is_some_and(|buyer| buyer.payer.is_paying())
    }

    /// The connection is closed, and the peer not met again for a while.
    fn banned(&self) {
        self.torrent.ban(&self.handle);
    }

    /// The connection stays if the torrent is seeded.
    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(buyer) = self.buyer() {
            buyer.payer.finish().await;
        }
        self.closing.cancel();
        self.handle.set_wanting(false);
    }
}

impl Drop for PeerSource {
    fn drop(&mut self) {
        self.closing.cancel();
        self.handle.set_wanting(false);
        self.handle.unclaim();
        self.torrent.source_closed();
    }
}
