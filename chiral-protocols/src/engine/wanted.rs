//! What the readers of a running download want next, and what of it they may have.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use chiral_core::{Bitmap, ByteRange, ChunkLayout, PartialFile, TransferError};
use tokio::sync::Notify;

use super::active::{Active, Mode};
use super::run::describe;
use crate::reader::{ReadError, Reader};

/// Limit on the readers of one download.
pub const MAX_READERS: usize = 64;

/// A running download as its readers see it: what is proven of it so far. Cheap to clone.
#[derive(Clone)]
pub struct Readable {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Somebody wants something else than before.
    wished: Notify,
}

#[derive(Default)]
struct State {
    /// Not before the size is proven.
    content: Option<Arc<dyn PartialFile>>,
    proven: Option<Bitmap>,
    ended: Option<ReadError>,
    readers: BTreeMap<u64, Entry>,
    next: u64,
    turn: u64,
}

#[derive(Default)]
struct Entry {
    wish: Option<ByteRange>,
    /// When it last wished for something else, as a number that rises.
    turn: u64,
    waiting: Option<Waiting>,
}

struct Waiting {
    /// The chunk waited for; none for the size.
    chunk: Option<u32>,
    waker: Waker,
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readable")
            .field("readers", &self.state().readers.len())
            .finish_non_exhaustive()
    }
}

impl Readable {
    /// A reader of the download, at its beginning. It waits for what is not proven yet, and
    /// what it will read next is fetched first.
    ///
    /// # Errors
    /// [`ReadError::TooMany`] over [`MAX_READERS`].
    pub fn reader(&self) -> Result<Reader, ReadError> {
        let mut state = self.state();
        if state.readers.len() >= MAX_READERS {
            return Err(ReadError::TooMany);
        }
        let id = state.next;
        state.next += 1;
        state.readers.insert(id, Entry::default());
        drop(state);
        Ok(Reader::running(Seat {
            id,
            of: self.clone(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What readers want next: first those who wait, then those who moved last.
    pub(super) fn wishes(&self) -> Vec<ByteRange> {
        let state = self.state();
        let mut readers: Vec<_> = state.readers.values().collect();
        readers.sort_by_key(|r| (r.waiting.is_none(), Reverse(r.turn)));
        readers.iter().filter_map(|r| r.wish).collect()
    }

    /// Whether a reader waits for something.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.readers.values().any(|r| r.waiting.is_some())
    }

    /// Waits until wishes may have changed.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn wished(&self) {
        self.shared.wished.notified().await;
    }

    /// The size is proven, and these chunks.
    fn open(&self, content: Arc<dyn PartialFile>, proven: Bitmap) {
        let mut state = self.state();
        (state.content, state.proven) = (Some(content), Some(proven));
        state.wake(|_| true);
    }

    /// A chunk is proven.
    pub(super) fn proven(&self, index: u32) {
        let mut state = self.state();
        if let Some(proven) = &mut state.proven {
            proven.set(index, true);
            state.wake(|chunk| chunk == Some(index));
        }
    }

    fn end(&self, how: ReadError) {
        let mut state = self.state();
        state.ended.get_or_insert(how);
        state.wake(|_| true);
    }
}

impl State {
    /// Wakes those who wait for something of this kind.
    fn wake(&mut self, is_there: impl Fn(Option<u32>) -> bool) {
        for entry in self.readers.values_mut() {
            if entry.waiting.as_ref().is_some_and(|w| is_there(w.chunk))
                && let Some(waiting) = entry.waiting.take()
            {
                waiting.waker.wake();
            }
        }
    }

    fn wait(&mut self, id: u64, chunk: Option<u32>, cx: &Context<'_>) {
        if let Some(entry) = self.readers.get_mut(&id) {
            let waker = cx.waker().clone();
            entry.waiting = Some(Waiting { chunk, waker });
        }
    }
}

/// The download's own side: when it is dropped, nothing more will come.
pub(super) struct Owner(Readable);

impl Owner {
    pub(super) fn new() -> Self {
        Self(Readable {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wished: Notify::new(),
            }),
        })
    }

    pub(super) fn readable(&self) -> &Readable {
        &self.0
    }

    /// Tells readers how the download ended.
    pub(super) fn end<T>(&self, result: &Result<T, TransferError>) {
        self.0.end(match result {
            Ok(_) => ReadError::NotFetched,
            Err(TransferError::Cancelled(_)) => ReadError::Cancelled,
            Err(error) => ReadError::Failed {
                reason: describe(error),
            },
        });
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end(ReadError::Failed {
            reason: "it was abandoned".to_owned(),
        });
    }
}

/// A reader's place at a download. Dropping it withdraws its wish.
pub(crate) struct Seat {
    id: u64,
    of: Readable,
}

impl Seat {
    /// Says what is wanted next, if anything is.
    pub(crate) fn want(&self, wish: Option<ByteRange>) {
        let mut state = self.of.state();
        state.turn += 1;
        let turn = state.turn;
        let Some(entry) = state.readers.get_mut(&self.id) else {
            return;
        };
        entry.turn = turn;
        if std::mem::replace(&mut entry.wish, wish) != wish {
            drop(state);
            self.of.shared.wished.notify_one();
        }
    }

