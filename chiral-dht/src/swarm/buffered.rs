//! [`Buffered`]: fewer and longer reads and writes of a secured socket.
//!
//! The multiplexer writes the header and the body of a frame one after the other, and TLS makes
//! a record, a packet and a call into the kernel of each write; it reads 4 KiB to begin with.
//! Two buffers of 64 KiB turn some thirty calls for 256 KiB into four. An idle connection, of
//! which a node has hundreds, holds neither.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

/// Bytes of a buffer, at most. Four records of TLS, of 16 KiB each.
pub(super) const BUFFER: usize = 64 * 1024;

/// What an idle connection reads into.
const SMALL: usize = 1024;

/// So many turns of at most [`SMALL`] bytes in a row, and a long buffer is given back.
const QUIET_TURNS: u32 = 8;

/// Whether a long buffer is worth its memory.
#[derive(Debug, Default)]
struct Traffic {
    quiet: u32,
}

impl Traffic {
    /// Bytes went by; answers whether it has become quiet.
    fn quiet_after(&mut self, bytes: usize) -> bool {
        self.quiet = match bytes <= SMALL {
            true => self.quiet.saturating_add(1),
            false => 0,
        };
        self.quiet >= QUIET_TURNS
    }
}

/// A socket that is read in long pieces. Lies below TLS; what is written goes straight through.
#[derive(Debug)]
pub(super) struct ReadAhead<T> {
    inner: T,
    buffer: Vec<u8>,
    /// What is held of it and not taken.
    held: std::ops::Range<usize>,
    traffic: Traffic,
}

impl<T> ReadAhead<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            held: 0..0,
            traffic: Traffic::default(),
        }
    }
}

impl<T: AsyncRead + Unpin> ReadAhead<T> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; SMALL];
        }
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut self.buffer))?;
        self.held = 0..read.min(self.buffer.len());
        Poll::Ready(Ok(()))
    }

    /// What was held is taken: the next is as long as this one makes likely.
    fn resize(&mut self) {
        let read = self.held.end;
        if read == self.buffer.len() && read < BUFFER {
            self.buffer = vec![0; BUFFER];
        } else if self.traffic.quiet_after(read) && self.buffer.len() > SMALL {
            self.buffer = Vec::new();
        }
        self.held = 0..0;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.held.is_empty() {
            if buf.len() >= BUFFER {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            ready!(this.poll_fill(cx))?;
        }
        let held = &this.buffer[this.held.clone()];
        let taken = held.len().min(buf.len());
        buf[..taken].copy_from_slice(&held[..taken]);
        this.held.start += taken;
        if this.held.is_empty() {
            this.resize();
        }
        Poll::Ready(Ok(taken))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A socket that is written in long pieces: when there is no room left, and when it is flushed.
/// Lies above TLS; what is read comes straight through.
#[derive(Debug)]
pub(super) struct WriteBehind<T> {
    inner: T,
    /// What was taken and not yet written, from `written` on.
    buffer: Vec<u8>,
    written: usize,
    traffic: Traffic,
}

impl<T> WriteBehind<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            written: 0,
            traffic: Traffic::default(),
        }
    }
}

impl<T: AsyncWrite + Unpin> WriteBehind<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        if self.written > 0 && self.traffic.quiet_after(self.written) {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteBehind<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.buffer.len() >= BUFFER {
            ready!(this.poll_drain(cx))?;
        }
        let taken = buf.len().min(BUFFER - this.buffer.len());
        this.buffer.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteBehind<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    /// What is written in such pieces comes as it was, however little the pipe takes at once.
    async fn passes(pieces: Vec<Vec<u8>>, pipe: usize, at_once: usize) {
        let (a, b) = tokio::io::duplex(pipe);
        let mut a = WriteBehind::new(ReadAhead::new(a.compat()));
        let mut b = WriteBehind::new(ReadAhead::new(b.compat()));
        let expected = pieces.concat();
        let writing = async move {
            for (number, piece) in pieces.iter().enumerate() {
                a.write_all(piece).await.unwrap();
                if number % 2 == 0 {
                    a.flush().await.unwrap();
                }
            }
            a.close().await.unwrap();
        };
        let reading = async {
            let (mut all, mut piece) = (Vec::new(), vec![0; at_once]);
            while let read @ 1.. = b.read(&mut piece).await.unwrap() {
                all.extend_from_slice(&piece[..read]);
            }
            all
        };
        let ((), all) = tokio::join!(writing, reading);
        assert!(all == expected);
    }

    proptest! {
        #[test]
        fn what_is_written_comes(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200_000), 0..6),
            pipe in 1usize..100_000,
            at_once in 1usize..100_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(passes(pieces, pipe, at_once));
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_back_after_a_flush() {
        let (a, b) = tokio::io::duplex(1 << 20);
        let (mut a, mut b) = (WriteBehind::new(a.compat()), ReadAhead::new(b.compat()));
        a.write_all(b"ping").await.unwrap();
        a.flush().await.unwrap();
        let mut got = [0; 4];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }

    #[tokio::test]
    async fn long_buffers_are_given_back_when_little_comes() {
        let (a, b) = tokio::io::duplex(1 << 20);
        let (mut a, mut b) = (WriteBehind::new(a.compat()), ReadAhead::new(b.compat()));
        let mut got = vec![0; 4 * BUFFER];
        a.write_all(&got).await.unwrap();
        a.flush().await.unwrap();
        for piece in got.chunks_mut(1000) {
            b.read_exact(piece).await.unwrap();
        }
        assert_eq!(b.buffer.len(), BUFFER);
        assert!(a.buffer.capacity() >= BUFFER);
        for _ in 0..=QUIET_TURNS {
            a.write_all(b"ping").await.unwrap();
            a.flush().await.unwrap();
            b.read_exact(&mut got[..4]).await.unwrap();
        }
        assert!(b.buffer.len() <= SMALL);
        assert!(a.buffer.capacity() <= SMALL);
    }
}
