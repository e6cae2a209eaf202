//! One request to one source: its deliveries, cut into pieces of chunks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::buffers::{BUFFER_LEN, Buffer, Buffers};
use chiral_core::{
    ByteRange, CHUNK_SIZE, ChunkSource, Delivery, RangeSet, TransferError, VerifiedChunk,
};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::limits::Flow;
use crate::scheduler::{RequestId, SourceId};

/// A slow source's bytes are passed on after this time even if their chunk is not whole, so
/// that it is not taken for one that stalls.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a request tells the download.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Bytes within one chunk.
    Piece {
        source: SourceId,
        request: RequestId,
        offset: u64,
        bytes: Bytes,
        /// What whoever delivered them found, if they came in one.
        checked: Option<VerifiedChunk>,
    },
    /// All has come, or as much as was still wanted.
    Done { request: RequestId },
    /// It failed.
    Failed {
        source: SourceId,
        request: RequestId,
        error: TransferError,
    },
}

/// Collects the bytes of the chunk that is being received.
struct Cutter {
    source: SourceId,
    request: RequestId,
    out: mpsc::Sender<Fetched>,
    offset: u64,
    buffer: Option<Buffer>,
    buffers: Arc<Buffers>,
    passed_on: Instant,
}

impl Cutter {
    /// Takes bytes at an offset, and what is known of them if they are all of a chunk; false if
    /// nobody listens any more.
    async fn take(
        &mut self,
        mut offset: u64,
        mut bytes: Bytes,
        checked: Option<VerifiedChunk>,
        range: ByteRange,
    ) -> bool {
        if offset != self.offset + self.held() as u64 && !self.flush().await {
            return false;
        }
        while !bytes.is_empty() {
            let chunk_end = (offset / CHUNK_SIZE + 1) * CHUNK_SIZE;
            let end = chunk_end.min(range.end);
            let part = bytes.split_to(bytes.len().min((end - offset) as usize));
            let part_len = part.len() as u64;
            if self.held() == 0 {
                self.offset = offset;
                if offset + part_len == end {
                    // All of the chunk, or of what was asked of it, in one: nothing to copy.
                    if !self.send(part, checked.clone()).await {
                        return false;
                    }
                    offset = end;
                    continue;
                }
            }
            // Never more than a chunk, which is what it has room for.
            self.buffer
                .get_or_insert_with(|| self.buffers.empty())
                .push(&part);
            offset += part_len;
            let due = self.passed_on.elapsed() >= PATIENCE;
            if (offset == end || due) && !self.flush().await {
                return false;
            }
        }
        true
    }

    fn held(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::len)
    }

    /// Passes on what there is. Short pieces are copied, so that they do not hold long buffers;
    /// slow sources share the few that they are received into.
    async fn flush(&mut self) -> bool {
        match self.buffer.take() {
            Some(buffer) if buffer.len() * 2 > BUFFER_LEN => {
                self.send(buffer.into_bytes(), None).await
            }
            Some(buffer) if !buffer.is_empty() => {
                let bytes = Bytes::copy_from_slice(buffer.as_ref());
                drop(buffer);
                self.send(bytes, None).await
            }
            _ => true,
        }
    }

    async fn send(&mut self, bytes: Bytes, checked: Option<VerifiedChunk>) -> bool {
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.passed_on = Instant::now();
        let (source, request) = (self.source, self.request);
        self.out
            .send(Fetched::Piece {
                source,
                request,
                offset,
                bytes,
                checked,
            })
            .await
            .is_ok()
    }
}

/// What a source is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) source: SourceId,
    pub(super) request: RequestId,
    pub(super) range: ByteRange,
    /// Where it ends after all: may be lowered while it runs.
    pub(super) end: watch::Receiver<u64>,
    /// What limits the download.
    pub(super) flow: Flow,
    /// Where memory for chunks comes from.
    pub(super) buffers: Arc<Buffers>,
}

/// Works one request off.
pub(super) async fn fetch(from: Arc<dyn ChunkSource>, asked: Asked, out: mpsc::Sender<Fetched>) {
    let Asked {
        source,
        request,
        range,
        mut end,
        flow,
        buffers,
    } = asked;
    let mut stream = from.fetch(range);
    let mut cutter = Cutter {
        source,
        request,
        out: out.clone(),
        offset: range.start,
        buffer: None,
        buffers,
        passed_on: Instant::now(),
    };
    // Of what is asked for. Whoever delivers in another order has sent some that is not wanted
    // any more when the end is lowered.
    let mut received = RangeSet::new();
    let whole = |received: &RangeSet, end: u64| {
        end <= range.start || received.covers(ByteRange::new(range.start, end))
    };
    let result = loop {
        let wanted = *end.borrow_and_update();
        if whole(&received, wanted) {
            break Ok(());
        }
        let delivery = tokio::select! {
            biased;
            changed = end.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            delivery = stream.next() => delivery,
        };
        match delivery {
            // It may have been told meanwhile to stop here.
            None if whole(&received, *end.borrow()) => break Ok(()),
            None => {
                let source_name = from.offer().endpoint.as_str().to_owned();
                let reason = "its answer ended early";
                break Err(TransferError::Protocol {
                    source_name,
                    reason,
                });
            }
            Some(Err(error)) => break Err(error),
            Some(Ok(delivery)) => {
                if !range.covers(delivery.range()) || delivery.bytes.is_empty() {
                    let source_name = from.offer().endpoint.as_str().to_owned();
                    let reason = "bytes that were not asked for";
                    break Err(TransferError::Protocol {
                        source_name,
                        reason,
                    });
                }
                if received.insert(delivery.range()) != delivery.bytes.len() as u64 {
                    let source_name = from.offer().endpoint.as_str().to_owned();
                    let reason = "bytes that came before";
                    break Err(TransferError::Protocol {
                        source_name,
                        reason,
                    });
                }
                let Delivery {
                    mut offset,
                    mut bytes,
                    checked,
                    ..
                } = delivery;
                while !bytes.is_empty() {
                    // As long as this waits, the source is not read from either.
                    let let_through = flow.acquire(bytes.len() as u64).await;
                    if flow.is_limited() && offset >= *end.borrow() {
                        break;
                    }
                    let part = bytes.split_to(let_through as usize);
                    // Nothing is known of a part alone.
                    let checked = checked
                        .clone()
                        .filter(|all| all.bytes().len() == part.len());
                    if !cutter.take(offset, part, checked, range).await {
                        return;
                    }
                    offset += let_through;
                }
            }
        }
    };
    if !cutter.flush().await {
        return;
    }
    let last = match result {
        Ok(()) => Fetched::Done { request },
        Err(error) => Fetched::Failed {
            source,
            request,
            error,
        },
    };
    // If nobody listens the download is over, and so is this.
    out.send(last).await.unwrap_or_default();
}