    /// The size, once it is proven.
    pub(crate) fn poll_layout(&self, cx: &Context<'_>) -> Poll<Result<ChunkLayout, ReadError>> {
        let mut state = self.of.state();
        if let Some(content) = &state.content {
            return Poll::Ready(Ok(content.layout()));
        }
        if let Some(ended) = &state.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        state.wait(self.id, None, cx);
        Poll::Pending
    }

    /// Where a chunk can be read from, once it is proven.
    pub(crate) fn poll_chunk(
        &self,
        index: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Arc<dyn PartialFile>, ReadError>> {
        let mut state = self.of.state();
        if let Some(content) = &state.content
            && state.proven.as_ref().is_some_and(|p| p.get(index))
        {
            return Poll::Ready(Ok(content.clone()));
        }
        if let Some(ended) = &state.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        state.wait(self.id, Some(index), cx);
        Poll::Pending
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.state().readers.remove(&self.id);
        self.of.shared.wished.notify_one();
    }
}

impl Active<'_> {
    /// Lets readers have what is proven, where that says that the size is.
    pub(super) fn open_to_readers(&self) {
        let readable = self.run.owner.readable();
        readable.open(self.partial.clone(), self.proven.clone());
    }

    /// Has fetched first what readers want next. Only where chunks are checked in any order:
    /// else nothing could be proven sooner by it.
    pub(super) fn want_next(&mut self, mode: &mut Mode) {
        if let Mode::Pinned(_) | Mode::Pieces(_) = mode {
            let wishes = self.run.owner.readable().wishes();
            if let Mode::Pinned(pinned) = mode {
                self.pages_first(pinned, &wishes);
            }
            let now = self.run.now();
            self.scheduler.set_wanted_next(now, &wishes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use chiral_core::transfer::Stopped;

    use super::*;

    fn wish(start: u64) -> Option<ByteRange> {
        Some(ByteRange::new(start, start + 10))
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let waker = Waker::noop();
        pin!(future)
            .poll(&mut Context::from_waker(waker))
            .is_ready()
    }

    fn seat(of: &Readable, id: u64) -> Seat {
        of.state().readers.insert(id, Entry::default());
        Seat { id, of: of.clone() }
    }

    #[test]
    fn who_waits_and_who_moved_last_comes_first_and_who_leaves_wishes_no_more() {
        let owner = Owner::new();
        let readable = owner.readable();
        let (a, b, c) = (seat(readable, 0), seat(readable, 1), seat(readable, 2));
        a.want(wish(100));
        b.want(wish(200));
        c.want(None);
        assert!(is_ready(readable.wished()) && !is_ready(readable.wished()));
        let wishes = || -> Vec<u64> { readable.wishes().iter().map(|w| w.start).collect() };
        assert_eq!(wishes(), [200, 100]);
        assert!(!readable.is_waited_for());
        let cx = Context::from_waker(Waker::noop());
        assert!(a.poll_chunk(0, &cx).is_pending());
        assert!(readable.is_waited_for());
        assert_eq!(wishes(), [100, 200]);
        // Said again, it is no news.
        b.want(wish(200));
        assert!(!is_ready(readable.wished()));
        drop(a);
        assert!(is_ready(readable.wished()));
        assert_eq!(wishes(), [200]);
        assert!(!readable.is_waited_for());
    }

    #[test]
    fn readers_hear_of_every_end() {
        let cx = Context::from_waker(Waker::noop());
        let said = |end: Option<Result<(), TransferError>>| {
            let owner = Owner::new();
            let seat = seat(owner.readable(), 0);
            assert!(seat.poll_layout(&cx).is_pending());
            if let Some(result) = end {
                owner.end(&result);
            }
            drop(owner);
            seat.poll_layout(&cx)
        };
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            Poll::Ready(Err(ReadError::Failed { reason }))
        };
        assert_eq!(said(Some(Ok(()))), Poll::Ready(Err(ReadError::NotFetched)));
        assert_eq!(
            said(Some(Err(Stopped.into()))),
            Poll::Ready(Err(ReadError::Cancelled))
        );
        assert_eq!(said(Some(Err(TransferError::Closed))), failed("shut down"));
        assert_eq!(said(None), failed("it was abandoned"));
    }

    #[test]
    fn there_is_a_limit_on_readers() {
        let owner = Owner::new();
        let readers: Vec<_> = (0..MAX_READERS)
            .map(|_| owner.readable().reader().unwrap())
            .collect();
        let one_more = owner.readable().reader();
        assert_eq!(one_more.err(), Some(ReadError::TooMany));
        drop(readers);
        assert!(owner.readable().reader().is_ok());
    }
}
