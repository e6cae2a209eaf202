//! [`UtpStream`]: a connection as a stream of bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connection::{Connection, Ended};
use super::socket::{Key, Shared};

/// A connection and who waits for it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Connection,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whether it is in the list of those that have something to send.
    pub(super) is_dirty: bool,
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) key: Key,
    held: Mutex<Held>,
}

impl Cell {
    pub(super) fn new(key: Key, connection: Connection) -> Self {
        Self {
            key,
            held: Mutex::new(Held {
                connection,
                reader: None,
                writer: None,
                is_dirty: false,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Wakes who can go on.
    pub(super) fn wake(&mut self) {
        let ended = self.connection.ended().is_some();
        let connected = self.connection.is_connected();
        if ended || self.connection.is_readable() {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        let writable = connected && self.connection.is_writable();
        if ended || writable || self.connection.is_flushed() {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A connection over uTP. To drop it delivers what was written, as far as the peer takes it
/// within 20 seconds, and reads nothing more.
#[derive(Debug)]
pub struct UtpStream {
    cell: Arc<Cell>,
    shared: Arc<Shared>,
}

impl UtpStream {
    pub(super) fn new(cell: Arc<Cell>, shared: Arc<Shared>) -> Self {
        Self { cell, shared }
    }

    /// The address of the peer.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.cell.key.0
    }

    /// Waits until the peer has answered.
    pub(super) async fn connected(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let mut held = self.cell.lock();
            if held.connection.is_connected() {
                return Poll::Ready(Ok(()));
            }
            if let Some(why) = held.connection.ended() {
                return Poll::Ready(Err(failure(why)));
            }
            held.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn mark(&self, held: MutexGuard<'_, Held>) {
        self.shared.mark(&self.cell, held);
    }
}

/// What an end is to somebody who expected more.
fn failure(why: Ended) -> io::Error {
    match why {
        Ended::Closed => io::ErrorKind::ConnectionAborted,
        Ended::Reset => io::ErrorKind::ConnectionReset,
        Ended::TimedOut => io::ErrorKind::TimedOut,
    }
    .into()
}

impl AsyncRead for UtpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut held = self.cell.lock();
        let room = out.remaining();
        if held.connection.read(room, |part| out.put_slice(part)) > 0 {
            // The peer may wait for room.
            self.mark(held);
            return Poll::Ready(Ok(()));
        }
        if room == 0 || held.connection.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        match held.connection.ended() {
            Some(why) => Poll::Ready(Err(failure(why))),
            None => {
                held.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for UtpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.cell.lock();
        if let Some(why) = held.connection.ended() {
            return Poll::Ready(Err(failure(why)));
        }
        let written = held.connection.write(bytes);
        if written > 0 || bytes.is_empty() {
            self.mark(held);
            return Poll::Ready(Ok(written));
        }
        held.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until the peer has everything.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.cell.lock();
        if held.connection.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = held.connection.ended() {
            return Poll::Ready(Err(failure(why)));
        }
        held.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says that nothing follows, and waits until the peer knows.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.cell.lock();
        if held.connection.is_finished() {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = held.connection.ended() {
            return Poll::Ready(Err(failure(why)));
        }
        held.connection.finish();
        held.writer = Some(cx.waker().clone());
        self.mark(held);
        Poll::Pending
    }
}

impl Drop for UtpStream {
    fn drop(&mut self) {
        let mut held = self.cell.lock();
        held.connection.let_go(Instant::now().into_std());
        self.mark(held);
    }
}
