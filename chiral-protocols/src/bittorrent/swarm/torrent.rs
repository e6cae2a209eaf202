//! [`Torrent`]: what all connections of one torrent share.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use chiral_core::{Bitmap, ByteRange, ChunkSource, Cid, PieceChecker, StoredContent};
use tokio::sync::{Notify, mpsc, watch};

use super::bans::Bans;
use super::handle::{Handles, PeerHandle};
use super::hashes::Trees;
use super::info::TorrentInfo;
use super::known::{Known, Origin};
use super::served::Served;
use crate::bittorrent::extension::{Holepunch, PexPeer};
use crate::bittorrent::merkle::{MerkleError, NodeHash};
use crate::bittorrent::metainfo::Metainfo;
use crate::bittorrent::torrent_pieces::StreamChecker;
use crate::bittorrent::tracker::Progress;
use crate::bittorrent::wire::HashRange;

/// Most trackers that a torrent is announced to of its own.
const MAX_TRACKERS: usize = crate::bittorrent::tracker::MAX_TRACKERS;

/// Most peers of whom it is remembered who told of them.
const MAX_TELLERS: usize = 500;

/// Most peers that wait to be met half-way.
const MAX_MET: usize = 16;

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

/// A torrent of this node.
#[derive(Debug)]
pub(in crate::bittorrent) struct Torrent {
    pub(in crate::bittorrent) info_hash: [u8; 20],
    info: OnceLock<TorrentInfo>,
    learnt: Notify,
    /// Its trees (version 2), as far as they are known.
    trees: Mutex<Trees>,
    served: Mutex<Served>,
    /// Something else is served than before, and its pieces are not counted yet.
    is_uncounted: AtomicBool,
    peers: Mutex<Handles>,
    waiting: Mutex<Vec<Waiting>>,
    /// Peers that others told of, to be dialled.
    known: Mutex<Known>,
    /// Who told of a peer last.
    tellers: Mutex<HashMap<SocketAddr, u64>>,
    /// Peers to be met half-way.
    met: Mutex<Vec<SocketAddr>>,
    /// Peers that are not met.
    bans: Mutex<Bans>,
    /// Its own trackers, in tiers, and how often they changed.
    trackers: Mutex<(Vec<Vec<String>>, usize)>,
    /// Bytes that came and went over connections that are over.
    received: AtomicU64,
    sent: AtomicU64,
    next: AtomicU64,
    /// Sources of it that are in use.
    sources: AtomicUsize,
    /// Wakes whoever looks after the torrent.
    pub(in crate::bittorrent) upkeep: Notify,
    /// Wakes whoever finds its peers.
    pub(in crate::bittorrent) discovery: watch::Sender<()>,
}

impl Torrent {
    pub(in crate::bittorrent) fn new(info_hash: [u8; 20]) -> Self {
        Self {
            info_hash,
            info: OnceLock::new(),
            learnt: Notify::new(),
            trees: Mutex::default(),
            served: Mutex::default(),
            is_uncounted: AtomicBool::new(false),
            peers: Mutex::default(),
            waiting: Mutex::default(),
            known: Mutex::default(),
            tellers: Mutex::default(),
            met: Mutex::default(),
            bans: Mutex::default(),
            trackers: Mutex::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            next: AtomicU64::new(0),
            sources: AtomicUsize::new(0),
            upkeep: Notify::new(),
            discovery: watch::Sender::new(()),
        }
    }

    /// What is known of it.
    pub(in crate::bittorrent) fn info(&self) -> Option<&TorrentInfo> {
        self.info.get()
    }

    /// It became known.
    pub(in crate::bittorrent) fn learn(&self, info: TorrentInfo) {
        let meta = info.metainfo().clone();
        if self.info.set(info).is_ok() {
            self.learnt.notify_waiters();
            lock(&self.trees).learn(meta, self.info_hash);
            self.peers().iter().for_each(|peer| peer.note_known());
            self.look();
            self.upkeep.notify_one();
        }
    }

