//! [`PeerHandle`]: what lies between a connection's task and those who want something of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{ByteRange, Coverage, Delivery, PeerId, RangeSet, TransferError};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::torrent::Torrent;
use crate::bittorrent::extension::Holepunch;
use crate::bittorrent::session::MAX_WINDOW;

/// Most requests for ranges that stand at once.
const MAX_FETCHES: usize = 64;

/// For how many a block counts that came and was not taken, when it is decided how many more are
/// asked for: about 100 of them wait at most, 1.6 MiB.
const WAITING_COUNTS: usize = 4;

/// So many blocks that wait are enough for now: no more is read.
const ENOUGH_WAITING: usize = 96;

/// Most questions that wait for a connection.
const MAX_QUESTIONS: usize = 16;

/// Time in which a peer says which extensions it speaks.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// Time in which it answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Most messages about holepunching that wait for a connection.
const MAX_PUNCH: usize = 16;

/// Most ranges that wait for the peer to be told that no more is asked for of them.
const MAX_RELEASED: usize = 64;

/// Two connections with one peer have crossed on their way if no more time than this lies
/// between them.
const CROSSED: Duration = Duration::from_secs(5);

/// What a connection says of itself, as of lately.
#[derive(Debug, Clone, Default)]
pub(in crate::bittorrent) struct Published {
    /// The peer wants something of us.
    pub(in crate::bittorrent) interested: bool,
    /// Bytes per second that it gives us.
    pub(in crate::bittorrent) gives: f64,
    /// Bytes that it gave.
    pub(in crate::bittorrent) gave: u64,
    /// Bytes that it got.
    pub(in crate::bittorrent) got: u64,
    /// It does not answer.
    pub(in crate::bittorrent) snubs: bool,
    /// It has everything, or wants nothing.
    pub(in crate::bittorrent) seed: bool,
    /// Where it listens.
    pub(in crate::bittorrent) listens_at: Option<SocketAddr>,
    /// It speaks holepunching.
    pub(in crate::bittorrent) holepunch: bool,
    /// It can be told of pieces that are gone (BEP 54).
    pub(in crate::bittorrent) hears_of_gone: bool,
    /// The Chiral node that it proved to be.
    pub(in crate::bittorrent) chiral: Option<PeerId>,
    /// The payment gate has let it have something of what has a price.
    pub(in crate::bittorrent) admitted: bool,
    /// Whether it speaks Chiral's extension, once it is known what it speaks.
    pub(in crate::bittorrent) speaks_chiral: Option<bool>,
}

/// A question to a Chiral node.
#[derive(Debug)]
pub(in crate::bittorrent) enum Ask {
    Header,
    Page(u32),
    Payment(Bytes),
    /// For leave to ask for these bytes, which have a price.
    Admit {
        range: ByteRange,
        credential: Option<Bytes>,
    },
    /// For what the content costs.
    Tariff,
}

/// Where the answer to a question goes.
pub(in crate::bittorrent) type AnswerTo = oneshot::Sender<Option<Bytes>>;

#[derive(Debug)]
struct Fetch {
    queue: VecDeque<Result<Delivery, TransferError>>,
    /// Bytes that are still to be handed out.
    left: u64,
    waker: Option<Waker>,
}

/// What a connection is to do.
#[derive(Debug, Default)]
pub(in crate::bittorrent) struct Orders {
    /// Ranges to be fetched, by token.
    pub(in crate::bittorrent) fetch: Vec<(u64, ByteRange)>,
    /// Tokens that nobody waits for any more.
    pub(in crate::bittorrent) dropped: Vec<u64>,
    /// Whether to choke the peer.
    pub(in crate::bittorrent) choking: Option<bool>,
    /// Whether a download wants something.
    pub(in crate::bittorrent) wanting: Option<bool>,
    /// Look at the torrent: there are new pieces, or it became known.
    pub(in crate::bittorrent) look: bool,
    /// Tell the peer of others.
    pub(in crate::bittorrent) exchange: bool,
    /// Questions to the Chiral node.
    pub(in crate::bittorrent) questions: Vec<(Ask, AnswerTo)>,
    /// Messages to relay.
    pub(in crate::bittorrent) punch: Vec<Holepunch>,
    /// Ranges of which no more is asked for, though there was leave to.
    pub(in crate::bittorrent) released: Vec<ByteRange>,
    /// Another connection with the same peer has taken its place.
    pub(in crate::bittorrent) displaced: bool,
    /// Pieces may be gone: what the peer was told beyond those that there are is taken back.
    pub(in crate::bittorrent) gone: bool,
    /// Pieces are gone, and the peer cannot be told so.
    pub(in crate::bittorrent) outdated: bool,
    /// What the peer gave was wrong.
    pub(in crate::bittorrent) banned: bool,
}

