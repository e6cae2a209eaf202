//! Events of transfers, and bounded queues of them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use serde::Serialize;

use super::TransferId;
use crate::{Cid, MerkleRoot, Protocol};

/// Events that a subscriber may fall behind before the oldest are dropped and counted.
pub const MAX_QUEUED_EVENTS: usize = 1024;

/// Something that happened to a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransferEvent {
    /// The transfer.
    pub transfer: TransferId,
    /// Position among the events of this transfer, from 0, without gaps. A gap seen by a
    /// subscriber is how many events it was too slow for.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: TransferEventKind,
}

/// Kinds of events. The last of each transfer is [`TransferEventKind::Ended`], exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransferEventKind {
    /// The transfer began, or goes on after a restart with what was durable.
    Started {
        /// Chunks that were there already.
        chunks_resumed: u32,
    },
    /// Size and number of chunks are known, as far as anybody says.
    Described {
        /// Bytes.
        size: u64,
        /// Number of chunks.
        chunks: u32,
        /// Name hint, as given by a stranger.
        name: Option<String>,
    },
    /// A source takes part.
    SourceUp {
        /// Where it serves.
        source: String,
        /// Over what.
        protocol: Protocol,
    },
    /// A source does not take part any more.
    SourceDown {
        /// Where it served.
        source: String,
        /// Why.
        reason: String,
    },
    /// A source is used less for a while: it stalled or failed.
    SourceDemoted {
        /// Where it serves.
        source: String,
        /// Why.
        reason: String,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// A source contradicted a proven hash and is out.
    SourceBanned {
        /// Where it serves.
        source: String,
        /// What it did.
        reason: String,
    },
    /// A root that somebody announced does not belong to the file.
    RootRefused {
        /// The root.
        root: MerkleRoot,
        /// What shows it.
        reason: String,
    },
    /// A chunk's bytes are on disk.
    ChunkPresent {
        /// The chunk.
        index: u32,
        /// Chunks present but not proven, this one included.
        unproven: u32,
    },
    /// A chunk is proven.
    ChunkProven {
        /// The chunk.
        index: u32,
        /// Chunks present but not proven, now.
        unproven: u32,
    },
    /// Bytes were fetched that did not pass; they are fetched again.
    ChunkRefetched {
        /// The chunk.
        index: u32,
    },
    /// More pieces of a torrent have passed. Told now and then, and at the end.
    TorrentProgress {
        /// The torrent, as `btih:` or `btmh:` and its info-hash.
        torrent: String,
        /// Pieces that have passed.
        passed: u32,
        /// Pieces to be had.
        pieces: u32,
        /// Sources that take part over BitTorrent.
        peers: u32,
    },
    /// Every piece of a torrent has passed, and it is known what file they make.
    TorrentComplete {
        /// The torrent, as `btih:` or `btmh:` and its info-hash.
        torrent: String,
        /// SHA-256 of what its pieces make.
        cid: Cid,
    },
    /// As many transfers as may work at once are at work: it waits for its turn.
    Queued,
    /// It does not wait any more: it has its turn, or is paused.
    Dequeued,
    /// Nothing moves until it is resumed.
    Paused,
    /// Goes on.
    Resumed,
    /// The end.
    Ended {
        /// How.
        outcome: TransferOutcome,
    },
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransferOutcome {
    /// All that was asked for is there and proven.
    Completed {
        /// The file.
        cid: Cid,
        /// Its sealed root, proven.
        root: Option<MerkleRoot>,
        /// Size in bytes.
        size: u64,
    },
    /// It was cancelled.
    Cancelled,
    /// It failed. What is durable stays for another try.
    Failed {
        /// Why, in words.
        reason: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
}

/// What one source did in a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Where it serves.
    pub source: String,
    /// Over what.
    pub protocol: Protocol,
    /// Verified bytes that the file now consists of.
    pub bytes: u64,
    /// Chunks with at least one such byte.
    pub chunks: u32,
    /// Bytes received that were not used: duplicates and what did not pass.
    pub wasted: u64,
    /// Milliseconds from the transfer's start to the source's first byte.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds from the transfer's start to the source's last byte.
    pub last_byte_ms: Option<u64>,
    /// Why it is out, if it is.
    pub banned: Option<String>,
}

struct Queue {
    events: VecDeque<TransferEvent>,
    lost: u64,
    waker: Option<Waker>,
    closed: bool,
}

/// The writing end of one subscription.
#[derive(Clone)]
pub(super) struct EventSink {
    filter: Option<TransferId>,
    queue: Arc<Mutex<Queue>>,
}

impl EventSink {
    /// Queues an event; the oldest goes if the queue is full. False if nobody listens.
    pub(super) fn push(&self, event: &TransferEvent) -> bool {
        if Arc::strong_count(&self.queue) == 1 {
            return false;
        }
        if self.filter.is_some_and(|id| id != event.transfer) {
            return true;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.events.len() >= MAX_QUEUED_EVENTS {
            queue.events.pop_front();
            queue.lost += 1;
        }
        queue.events.push_back(event.clone());
        let ended = matches!(event.kind, TransferEventKind::Ended { .. });
        queue.closed |= ended && self.filter.is_some();
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        !queue.closed
    }

    pub(super) fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// A subscription: a stream of events that ends with its transfer's end, or, for a
/// subscription to all transfers, with the registry.
pub struct EventStream {
    queue: Arc<Mutex<Queue>>,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream")
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) fn new(filter: Option<TransferId>) -> (EventSink, Self) {
        let queue = Arc::new(Mutex::new(Queue {
            events: VecDeque::new(),
            lost: 0,
            waker: None,
            closed: false,
        }));
        (
            EventSink {
                filter,
                queue: queue.clone(),
            },
            Self { queue },
        )
    }

    /// Events dropped because this subscriber was too slow.
    pub fn lost(&self) -> u64 {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lost
    }
}

impl Stream for EventStream {
    type Item = TransferEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TransferEvent>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
