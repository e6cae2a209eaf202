//! [`Multiplexed`]: many streams on one secured socket, by yamux.
//!
//! As `libp2p-yamux` has it, but for two figures that it does not let one choose: frames are
//! 64 KiB long, where four times as many of 16 KiB cost more time than what they carry, and
//! what all streams of a connection may have in memory is limited.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Connection, ConnectionError, Mode};

use super::buffered::BUFFER;

/// Bytes of a frame's header.
const HEADER: usize = 12;

/// Bytes of a stream that a frame carries, at most: with its header it fills a write buffer.
pub(super) const MAX_BODY: usize = BUFFER - HEADER;

/// Streams on one connection, at most.
const MAX_STREAMS: usize = 512;

/// What may have come on all streams of a connection, and was not read: no less than the
/// 256 KiB that each stream has to begin with.
const MAX_UNREAD: usize = MAX_STREAMS * (256 << 10);

/// Streams of the other side that nobody has taken, at most; more are reset. It waits for an
/// answer itself before it opens more.
const MAX_WAITING: usize = 256;

const NAME: &str = "/yamux/1.0.0";

/// How connections are multiplexed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Multiplexing;

impl Multiplexing {
    fn on<S: AsyncRead + AsyncWrite + Unpin>(socket: S, mode: Mode) -> Multiplexed<S> {
        let mut config = yamux::Config::default();
        config
            .set_max_num_streams(MAX_STREAMS)
            .set_max_connection_receive_window(Some(MAX_UNREAD))
            .set_split_send_size(MAX_BODY);
        Multiplexed {
            connection: Connection::new(socket, config, mode),
            waiting: VecDeque::new(),
            acceptor: None,
        }
    }
}

impl UpgradeInfo for Multiplexing {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(NAME)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<S> for Multiplexing {
    type Output = Multiplexed<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<Multiplexed<S>>>;

    fn upgrade_inbound(self, socket: S, _: &'static str) -> Self::Future {
        ready(Ok(Self::on(socket, Mode::Server)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<S> for Multiplexing {
    type Output = Multiplexed<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<Multiplexed<S>>>;

    fn upgrade_outbound(self, socket: S, _: &'static str) -> Self::Future {
        ready(Ok(Self::on(socket, Mode::Client)))
    }
}

/// A multiplexed connection.
#[derive(Debug)]
pub(super) struct Multiplexed<S> {
    connection: Connection<S>,
    /// Streams that came while nobody asked for them: the connection moves on only while it
    /// is asked for the next.
    waiting: VecDeque<yamux::Stream>,
    /// Who asked for one, and waits.
    acceptor: Option<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Multiplexed<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Multiplexed<S> {
    type Substream = yamux::Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<yamux::Stream, ConnectionError>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.acceptor = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<yamux::Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(stream);
            if let Some(acceptor) = self.acceptor.take() {
                acceptor.wake();
            }
        }
        // There may be more; others have their turn before it.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    type Socket = Compat<tokio::io::DuplexStream>;

    fn sockets() -> (Socket, Socket) {
        let (a, b) = tokio::io::duplex(100_000);
        (a.compat(), b.compat())
    }

    /// Sends what comes on each stream back, until the connection ends.
    async fn echo<M>(muxer: M)
    where
        M: StreamMuxer + Send + Unpin + 'static,
        M::Substream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        M::Error: Send,
    {
        let mut muxer = muxer;
        while let Ok(stream) = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)).await {
            tokio::spawn(async move {
                let (read, mut write) = stream.split();
                futures_util::io::copy(read, &mut write).await.unwrap();
                write.close().await.unwrap();
            });
        }
    }

    /// What goes out on several streams at once comes back on each.
    async fn ask<M>(muxer: M)
    where
        M: StreamMuxer + Send + Unpin + 'static,
        M::Substream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        M::Error: Send + std::fmt::Debug,
    {
        let mut muxer = muxer;
        let mut asking = Vec::new();
        for number in 0..4u8 {
            let stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx))
                .await
                .unwrap();
            asking.push(tokio::spawn(async move {
                let sent: Vec<u8> = (0..3_000_000u32)
                    .map(|at| (at >> 7) as u8 ^ number)
                    .collect();
                let (mut read, mut write) = stream.split();
                let (mut got, expected) = (Vec::new(), sent.clone());
                let writing = async move {
                    write.write_all(&sent).await.unwrap();
                    write.close().await.unwrap();
                };
                let (_, read) = tokio::join!(writing, read.read_to_end(&mut got));
                read.unwrap();
                assert!(got == expected);
            }));
        }
        let moving = tokio::spawn(async move {
            let mut moved = poll_fn(|cx| Pin::new(&mut muxer).poll(cx)).await;
            while moved.is_ok() {
                moved = poll_fn(|cx| Pin::new(&mut muxer).poll(cx)).await;
            }
        });
        for asked in asking {
            asked.await.unwrap();
        }
        moving.abort();
    }

    #[tokio::test]
    async fn what_is_sent_to_ours_and_to_the_librarys_comes_back() {
        let theirs = libp2p_yamux::Config::default;
        let (a, b) = sockets();
        tokio::spawn(echo(Multiplexing::on(b, Mode::Server)));
        ask(Multiplexing::on(a, Mode::Client)).await;
        let (a, b) = sockets();
        tokio::spawn(echo(theirs().upgrade_inbound(b, NAME).await.unwrap()));
        ask(Multiplexing::on(a, Mode::Client)).await;
        let (a, b) = sockets();
        tokio::spawn(echo(Multiplexing::on(b, Mode::Server)));
        ask(theirs().upgrade_outbound(a, NAME).await.unwrap()).await;
    }

    #[tokio::test]
    async fn streams_that_nobody_takes_are_limited() {
        let (mut stranger, b) = sockets();
        let mut ours = Multiplexing::on(b, Mode::Server);
        for number in 0..MAX_WAITING as u32 + 50 {
            // A window update that opens a stream: version, type, flags, stream, length.
            let mut frame = [0; HEADER];
            (frame[1], frame[3]) = (1, 1);
            frame[4..8].copy_from_slice(&(2 * number + 1).to_be_bytes());
            stranger.write_all(&frame).await.unwrap();
        }
        for _ in 0..2 * MAX_WAITING {
            let moved = poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll(cx))).await;
            assert!(moved.is_pending(), "it goes on");
            tokio::task::yield_now().await;
        }
        assert_eq!(ours.waiting.len(), MAX_WAITING);
        let one = poll_fn(|cx| Pin::new(&mut ours).poll_inbound(cx)).await;
        assert!(one.is_ok());
        assert_eq!(ours.waiting.len(), MAX_WAITING - 1);
    }
}
