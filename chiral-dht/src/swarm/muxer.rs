//! [`Multiplexed`]: many streams on one secured socket, by yamux.
//!
//! As `libp2p-yamux` has it, but for two figures that it does not let one choose: frames are
//! 32 KiB long, where twice as many of 16 KiB take 7 % of a stream's speed, and what may have come
//! on all streams of a connection, and not been read, is an eighth.

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

/// Bytes of a stream that a frame carries, at most: two of them, with their headers, fill a write
/// buffer. What is short waits behind one of each stream that is full, and ten of each lie in
/// memory if the other side does not read.
pub(super) const MAX_BODY: usize = BUFFER / 2 - HEADER;

/// Streams on one connection, at most.
const MAX_STREAMS: usize = 512;

/// What may have come on a stream to begin with, and was not read: yamux's own figure.
const FIRST_WINDOW: usize = 256 << 10;

/// What windows of all streams may grow by, in all: they do where more than the first is on its
/// way at a time. With 4 MiB a stream brings 40 MiB/s over 100 ms; more would fill memory where
/// who reads is slower than the way.
const MAX_GROWTH: usize = 4 << 20;

/// What may have come on all streams of a connection, and was not read.
const MAX_UNREAD: usize = MAX_STREAMS * FIRST_WINDOW + MAX_GROWTH;

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

    /// Brings bytes from one end to the other, each so much later.
    async fn carry(
        mut from: tokio::io::ReadHalf<tokio::io::DuplexStream>,
        mut to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
    ) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (send, mut carried) = tokio::sync::mpsc::channel(10_000);
        let carrying = async move {
            while let Some((due, bytes)) = carried.recv().await {
                tokio::time::sleep_until(due).await;
                let bytes: Vec<u8> = bytes;
                to.write_all(&bytes).await.unwrap();
            }
        };
        let taking = async move {
            let mut buffer = vec![0; 100_000];
            loop {
                let length = from.read(&mut buffer).await.unwrap();
                let due = tokio::time::Instant::now() + FAR;
                send.send((due, buffer[..length].to_vec())).await.unwrap();
            }
        };
        tokio::join!(carrying, taking);
    }

    const FAR: std::time::Duration = std::time::Duration::from_millis(20);

    /// Over a long way more is on its way than a stream's first window, or no stream is faster
    /// than that divided by the time there and back.
    #[tokio::test]
    async fn windows_grow_where_the_way_is_long() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const ALL: usize = 16 << 20;
        let ((a, a_far), (b, b_far)) = (tokio::io::duplex(100_000), tokio::io::duplex(100_000));
        let ((a_read, a_write), (b_read, b_write)) =
            (tokio::io::split(a_far), tokio::io::split(b_far));
        let ways = tokio::spawn(async {
            tokio::join!(carry(a_read, b_write), carry(b_read, a_write));
        });
        let mut far = Multiplexing::on(b.compat(), Mode::Server);
        let mut near = Multiplexing::on(a.compat(), Mode::Client);
        let mut sends = poll_fn(|cx| Pin::new(&mut near).poll_outbound(cx))
            .await
            .unwrap();
        let (sent, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let sending = async {
            while sent.load(Ordering::SeqCst) < ALL {
                let length = sends.write(&[7; 10_000]).await.unwrap();
                sent.fetch_add(length, Ordering::SeqCst);
            }
        };
        let taking = async {
            let mut stream = poll_fn(|cx| Pin::new(&mut far).poll_inbound(cx))
                .await
                .unwrap();
            let moving = poll_fn(|cx| Pin::new(&mut far).poll(cx));
            let reading = async {
                let (mut buffer, mut got) = (vec![0; 10_000], 0);
                while got < ALL {
                    got += stream.read(&mut buffer).await.unwrap();
                    most.fetch_max(sent.load(Ordering::SeqCst) - got, Ordering::SeqCst);
                }
            };
            tokio::select! {
                () = reading => {}
                _ = moving => unreachable!("it does not end"),
            }
        };
        let moving = poll_fn(|cx| Pin::new(&mut near).poll(cx));
        tokio::select! {
            _ = async { tokio::join!(sending, taking) } => {}
            _ = moving => unreachable!("it does not end"),
        }
        ways.abort();
        let most = most.into_inner();
        assert!(most > 4 * FIRST_WINDOW, "{most} bytes at a time");
        assert!(most <= FIRST_WINDOW + MAX_GROWTH, "{most} bytes at a time");
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
