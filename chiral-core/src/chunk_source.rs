//! [`ChunkSource`]: one connection to one seeder, delivering named byte ranges.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;

use crate::{
    ByteRange, Coverage, ManifestHeader, ManifestPage, MerkleRoot, PeerOffer, RequestGrid,
    VerifiedChunk,
};

/// Why a transfer, or a part of it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// No connection could be made, or it broke.
    #[error("connection to {source_name} failed")]
    Connection {
        /// Where.
        source_name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("{source_name} did not answer in time")]
    Timeout {
        /// Where.
        source_name: String,
    },
    /// The source does not have what was asked for.
    #[error("{source_name} does not have {what}")]
    Missing {
        /// Where.
        source_name: String,
        /// What.
        what: &'static str,
    },
    /// The source will not serve us, now or ever.
    #[error("{source_name} refused: {reason}")]
    Refused {
        /// Where.
        source_name: String,
        /// Why, as the source says.
        reason: String,
        /// Whether asking again later makes sense.
        retryable: bool,
    },
    /// We do not use the source: it contradicted what was proven.
    #[error("{source_name} is banned for {for_seconds} s more: {reason}")]
    Banned {
        /// Where.
        source_name: String,
        /// What it did.
        reason: String,
        /// How long the ban still lasts, in seconds.
        for_seconds: u64,
    },
    /// The source wants to be paid first; the offer is for the payment side.
    #[error("{source_name} asks for payment")]
    PaymentRequired {
        /// Where.
        source_name: String,
        /// What it offers, in words of the payment side.
        offer: Bytes,
    },
    /// The source broke its protocol.
    #[error("{source_name} broke the protocol: {reason}")]
    Protocol {
        /// Where.
        source_name: String,
        /// How.
        reason: &'static str,
    },
    /// An operation that this implementation does not offer.
    #[error("{protocol} does not support {operation}")]
    Unsupported {
        /// Which protocol.
        protocol: crate::Protocol,
        /// Which operation, or the feature that is missing.
        operation: &'static str,
    },
    /// The target cannot be turned into something to download.
    #[error("nothing is known of {target}")]
    Unknown {
        /// What was asked for.
        target: String,
    },
    /// No source is left that could deliver what is missing.
    #[error("nobody is left who delivers it: {reason}")]
    NoSources {
        /// Bytes that nobody delivers; 0 if not even the size was learnt.
        missing: u64,
        /// What happened to the sources.
        reason: String,
    },
    /// Root and cid of a link do not belong together, or the root is no root of any file.
    #[error("the link contradicts itself: {reason}")]
    BadLink {
        /// What shows it.
        reason: &'static str,
    },
    /// The same content is being transferred already, or there are too many transfers.
    #[error(transparent)]
    Registry(#[from] crate::transfer::RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::StoreError),
    /// It was cancelled.
    #[error(transparent)]
    Cancelled(#[from] crate::transfer::Stopped),
    /// Content too large for what it was to be put in.
    #[error("{size} bytes, at most {limit} are taken into memory")]
    TooLarge {
        /// Size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The node or protocol was shut down.
    #[error("shut down")]
    Closed,
}

impl TransferError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::Timeout { .. }
            | Self::NoSources { .. }
            | Self::Registry(_) => true,
            Self::Refused { retryable, .. } => *retryable,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Bytes that a source delivered, and where they belong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The bytes: not empty, inside the range that was asked for.
    pub bytes: Bytes,
    /// The same bytes as a chunk that was checked, if whoever delivers had to check it: whoever
    /// would check it against the same hashes need not do so again.
    pub checked: Option<VerifiedChunk>,
}

impl Delivery {
    /// Bytes that nobody has checked.
    pub fn new(offset: u64, bytes: Bytes) -> Self {
        Self {
            offset,
            bytes,
            checked: None,
        }
    }

    /// The range that the bytes fill.
    pub fn range(&self) -> ByteRange {
        ByteRange::new(self.offset, self.offset + self.bytes.len() as u64)
    }
}

/// Deliveries for one request, in any order. It ends when all of the range has come, or
/// with an error; nothing comes twice. Reading slowly slows the sender down. Dropping it
/// cancels the request.
pub type DeliveryStream = Pin<Box<dyn Stream<Item = Result<Delivery, TransferError>> + Send>>;

/// One connection (or pool of connections) to one seeder over one protocol.
///
/// Bytes that come out of it are unverified: the engine's verifier decides.
///
/// # Cancel safety
/// Every future and stream may be dropped; that cancels the request and leaves the source
/// usable.
#[async_trait]
pub trait ChunkSource: Send + Sync + fmt::Debug + 'static {
    /// The offer that this source came from: protocol, endpoint, price.
    fn offer(&self) -> &PeerOffer;

    /// Size of the file in bytes, as the source says, if it does.
    fn size(&self) -> Option<u64>;

    /// Where requests can be cut.
    fn grid(&self) -> RequestGrid;

    /// How many requests may be under way at once, at least 1.
    fn max_requests(&self) -> usize;

    /// What the source holds. May change while connected; the engine asks again from time
    /// to time and after a [`TransferError::Missing`].
    async fn coverage(&self) -> Result<Coverage, TransferError>;

    /// Until the coverage is not what [`coverage`](ChunkSource::coverage) answered last, or the
    /// connection is gone; at once if that is so already. For sources that hear of it by
    /// themselves: the engine then asks again at once, and takes an error for the end of the
    /// source. Others never answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// Identity and hints as this source announces them; `None` from one that knows nothing
    /// of Chiral.
    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError>;

    /// A page of the manifest, unverified.
    ///
    /// # Errors
    /// [`TransferError::Missing`] if the source has no such page.
    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError>;

    /// Asks for a range on this source's grid, within its coverage.
    fn fetch(&self, range: ByteRange) -> DeliveryStream;

    /// Bytes that came from here passed the check and are proven; each byte is told once.
    /// For sources that acknowledge.
    async fn verified(&self, range: ByteRange) {
        let _ = range;
    }

    /// From now on every chunk is checked as it comes: the root is pinned or proven. For
    /// sources that would be paid before they deliver.
    fn root_known(&self) {}

    /// The same, and which root it is. For sources that check by themselves what they buy.
    fn root_is(&self, root: MerkleRoot) {
        let _ = root;
        self.root_known();
    }

    /// How many bytes it serves ahead of payment now: where only what is proven is paid, it is
    /// not asked for more than that before something is.
    fn lends(&self) -> u64 {
        u64::MAX
    }

    /// In a download that is proven from its end towards its start: all from `offset` on is
    /// proven, and what lies right before it is proven next. For sources that lend little and
    /// are paid for what is proven: what lies further down waits for all that is between.
    fn proven_from(&self, offset: u64) {
        let _ = offset;
    }

    /// Whether requests stand still because payment is being arranged, which may take long
    /// and is no fault. Looked at from time to time: meanwhile others are asked, and nothing
    /// is held against the source.
    fn is_paying(&self) -> bool {
        false
    }

    /// What came from here was wrong beyond doubt, and it is not used any more. For sources of a
    /// network in which we would go on meeting whoever that is.
    fn banned(&self) {}

    /// Ends the connection; idempotent. Dropping the source does so too, without waiting.
    async fn close(&self);
}

