//! [`Exchange`]: one request on a connection and its answer, when its turn has come.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::http::response::Parts;
use tokio::time::Instant;

use super::{Lost, Piped, State};
use crate::http::codec::{Answer, Body};

/// How long a request behind others may be without an answer when its turn has come, before
/// giving it up is the server's fault.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// A request that was sent, and its answer.
#[derive(Debug)]
pub(in crate::http) struct Exchange {
    conn: Piped,
    number: u64,
    answer: Answer,
    /// Whether others were before it.
    behind: bool,
    ended: bool,
}

/// Whether the connection ended as connections do. TLS tells of an end without a farewell by
/// the same kind, and that is no way to end a body.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none()
}

impl Exchange {
    /// The request of this number, which was put on the line.
    pub(super) fn new(conn: Piped, number: u64, to_head: bool, behind: bool) -> Self {
        let answer = Answer::new(conn.0.limits, to_head);
        Self {
            conn,
            number,
            answer,
            behind,
            ended: false,
        }
    }

    /// Whether the answers to other requests came, or were to come, before this one.
    pub(in crate::http) fn was_behind(&self) -> bool {
        self.behind
    }

    /// Waits until the answer is the next one.
    pub(in crate::http) async fn turn(&self) -> Result<(), Lost> {
        std::future::poll_fn(|cx| {
            let mut state = self.conn.state();
            if state.is_lost(self.number) {
                return Poll::Ready(Err(Lost::Overtaken));
            }
            state.flush(cx);
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
    pub(in crate::http) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, Lost>> {
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
                // One in chunks has come before its end is told, and who asked for a range
                // leaves when it has come.
                if self.answer.is_chunked() {
                    self.conn.0.habits.came_to_grief();
                }
                return Poll::Ready(Ok(head));
            }
            ready!(state.poll_more(&conn.0.habits, cx))?;
        }
    }

    /// The next bytes of the body; `None` at its end.
    pub(in crate::http) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Lost>>> {
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
            match ready!(state.poll_more(&conn.0.habits, cx)) {
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
        state.since = Instant::now();
        state.line.pop_front();
        if !self.answer.keeps() || state.until == Some(state.turn) {
            state.close();
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
        self.conn.0.habits.room.notify_waiters();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.conn.state();
        if self.ended || state.open.is_none() {
            return;
        }
        if self.number <= state.turn {
            if self.behind && !self.answer.has_begun() && state.since.elapsed() >= FORGOTTEN {
                self.conn.0.habits.came_to_grief();
            }
            state.close();
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
