//! The files of a web seed, each behind connections of its own while it is asked for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::{
    ByteRange, ChunkSource, Delivery, DeliveryStream, Endpoint, FileIdentification, PeerOffer,
    Protocol, TransferError,
};
use futures_util::StreamExt;
use tokio::sync::OnceCell;

use super::urls::Urls;
use crate::bittorrent::metainfo::Metainfo;
use crate::engine::Connector;

/// Files that are kept open: of others the connections are closed when nobody reads from them.
const MAX_OPEN: usize = 8;

/// Longest file that is fetched whole, in bytes, to have a part of it from a server that gives
/// no parts. A longer one is had from others, or all at once.
const MAX_WHOLE: u64 = 1 << 20;

/// Opened once, by whoever is first.
type Opened = Arc<OnceCell<Arc<dyn ChunkSource>>>;

/// The files of a torrent at one web seed.
#[derive(Debug)]
pub(super) struct Files {
    connector: Arc<dyn Connector>,
    urls: Urls,
    torrent: Arc<Metainfo>,
    target: FileIdentification,
    /// Those asked for last are last.
    open: Mutex<VecDeque<(u32, Opened)>>,
    /// Those that it has not, or has in another length.
    absent: Mutex<BTreeSet<u32>>,
    closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        urls: Urls,
        torrent: Arc<Metainfo>,
        target: FileIdentification,
    ) -> Self {
        Self {
            connector,
            urls,
            torrent,
            target,
            open: Mutex::default(),
            absent: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn is_absent(&self, file: u32) -> bool {
        lock(&self.absent).contains(&file)
    }

    pub(super) fn absent(&self) -> Vec<u32> {
        lock(&self.absent).iter().copied().collect()
    }

    /// What the server has not.
    pub(super) fn missing(&self, what: &'static str) -> TransferError {
        TransferError::Missing {
            source_name: self.urls.base().to_owned(),
            what,
        }
    }

    /// The cell of a file; the file that was asked for longest ago makes room for it.
    fn cell(&self, file: u32) -> Opened {
        let mut open = lock(&self.open);
        let known = open.iter().position(|(other, _)| *other == file);
        let entry = known.and_then(|at| open.remove(at));
        let (_, cell) = entry.unwrap_or_else(|| (file, Opened::default()));
        if open.len() >= MAX_OPEN {
            // Whoever reads from it holds it.
            open.pop_front();
        }
        open.push_back((file, cell.clone()));
        cell
    }

    /// Connects to the server for a file, unless that was done; and looks whether it is there.
    ///
    /// # Errors
    /// [`TransferError`]; then it is tried again the next time, unless the file is
    /// [absent](Self::is_absent) now.
    pub(super) async fn open(&self, file: u32) -> Result<Arc<dyn ChunkSource>, TransferError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(TransferError::Closed);
        }
        if self.is_absent(file) {
            return Err(self.missing("one of the files"));
        }
        let cell = self.cell(file);
        let opened = cell.get_or_try_init(|| self.connect(file)).await;
        if let Err(error) = &opened {
            self.note(file, error);
        }
        opened.cloned()
    }

    /// What came of asking for a file.
    fn note(&self, file: u32, error: &TransferError) {
        if is_for_good(error) {
            lock(&self.absent).insert(file);
        }
    }

    async fn connect(&self, file: u32) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let url = self.urls.of(&self.torrent, file);
        let endpoint = url.and_then(|url| Endpoint::new(url).ok());
        let endpoint =
            endpoint.ok_or_else(|| self.missing("a file with a name that no url has"))?;
        let offer = PeerOffer::new(Protocol::Http, endpoint).as_mirror();
        let offer = offer.as_hearsay();
        let source = self.connector.connect(&offer, &self.target).await?;
        let file = self.torrent.files().get(file as usize);
        let len = file.map_or(0, |file| file.len);
        if source.size() != Some(len) {
            source.close().await;
            return Err(self.missing("a file of the length that the torrent says"));
        }
        let whole = ByteRange::new(0, len);
        let first = ByteRange::new(0, len.min(1));
        if len > MAX_WHOLE && source.grid().expand(first, len) == whole {
            source.close().await;
            return Err(self.missing("parts of a long file"));
        }
        Ok(source)
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub(super) async fn fetch(
        self: &Arc<Self>,
        file: u32,
        wanted: ByteRange,
    ) -> Result<DeliveryStream, TransferError> {
        let source = self.open(file).await?;
        let len = source.size().unwrap_or(wanted.end);
        let deliveries = source.fetch(source.grid().expand(wanted, len));
        let files = self.clone();
        let cut = move |item: Result<Delivery, TransferError>| {
            // For as long as somebody reads from it, it is not closed.
            let _open = &source;
            let kept = match item {
                Err(error) => {
                    files.note(file, &error);
                    Some(Err(error))
                }
                Ok(delivery) => delivery.range().intersection(wanted).map(|part| {
                    let from = (part.start - delivery.offset) as usize;
                    let bytes = delivery.bytes.slice(from..from + part.len() as usize);
                    Ok(Delivery::new(part.start, bytes))
                }),
            };
            std::future::ready(kept)
        };
        Ok(deliveries.filter_map(cut).boxed())
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let open = std::mem::take(&mut *lock(&self.open));
        for (_, cell) in open {
            if let Some(source) = cell.get() {
                source.close().await;
            }
        }
    }
}

/// Whether the server will never have the file, as far as it says.
fn is_for_good(error: &TransferError) -> bool {
    match error {
        TransferError::Missing { .. }
        | TransferError::Protocol { .. }
        | TransferError::Unsupported { .. } => true,
        TransferError::Refused { retryable, .. } => !retryable,
        _ => false,
    }
}