#[derive(Debug)]
struct State {
    orders: Orders,
    fetches: BTreeMap<u64, Fetch>,
    next: u64,
    /// Blocks that came and were not taken.
    buffered: usize,
    /// Fewer blocks are asked for as long as so many are not taken.
    starved: bool,
    published: Published,
    coverage: Coverage,
    said_pieces: bool,
    closed: Option<String>,
}

/// A connection to a peer.
#[derive(Debug)]
pub(in crate::bittorrent) struct PeerHandle {
    /// Its number, never used again.
    pub(in crate::bittorrent) key: u64,
    /// The other end of the socket.
    pub(in crate::bittorrent) address: SocketAddr,
    /// Whether the peer came to us.
    pub(in crate::bittorrent) incoming: bool,
    /// Whether that is over uTP.
    pub(in crate::bittorrent) utp: bool,
    /// What it calls itself.
    pub(in crate::bittorrent) peer_id: [u8; 20],
    since: Instant,
    /// A source of it is in somebody's hands.
    claimed: AtomicBool,
    /// The peer goes on believing in pieces that are gone: no other use is made of it.
    outdated: AtomicBool,
    state: Mutex<State>,
    /// Wakes the connection's task.
    pub(in crate::bittorrent) wake: Notify,
    /// Counts changes of what can be had.
    version: watch::Sender<u64>,
}

impl PeerHandle {
    pub(in crate::bittorrent) fn new(
        key: u64,
        address: SocketAddr,
        incoming: bool,
        utp: bool,
        peer_id: [u8; 20],
    ) -> Self {
        Self {
            key,
            address,
            incoming,
            utp,
            peer_id,
            since: Instant::now(),
            claimed: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
            state: Mutex::new(State {
                orders: Orders::default(),
                fetches: BTreeMap::new(),
                next: 0,
                buffered: 0,
                starved: false,
                published: Published::default(),
                coverage: Coverage::Partial(Default::default()),
                said_pieces: false,
                closed: None,
            }),
            wake: Notify::new(),
            version: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to make a source of it; false if somebody has it.
    pub(in crate::bittorrent) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// Gives that right back.
    pub(in crate::bittorrent) fn unclaim(&self) {
        self.claimed.store(false, Ordering::Relaxed);
    }

    /// Which of two connections with one peer stays: this one, or a new one made by the
    /// other side if `incoming`. If both sides called each other at the same time both decide
    /// alike.
    pub(in crate::bittorrent) fn stays(&self, incoming: bool, ours: &[u8; 20]) -> bool {
        let crossed = self.incoming != incoming && self.since.elapsed() < CROSSED;
        let they_go_first = self.peer_id > *ours;
        !crossed || self.incoming == they_go_first
    }

    /// Where others reach the peer. Over uTP it calls from where it listens, as far as a router
    /// on the way tells; over TCP from any port, and says where it listens.
    pub(in crate::bittorrent) fn place(&self) -> Option<SocketAddr> {
        match self.incoming && !self.utp {
            true => self.published().listens_at,
            false => Some(self.address),
        }
    }

    /// Ends the connection for what the peer gave.
    pub(in crate::bittorrent) fn ban(&self) {
        self.order(|orders| orders.banned = true);
    }

    /// Another connection with the same peer takes its place.
    pub(in crate::bittorrent) fn displace(&self) {
        self.order(|orders| orders.displaced = true);
    }

    /// Pieces are gone. A peer that does not understand that (BEP 54) is let go at once, so
    /// that whoever wants something of it meets it anew.
    pub(in crate::bittorrent) fn take_back(&self) {
        if self.published().hears_of_gone {
            return self.look_for_gone();
        }
        self.outdated.store(true, Ordering::Relaxed);
        self.order(|orders| orders.outdated = true);
    }

    /// Pieces may be gone.
    pub(in crate::bittorrent) fn look_for_gone(&self) {
        self.order(|orders| (orders.look, orders.gone) = (true, true));
    }

    /// Whether it is about to be let go, as the peer believes in pieces that are gone.
    pub(in crate::bittorrent) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// Leaves an order and wakes the task.
    fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.state().orders);
        self.wake.notify_one();
    }

    pub(in crate::bittorrent) fn set_choking(&self, choking: bool) {
        self.order(|orders| orders.choking = Some(choking));
    }

    pub(in crate::bittorrent) fn set_wanting(&self, wanting: bool) {
        self.order(|orders| orders.wanting = Some(wanting));
    }