    /// All of it, once its pieces can be checked.
    pub(in crate::bittorrent) async fn treed(&self) -> Arc<Metainfo> {
        loop {
            let mut learnt = std::pin::pin!(self.learnt.notified());
            learnt.as_mut().enable();
            if let Some(meta) = self.metainfo().filter(|meta| meta.is_checkable()) {
                return meta;
            }
            learnt.await;
        }
    }

    /// What is known of it, once it is.
    pub(in crate::bittorrent) async fn learnt(&self) -> &TorrentInfo {
        loop {
            // From before it is looked whether it is: so that nothing is missed.
            let mut learnt = std::pin::pin!(self.learnt.notified());
            learnt.as_mut().enable();
            if let Some(info) = self.info() {
                return info;
            }
            learnt.await;
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

    /// All that is known of it, trees included that peers sent.
    pub(in crate::bittorrent) fn metainfo(&self) -> Option<Arc<Metainfo>> {
        lock(&self.trees).metainfo()
    }

    /// The next question for hashes that are missing.
    pub(in crate::bittorrent) fn next_hashes(&self, peer: u64) -> Option<HashRange> {
        lock(&self.trees).next(peer)
    }

    /// A peer gave hashes.
    ///
    /// # Errors
    /// [`MerkleError`]: they are false.
    pub(in crate::bittorrent) fn hashes_came(
        &self,
        peer: u64,
        range: HashRange,
        hashes: &[NodeHash],
    ) -> Result<(), MerkleError> {
        let complete = lock(&self.trees).came(peer, range, hashes)?;
        if complete {
            self.learnt.notify_waiters();
            self.upkeep.notify_one();
        }
        // There may be more to ask for.
        self.look();
        Ok(())
    }

    /// A peer has no hashes to give.
    pub(in crate::bittorrent) fn no_hashes_of(&self, peer: u64) {
        lock(&self.trees).no_hashes_of(peer);
        self.look();
    }

    pub(in crate::bittorrent) fn is_private(&self) -> bool {
        self.info().is_some_and(|info| info.private)
    }

    /// It is this content.
    pub(in crate::bittorrent) fn set_cid(&self, cid: Cid, seeding: bool) {
        let mut served = lock(&self.served);
        served.set_cid(cid, seeding);
        // Most often it is the same pieces: peers are told when they are counted.
        self.is_uncounted.store(true, Ordering::Relaxed);
        drop(served);
        self.upkeep.notify_one();
        self.discovery.send_replace(());
    }

    /// It is this content, of which nothing is given to peers unless it is seeded.
    pub(in crate::bittorrent) fn withhold(&self, cid: Cid) {
        self.serve_otherwise(|served| served.withhold(cid));
    }

    /// It is not to be seeded any more; whether it was.
    pub(in crate::bittorrent) fn stop_seeding(&self) -> bool {
        self.serve_otherwise(Served::stop_seeding)
    }

    /// Changes what is served. Peers are told at once of pieces that are gone by that.
    fn serve_otherwise<T>(&self, change: impl FnOnce(&mut Served) -> T) -> T {
        let mut served = lock(&self.served);
        let before = served.pieces().cloned();
        let changed = change(&mut served);
        let gone = before.is_some_and(|before| {
            let now = served.pieces();
            before
                .ones()
                .any(|piece| now.is_none_or(|now| !now.get(piece)))
        });
        drop(served);
        if gone {
            self.peers().iter().for_each(|peer| peer.take_back());
        }
        self.upkeep.notify_one();
        self.discovery.send_replace(());
        changed
    }

    pub(in crate::bittorrent) fn cid(&self) -> Option<Cid> {
        lock(&self.served).cid()
    }

    /// Whether it is known what it is, and nothing of it is given.
    pub(in crate::bittorrent) fn is_withheld(&self) -> bool {
        lock(&self.served).is_withheld
    }

    /// Whether something else is served than when this was last asked.
    pub(in crate::bittorrent) fn take_uncounted(&self) -> bool {
        self.is_uncounted.swap(false, Ordering::Relaxed)
    }

    /// Has every connection tell its peer which pieces are gone, unless they are to be counted
    /// once more.
    pub(in crate::bittorrent) fn look_for_gone(&self) {
        if !self.is_uncounted.load(Ordering::Relaxed) {
            self.peers().iter().for_each(|peer| peer.look_for_gone());
        }
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

    /// Serves content that is not the store's, as far as it is there; or nothing any more, if
    /// that was served.
    pub(in crate::bittorrent) fn serve_apart(
        &self,
        content: Option<Arc<dyn StoredContent>>,
        seeding: bool,
    ) {
        self.serve_otherwise(|served| served.set_apart(content, seeding));
    }

    /// Whether what is served is not the store's.
    pub(in crate::bittorrent) fn is_apart(&self) -> bool {
        lock(&self.served).is_apart
    }

    /// Pieces that can be served; nothing as long as it is not known that the content is the
    /// torrent's.
    pub(in crate::bittorrent) fn have(&self) -> Option<Arc<Bitmap>> {
        lock(&self.served).pieces().cloned()
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
        // As long as its hash is not known, nothing can be said.
        let meta = self.metainfo();
        let checker = meta.and_then(|meta| StreamChecker::of(&meta, piece));
        let (Some(info), Some(mut checker)) = (self.info(), checker) else {
            return false;
        };
        let range = info.geometry.piece(piece);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + chiral_core::CHUNK_SIZE);
            let Ok(bytes) = content.read(ByteRange::new(at, end)).await else {
                return false;
            };
            checker.update(&bytes);
            at = end;
        }
        let right = Box::new(checker).passes();
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

    /// Takes a connection in.
    ///
    /// # Errors
    /// Another one with the same peer, which stays.
    pub(in crate::bittorrent) fn join(
        &self,
        handle: Arc<PeerHandle>,
        ours: &[u8; 20],
    ) -> Result<(), Arc<PeerHandle>> {
        let mut peers = lock(&self.peers);
        let same = |other: &&Arc<PeerHandle>| {
            other.peer_id == handle.peer_id
                && other.address.ip() == handle.address.ip()
                && !other.is_closed()
                && !other.is_outdated()
        };
        for other in peers.values().filter(same) {
            if other.stays(handle.incoming, ours) {
                return Err(other.clone());
            }
            other.displace();
        }
        peers.insert(handle.key, handle);
        Ok(())
    }

    /// What a peer gave was wrong: it is left, and not met again for a while.
    pub(in crate::bittorrent) fn ban(&self, peer: &PeerHandle) {
        let now = Instant::now();
        lock(&self.bans).add(peer.address.ip(), peer.peer_id, now);
        peer.ban();
    }

    /// Whether a peer is not to be met.
    pub(in crate::bittorrent) fn is_banned(&self, ip: IpAddr, peer_id: [u8; 20]) -> bool {
        lock(&self.bans).hold(ip, peer_id, Instant::now())
    }

    /// Somebody who keeps books of his own meets a peer all the same.
    pub(in crate::bittorrent) fn lift_ban(&self, ip: IpAddr, peer_id: [u8; 20]) {
        lock(&self.bans).lift(ip, peer_id);
    }

    pub(in crate::bittorrent) fn leave(&self, key: u64) {
        lock(&self.peers).remove(&key);
        lock(&self.trees).gone(key);
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
            at == address && !peer.is_closed() && !peer.is_outdated() && peer.claim()
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
            let mut told = PexPeer::new(peer.place()?);
            told.utp = peer.utp;
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
    pub(in crate::bittorrent) fn suggest(
        &self,
        origin: Origin,
        addresses: impl Iterator<Item = SocketAddr>,
    ) {
        let mut known = lock(&self.known);
        for address in addresses {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            known.add(origin, address);
        }
        drop(known);
        self.upkeep.notify_one();
    }

    /// A peer told of these, and can bring us together with them.
    pub(in crate::bittorrent) fn told_by(&self, key: u64, addresses: &[SocketAddr]) {
        let mut tellers = lock(&self.tellers);
        for address in addresses {
            if tellers.len() < MAX_TELLERS || tellers.contains_key(address) {
                tellers.insert(*address, key);
            }
        }
    }

    /// An address could not be reached: whoever told of it is asked to bring us together
    /// (BEP 55), once.
    pub(in crate::bittorrent) fn ask_rendezvous(&self, address: SocketAddr) {
        let teller = lock(&self.tellers).remove(&address);
        let peer = teller.and_then(|key| lock(&self.peers).get(&key).cloned());
        if let Some(peer) = peer.filter(|peer| peer.published().holepunch) {
            peer.punch(Holepunch::Rendezvous(address));
        }
    }

    /// Somebody brought us together with a peer: it is to be dialled at once.
    pub(in crate::bittorrent) fn meet(&self, address: SocketAddr) {
        let mut met = lock(&self.met);
        if met.len() < MAX_MET {
            met.push(address);
        }
        drop(met);
        self.upkeep.notify_one();
    }

    /// Those to be dialled at once.
    pub(in crate::bittorrent) fn take_met(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut *lock(&self.met))
    }

    /// Whom others told of, and what became of them.
    pub(in crate::bittorrent) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Trackers of its own are to be asked, tier by tier, beside those that are.
    pub(in crate::bittorrent) fn add_trackers(&self, tiers: &[Vec<String>]) {
        let mut trackers = lock(&self.trackers);
        let (ours, version) = &mut *trackers;
        let mut room = MAX_TRACKERS.saturating_sub(ours.iter().map(Vec::len).sum());
        let mut is_new = |url: &&String| {
            let new = room > 0 && !ours.iter().flatten().any(|other| other == *url);
            room -= usize::from(new);
            new
        };
        let new: Vec<Vec<String>> = tiers
            .iter()
            .map(|tier| tier.iter().filter(&mut is_new).cloned().collect())
            .filter(|tier: &Vec<String>| !tier.is_empty())
            .collect();
        if !new.is_empty() {
            ours.extend(new);
            *version += 1;
        }
        drop(trackers);
        self.discovery.send_replace(());
    }

    /// Its own trackers, and how often they changed.
    pub(in crate::bittorrent) fn trackers(&self) -> (Vec<Vec<String>>, usize) {
        lock(&self.trackers).clone()
    }

    /// A connection over which so many bytes came and went is over.
    pub(in crate::bittorrent) fn count(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// How far it is, for trackers.
    pub(in crate::bittorrent) fn progress(&self) -> Progress {
        let mut progress = Progress {
            uploaded: self.sent.load(Ordering::Relaxed),
            downloaded: self.received.load(Ordering::Relaxed),
            // As long as nobody knows how much it is.
            left: 1,
        };
        for peer in self.peers() {
            let published = peer.published();
            progress.uploaded += published.got;
            progress.downloaded += published.gave;
        }
        if let Some(info) = self.info() {
            let have = |have: Arc<Bitmap>| -> u64 {
                have.ones()
                    .map(|piece| info.geometry.piece(piece).len())
                    .sum()
            };
            progress.left = info.geometry.length() - self.have().map_or(0, have);
        }
        progress
    }

    /// Somebody waits for sources.
    pub(in crate::bittorrent) fn wait_for_sources(&self, sources: Sources) {
        let handed = BTreeSet::new();
        lock(&self.waiting).push(Waiting { sources, handed });
        self.upkeep.notify_one();
        self.discovery.send_replace(());
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
        self.discovery.send_replace(());
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
