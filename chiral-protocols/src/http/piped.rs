//! [`Piped`]: a connection over HTTP/1.1 that several requests may be under way on. No task runs
//! behind it: whoever waits for the answer that is next drives it, the others wait for their
//! turn. So to read slowly slows the server down.
//!
//! Answers come in the order of their requests. Whoever leaves before the end of its answer ends
//! the connection, and those behind ask again elsewhere.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::http::response::Parts;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::io::poll_read_buf;

use super::codec::{Answer, AnswerError, Body, HeadLimits};
use super::wire::Wire;

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
    /// Told whenever there is room for another request, here or on a new connection.
    room: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// `None` once it has ended.
    open: Option<Open>,
    input: BytesMut,
    /// The number of the answer that is next.
    turn: u64,
    /// Those whose answers have not ended, from that one on.
    line: VecDeque<Option<Waker>>,
    /// Places in the line that were taken without a request yet.
    claims: usize,
    /// The first of those that get no answer any more: whoever asked it has left.
    until: Option<u64>,
    /// Answers that came to their end.
    answered: u64,
}

#[derive(Debug)]
struct Open {
    wire: Wire,
    /// Requests on their way out.
    out: BytesMut,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A place in the line, for a request that is not there yet.
#[derive(Debug)]
pub(super) struct Claim(Piped);

/// A request that was sent, and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    conn: Piped,
    number: u64,
    answer: Answer,
    /// Whether others were before it.
    behind: bool,
    ended: bool,
}

