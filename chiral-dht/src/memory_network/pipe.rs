//! A stream with two ends, in memory: [`tokio::io::duplex`] with a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// One end. If it is dropped with its writing half open, the other end is reset.
#[derive(Debug)]
pub(super) struct PipeEnd {
    stream: Compat<DuplexStream>,
    closed: bool,
    reset: CancellationToken,
    // One for each half, since two tasks may wait at once.
    reset_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    reset_writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Both ends of a stream that `reset` resets.
pub(super) fn pipe(buffer: usize, reset: &CancellationToken) -> (PipeEnd, PipeEnd) {
    let (a, b) = tokio::io::duplex(buffer);
    let end = |stream: DuplexStream| PipeEnd {
        stream: stream.compat(),
        closed: false,
        reset: reset.clone(),
        reset_reading: Box::pin(reset.clone().cancelled_owned()),
        reset_writing: Box::pin(reset.clone().cancelled_owned()),
    };
    (end(a), end(b))
}

/// Ready with an error as soon as the stream is reset.
fn poll_reset(
    reset: &mut Pin<Box<WaitForCancellationFutureOwned>>,
    context: &mut Context<'_>,
) -> Poll<io::Error> {
    reset
        .as_mut()
        .poll(context)
        .map(|()| io::ErrorKind::ConnectionReset.into())
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        if !self.closed {
            self.reset.cancel();
        }
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = poll_reset(&mut this.reset_reading, context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = poll_reset(&mut this.reset_writing, context) {
            return Poll::Ready(Err(error));
        }
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = poll_reset(&mut this.reset_writing, context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = poll_reset(&mut this.reset_writing, context) {
            return Poll::Ready(Err(error));
        }
        let closed = std::task::ready!(Pin::new(&mut this.stream).poll_close(context));
        this.closed |= closed.is_ok();
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

    async fn soon<T>(wait: impl Future<Output = T>) -> T {
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, wait).await.unwrap()
    }

    #[test]
    fn a_full_buffer_makes_the_writer_wait() {
        let reset = CancellationToken::new();
        let (mut a, mut b) = pipe(8, &reset);
        assert_eq!(a.write(&[1; 100]).now_or_never().unwrap().unwrap(), 8);
        assert!(a.write(&[1; 100]).now_or_never().is_none());
        assert_eq!(b.read(&mut [0; 3]).now_or_never().unwrap().unwrap(), 3);
        assert_eq!(a.write(&[1; 100]).now_or_never().unwrap().unwrap(), 3);
    }

    #[tokio::test]
    async fn a_reset_wakes_both_halves_of_both_ends() {
        let reset = CancellationToken::new();
        let (a, b) = pipe(1, &reset);
        let halves = |end: PipeEnd| {
            let (mut read, mut write) = end.split();
            future::join(async move { read.read(&mut [0; 1]).await }, async move {
                write.write_all(&[0; 8]).await
            })
        };
        // Readers get one byte each, so only writers are certain to fail: read on.
        let (a, b) = (tokio::spawn(halves(a)), tokio::spawn(halves(b)));
        tokio::task::yield_now().await;
        reset.cancel();
        for end in [a, b] {
            let (_, written) = soon(end).await.unwrap();
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        let (mut c, _d) = pipe(1, &reset);
        assert!(soon(c.read(&mut [0; 1])).await.is_err());
        assert!(soon(c.close()).await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_waits_sees_the_reset() {
        let (mut a, b) = pipe(1, &CancellationToken::new());
        let reader = tokio::spawn(async move { a.read(&mut [0; 1]).await });
        tokio::task::yield_now().await;
        drop(b);
        let kind = soon(reader).await.unwrap().unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::ConnectionReset);
    }
}
