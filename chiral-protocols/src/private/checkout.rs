//! Option A on the buyer's side: sealed chunks that were fetched ahead, whose keys are bought
//! one after the other. What a key opens is held against the file's own hashes before it is
//! paid for; from who sells garbage nothing more is bought.
//!
//! What can be lost: to a seeder that seals garbage, one chunk's price; to a buyer that goes
//! away, the upload of what was fetched ahead.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::manifest::page_of;
use chiral_core::{
    ByteRange, ChunkHash, ChunkLayout, ManifestPage, MerkleRoot, RangeSet, Sealed, TransferError,
    VerifiedChunk, VerifiedPage,
};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::messages::{Body, RequestPage};
use super::session::protocol;
use super::source::Line;
use crate::payer::{Carrier, Owed, Payer};

/// Verified manifest pages that are kept.
const KEPT_PAGES: usize = 2;

/// Bought chunks that are kept for who asks again, for each that is fetched ahead: whoever goes
/// away leaves as many, and others may do so at the same time.
const KEPT_FOR_EACH: usize = 2;

/// How long a payment waits for a lock to go with.
const LINGER: Duration = Duration::from_millis(5);

/// A sealed chunk.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) range: ByteRange,
    pub(super) sealed: Sealed,
    /// Its place among those that were fetched ahead.
    pub(super) place: Place,
}

/// A place for a sealed chunk, which nobody else fetches meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    chunk: ByteRange,
    /// Whether others may want parts of the chunk.
    keep: bool,
    unused: bool,
    checkout: Weak<Checkout>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// It was not used after all, for want of something else: whoever waits has no more than
    /// before, and two that wait would wake each other for ever.
    pub(super) fn undo(mut self) {
        self.unused = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(checkout) = self.checkout.upgrade() {
            checkout.shelf().flying.remove(&self.chunk.start);
            if !self.unused {
                checkout.landed.notify_waiters();
            }
        }
    }
}

/// What a key opened.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) bytes: Bytes,
    /// The chunk that they are all of, checked: nobody has to do that again.
    pub(super) checked: Option<VerifiedChunk>,
}

impl Open {
    fn unchecked(bytes: Bytes) -> Self {
        let checked = None;
        Self { bytes, checked }
    }
}

type Opened = Result<Open, TransferError>;

/// Whether a chunk of one range did not open: none behind it is bought.
pub(super) type Broken = Arc<AtomicBool>;

/// A chunk in the line of those whose keys are bought. Whoever goes away before it has taken
/// what was bought leaves that on the shelf: it is paid for.
#[derive(Debug)]
pub(super) struct Order {
    chunk: ByteRange,
    opened: oneshot::Receiver<Opened>,
    checkout: Weak<Checkout>,
}

impl Drop for Order {
    fn drop(&mut self) {
        // What is opened from now on comes back to who opened it.
        self.opened.close();
        if let Ok(Ok(open)) = self.opened.try_recv()
            && let Some(checkout) = self.checkout.upgrade()
        {
            checkout.keep(self.chunk, open.bytes);
        }
    }
}

impl Order {
    /// Waits until it is open, and takes a part of it.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn opened(&mut self, part: ByteRange) -> Opened {
        let opened = (&mut self.opened).await;
        let open = opened.unwrap_or(Err(TransferError::Closed))?;
        if part == self.chunk {
            return Ok(open);
        }
        let from = (part.start - self.chunk.start) as usize;
        let bytes = open.bytes.slice(from..from + part.len() as usize);
        Ok(Open::unchecked(bytes))
    }
}

/// What the desk finds in the line.
#[derive(Debug)]
pub(super) struct Ordered {
    parcel: Parcel,
    reply: oneshot::Sender<Opened>,
    broken: Broken,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Nobody waits for them any more, and they are not bought.
    given_up: VecDeque<Parcel>,
    /// The same, bought.
    bought: VecDeque<(ByteRange, Bytes)>,
    /// Nothing is bought here any more.
    refused: Option<String>,
    /// What was opened and found right.
    sold: RangeSet,
    /// Where chunks begin that are being fetched, or wait.
    flying: BTreeSet<u64>,
}