/// All bytes of a range from one source of a file of `size` bytes, in one piece, whatever
/// order they come in. Unverified.
///
/// # Errors
/// Those of the source; [`TransferError::Protocol`] if it ends early or repeats itself.
///
/// # Cancel safety
/// Dropping the future cancels the request.
pub async fn collect(
    source: &dyn ChunkSource,
    range: ByteRange,
    size: u64,
) -> Result<Bytes, TransferError> {
    collect_watched(source, range, size, |_| {}).await
}

/// As [`collect`], and tells how many bytes came whenever some do.
///
/// # Errors
/// As those of [`collect`].
///
/// # Cancel safety
/// Dropping the future cancels the request.
pub async fn collect_watched(
    source: &dyn ChunkSource,
    range: ByteRange,
    size: u64,
    mut came: impl FnMut(u64),
) -> Result<Bytes, TransferError> {
    let broken = |reason| TransferError::Protocol {
        source_name: source.offer().endpoint.as_str().to_owned(),
        reason,
    };
    let mut buffer = vec![0u8; range.len() as usize];
    let mut left = range.len();
    let mut stream = source.fetch(source.grid().expand(range, size));
    while left > 0 {
        let delivery = stream.next().await.ok_or_else(|| broken("ended early"))??;
        let Some(part) = delivery.range().intersection(range) else {
            continue;
        };
        let from = (part.start - delivery.offset) as usize;
        let to = (part.start - range.start) as usize;
        let len = part.len() as usize;
        buffer[to..to + len].copy_from_slice(&delivery.bytes[from..from + len]);
        left = left
            .checked_sub(part.len())
            .ok_or_else(|| broken("sent bytes twice"))?;
        came(len as u64);
    }
    Ok(Bytes::from(buffer))
}
