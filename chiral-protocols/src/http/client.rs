//! [`Link`]: one connection to a server, driven by whoever waits for its answer. No task
//! runs behind it: to drop it is to close it, and to read slowly slows the server down.

use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::HttpConfig;
use super::connect::{Origin, connection, protocol, timed_out};

/// Bytes taken from the socket at a time: enough that the system calls hardly count, few
/// enough to stay in the processor's cache until they are hashed.
const READ_SIZE: usize = 256 << 10;

type Connection = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// A connection.
pub(super) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Connection>,
    peer: IpAddr,
    /// Whether it has carried an answer: one that has may have been closed meanwhile
    /// without anybody being to blame.
    used: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum LinkError {
    Timeout,
    Broken(hyper::Error),
}

impl LinkError {
    pub(super) fn into_transfer(self, name: &Endpoint) -> TransferError {
        match self {
            Self::Timeout => timed_out(name),
            Self::Broken(error) if error.is_parse() => protocol(name, "malformed answer"),
            Self::Broken(error) => connection(name, error),
        }
    }
}

impl Link {
    pub(super) async fn open(
        origin: &Origin,
        name: &Endpoint,
        config: &HttpConfig,
    ) -> Result<Self, TransferError> {
        let stream = origin.dial(name, config.connect_timeout).await?;
        let peer = stream
            .peer_addr()
            .map_err(|error| connection(name, error))?
            .ip();
        let (sender, connection) = http1::Builder::new()
            .max_headers(config.max_headers)
            .max_header_size(config.max_header_bytes)
            .read_buf_exact_size(Some(READ_SIZE))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connection(name, error))?;
        Ok(Self {
            sender,
            connection: Some(connection),
            peer,
            used: false,
        })
    }

    /// The address of the server.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Lets the connection work.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(result) = std::pin::Pin::new(connection).poll(cx)
        {
            if let Err(error) = result {
                tracing::debug!(peer = %self.peer, %error, "connection ended");
            }
            self.connection = None;
        }
    }

    /// Whether another request can be sent.
    pub(super) async fn is_ready(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(self.connection.is_some() && self.sender.is_ready())
        })
        .await
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        wait: Duration,
    ) -> Result<Response<Incoming>, LinkError> {
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        let exchange = std::future::poll_fn(|cx| {
            if let Some(connection) = &mut self.connection
                && std::pin::Pin::new(connection).poll(cx).is_ready()
            {
                self.connection = None;
            }
            answer.as_mut().poll(cx)
        });
        let answer = timeout(wait, exchange)
            .await
            .map_err(|_| LinkError::Timeout)?;
        self.used |= answer.is_ok();
        answer.map_err(LinkError::Broken)
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
