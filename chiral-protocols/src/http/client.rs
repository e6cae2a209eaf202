//! [`Link`]: what one request goes over. Over HTTP/1.1 a connection carries requests one behind
//! the other, and whoever waits for its answer drives it ([`piped`](super::piped)). Over HTTP/2
//! several share a connection, which a task drives; to drop a link ends its own request, and
//! flow control slows the server down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::address::{Scope, scope};
use super::codec::{self, AnswerError, HeadLimits};
use super::config::HttpConfig;
use super::connect::{Origin, Transport, Way, connection, protocol, timed_out};
use super::executor::Background;
use super::piped::{Claim, Counted, Exchange, Lost, Piped};
use super::tls::Towards;
use super::wire::Wire;

/// Bytes that one answer, and all answers of one connection, may be ahead of whoever reads
/// them, over HTTP/2: enough for a gigabyte a second across a machine, and for 40 MB/s (all
/// together 80) over 100 ms. A connection holds no more in memory.
const STREAM_WINDOW: u32 = 4 << 20;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Longest frame taken, over HTTP/2.
const MAX_FRAME: u32 = 256 << 10;

/// A place on a connection over HTTP/1.1, or a share of one over HTTP/2.
pub(super) struct Link {
    speech: Speech,
    peer: Scope,
}

enum Speech {
    /// HTTP/1.1, before a request.
    Claimed(Claim),
    /// The same, from a request on.
    Asked(Box<Exchange>),
    Two(Shared),
    /// After a request that could not be sent.
    Gone,
}

/// What comes in answer to a request, behind its head.
#[derive(Debug)]
pub(super) enum Inbound {
    /// Over HTTP/1.1: it is read from the link itself.
    One,
    Two(Incoming),
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

/// Why there was no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("nothing came in time")]
    Timeout,
    #[error("{}", AnswerError::TooLong)]
    TooManyHeaders,
    #[error(transparent)]
    One(#[from] Lost),
    #[error(transparent)]
    Two(#[from] hyper::Error),
}

impl LinkError {
    /// Whether the connection may have ended without anybody being to blame.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Self::Timeout | Self::TooManyHeaders | Self::One(Lost::Answer(_)) => false,
            Self::One(Lost::Overtaken | Lost::Broken(_)) => true,
            Self::Two(error) => !error.is_parse(),
        }
    }

    pub(super) fn into_transfer(self, name: &Endpoint) -> TransferError {
        match self {
            Self::Timeout => timed_out(name),
            Self::TooManyHeaders | Self::One(Lost::Answer(AnswerError::TooLong)) => {
                protocol(name, "an answer with too many headers")
            }
            Self::One(Lost::Answer(AnswerError::Malformed)) => protocol(name, "malformed answer"),
            Self::Two(error) if error.is_parse() => protocol(name, "malformed answer"),
            error => connection(name, error),
        }
    }
}

/// A connection that was made.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    One(One),
    Two(Shared),
}

/// A connection over HTTP/1.1; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct One {
    pub(super) piped: Piped,
    peer: Scope,
}

impl Opened {
    /// Connects. `tls`: what to speak it with, if the URL wants it. `counted`: its place among
    /// the connections over HTTP/1.1.
    pub(super) async fn connect(
        origin: &Origin,
        name: &Endpoint,
        transport: &Transport,
        tls: Option<&Towards>,
        closed: &CancellationToken,
        counted: Counted,
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
        if http2 {
            let background = Background {
                tasks: transport.tasks.clone(),
                closed: closed.clone(),
            };
            return Ok(Self::Two(Shared {
                sender: speak_http2(wire, config, background, name).await?,
                used: Arc::default(),
                peer,
            }));
        }
        let limits = HeadLimits {
            bytes: config.max_header_bytes,
            fields: config.max_headers,
        };
        let piped = Piped::new(wire, limits, counted);
        Ok(Self::One(One { piped, peer }))
    }
}