/// Where sealed chunks are bought.
#[derive(Debug)]
pub(super) struct Checkout {
    /// Places for sealed chunks: how many are fetched ahead.
    room: Arc<Semaphore>,
    ahead: usize,
    shelf: Mutex<Shelf>,
    queue: mpsc::Sender<Ordered>,
    root: OnceLock<MerkleRoot>,
    layout: ChunkLayout,
    landed: Notify,
    idle: tokio::sync::Mutex<()>,
}

type Queue = mpsc::Receiver<Ordered>;

impl Checkout {
    pub(super) fn new(ahead: usize, layout: ChunkLayout) -> (Arc<Self>, Queue) {
        let ahead = ahead.clamp(1, super::config::MAX_AHEAD);
        let (queue, parcels) = mpsc::channel(ahead);
        let checkout = Self {
            room: Arc::new(Semaphore::new(ahead)),
            ahead,
            shelf: Mutex::default(),
            queue,
            root: OnceLock::new(),
            layout,
            landed: Notify::new(),
            idle: tokio::sync::Mutex::default(),
        };
        (Arc::new(checkout), parcels)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root that chunks are held against.
    pub(super) fn root_is(&self, root: MerkleRoot) {
        // One that is known does not change.
        let _ = self.root.set(root);
    }

    /// A place for a chunk, if there is one and nobody else fetches it.
    pub(super) fn place(self: &Arc<Self>, chunk: ByteRange, keep: bool) -> Option<Place> {
        let mut shelf = self.shelf();
        if shelf.flying.contains(&chunk.start) {
            return None;
        }
        let permit = self.room.clone().try_acquire_owned().ok()?;
        shelf.flying.insert(chunk.start);
        drop(shelf);
        Some(Place {
            chunk,
            keep,
            unused: false,
            checkout: Arc::downgrade(self),
            _permit: permit,
        })
    }

    /// How many more chunks whoever waits for so many may ask for now: none unless it is worth a
    /// message, half of those that are fetched ahead, what was given up left aside. What was
    /// bought and is not taken counts too, or whoever takes slowly would buy ever more.
    pub(super) fn much_room(&self, waiting: usize) -> usize {
        let most = self.ahead.saturating_sub(waiting);
        if waiting == 0 {
            return most;
        }
        let given_up = self.shelf().given_up.len();
        let room = most.min(self.room.available_permits());
        match room * 2 >= self.ahead.saturating_sub(given_up) {
            true => room,
            false => 0,
        }
    }

    /// Whether a chunk is being fetched, or waits for its key.
    pub(super) fn is_flying(&self, chunk: ByteRange) -> bool {
        self.shelf().flying.contains(&chunk.start)
    }

    /// Something that was fetched is done with, from now on.
    pub(super) fn landing(&self) -> Notified<'_> {
        self.landed.notified()
    }

    /// A chunk that was bought for somebody who did not wait for it.
    pub(super) fn bought(&self, range: ByteRange) -> Option<Bytes> {
        let mut shelf = self.shelf();
        let at = shelf.bought.iter().position(|(of, _)| of.covers(range))?;
        let (of, bytes) = shelf.bought.get(at)?;
        let from = (range.start - of.start) as usize;
        let part = bytes.slice(from..from + range.len() as usize);
        if *of == range {
            shelf.bought.remove(at);
        }
        Some(part)
    }

    /// A sealed chunk that somebody gave up.
    pub(super) fn given_up(&self, range: ByteRange) -> Option<Parcel> {
        let mut shelf = self.shelf();
        let at = shelf.given_up.iter().position(|held| held.range == range)?;
        shelf.given_up.remove(at)
    }

    /// Takes back a sealed chunk of those that were given up.
    pub(super) fn put_back(&self, parcel: Parcel) {
        // The one that makes room for it is no worse.
        drop(self.give_up(parcel));
    }

    /// Keeps a sealed chunk that nobody waits for. If they are too many, answers the one that
    /// is there longest.
    fn give_up(&self, parcel: Parcel) -> Option<Parcel> {
        let mut shelf = self.shelf();
        shelf.given_up.push_back(parcel);
        match shelf.given_up.len() * 2 > self.ahead {
            true => shelf.given_up.pop_front(),
            false => None,
        }
    }

