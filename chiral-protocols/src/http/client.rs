//! [`Link`]: what one request goes over. A connection over HTTP/1.1 is driven by whoever waits
//! for its answer. No task runs behind it: to drop it is to close it, and to read slowly slows
//! the server down. Over HTTP/2 several requests share a connection, which a task drives; to
//! drop a link ends its own request, and flow control slows the server down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::address::{Scope, scope};
use super::config::HttpConfig;
use super::connect::{Origin, Transport, Way, connection, protocol, timed_out};
use super::executor::Background;
use super::tls::Towards;
use super::wire::Wire;

/// Bytes taken from the socket at a time: enough that the system calls hardly count, few
/// enough to stay in the processor's cache until they are hashed.
const READ_SIZE: usize = 256 << 10;

/// Bytes that one answer, and all answers of one connection, may be ahead of whoever reads
/// them, over HTTP/2: enough for a gigabyte a second across a machine, and for 40 MB/s (all
/// together 80) over 100 ms. A connection holds no more in memory.
const STREAM_WINDOW: u32 = 4 << 20;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Longest frame taken, over HTTP/2.
const MAX_FRAME: u32 = 256 << 10;

type Connection = http1::Connection<TokioIo<Wire>, Full<Bytes>>;

/// A connection over HTTP/1.1, or a share of one over HTTP/2.
pub(super) struct Link {
    speech: Speech,
    peer: Scope,
}

enum Speech {
    One {
        sender: http1::SendRequest<Full<Bytes>>,
        /// `None` once it has ended.
        connection: Option<Box<Connection>>,
        /// Whether it has carried an answer: one that has may have been closed meanwhile
        /// without anybody being to blame.
        used: bool,
    },
    Two(Shared),
}

/// A connection over HTTP/2, which a task drives. It ends when nobody shares it any more.
#[derive(Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    used: Arc<AtomicBool>,
    peer: Scope,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("http2", &self.is_http2())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum LinkError {
    Timeout,
    Broken(hyper::Error),
    TooManyHeaders,
}

impl LinkError {
    pub(super) fn into_transfer(self, name: &Endpoint) -> TransferError {
        match self {
            Self::Timeout => timed_out(name),
            Self::TooManyHeaders => protocol(name, "an answer with too many headers"),
            Self::Broken(error) if error.is_parse() => protocol(name, "malformed answer"),
            Self::Broken(error) => connection(name, error),
        }
    }
}

impl Link {
    /// Connects. `tls`: what to speak it with, if the URL wants it.
    pub(super) async fn open(
        origin: &Origin,
        name: &Endpoint,
        transport: &Transport,
        tls: Option<&Towards>,
        closed: &CancellationToken,
    ) -> Result<Self, TransferError> {
        let config = &*transport.config;
        let stream = origin.dial(name, config).await?;
        let peer = match &origin.way {
            Way::Direct(_) => {
                let peer = stream.peer_addr();
                scope(peer.map_err(|error| connection(name, error))?.ip())
            }
            Way::Proxy(_) => origin.presumed_scope(),
        };
        let (wire, http2) = match tls {
            None => (Wire::Clear(stream), false),
            Some(tls) => {
                let wait = config.connect_timeout;
                let (session, http2) = tls.connect(&origin.url.host, stream, wait, name).await?;
                (Wire::Tls(Box::new(session)), http2)
            }
        };
        let speech = if http2 {
            let background = Background {
                tasks: transport.tasks.clone(),
                closed: closed.clone(),
            };
            Speech::Two(Shared {
                sender: speak_http2(wire, config, background, name).await?,
                used: Arc::default(),
                peer,
            })
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_headers(config.max_headers)
                .max_header_size(config.max_header_bytes)
                .read_buf_exact_size(Some(READ_SIZE))
                .handshake(TokioIo::new(wire))
                .await
                .map_err(|error| connection(name, error))?;
            Speech::One {
                sender,
                connection: Some(Box::new(connection)),
                used: false,
            }
        };
        Ok(Self { speech, peer })
    }

