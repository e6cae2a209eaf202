//! Serving over HTTP/2: limits on the requests of a connection, and deadlines.
//!
//! Over HTTP/1.1 a client that does not read blocks the socket, and [`Paced`] sees that. Here
//! it can keep the socket open and give no credit, so that what counts is that an answer has
//! bytes to send, and too few go out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::StoreError;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::AnswerBody;
use super::config::HttpConfig;
use super::executor::Background;
use super::pace::Pace;
use super::routes::{Routes, text};

/// Requests served at once over HTTP/2 on all connections, for each connection that may be
/// there.
const STREAMS_PER_CONNECTION: usize = 4;

/// Most bytes handed to a stream at a time. They wait there for the client's credit, even
/// after the answer has been dropped, so that they are few.
const PIECE: usize = 32 << 10;

/// Bytes that a request may have under way. Those that are read have 16 KiB at most.
const STREAM_WINDOW: u32 = 32 << 10;
/// Bytes that all requests of a connection may have under way.
const CONNECTION_WINDOW: u32 = 128 << 10;

/// Requests that a client may take back before they were looked at, and faults of its that
/// are answered with a reset, before the connection is ended: rapid reset (CVE-2023-44487)
/// and its likes.
const MAX_RESETS: usize = 32;

/// How often a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What all connections over HTTP/2 share.
#[derive(Clone)]
pub(super) struct Sessions {
    builder: http2::Builder<Background>,
    routes: Arc<Routes>,
    /// One for each request under way.
    slots: Arc<Semaphore>,
    max_headers: usize,
    idle: Duration,
    pace: Pace,
}

impl Sessions {
    pub(super) fn new(
        config: &HttpConfig,
        routes: Arc<Routes>,
        tracker: TaskTracker,
        kill: CancellationToken,
        pace: Pace,
    ) -> Self {
        let mut builder = http2::Builder::new(Background {
            tasks: tracker,
            closed: kill,
        });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(PIECE)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let streams = config
            .max_connections
            .saturating_mul(STREAMS_PER_CONNECTION);
        Self {
            builder,
            routes,
            slots: Arc::new(Semaphore::new(streams.min(Semaphore::MAX_PERMITS))),
            max_headers: config.max_headers,
            idle: config.header_timeout,
            pace,
        }
    }

    /// Serves a connection until it ends, its client is too slow or silent for too long, or,
    /// after `stop`, its requests are answered. `written` counts the bytes that go out.
    pub(super) async fn serve<T>(
        &self,
        io: T,
        written: Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Result<(), hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let vitals = Arc::new(Vitals::default());
        let service = {
            let (this, vitals) = (self.clone(), vitals.clone());
            service_fn(move |request| {
                let (this, stream) = (this.clone(), Stream::begin(&vitals));
                async move { Ok::<_, std::convert::Infallible>(this.answer(request, stream).await) }
            })
        };
        let connection = self.builder.serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = std::pin::pin!(stop.cancelled());
        let mut watch = std::pin::pin!(vitals.watch(&written, self.idle, self.pace));
        let mut ending = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => return result,
                () = stopping.as_mut(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                verdict = watch.as_mut() => match verdict {
                    Verdict::TooSlow => {
                        tracing::debug!("the client reads too slowly");
                        return Ok(());
                    }
                    Verdict::Idle if ending => return Ok(()),
                    Verdict::Idle => {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                        watch.set(vitals.watch(&written, self.idle, self.pace));
                    }
                },
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, stream: Stream) -> Response<Held> {
        let answer = if request.headers().len() > self.max_headers {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            text(status, "too many headers")
        } else if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            let answer = self.routes.answer(request).await;
            return answer.map(|body| Held::new(body, stream, Some(slot)));
        } else {
            let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
            let second = HeaderValue::from_static("1");
            busy.headers_mut().insert(header::RETRY_AFTER, second);
            busy
        };
        answer.map(|body| Held::new(body, stream, None))
    }
}

/// What a connection does.
#[derive(Debug, Default)]
struct Vitals {
    /// Requests whose answer is not all handed out.
    streams: AtomicUsize,
    /// Those of them that wait for the client, not for us.
    blocked: AtomicUsize,
    /// How often none waited any more.
    cleared: AtomicU64,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    TooSlow,
    Idle,
}

impl Vitals {
    /// Returns when the client has asked nothing for `idle`, though what it asked before was
    /// handed out and is no longer going to it at its pace, or when it takes less than its
    /// pace of what it asked for.
    async fn watch(&self, written: &AtomicU64, idle: Duration, pace: Pace) -> Verdict {
        let mut quiet_since = Instant::now();
        let mut sent = written.load(Ordering::Relaxed);
        loop {
            let (now, changed) = (Instant::now(), self.changed.notified());
            if self.streams.load(Ordering::Relaxed) == 0 {
                // Bytes that were handed out may still be on their way, if at their pace.
                let total = written.load(Ordering::Relaxed);
                let due = quiet_since + idle;
                if now >= due {
                    if total - sent < pace.bytes_over(idle) {
                        return Verdict::Idle;
                    }
                    (quiet_since, sent) = (now, total);
                    continue;
                }
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = changed => (quiet_since, sent) = (now, total),
                }
                continue;
            }
            sent = written.load(Ordering::Relaxed);
            let blocked = self.blocked.load(Ordering::Relaxed);
            let cleared = self.cleared.load(Ordering::Relaxed);
            let mut emptied = std::pin::pin!(self.emptied());
            tokio::select! {
                () = emptied.as_mut() => {
                    (quiet_since, sent) = (Instant::now(), written.load(Ordering::Relaxed));
                    continue;
                }
                () = sleep_until(now + pace.period) => {}
            }
            let still = blocked > 0
                && self.blocked.load(Ordering::Relaxed) > 0
                && self.cleared.load(Ordering::Relaxed) == cleared;
            let went = written.load(Ordering::Relaxed) - sent;
            if still && went < pace.bytes_per_period() {
                return Verdict::TooSlow;
            }
        }
    }

    /// Returns when there is no request any more.
    async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.streams.load(Ordering::Relaxed) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
struct Stream {
    vitals: Arc<Vitals>,
    blocked: bool,
}

impl Stream {
    fn begin(vitals: &Arc<Vitals>) -> Self {
        if vitals.streams.fetch_add(1, Ordering::Relaxed) == 0 {
            vitals.changed.notify_one();
        }
        Self {
            vitals: vitals.clone(),
            blocked: false,
        }
    }

    fn set_blocked(&mut self, blocked: bool) {
        let vitals = &self.vitals;
        let was = std::mem::replace(&mut self.blocked, blocked);
        if blocked && !was {
            vitals.blocked.fetch_add(1, Ordering::Relaxed);
        } else if was && !blocked && vitals.blocked.fetch_sub(1, Ordering::Relaxed) == 1 {
            vitals.cleared.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.set_blocked(false);
        if self.vitals.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.vitals.changed.notify_one();
        }
    }
}

/// A body that is handed out in small pieces, and tells how it gets on.
#[derive(Debug)]
struct Held {
    body: AnswerBody,
    rest: Bytes,
    stream: Stream,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn new(body: AnswerBody, stream: Stream, slot: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            stream,
            _slot: slot,
        }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => {
                    this.stream.set_blocked(false);
                    return other;
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        // Until we are asked again, it is the client that is waited for.
        this.stream.set_blocked(true);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + rest);
        }
        hint
    }
}