    /// Whether anything was bought.
    pub(super) fn has_sold(&self) -> bool {
        !self.shelf().sold.is_empty()
    }

    /// The parts of a range that were not bought here.
    pub(super) fn not_sold(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut left = RangeSet::from(range);
        for sold in self.shelf().sold.within(range) {
            left.remove(sold);
        }
        left.iter().collect()
    }

    /// Keeps what was bought, for it may be asked for again.
    pub(super) fn keep(&self, range: ByteRange, bytes: Bytes) {
        let mut shelf = self.shelf();
        if shelf.bought.iter().any(|(of, _)| of.covers(range)) {
            return;
        }
        shelf.bought.truncate(KEPT_FOR_EACH * self.ahead - 1);
        shelf.bought.push_front((range, bytes));
        drop(shelf);
        // It may be what somebody waits for.
        self.landed.notify_waiters();
    }

    /// An order for what was bought before.
    pub(super) fn order_bought(self: &Arc<Self>, chunk: ByteRange, bytes: Bytes) -> Order {
        let (reply, opened) = oneshot::channel();
        // The receiver is right here.
        let _ = reply.send(Ok(Open::unchecked(bytes)));
        let checkout = Arc::downgrade(self);
        Order {
            chunk,
            opened,
            checkout,
        }
    }

    /// Why nothing is bought here any more.
    pub(super) fn refused(&self) -> Option<String> {
        self.shelf().refused.clone()
    }