    pub(in crate::bittorrent) fn look(&self) {
        self.order(|orders| orders.look = true);
    }

    pub(in crate::bittorrent) fn exchange_peers(&self) {
        self.order(|orders| orders.exchange = true);
    }

    pub(in crate::bittorrent) fn punch(&self, message: Holepunch) {
        self.order(|orders| {
            if orders.punch.len() < MAX_PUNCH {
                orders.punch.push(message);
            }
        });
    }

    /// Nothing more is asked for of a range that there was leave to ask for.
    pub(in crate::bittorrent) fn release(&self, range: ByteRange) {
        self.order(|orders| {
            // What is not said ends with the connection.
            if orders.released.len() < MAX_RELEASED {
                orders.released.push(range);
            }
        });
    }

    /// For the task: what is to be done, and how many blocks may be asked for.
    pub(in crate::bittorrent) fn take_orders(&self) -> (Orders, usize) {
        let mut state = self.state();
        // Each that waits stands for several: a download that comes to none soon has enough.
        let room = MAX_WINDOW.saturating_sub(state.buffered * WAITING_COUNTS);
        state.starved = room < MAX_WINDOW / 2;
        (std::mem::take(&mut state.orders), room)
    }

    /// For the task: whether so many blocks wait that it need not read on. It is woken when they have
    /// been taken.
    pub(in crate::bittorrent) fn has_enough(&self) -> bool {
        let mut state = self.state();
        let enough = state.buffered >= ENOUGH_WAITING;
        state.starved |= enough;
        enough
    }

