//! [`Piped`]: a connection over HTTP/1.1 that several requests may be under way on. No task runs
//! behind it: whoever waits for the answer that is next drives it, the others wait for their
//! turn. So to read slowly slows the server down.
//!
//! Answers come in the order of their requests. Whoever leaves before the end of its answer ends
//! the connection, and those behind ask again elsewhere. Servers that do not bear with it are told
//! by what becomes of the requests ([`Habits`]).

mod exchange;
mod habits;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::codec::{AnswerError, HeadLimits};
use super::wire::Wire;

pub(super) use exchange::Exchange;
pub(super) use habits::{Counted, Habits};

/// Bytes taken from the socket at a time: enough that the system calls hardly count, few
/// enough to stay in the processor's cache until they are hashed.
const READ_SIZE: usize = 256 << 10;

/// Why an answer did not come, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Who asked before on this connection has ended it, or the server has, as it may.
    #[error("the connection ended before this request's turn")]
    Overtaken,
    /// The server, or the way to it.
    #[error(transparent)]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// A connection; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Piped(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limits: HeadLimits,
    habits: Arc<Habits>,
}

#[derive(Debug)]
struct State {
    /// `None` once it has ended.
    open: Option<Open>,
    input: BytesMut,
    /// The number of the answer that is next, which is how many have come to their end.
    turn: u64,
    /// Since when.
    since: Instant,
    /// Those whose answers have not ended, from that one on.
    line: VecDeque<Option<Waker>>,
    /// Places in the line that were taken without a request yet.
    claims: usize,
    /// Whether the one request, or claim, that there is bears no others behind it.
    alone: bool,
    /// The first of those that get no answer any more: whoever asked it has left.
    until: Option<u64>,
}

#[derive(Debug)]
struct Open {
    wire: Wire,
    /// Requests on their way out.
    out: BytesMut,
    /// What a write failed with. The server may have answered all the same, so it is told at
    /// the end of what can be read.
    failed: Option<io::Error>,
    counted: Counted,
}

/// A place in the line, for a request that is not there yet.
#[derive(Debug)]
pub(super) struct Claim(Piped);

impl Piped {
    pub(super) fn new(wire: Wire, limits: HeadLimits, counted: Counted) -> Self {
        let habits = counted.habits().clone();
        let open = Open {
            wire,
            out: BytesMut::new(),
            failed: None,
            counted,
        };
        let state = Mutex::new(State {
            open: Some(open),
            input: BytesMut::new(),
            turn: 0,
            since: Instant::now(),
            line: VecDeque::new(),
            claims: 0,
            alone: false,
            until: None,
        });
        Self(Arc::new(Shared {
            state,
            limits,
            habits,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it counts against the limit of connections.
    pub(super) fn counts(&self) -> bool {
        let state = self.state();
        let open = state.open.as_ref();
        open.is_some_and(|open| open.counted.counts())
    }

    /// Requests on it, and places taken for others.
    pub(super) fn load(&self) -> usize {
        self.state().load()
    }

    /// Whether another request may be sent. Of one with nothing under way, looks whether the
    /// server is still there, and silent.
    pub(super) fn is_ready(&self) -> bool {
        let mut state = self.state();
        if state.load() == 0 && !state.is_silent() {
            state.close();
        }
        state.open.is_some() && state.until.is_none()
    }

    /// A place for a request when nothing else is under way. `alone`: nothing is to be sent
    /// behind it either.
    pub(super) fn claim(&self, alone: bool) -> Option<Claim> {
        let mut state = self.state();
        if state.load() > 0 {
            return None;
        }
        state.alone = alone;
        state.claims += 1;
        Some(Claim(self.clone()))
    }

    /// A place behind less than `depth` other requests, if the server has answered here before
    /// and left the connection open.
    pub(super) fn claim_behind(&self, depth: usize) -> Option<Claim> {
        let mut state = self.state();
        if state.turn == 0 || state.load() >= depth || (state.load() > 0 && state.alone) {
            return None;
        }
        state.alone &= state.load() > 0;
        state.claims += 1;
        Some(Claim(self.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.state().claims -= 1;
        self.0.0.habits.room.notify_waiters();
    }
}

impl Claim {
    /// Whether its connection has been used before: one that has may have been closed meanwhile
    /// without anybody being to blame.
    pub(super) fn is_used(&self) -> bool {
        let state = self.0.state();
        state.turn > 0 || !state.line.is_empty()
    }

    /// Sends a request, behind those that are under way.
    pub(super) fn begin(self, request: &[u8], to_head: bool) -> Exchange {
        let conn = self.0.clone();
        let mut state = conn.state();
        let number = state.turn + state.line.len() as u64;
        let behind = !state.line.is_empty();
        state.line.push_back(None);
        // What would get no answer is not shown.
        let is_lost = state.is_lost(number);
        if let Some(open) = state.open.as_mut().filter(|_| !is_lost) {
            open.out.extend_from_slice(request);
        }
        drop(state);
        Exchange::new(conn, number, to_head, behind)
    }
}

impl State {
    fn load(&self) -> usize {
        self.line.len() + self.claims
    }

    fn close(&mut self) {
        // Those who wait for room are told by its place.
        self.open = None;
        self.input = BytesMut::new();
        for waiting in &mut self.line {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
    }

    /// Whether a connection with nothing under way is open, and nothing has come unasked.
    fn is_silent(&mut self) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        let mut buffer = ReadBuf::new(&mut byte);
        self.input.is_empty()
            && Pin::new(&mut open.wire)
                .poll_read(&mut cx, &mut buffer)
                .is_pending()
    }

    /// Sends what can be sent.
    fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(open) = &mut self.open else {
            return;
        };
        while !open.out.is_empty() {
            let error = match Pin::new(&mut open.wire).poll_write(cx, &open.out) {
                Poll::Ready(Ok(0)) => io::ErrorKind::WriteZero.into(),
                Poll::Ready(Ok(sent)) => {
                    open.out.advance(sent);
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => return,
            };
            open.out.clear();
            open.failed.get_or_insert(error);
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut open.wire).poll_flush(cx) {
            open.failed.get_or_insert(error);
        }
    }

    /// Waits for more of the answer that is next, and closes the connection if there is none.
    fn poll_more(&mut self, habits: &Habits, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(cx);
        let Some(open) = &mut self.open else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        self.input.reserve(READ_SIZE);
        let read = ready!(poll_read_buf(Pin::new(&mut open.wire), cx, &mut self.input));
        let error = match read {
            Ok(0) => {
                let end = || io::ErrorKind::UnexpectedEof.into();
                open.failed.take().unwrap_or_else(end)
            }
            Ok(_) => return Poll::Ready(Ok(())),
            Err(error) => error,
        };
        // Some servers fall over what is sent before they have answered.
        if self.line.len() > 1 {
            habits.came_to_grief();
        }
        self.close();
        Poll::Ready(Err(error))
    }

    /// Whether that request gets no answer any more.
    fn is_lost(&self, number: u64) -> bool {
        self.open.is_none() || self.until.is_some_and(|until| until <= number)
    }
}
