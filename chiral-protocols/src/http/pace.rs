//! [`Paced`]: a connection that is given up when its reader is too slow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How much a client that keeps the server waiting must take in each period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) period: Duration,
    pub(super) bytes_per_second: u64,
}

impl Pace {
    pub(super) fn bytes_per_period(self) -> u64 {
        self.bytes_over(self.period)
    }

    pub(super) fn bytes_over(self, time: Duration) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * time.as_millis() / 1000;
        // Whatever the rate: to take nothing at all is too slow.
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

/// A connection that can be made to end without its rest.
pub(super) trait Abort {
    /// Lets go of what was written and is not sent yet, when the connection is closed.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Otherwise the system keeps megabytes for somebody who takes hours to read them.
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "the rest of a connection stays in the system's buffers");
        }
    }
}

/// Writes under a [`Pace`]. Time counts only while the server has something to send that
/// the client does not take.
#[derive(Debug)]
pub(super) struct Paced<T> {
    inner: T,
    pace: Pace,
    period: Option<Pin<Box<Sleep>>>,
    taken: u64,
    blocked: bool,
    written: Arc<AtomicU64>,
}

impl<T: Abort> Paced<T> {
    pub(super) fn new(inner: T, pace: Pace) -> Self {
        Self {
            inner,
            pace,
            period: None,
            taken: 0,
            blocked: false,
            written: Arc::default(),
        }
    }

    /// Counts the bytes that were written.
    pub(super) fn written(&self) -> Arc<AtomicU64> {
        self.written.clone()
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.taken = self.taken.saturating_add(bytes as u64);
            self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let was_blocked = std::mem::replace(&mut self.blocked, written.is_pending());
        if !was_blocked && !self.blocked {
            return written;
        }
        let (period, pace) = (&mut self.period, self.pace);
        let sleep = period.get_or_insert_with(|| Box::pin(tokio::time::sleep(pace.period)));
        // More than once, as a new period must be polled to wake this task at its end.
        while sleep.as_mut().poll(cx).is_ready() {
            if was_blocked && self.taken < pace.bytes_per_period() {
                self.inner.abort();
                let slow = io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly");
                return Poll::Ready(Err(slow));
            }
            self.taken = 0;
            sleep.as_mut().reset(Instant::now() + pace.period);
            if !self.blocked {
                break;
            }
        }
        written
    }
}

impl<T: AsyncRead + Abort + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Abort + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PACE: Pace = Pace {
        period: Duration::from_secs(10),
        bytes_per_second: 10,
    };

    impl Abort for tokio::io::DuplexStream {
        fn abort(&self) {}
    }

    /// Reads `step` bytes a second until the writer is done or gone; answers what became of
    /// a write of 1,000 bytes through a pipe of 50.
    async fn write_to_a_reader(step: usize) -> io::Result<()> {
        let (near, mut far) = tokio::io::duplex(50);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; step.max(1)];
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if step > 0 && far.read(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        let result = Paced::new(near, PACE).write_all(&[7; 1000]).await;
        reader.abort();
        result
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_given_up_and_a_fair_one_is_not() {
        write_to_a_reader(20).await.unwrap();
        for step in [0, 1, 8] {
            let error = write_to_a_reader(step).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_of_the_writer_is_not_held_against_the_reader() {
        let (near, mut far) = tokio::io::duplex(50);
        let mut paced = Paced::new(near, PACE);
        let mut buffer = [0; 150];
        for _ in 0..5 {
            let (write, read) =
                tokio::join!(paced.write_all(&[7; 150]), far.read_exact(&mut buffer));
            write.unwrap();
            read.unwrap();
            tokio::time::sleep(Duration::from_secs(1000)).await;
        }
    }
}
