//! [`Reader`]: the bytes of a file in order, or from anywhere, also while it is downloaded.

use std::fmt;
use std::io::{Error, ErrorKind, Result as IoResult, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use chiral_core::{ByteRange, CHUNK_SIZE, ChunkLayout, StoreError, StoredContent};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::engine::Seat;

/// Bytes from the place being read on that are fetched before all else, unless another
/// number is given: 8 MiB.
pub const READ_AHEAD: u64 = 8 << 20;

/// Limit on what is given instead of [`READ_AHEAD`]: 256 MiB.
pub const MAX_READ_AHEAD: u64 = 256 << 20;

/// Why a reader has no bytes to give. Inside a [`std::io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The download failed.
    #[error("the download failed: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The download was cancelled.
    #[error("the download was cancelled")]
    Cancelled,
    /// The download is over, and these bytes were no part of it.
    #[error("these bytes were not asked for by the download")]
    NotFetched,
    /// A download has as many readers as it may.
    #[error("too many readers of one download")]
    TooMany,
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Failed { .. } | ReadError::TooMany => ErrorKind::Other,
            // Not `Interrupted`, which many callers take for a reason to try again.
            ReadError::Cancelled => ErrorKind::ConnectionAborted,
            ReadError::NotFetched => ErrorKind::NotFound,
        };
        Error::new(kind, error)
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Bytes, StoreError>> + Send>>;

/// Reads a file that is in the store, or that is on its way there: then it waits for bytes
/// that are not proven yet, and no others ever come out of it. What it will read next is
/// fetched first: a seek takes that elsewhere. With nothing but a cid, that has to wait until
/// enough is proven: from the end of the file towards its start.
///
/// It holds at most one chunk in memory. While the download is paused it waits; when that fails
/// or is cancelled, reading what is not there yet fails with a [`ReadError`]. A reader may
/// be used after the download has ended, until the node is shut down.
///
/// # Cancel safety
/// `read` may be dropped: nothing is lost. Dropping the reader withdraws its wish and leaves
/// the download running.
pub struct Reader {
    from: Origin,
    position: u64,
    read_ahead: u64,
    /// The chunk that was read last.
    chunk: Option<(u32, Bytes)>,
    reading: Option<(u32, Reading)>,
    /// Distance from the end, which may not be known yet.
    seeking: Option<i64>,
}

enum Origin {
    Running(Seat),
    Stored(Arc<dyn StoredContent>, ChunkLayout),
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn running(seat: Seat) -> Self {
        let reader = Self::of(Origin::Running(seat));
        reader.wish();
        reader
    }

    /// Reads content of a store; of a partial file, what is there when it is read.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if its size is over the limit of the format.
    pub fn stored(content: Arc<dyn StoredContent>) -> Result<Self, StoreError> {
        let layout = content.header().layout();
        let layout = layout.map_err(|_| StoreError::TooLarge {
            what: "file",
            limit: chiral_core::MAX_FILE_SIZE,
        })?;
        Ok(Self::of(Origin::Stored(content, layout)))
    }

    fn of(from: Origin) -> Self {
        Self {
            from,
            position: 0,
            read_ahead: READ_AHEAD,
            chunk: None,
            reading: None,
            seeking: None,
        }
    }

    /// Sets how many bytes from the place being read on are fetched before all else: at
    /// least a chunk, at most [`MAX_READ_AHEAD`].
    #[must_use]
    pub fn with_read_ahead(mut self, bytes: u64) -> Self {
        self.read_ahead = bytes.clamp(CHUNK_SIZE, MAX_READ_AHEAD);
        self.wish();
        self
    }

    /// Offset of the next byte to be read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The size of the file in bytes, once it is proven.
    ///
    /// # Errors
    /// A [`ReadError`] if the download ends before.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn size(&mut self) -> IoResult<u64> {
        std::future::poll_fn(|cx| self.poll_size(cx)).await
    }

    fn poll_size(&self, cx: &Context<'_>) -> Poll<IoResult<u64>> {
        match &self.from {
            Origin::Running(seat) => seat
                .poll_layout(cx)
                .map_ok(|layout| layout.size())
                .map_err(Error::from),
            Origin::Stored(_, layout) => Poll::Ready(Ok(layout.size())),
        }
    }

    /// Says what is wanted next, in whole chunks so that it is not said with each byte.
    fn wish(&self) {
        if let Origin::Running(seat) = &self.from {
            let start = self.position / CHUNK_SIZE * CHUNK_SIZE;
            let end = start.saturating_add(self.read_ahead);
            seat.want(Some(ByteRange::new(start, end)));
        }
    }

    fn moved_to(&mut self, position: u64) {
        let chunk = |at: u64| at / CHUNK_SIZE;
        let elsewhere = chunk(position) != chunk(self.position);
        self.position = position;
        if elsewhere {
            self.wish();
        }
    }

    /// The bytes of a chunk.
    fn poll_chunk(&mut self, index: u32, cx: &mut Context<'_>) -> Poll<IoResult<Bytes>> {
        if let Some((at, bytes)) = &self.chunk
            && *at == index
        {
            return Poll::Ready(Ok(bytes.clone()));
        }
        if self.reading.as_ref().is_none_or(|(at, _)| *at != index) {
            let reading: Reading = match &self.from {
                Origin::Running(seat) => {
                    let partial = ready!(seat.poll_chunk(index, cx))?;
                    Box::pin(async move { partial.read(index).await })
                }
                Origin::Stored(content, layout) => {
                    let (content, range) = (content.clone(), layout.range(index));
                    Box::pin(async move { content.read(range).await })
                }
            };
            self.chunk = None;
            self.reading = Some((index, reading));
        }
        let Some((_, reading)) = &mut self.reading else {
            return Poll::Pending;
        };
        let result = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        let bytes = result.map_err(Error::other)?;
        self.chunk = Some((index, bytes.clone()));
        Poll::Ready(Ok(bytes))
    }

    /// Ends a seek from the end, if there is one.
    fn poll_seek(&mut self, cx: &mut Context<'_>) -> Poll<IoResult<u64>> {
        if let Some(distance) = self.seeking {
            let size = ready!(self.poll_size(cx));
            self.seeking = None;
            let position = size?
                .checked_add_signed(distance)
                .ok_or_else(before_start)?;
            self.moved_to(position);
        }
        Poll::Ready(Ok(self.position))
    }
}

fn before_start() -> Error {
    Error::new(ErrorKind::InvalidInput, "a seek to before the first byte")
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        ready!(self.poll_seek(cx))?;
        let size = ready!(self.poll_size(cx))?;
        if self.position >= size || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let index = ChunkLayout::chunk_at(self.position);
        let bytes = ready!(self.poll_chunk(index, cx))?;
        let from = (self.position % CHUNK_SIZE) as usize;
        let len = buffer.remaining().min(bytes.len().saturating_sub(from));
        if len == 0 {
            // A store that gives less than a chunk has would be read for ever.
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        buffer.put_slice(&bytes[from..from + len]);
        let position = self.position + len as u64;
        self.moved_to(position);
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> IoResult<()> {
        let position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(distance) => self
                .position
                .checked_add_signed(distance)
                .ok_or_else(before_start)?,
            SeekFrom::End(distance) => {
                self.seeking = Some(distance);
                return Ok(());
            }
        };
        self.seeking = None;
        self.moved_to(position);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<u64>> {
        self.poll_seek(cx)
    }
}
