//! [`Framed`]: a byte stream whose end is said, and not inferred.
//!
//! Neither multiplexer tells a stream that was closed from one that was dropped: yamux reads
//! a reset as an end, and QUIC's implementation ends a stream whose writer was dropped. What
//! was cut short would look complete. So bytes travel in frames, and the end is a frame.
//!
//! A frame is `length u16, big-endian ‖ that many bytes`; length 0 is the end. Whatever stops
//! without it is an error to the reader.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

/// Bytes that a frame carries at most when we write; readers take any length. With its header
/// it is one frame of yamux as we have it: two bytes more would be another there.
const MAX_FRAME: usize = super::muxer::MAX_BODY - HEADER;

const HEADER: usize = 2;

/// Reads and writes frames on a stream; whoever holds it sees bytes only.
///
/// Cancel safe: bytes that a write has taken go out with the next write, flush or close.
pub(crate) struct Framed<S> {
    inner: S,
    /// What was taken and not yet written, from `written` on: header and payload.
    outgoing: Vec<u8>,
    written: usize,
    writer: Writer,
    /// The header so far, and how much of it.
    header: [u8; HEADER],
    header_len: usize,
    /// Bytes of the present frame that are still to come.
    remaining: usize,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Open,
    /// The frame that ends is taken.
    Ending,
    Closed,
}

impl<S> Framed<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            outgoing: Vec::new(),
            written: 0,
            writer: Writer::Open,
            header: [0; HEADER],
            header_len: 0,
            remaining: 0,
            ended: false,
        }
    }
}

impl<S> fmt::Debug for Framed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("writer", &self.writer)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the stream was dropped by the other side",
    )
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Writes out what was taken.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outgoing.len() {
            let rest = &self.outgoing[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes a frame of as much as fits into one; answers how much that is.
    fn take(&mut self, parts: &[IoSlice<'_>]) -> usize {
        self.outgoing.extend_from_slice(&[0; HEADER]);
        let mut taken = 0;
        for part in parts {
            let fits = part.len().min(MAX_FRAME - taken);
            self.outgoing.extend_from_slice(&part[..fits]);
            taken += fits;
        }
        // At most what two bytes can say.
        let length = (taken as u16).to_be_bytes();
        self.outgoing[..HEADER].copy_from_slice(&length);
        taken
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// Several buffers travel in one frame.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.writer != Writer::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let len = this.take(bufs);
        // What does not go out at once goes with the next call.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.writer == Writer::Closed {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_drain(cx))?;
        if this.writer == Writer::Open {
            this.take(&[]);
            this.writer = Writer::Ending;
            ready!(this.poll_drain(cx))?;
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        ready!(Pin::new(&mut this.inner).poll_close(cx))?;
        this.writer = Writer::Closed;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() || this.ended {
            return Poll::Ready(Ok(0));
        }
        while this.remaining == 0 {
            let rest = &mut this.header[this.header_len..];
            match ready!(Pin::new(&mut this.inner).poll_read(cx, rest))? {
                0 => return Poll::Ready(Err(cut())),
                n => this.header_len += n,
            }
            if this.header_len == HEADER {
                this.header_len = 0;
                this.remaining = usize::from(u16::from_be_bytes(this.header));
                if this.remaining == 0 {
                    this.ended = true;
                    return Poll::Ready(Ok(0));
                }
            }
        }
        let len = buf.len().min(this.remaining);
        match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf[..len]))? {
            0 => Poll::Ready(Err(cut())),
            n => {
                this.remaining -= n;
                Poll::Ready(Ok(n))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn pair(
        buffer: usize,
    ) -> (
        Framed<impl AsyncRead + AsyncWrite + Unpin>,
        Framed<impl AsyncRead + AsyncWrite + Unpin>,
    ) {
        let (a, b) = tokio::io::duplex(buffer);
        (Framed::new(a.compat()), Framed::new(b.compat()))
    }

    async fn passes(parts: Vec<Vec<u8>>, buffer: usize) {
        let (mut a, mut b) = pair(buffer);
        let expected = parts.concat();
        let writing = async move {
            for part in &parts {
                a.write_all(part).await.unwrap();
            }
            a.close().await.unwrap();
            a
        };
        let mut received = Vec::new();
        let (_a, result) = tokio::join!(writing, b.read_to_end(&mut received));
        result.unwrap();
        assert!(received == expected);
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0, "the end stays");
    }

    #[tokio::test]
    async fn more_than_a_frame_passes_in_both_directions() {
        passes(vec![vec![7; 3 * MAX_FRAME + 5], vec![], vec![8]], 1000).await;
    }

    #[tokio::test]
    async fn buffers_that_are_written_together_travel_in_one_frame() {
        let mut stream = Framed::new(futures_util::io::Cursor::new(Vec::new()));
        let long = vec![7; MAX_FRAME];
        let parts = [
            IoSlice::new(&[1, 2]),
            IoSlice::new(&[]),
            IoSlice::new(&long),
        ];
        let written = stream.write_vectored(&parts).await.unwrap();
        assert_eq!(written, MAX_FRAME, "as much as fits");
        let bytes = stream.inner.into_inner();
        assert_eq!(bytes.len() + 12, 32 * 1024, "with yamux's header");
        assert_eq!(bytes[..5], [0x7f, 0xf2, 1, 2, 7]);
        let mut stream = Framed::new(futures_util::io::Cursor::new(Vec::new()));
        let nothing = [IoSlice::new(&[]), IoSlice::new(&[])];
        assert_eq!(stream.write_vectored(&nothing).await.unwrap(), 0);
        assert_eq!(stream.inner.into_inner(), [0; 0], "which would be the end");
    }

    #[tokio::test]
    async fn an_end_without_the_frame_that_says_so_is_an_error() {
        for bytes in [&[][..], &[0], &[0, 2, 1], &[0, 1, 7]] {
            let mut stream = Framed::new(futures_util::io::Cursor::new(bytes.to_vec()));
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{bytes:?}");
        }
        let mut stream = Framed::new(futures_util::io::Cursor::new(vec![0, 1, 7, 0, 0, 9]));
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [7], "what follows the end is not read");
    }

    #[tokio::test]
    async fn a_write_that_was_given_up_leaves_a_whole_frame() {
        let (mut a, mut b) = pair(16);
        assert_eq!(a.write(&[1; 100]).now_or_never().unwrap().unwrap(), 100);
        // The first frame does not fit: this one is not taken, and may be forgotten.
        assert!(a.write(&[2; 100]).now_or_never().is_none());
        let mut received = Vec::new();
        let (closed, read) = tokio::join!(a.close(), b.read_to_end(&mut received));
        closed.unwrap();
        read.unwrap();
        assert_eq!(received, [1; 100]);
        assert!(a.write(&[3]).await.is_err(), "closed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_parts_come_as_they_went(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            buffer in 1..64usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(passes(parts, buffer));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut stream = Framed::new(futures_util::io::Cursor::new(bytes));
            let _ = stream.read_to_end(&mut Vec::new()).now_or_never();
        }
    }
}