    /// For the task: blocks that came, or do not, each under its token.
    pub(in crate::bittorrent) fn deliver(
        &self,
        blocks: impl Iterator<Item = (u64, Result<Delivery, TransferError>)>,
    ) {
        let mut wakers: Vec<Waker> = Vec::new();
        let mut state = self.state();
        for (token, block) in blocks {
            let State {
                fetches, buffered, ..
            } = &mut *state;
            if let Some(fetch) = fetches.get_mut(&token) {
                *buffered += 1;
                fetch.queue.push_back(block);
                wakers.extend(fetch.waker.take());
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// For the task: what others may know.
    pub(in crate::bittorrent) fn publish(&self, published: Published) {
        let mut state = self.state();
        let news = state.published.speaks_chiral != published.speaks_chiral;
        state.published = published;
        drop(state);
        if news {
            self.note_known();
        }
    }

    /// For the task: what can be had from the peer.
    pub(in crate::bittorrent) fn publish_coverage(&self, coverage: Coverage, said_pieces: bool) {
        let mut state = self.state();
        let changed = state.coverage != coverage || state.said_pieces != said_pieces;
        (state.coverage, state.said_pieces) = (coverage, said_pieces);
        drop(state);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// The torrent became known: for whoever waits for that.
    pub(in crate::bittorrent) fn note_known(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// For the task: it is over.
    pub(in crate::bittorrent) fn close(&self, reason: String) {
        let mut state = self.state();
        state.closed.get_or_insert(reason);
        let wakers: Vec<_> = state
            .fetches
            .values_mut()
            .filter_map(|f| f.waker.take())
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.version.send_modify(|version| *version += 1);
    }

    pub(in crate::bittorrent) fn published(&self) -> Published {
        self.state().published.clone()
    }

    pub(in crate::bittorrent) fn is_closed(&self) -> bool {
        self.state().closed.is_some()
    }

    /// What can be had, and which change of it that is.
    pub(in crate::bittorrent) fn coverage(&self) -> Result<(Coverage, u64), TransferError> {
        let state = self.state();
        match &state.closed {
            Some(reason) => Err(self.broken(reason)),
            None => Ok((state.coverage.clone(), *self.version.borrow())),
        }
    }

    /// Until what can be had is not what it was at this change of it.
    pub(in crate::bittorrent) async fn changed(&self, told: u64) {
        let mut versions = self.version.subscribe();
        // It is there as long as we are.
        let _ = versions.wait_for(|version| *version != told).await;
    }

    /// Until something can be had from the peer, or it is gone.
    pub(in crate::bittorrent) async fn introduced(&self) {
        let mut versions = self.version.subscribe();
        let _ = versions
            .wait_for(|_| {
                let state = self.state();
                let nothing = Coverage::Partial(Default::default());
                (state.said_pieces && state.coverage != nothing) || state.closed.is_some()
            })
            .await;
    }

    /// Asks a Chiral node something; nothing if it is none, or has no answer.
    pub(in crate::bittorrent) async fn ask(
        &self,
        ask: Ask,
    ) -> Result<Option<Bytes>, TransferError> {
        let mut versions = self.version.subscribe();
        let known = |_: &u64| self.is_closed() || self.published().speaks_chiral.is_some();
        let known = versions.wait_for(known);
        // Whoever says nothing of it speaks nothing of it.
        let _ = tokio::time::timeout(ASK_PATIENCE, known).await.is_ok();
        if self.published().speaks_chiral != Some(true) {
            return Ok(None);
        }
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if let Some(reason) = &state.closed {
                return Err(self.broken(reason));
            }
            if state.orders.questions.len() >= MAX_QUESTIONS {
                return Ok(None);
            }
            state.orders.questions.push((ask, sender));
        }
        self.wake.notify_one();
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| self.broken("no answer")),
            Err(_) => Err(TransferError::Timeout {
                source_name: self.address.to_string(),
            }),
        }
    }

    /// Until the torrent is known, or the connection gone.
    pub(in crate::bittorrent) async fn knows(&self, torrent: &Torrent) {
        let mut versions = self.version.subscribe();
        let _ = versions
            .wait_for(|_| torrent.info().is_some() || self.is_closed())
            .await;
    }

    fn broken(&self, reason: &str) -> TransferError {
        TransferError::Connection {
            source_name: self.address.to_string(),
            source: reason.to_owned().into(),
        }
    }

    /// Asks for ranges; their token.
    pub(in crate::bittorrent) fn fetch(&self, ranges: &RangeSet) -> Result<u64, TransferError> {
        let mut state = self.state();
        if let Some(reason) = &state.closed {
            return Err(self.broken(reason));
        }
        if state.fetches.len() >= MAX_FETCHES {
            return Err(TransferError::Refused {
                source_name: self.address.to_string(),
                reason: "too many requests at once".to_owned(),
                retryable: true,
            });
        }
        let token = state.next;
        state.next += 1;
        let fetch = Fetch {
            queue: VecDeque::new(),
            left: ranges.len(),
            waker: None,
        };
        state.fetches.insert(token, fetch);
        let ranges = ranges.iter().map(|range| (token, range));
        state.orders.fetch.extend(ranges);
        drop(state);
        self.wake.notify_one();
        Ok(token)
    }

    /// The next block of a range.
    pub(in crate::bittorrent) fn poll_fetch(
        &self,
        token: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, TransferError>>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(fetch) = state.fetches.get_mut(&token) else {
            return Poll::Ready(None);
        };
        if let Some(next) = fetch.queue.pop_front() {
            state.buffered -= 1;
            if let Ok(delivery) = &next {
                fetch.left = fetch.left.saturating_sub(delivery.bytes.len() as u64);
            }
            let over = fetch.left == 0 || next.is_err();
            if over {
                state.buffered -= fetch.queue.len();
                state.fetches.remove(&token);
                if next.is_err() {
                    state.orders.dropped.push(token);
                }
            }
            if state.starved && state.buffered < MAX_WINDOW / WAITING_COUNTS / 4 {
                state.starved = false;
                drop(guard);
                self.wake.notify_one();
            }
            return Poll::Ready(Some(next));
        }
        if let Some(reason) = &state.closed {
            let error = self.broken(reason);
            state.fetches.remove(&token);
            return Poll::Ready(Some(Err(error)));
        }
        fetch.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody waits for a range any more.
    pub(in crate::bittorrent) fn drop_fetch(&self, token: u64) {
        let mut state = self.state();
        if let Some(fetch) = state.fetches.remove(&token) {
            state.buffered -= fetch.queue.len();
            // What the task has not heard of yet it need not.
            let asked = state.orders.fetch.len();
            state.orders.fetch.retain(|(other, _)| *other != token);
            if state.orders.fetch.len() == asked {
                state.orders.dropped.push(token);
            }
            drop(state);
            self.wake.notify_one();
        }
    }

    /// For the task: a delivery of a block.
    pub(in crate::bittorrent) fn delivery(
        offset: u64,
        bytes: Bytes,
    ) -> Result<Delivery, TransferError> {
        Ok(Delivery::new(offset, bytes))
    }

    /// For the task: a block does not come.
    pub(in crate::bittorrent) fn lost(&self) -> Result<Delivery, TransferError> {
        Err(TransferError::Refused {
            source_name: self.address.to_string(),
            reason: "it chokes".to_owned(),
            retryable: true,
        })
    }
}

/// All connections of a torrent, by number.
pub(in crate::bittorrent) type Handles = BTreeMap<u64, Arc<PeerHandle>>;