    /// Has a chunk's key bought, when its turn has come.
    pub(super) fn order(
        self: &Arc<Self>,
        parcel: Parcel,
        broken: Broken,
    ) -> Result<Order, TransferError> {
        let (reply, opened) = oneshot::channel();
        let chunk = parcel.range;
        let ordered = Ordered {
            parcel,
            reply,
            broken,
        };
        // There is room for as many as have a place.
        let queued = self.queue.try_send(ordered);
        queued.map_err(|_| TransferError::Closed)?;
        let checkout = Arc::downgrade(self);
        Ok(Order {
            chunk,
            opened,
            checkout,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Nothing more is fetched.
    pub(super) fn close(&self) {
        self.room.close();
        self.landed.notify_waiters();
    }

    /// Waits until [`Checkout::run`] has ended.
    pub(super) async fn ended(&self) {
        let _idle = self.idle.lock().await;
    }

    /// Buys until nobody can ask any more.
    pub(super) async fn run(
        self: Arc<Self>,
        mut parcels: Queue,
        payer: Arc<Payer>,
        line: Arc<Line>,
        closing: CancellationToken,
    ) {
        let _busy = self.idle.lock().await;
        let mut desk = Desk {
            checkout: self.clone(),
            payer,
            line,
            pages: VecDeque::new(),
            owed: Owed::default(),
        };
        while !closing.is_cancelled() {
            let next = closing.run_until_cancelled(parcels.recv());
            let next = match desk.owed.is_something() {
                true => match tokio::time::timeout(LINGER, next).await {
                    Ok(next) => next,
                    Err(_) => {
                        desk.settle().await;
                        continue;
                    }
                },
                false => next.await,
            };
            match next.flatten() {
                Some(ordered) => desk.serve(ordered).await,
                None => break,
            }
        }
        desk.settle().await;
    }
}

/// Tells whoever waits, and answers what nobody waited for.
fn answer(reply: Option<oneshot::Sender<Opened>>, opened: Opened) -> Option<Opened> {
    match reply {
        Some(reply) => reply.send(opened).err(),
        None => Some(opened),
    }
}

/// Who buys.
struct Desk {
    checkout: Arc<Checkout>,
    payer: Arc<Payer>,
    line: Arc<Line>,
    pages: VecDeque<VerifiedPage>,
    /// What pays for the chunk before, not said yet.
    owed: Owed,
}

impl Desk {
    async fn serve(&mut self, ordered: Ordered) {
        let Ordered {
            parcel,
            reply,
            broken,
        } = ordered;
        let broke = broken.load(Ordering::Relaxed);
        let (parcel, reply) = match reply.is_closed() || broke {
            false => (parcel, Some(reply)),
            // Nobody waits for it. It stays where it is unless too many do.
            true => match self.checkout.give_up(parcel) {
                Some(oldest) if !broke => (oldest, None),
                _ => return,
            },
        };
        if let Some(reason) = self.checkout.refused() {
            let source_name = self.line.name().to_string();
            let retryable = false;
            answer(
                reply,
                Err(TransferError::Refused {
                    source_name,
                    reason,
                    retryable,
                }),
            );
            return;
        }
        let range = parcel.range;
        let opened = self.buy(&parcel).await;
        if let Err(error) = &opened {
            broken.store(true, Ordering::Relaxed);
            match error.is_retryable() {
                false => self.checkout.shelf().refused = Some(error.to_string()),
                // It may be locked, and then nothing else can be bought: whoever asks for it
                // again asks for this key. Which of too many is forgotten is for them to say.
                true => drop(self.checkout.give_up(parcel)),
            }
        }
        if let Some(Ok(open)) = answer(reply, opened) {
            self.checkout.keep(range, open.bytes);
        }
    }

    async fn buy(&mut self, parcel: &Parcel) -> Opened {
        let range = parcel.range;
        // Before anything is locked: what cannot be checked is not bought.
        let hashes = self.hashes(range).await?;
        let sealed = &parcel.sealed;
        let opened = self.payer.open_sealed(&mut self.owed, range, sealed).await;
        let plain = opened?;
        let (index, layout) = (ChunkLayout::chunk_at(range.start), self.checkout.layout);
        let (before, after) = hashes;
        // Here and now: waking another thread takes longer than a part of it does, and the next
        // key is asked for behind this.
        let checked = VerifiedChunk::check(layout, index, before, after, plain.clone());
        match checked {
            Ok(checked) => {
                self.checkout.shelf().sold.insert(range);
                if parcel.place.keep {
                    self.checkout.keep(range, plain.clone());
                }
                self.payer.right(&mut self.owed, range).await;
                Ok(Open {
                    bytes: plain,
                    checked: Some(checked),
                })
            }
            Err(_) => {
                // The engine, which finds the same, puts the seeder out.
                self.checkout.shelf().refused = Some("it sold garbage".to_owned());
                tracing::warn!(source = %self.line.name(), index, "a key opened garbage");
                Ok(Open::unchecked(plain))
            }
        }
    }

    /// The hashes before and after a chunk, under the root that is known.
    async fn hashes(&mut self, range: ByteRange) -> Result<(ChunkHash, ChunkHash), TransferError> {
        let index = ChunkLayout::chunk_at(range.start);
        let Some(root) = self.checkout.root.get().copied() else {
            return Err(self.payer.unchecked());
        };
        if let Some(hashes) = self.pages.iter().find_map(|page| page.around(index)) {
            return Ok(hashes);
        }
        let number = page_of(index);
        let asked = Body::RequestPage(RequestPage { index: number });
        let Frame { body, data, .. } = self.line.question(asked).await?;
        let name = self.line.name();
        let page = match body {
            Body::Page(_) => ManifestPage::decode(&data),
            _ => return Err(protocol(name, "an answer that answers nothing")),
        };
        let page = page.and_then(|page| page.verify(root, self.checkout.layout, number));
        let page = page.map_err(|_| protocol(name, "a manifest page of another root"))?;
        let hashes = page.around(index);
        self.pages.truncate(KEPT_PAGES - 1);
        self.pages.push_front(page);
        hashes.ok_or_else(|| protocol(name, "a manifest page of another root"))
    }

    /// Pays for what was bought last.
    async fn settle(&mut self) {
        for attempt in 1..=3 {
            match self.payer.pay(&mut self.owed).await {
                Ok(()) => return,
                Err(error) if error.is_retryable() => self.payer.pause(attempt).await,
                Err(error) => {
                    tracing::debug!(source = %self.line.name(), %error, "a payment is not taken");
                    self.owed.give_up();
                    return;
                }
            }
        }
    }
}
