//! [`Torrent`]: what all connections of one torrent share.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use chiral_core::{Bitmap, ByteRange, ChunkSource, Cid, StoredContent};
use sha1::{Digest, Sha1};
use tokio::sync::{Notify, mpsc};

use super::handle::{Handles, PeerHandle};
use super::info::TorrentInfo;
use crate::bittorrent::extension::PexPeer;

/// Most addresses that wait to be dialled.
const MAX_KNOWN: usize = 1000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where sources go that somebody waits for.
type Sources = mpsc::Sender<Arc<dyn ChunkSource>>;

/// Who waits for sources of a torrent, and the connections that he was handed.
#[derive(Debug)]
struct Waiting {
    sources: Sources,
    handed: BTreeSet<u64>,
}

/// What is served of a torrent, and where it comes from.
#[derive(Debug, Default)]
struct Served {
    /// Content of the store.
    cid: Option<Cid>,
    /// It was asked to be seeded, not just downloaded.
    seeding: bool,
    content: Option<Arc<dyn StoredContent>>,
    have: Option<Arc<Bitmap>>,
    /// One of its pieces has the hash that the torrent gives.
    checked: bool,
}

/// A torrent of this node.
#[derive(Debug)]
pub(in crate::bittorrent) struct Torrent {
    pub(in crate::bittorrent) info_hash: [u8; 20],
    info: OnceLock<TorrentInfo>,
    served: Mutex<Served>,
    peers: Mutex<Handles>,
    waiting: Mutex<Vec<Waiting>>,
    /// Peers that others told of, to be dialled.
    known: Mutex<Vec<SocketAddr>>,
    next: AtomicU64,
    /// Sources of it that are in use.
    sources: AtomicUsize,
    /// Wakes whoever looks after the torrent.
    pub(in crate::bittorrent) upkeep: Notify,
}

impl Torrent {
    pub(in crate::bittorrent) fn new(info_hash: [u8; 20]) -> Self {
        Self {
            info_hash,
            info: OnceLock::new(),
            served: Mutex::default(),
            peers: Mutex::default(),
            waiting: Mutex::default(),
            known: Mutex::default(),
            next: AtomicU64::new(0),
            sources: AtomicUsize::new(0),
            upkeep: Notify::new(),
        }
    }

    /// What is known of it.
    pub(in crate::bittorrent) fn info(&self) -> Option<&TorrentInfo> {
        self.info.get()
    }

    /// It became known.
    pub(in crate::bittorrent) fn learn(&self, info: TorrentInfo) {
        if self.info.set(info).is_ok() {
            self.peers().iter().for_each(|peer| peer.note_known());
            self.look();
            self.upkeep.notify_one();
        }
    }

    /// It became known from a peer, the hash of whose word is right.
    pub(in crate::bittorrent) fn learn_metadata(&self, metadata: Bytes) -> bool {
        match TorrentInfo::parse(metadata) {
            Ok(info) => {
                self.learn(info);
                true
            }
            Err(_) => false,
        }
    }

    pub(in crate::bittorrent) fn is_private(&self) -> bool {
        self.info().is_some_and(|info| info.private)
    }

    /// It is this content.
    pub(in crate::bittorrent) fn set_cid(&self, cid: Cid, seeding: bool) {
        let mut served = lock(&self.served);
        if served.cid != Some(cid) {
            *served = Served {
                cid: Some(cid),
                seeding: served.seeding,
                ..Served::default()
            };
        }
        served.seeding |= seeding;
        drop(served);
        self.upkeep.notify_one();
    }

    /// It is not to be seeded any more; whether it was.
    pub(in crate::bittorrent) fn stop_seeding(&self) -> bool {
        let mut served = lock(&self.served);
        let was = std::mem::take(&mut served.seeding);
        if was {
            *served = Served::default();
        }
        was
    }

    pub(in crate::bittorrent) fn cid(&self) -> Option<Cid> {
        lock(&self.served).cid
    }

    pub(in crate::bittorrent) fn is_seeding(&self) -> bool {
        lock(&self.served).seeding
    }

    /// What is served, if anything is.
    pub(in crate::bittorrent) fn content(&self) -> Option<Arc<dyn StoredContent>> {
        lock(&self.served).content.clone()
    }

    pub(in crate::bittorrent) fn set_content(&self, content: Option<Arc<dyn StoredContent>>) {
        lock(&self.served).content = content;
    }

    /// Serves this content from now on, if it is the torrent's.
    pub(in crate::bittorrent) async fn serve(&self, content: Arc<dyn StoredContent>) {
        self.set_cid(content.header().cid, true);
        self.set_content(Some(content));
        if self.count_pieces() && self.is_what_it_says().await {
            self.look();
        }
    }

    /// Pieces that can be served; nothing as long as it is not known that the content is the
    /// torrent's.
    pub(in crate::bittorrent) fn have(&self) -> Option<Arc<Bitmap>> {
        let served = lock(&self.served);
        served.have.clone().filter(|_| served.checked)
    }