impl Piped {
    /// `permit` is given back when it ends, and `room` is told.
    pub(super) fn new(
        wire: Wire,
        limits: HeadLimits,
        permit: Option<OwnedSemaphorePermit>,
        room: Arc<Notify>,
    ) -> Self {
        let open = Open {
            wire,
            out: BytesMut::new(),
            _permit: permit,
        };
        let state = Mutex::new(State {
            open: Some(open),
            input: BytesMut::new(),
            turn: 0,
            line: VecDeque::new(),
            claims: 0,
            until: None,
            answered: 0,
        });
        Self(Arc::new(Shared {
            state,
            limits,
            room,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it counts against the limit of connections.
    pub(super) fn counts(&self) -> bool {
        let state = self.state();
        state
            .open
            .as_ref()
            .is_some_and(|open| open._permit.is_some())
    }

    /// Requests on it, and places taken for others.
    pub(super) fn load(&self) -> usize {
        let state = self.state();
        state.line.len() + state.claims
    }

    /// Whether another request may be sent. Of one with nothing under way, looks whether the
    /// server is still there, and silent.
    pub(super) fn is_ready(&self) -> bool {
        let mut state = self.state();
        if state.line.is_empty() && state.claims == 0 {
            let mut cx = Context::from_waker(Waker::noop());
            if !state.input.is_empty() || state.poll_fill(&mut cx).is_ready() {
                state.close(&self.0.room);
            }
        }
        state.open.is_some() && state.until.is_none()
    }

    /// Whether an answer has come to its end: the server leaves connections open.
    pub(super) fn has_answered(&self) -> bool {
        self.state().answered > 0
    }

    pub(super) fn claim(&self) -> Claim {
        self.state().claims += 1;
        Claim(self.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.state().claims -= 1;
        self.0.0.room.notify_waiters();
    }
}

impl Claim {
    /// Whether an answer has come over it before: one that has may have been closed meanwhile
    /// without anybody being to blame.
    pub(super) fn is_used(&self) -> bool {
        let state = self.0.state();
        state.answered > 0 || !state.line.is_empty()
    }

    /// Sends a request, behind those that are under way.
    pub(super) fn begin(self, request: &[u8], to_head: bool) -> Exchange {
        let conn = self.0.clone();
        let mut state = conn.state();
        let number = state.turn + state.line.len() as u64;
        let behind = !state.line.is_empty();
        state.line.push_back(None);
        if let Some(open) = &mut state.open {
            open.out.extend_from_slice(request);
        }
        drop(state);
        let answer = Answer::new(conn.0.limits, to_head);
        Exchange {
            conn,
            number,
            answer,
            behind,
            ended: false,
        }
    }
}

impl State {
    fn close(&mut self, room: &Notify) {
        if self.open.take().is_none() {
            return;
        }
        self.input = BytesMut::new();
        for waiting in &mut self.line {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
        room.notify_waiters();
    }

    /// Sends what can be sent. A server that takes no more may have answered all the same, so
    /// that this is found out by reading.
    fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(open) = &mut self.open else {
            return;
        };
        while !open.out.is_empty() {
            match Pin::new(&mut open.wire).poll_write(cx, &open.out) {
                Poll::Ready(Ok(sent)) if sent > 0 => open.out.advance(sent),
                Poll::Ready(_) => open.out.clear(),
                Poll::Pending => return,
            }
        }
        // Pending or failed: said again by the next write, or by the end of what is read.
        let _ = Pin::new(&mut open.wire).poll_flush(cx);
    }

    /// Reads once. Answers how many bytes; none at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(Ok(0));
        };
        self.input.reserve(READ_SIZE);
        poll_read_buf(Pin::new(&mut open.wire), cx, &mut self.input)
    }

    /// Waits for more of the answer that is next.
    fn poll_more(&mut self, room: &Notify, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(cx);
        let error = match ready!(self.poll_fill(cx)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => return Poll::Ready(Ok(())),
            Err(error) => error,
        };
        self.close(room);
        Poll::Ready(Err(error))
    }

    /// Whether that request gets no answer any more.
    fn is_lost(&self, number: u64) -> bool {
        self.open.is_none() || self.until.is_some_and(|until| until <= number)
    }
}

/// Whether the connection ended as connections do. TLS tells of an end without a farewell by
/// the same kind, and that is no way to end a body.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none()
}

impl Exchange {
    /// Whether the answers to other requests came, or were to come, before this one.
    pub(super) fn was_behind(&self) -> bool {
        self.behind
    }

    /// Waits until the answer is the next one.
    pub(super) async fn turn(&self) -> Result<(), Lost> {
        std::future::poll_fn(|cx| {
            let mut state = self.conn.state();
            state.flush(cx);
            if state.is_lost(self.number) {
                return Poll::Ready(Err(Lost::Overtaken));
            }
            let before = self.number.saturating_sub(state.turn);
            if before == 0 {
                return Poll::Ready(Ok(()));
            }
            let place = usize::try_from(before).unwrap_or(usize::MAX);
            if let Some(waiting) = state.line.get_mut(place) {
                *waiting = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The head of the answer, once it is its turn.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, Lost>> {
        let conn = self.conn.clone();
        let mut state = conn.state();
        loop {
            if state.is_lost(self.number) {
                return Poll::Ready(Err(Lost::Overtaken));
            }
            if let Some(head) = self.answer.head(&mut state.input)? {
                if self.answer.has_no_body() {
                    self.finish(&mut state);
                }
                return Poll::Ready(Ok(head));
            }
            ready!(state.poll_more(&conn.0.room, cx))?;
        }
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let conn = self.conn.clone();
        let mut state = conn.state();
        loop {
            match self.answer.body(&mut state.input) {
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
                Ok(Body::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Body::End) => {
                    self.finish(&mut state);
                    return Poll::Ready(None);
                }
                Ok(Body::More) if state.is_lost(self.number) => {
                    return Poll::Ready(Some(Err(Lost::Overtaken)));
                }
                Ok(Body::More) => {}
            }
            match ready!(state.poll_more(&conn.0.room, cx)) {
                Ok(()) => {}
                Err(error) if is_end(&error) && self.answer.ends_with_connection() => {
                    self.finish(&mut state);
                    return Poll::Ready(None);
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// The answer has come to its end: it is the next one's turn.
    fn finish(&mut self, state: &mut State) {
        self.ended = true;
        state.turn += 1;
        state.answered += 1;
        state.line.pop_front();
        if !self.answer.keeps() || state.until == Some(state.turn) {
            state.close(&self.conn.0.room);
            return;
        }
        match state.line.front_mut() {
            // What is left over is held by nobody who needs it.
            None if state.input.is_empty() => state.input = BytesMut::new(),
            None => {}
            Some(next) => {
                if let Some(waker) = next.take() {
                    waker.wake();
                }
            }
        }
        self.conn.0.room.notify_waiters();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.conn.state();
        if self.ended || state.open.is_none() {
            return;
        }
        if self.number <= state.turn {
            state.close(&self.conn.0.room);
            return;
        }
        // Its answer will come all the same, and nobody would read it.
        let until = state
            .until
            .map_or(self.number, |until| until.min(self.number));
        state.until = Some(until);
        let place = usize::try_from(self.number - state.turn).unwrap_or(usize::MAX);
        for waiting in state.line.iter_mut().skip(place) {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
    }
}