    /// The connection, if others may use it at the same time.
    pub(super) fn shared(&self) -> Option<Shared> {
        match &self.speech {
            Speech::One { .. } => None,
            Speech::Two(shared) => Some(shared.clone()),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.speech, Speech::Two(_))
    }

    /// How far the server's address reaches.
    pub(super) fn peer(&self) -> Scope {
        self.peer
    }

    pub(super) fn is_used(&self) -> bool {
        match &self.speech {
            Speech::One { used, .. } => *used,
            Speech::Two(shared) => shared.used.load(Ordering::Relaxed),
        }
    }

    /// Lets the connection work.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Speech::One { connection, .. } = &mut self.speech
            && let Some(running) = connection
            && let Poll::Ready(result) = std::pin::Pin::new(running).poll(cx)
        {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            *connection = None;
        }
    }

    /// Whether another request can be sent.
    pub(super) async fn is_ready(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(match &self.speech {
                Speech::One {
                    sender, connection, ..
                } => connection.is_some() && sender.is_ready(),
                Speech::Two(shared) => shared.is_open(),
            })
        })
        .await
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        config: &HttpConfig,
    ) -> Result<Response<Incoming>, LinkError> {
        let wait = config.answer_timeout;
        let answer = match &mut self.speech {
            Speech::One {
                sender,
                connection,
                used,
            } => {
                let mut answer = std::pin::pin!(sender.send_request(request));
                let exchange = std::future::poll_fn(|cx| {
                    if let Some(running) = connection
                        && std::pin::Pin::new(running).poll(cx).is_ready()
                    {
                        *connection = None;
                    }
                    answer.as_mut().poll(cx)
                });
                let answer = timeout(wait, exchange).await;
                *used |= matches!(answer, Ok(Ok(_)));
                answer
            }
            Speech::Two(shared) => {
                let answer = timeout(wait, shared.sender.send_request(request)).await;
                if matches!(answer, Ok(Ok(_))) {
                    shared.used.store(true, Ordering::Relaxed);
                }
                answer
            }
        };
        let answer = answer.map_err(|_| LinkError::Timeout)?;
        let answer = answer.map_err(LinkError::Broken)?;
        // HTTP/2 itself counts bytes only.
        if answer.headers().len() > config.max_headers {
            return Err(LinkError::TooManyHeaders);
        }
        Ok(answer)
    }

    /// The next bytes of an answer's body; `None` at its end.
    pub(super) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let mut driven = false;
        loop {
            match std::pin::Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    // Trailers say nothing that we asked for.
                    _ => {}
                },
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    self.drive(cx);
                    driven = true;
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn is_open(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn link(&self) -> Link {
        Link {
            peer: self.peer,
            speech: Speech::Two(self.clone()),
        }
    }
}

async fn speak_http2(
    wire: Wire,
    config: &HttpConfig,
    background: Background,
    name: &Endpoint,
) -> Result<http2::SendRequest<Full<Bytes>>, TransferError> {
    let headers = u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX);
    let shake = http2::Builder::new(background.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(headers)
        .handshake(TokioIo::new(wire));
    let shaken = timeout(config.connect_timeout, shake).await;
    let (sender, connection) = shaken
        .map_err(|_| timed_out(name))?
        .map_err(|error| super::connect::connection(name, error))?;
    background.execute(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender)
}

/// Reads a small body whole.
pub(super) async fn collect(
    link: &mut Link,
    mut body: Incoming,
    limit: usize,
    wait: Duration,
    name: &Endpoint,
) -> Result<Bytes, TransferError> {
    let read = async {
        let mut out = Vec::new();
        loop {
            match std::future::poll_fn(|cx| link.poll_body(&mut body, cx)).await {
                None => return Ok(Bytes::from(out)),
                Some(Err(error)) => return Err(connection(name, error)),
                Some(Ok(data)) if data.len() > limit - out.len() => {
                    return Err(protocol(name, "an answer over its limit"));
                }
                Some(Ok(data)) => out.extend_from_slice(&data),
            }
        }
    };
    timeout(wait, read).await.map_err(|_| timed_out(name))?
}