impl One {
    /// A place for a request on it.
    pub(super) fn link(&self, claim: Claim) -> Link {
        Link {
            peer: self.peer,
            speech: Speech::Claimed(claim),
        }
    }
}

impl Link {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.speech, Speech::Two(_))
    }

    /// How far the server's address reaches.
    pub(super) fn peer(&self) -> Scope {
        self.peer
    }

    /// Whether its connection has carried an answer before.
    pub(super) fn is_used(&self) -> bool {
        match &self.speech {
            Speech::Claimed(claim) => claim.is_used(),
            Speech::Asked(_) | Speech::Gone => true,
            Speech::Two(shared) => shared.used.load(Ordering::Relaxed),
        }
    }

    /// Whether it was sent behind other requests.
    pub(super) fn was_behind(&self) -> bool {
        matches!(&self.speech, Speech::Asked(exchange) if exchange.was_behind())
    }

    /// Sends a request and waits for the head of the answer: for its turn as long as that
    /// takes, and then for `answer_timeout`.
    pub(super) async fn send(
        &mut self,
        request: Request<Bytes>,
        config: &HttpConfig,
    ) -> Result<Response<Inbound>, LinkError> {
        let wait = config.answer_timeout;
        let answer = match std::mem::replace(&mut self.speech, Speech::Gone) {
            Speech::Claimed(claim) => {
                let to_head = request.method() == Method::HEAD;
                let mut exchange = Box::new(claim.begin(&codec::encode(&request), to_head));
                let answer = async {
                    exchange.turn().await?;
                    let head = std::future::poll_fn(|cx| exchange.poll_head(cx));
                    let head = timeout(wait, head).await;
                    Ok::<_, LinkError>(head.map_err(|_| LinkError::Timeout)??)
                }
                .await;
                self.speech = Speech::Asked(exchange);
                Response::from_parts(answer?, Inbound::One)
            }
            Speech::Two(mut shared) => {
                let sent = shared.sender.send_request(request.map(Full::new));
                let answer = timeout(wait, sent).await;
                if matches!(answer, Ok(Ok(_))) {
                    shared.used.store(true, Ordering::Relaxed);
                }
                self.speech = Speech::Two(shared);
                answer.map_err(|_| LinkError::Timeout)??.map(Inbound::Two)
            }
            Speech::Asked(_) | Speech::Gone => return Err(Lost::Overtaken.into()),
        };
        // HTTP/2 itself counts bytes only.
        if answer.headers().len() > config.max_headers {
            return Err(LinkError::TooManyHeaders);
        }
        Ok(answer)
    }

    /// The next bytes of an answer's body; `None` at its end.
    pub(super) fn poll_body(
        &mut self,
        body: &mut Inbound,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, LinkError>>> {
        let body = match (body, &mut self.speech) {
            (Inbound::Two(body), _) => body,
            (Inbound::One, Speech::Asked(exchange)) => {
                return exchange.poll_body(cx).map_err(LinkError::One);
            }
            (Inbound::One, _) => return Poll::Ready(None),
        };
        loop {
            match ready!(std::pin::Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    // Trailers say nothing that we asked for.
                    _ => {}
                },
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
    mut body: Inbound,
    limit: usize,
    wait: Duration,
    name: &Endpoint,
) -> Result<Bytes, TransferError> {
    let read = async {
        let mut out = Vec::new();
        loop {
            match std::future::poll_fn(|cx| link.poll_body(&mut body, cx)).await {
                None => return Ok(Bytes::from(out)),
                Some(Err(error)) => return Err(error.into_transfer(name)),
                Some(Ok(data)) if data.len() > limit - out.len() => {
                    return Err(protocol(name, "an answer over its limit"));
                }
                Some(Ok(data)) => out.extend_from_slice(&data),
            }
        }
    };
    timeout(wait, read).await.map_err(|_| timed_out(name))?
}
