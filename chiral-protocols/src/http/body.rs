//! Bodies of answers: a few bytes, or stored content read as it is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use chiral_core::{ByteRange, PaymentGate, ServeRequest, StoreError, StoredContent};
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::config::{MAX_READ, MIN_READ, SEND_BUFFERS};
use super::encoded::EncodedBody;
use super::leave::Leave;
use super::multipart::PartsBody;
use crate::limits::Uploads;
use crate::meter::Meter;

type ReadFuture = Pin<Box<dyn Future<Output = Result<Bytes, StoreError>> + Send>>;

/// What all bodies of one server share.
#[derive(Debug)]
pub(super) struct Sending {
    /// Bodies of stored content under way.
    bodies: AtomicUsize,
    uploads: Uploads,
    tracker: TaskTracker,
    runtime: Handle,
    begun: Instant,
    /// Of all that is sent.
    pub(super) meter: Meter,
}

impl Sending {
    pub(super) fn new(tracker: TaskTracker, uploads: Uploads) -> Self {
        Self {
            bodies: AtomicUsize::new(0),
            uploads,
            tracker,
            runtime: Handle::current(),
            begun: Instant::now(),
            meter: Meter::default(),
        }
    }

    /// The time that meters go by, in whole seconds.
    pub(super) fn second(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Has something done beside the runtime that takes the processor for a while.
    pub(super) fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn_blocking(work)
    }

    /// Bytes to read at a time: as many as the budget allows with this many bodies, each of
    /// which holds up to two reads (one on its way out, one ahead).
    fn read_size(&self) -> u64 {
        let bodies = self.bodies.load(Ordering::Relaxed).max(1);
        (SEND_BUFFERS / 2 / bodies).clamp(MIN_READ, MAX_READ) as u64
    }
}

/// A body; of known length, unless it is encoded as it goes out.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Bytes(Option<Bytes>),
    Content(Box<ContentBody>),
    Parts(Box<PartsBody>),
    Encoded(Box<EncodedBody>),
}

impl AnswerBody {
    pub(super) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(super) fn of(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        match &mut *self {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Content(content) => content.poll_next(cx).map_ok(Frame::data),
            Self::Parts(parts) => parts.poll_next(cx).map_ok(Frame::data),
            Self::Encoded(encoded) => encoded.poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Encoded(encoded) => encoded.is_ended(),
            _ => self.size_hint().exact() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Content(content) => content.left(),
            Self::Parts(parts) => parts.left(),
            Self::Encoded(_) => return SizeHint::default(),
        })
    }
}

/// Stored content on its way out. A store that makes it wait is read one step ahead of what
/// is being sent; one that does not, as it is when all is in memory, is not, so that what is
/// sent is fresh in the processor's cache and slow clients hold half the memory. If the store
/// fails, the connection is cut off short of the length announced: nothing is ever padded.
pub(super) struct ContentBody {
    content: Arc<dyn StoredContent>,
    gate: Arc<dyn PaymentGate>,
    request: ServeRequest,
    sending: Arc<Sending>,
    /// Of what is sent of this file.
    meter: Arc<Meter>,
    /// Everything before this was handed to the transport.
    given: u64,
    /// Everything before this was read or is being read.
    asked: u64,
    end: u64,
    /// Whether it counts among the bodies under way: from its first read on, as many may be
    /// parts of one answer.
    counted: bool,
    reading: Option<ReadFuture>,
    /// Whether the last read had to be waited for.
    waits: bool,
    ahead: Option<Result<Bytes, StoreError>>,
    /// What limits the rate.
    leave: Leave,
}

impl std::fmt::Debug for ContentBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentBody")
            .field("request", &self.request)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl ContentBody {
    pub(super) fn new(
        content: Arc<dyn StoredContent>,
        gate: Arc<dyn PaymentGate>,
        request: ServeRequest,
        sending: Arc<Sending>,
        meter: Arc<Meter>,
    ) -> Self {
        let ByteRange { start, end } = request.range;
        let leave = Leave::of(sending.uploads.flow(request.cid));
        Self {
            content,
            gate,
            request,
            sending,
            meter,
            given: start,
            asked: start,
            end,
            counted: false,
            reading: None,
            waits: false,
            ahead: None,
            leave,
        }
    }

    /// Bytes still to come.
    pub(super) fn left(&self) -> u64 {
        self.end - self.given
    }

    fn start_reading(&mut self) {
        if self.reading.is_some() || self.ahead.is_some() || self.asked == self.end {
            return;
        }
        if !std::mem::replace(&mut self.counted, true) {
            self.sending.bodies.fetch_add(1, Ordering::Relaxed);
        }
        let stop = self.end.min(self.asked + self.sending.read_size());
        let range = ByteRange::new(self.asked, stop);
        self.asked = stop;
        self.waits = false;
        let content = self.content.clone();
        self.reading = Some(Box::pin(async move {
            let bytes = content.read(range).await?;
            // Were it otherwise, what follows would be sent as if it stood elsewhere.
            if bytes.len() as u64 != range.len() {
                Err(StoreError::Range { range })
            } else {
                Ok(bytes)
            }
        }));
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        match reading.as_mut().poll(cx) {
            Poll::Ready(result) => {
                self.reading = None;
                self.ahead = Some(result);
            }
            Poll::Pending => self.waits = true,
        }
    }

    /// What was read ahead, or as much of it as may be sent now.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, StoreError>> {
        if let Some(Ok(bytes)) = &mut self.ahead {
            let leave = ready!(self.leave.poll(cx, bytes.len()));
            if leave < bytes.len() {
                return Poll::Ready(Ok(bytes.split_to(leave)));
            }
        }
        self.ahead.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next bytes.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StoreError>>> {
        if self.given == self.end {
            return Poll::Ready(None);
        }
        self.start_reading();
        self.poll_reading(cx);
        let result = ready!(self.poll_ahead(cx));
        match &result {
            Ok(bytes) => {
                self.given += bytes.len() as u64;
                let second = self.sending.second();
                self.meter.add(second, bytes.len() as u64);
                self.sending.meter.add(second, bytes.len() as u64);
                if self.waits {
                    self.start_reading();
                    // Polled so that it begins; its result waits for the next call.
                    self.poll_reading(cx);
                }
            }
            Err(error) => {
                tracing::error!(content = %self.request.cid, %error, "sending broke off");
                self.end = self.given;
            }
        }
        Poll::Ready(Some(result))
    }
}

impl Drop for ContentBody {
    fn drop(&mut self) {
        if self.counted {
            self.sending.bodies.fetch_sub(1, Ordering::Relaxed);
        }
        // Also if nothing was sent: the gate sets something aside for what it admits.
        let sent = ByteRange::new(self.request.range.start, self.given);
        let (gate, request) = (self.gate.clone(), self.request.clone());
        let mut tell = Box::pin(async move { gate.served(&request, sent).await });
        let runtime = &self.sending.runtime;
        let _in_runtime = runtime.enter();
        // Most gates have nothing to wait for, and need no task.
        let told = tell.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if told.is_pending() {
            self.sending.tracker.spawn_on(tell, runtime);
        }
    }
}