    /// Whether the content is the torrent's, as far as one piece shows: that the one goes with
    /// the other is the word of whoever announced it. If not, it is not served.
    pub(in crate::bittorrent) async fn is_what_it_says(&self) -> bool {
        let (content, piece) = {
            let served = lock(&self.served);
            if served.checked {
                return true;
            }
            let piece = served.have.as_ref().and_then(|have| have.ones().next());
            match (served.content.clone(), piece) {
                (Some(content), Some(piece)) => (content, piece),
                _ => return false,
            }
        };
        let Some(info) = self.info() else {
            return false;
        };
        let mut hasher = Sha1::new();
        let range = info.geometry.piece(piece);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + chiral_core::CHUNK_SIZE);
            let Ok(bytes) = content.read(ByteRange::new(at, end)).await else {
                return false;
            };
            hasher.update(&bytes);
            at = end;
        }
        let right = info.piece_hash(piece) == Some(hasher.finalize().into());
        let mut served = lock(&self.served);
        if right {
            served.checked = true;
        } else {
            let info_hash = chiral_core::Alias::InfoHashV1(self.info_hash);
            tracing::debug!(torrent = %info_hash, cid = ?served.cid, "not the same content");
            *served = Served::default();
        }
        right
    }

    /// Takes what can be served from the content; whether there is more than before.
    pub(in crate::bittorrent) fn count_pieces(&self) -> bool {
        let (Some(info), Some(content)) = (self.info(), self.content()) else {
            return false;
        };
        if content.header().size != info.geometry.length() {
            return false;
        }
        let have = info.geometry.pieces_in(&content.coverage());
        let mut served = lock(&self.served);
        let before = served.have.as_ref().map_or(0, |have| have.count_ones());
        let more = have.count_ones() != before;
        if more || served.have.is_none() {
            served.have = Some(Arc::new(have));
        }
        more
    }

    pub(in crate::bittorrent) fn has_all(&self) -> bool {
        self.have().is_some_and(|have| have.is_full())
    }

    /// A number for a connection.
    pub(in crate::bittorrent) fn next_key(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(in crate::bittorrent) fn join(&self, handle: Arc<PeerHandle>) {
        lock(&self.peers).insert(handle.key, handle);
    }

    pub(in crate::bittorrent) fn leave(&self, key: u64) {
        lock(&self.peers).remove(&key);
        self.upkeep.notify_one();
    }

    pub(in crate::bittorrent) fn peers(&self) -> Vec<Arc<PeerHandle>> {
        lock(&self.peers).values().cloned().collect()
    }

    /// Whether there is a connection to this place.
    pub(in crate::bittorrent) fn is_connected(&self, address: SocketAddr) -> bool {
        self.peers()
            .iter()
            .any(|peer| peer.address == address || peer.published().listens_at == Some(address))
    }

    /// A connection to this place that nobody uses; claimed from now on.
    pub(in crate::bittorrent) fn claim_connected(&self, place: &str) -> Option<Arc<PeerHandle>> {
        let address: SocketAddr = place.parse().ok()?;
        let is_it = |peer: &Arc<PeerHandle>| {
            let at = peer.published().listens_at.unwrap_or(peer.address);
            at == address && !peer.is_closed() && peer.claim()
        };
        self.peers().into_iter().find(is_it)
    }

    /// Has every connection look at the torrent.
    pub(in crate::bittorrent) fn look(&self) {
        for peer in self.peers() {
            peer.look();
        }
    }

    /// Peers as others are told of them.
    pub(in crate::bittorrent) fn pex_peers(&self, but: u64) -> Vec<PexPeer> {
        let tell = |peer: &Arc<PeerHandle>| {
            let published = peer.published();
            let address = if peer.incoming {
                published.listens_at?
            } else {
                peer.address
            };
            let mut told = PexPeer::new(address);
            told.seed = published.seed;
            told.holepunch = published.holepunch;
            told.reachable = !peer.incoming;
            Some(told)
        };
        self.peers()
            .iter()
            .filter(|peer| peer.key != but)
            .filter_map(tell)
            .collect()
    }

    /// Others may be dialled.
    pub(in crate::bittorrent) fn suggest(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let mut known = lock(&self.known);
        for address in addresses {
            if known.len() < MAX_KNOWN && !known.contains(&address) {
                known.push(address);
            }
        }
        drop(known);
        self.upkeep.notify_one();
    }

    /// Who is to be dialled next.
    pub(in crate::bittorrent) fn next_known(&self) -> Option<SocketAddr> {
        lock(&self.known).pop()
    }

    /// Somebody waits for sources.
    pub(in crate::bittorrent) fn wait_for_sources(&self, sources: Sources) {
        let handed = BTreeSet::new();
        lock(&self.waiting).push(Waiting { sources, handed });
        self.upkeep.notify_one();
    }

    /// Whether anybody waits for sources.
    pub(in crate::bittorrent) fn is_waited_for(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|waiting| !waiting.sources.is_closed());
        !waiting.is_empty()
    }

    /// Hands the source of a connection to somebody who waits and was not handed it before.
    pub(in crate::bittorrent) fn hand(
        &self,
        key: u64,
        source: impl FnOnce() -> Option<Arc<dyn ChunkSource>>,
    ) {
        let mut waiting = lock(&self.waiting);
        let new =
            |waiting: &&mut Waiting| !waiting.sources.is_closed() && !waiting.handed.contains(&key);
        let Some(waiting) = waiting.iter_mut().find(new) else {
            return;
        };
        // If there is no room now there will be later.
        if let Ok(room) = waiting.sources.try_reserve()
            && let Some(source) = source()
        {
            room.send(source);
            waiting.handed.insert(key);
        }
    }

    /// Keeps it in use for as long as this is held.
    pub(in crate::bittorrent) fn in_use(self: &Arc<Self>) -> InUse {
        self.source_opened();
        InUse(self.clone())
    }

    pub(in crate::bittorrent) fn source_opened(&self) {
        self.sources.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::bittorrent) fn source_closed(&self) {
        self.sources.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is a use for it: it is seeded, or a download draws from it.
    pub(in crate::bittorrent) fn is_used(&self) -> bool {
        self.is_seeding() || self.sources.load(Ordering::Relaxed) > 0 || self.is_waited_for()
    }
}

/// Keeps a torrent in use.
pub(in crate::bittorrent) struct InUse(Arc<Torrent>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.source_closed();
    }
}
