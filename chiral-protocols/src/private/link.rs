//! Frames over a stream: one half reads, the other writes.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chiral_core::buffers::{BUFFER_LEN, Buffers};
use chiral_core::peer_network::BoxedPeerStream;
use futures_util::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{Frame, FrameError, take_header};

/// Bytes read at first while a header is waited for, and at most: what belongs to the raw bytes
/// behind it is copied once more, and most headers are short.
const FIRST_READ: usize = 256;
const MAX_READ: usize = 16 * 1024;

/// Why a stream can be used no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the stream ended")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The half that reads.
pub(super) struct FrameReader {
    stream: ReadHalf<BoxedPeerStream>,
    /// What has come and was not taken.
    buffer: BytesMut,
    /// Memory for raw bytes.
    buffers: Arc<Buffers>,
}

/// The half that writes.
pub(super) struct FrameWriter {
    stream: WriteHalf<BoxedPeerStream>,
}

pub(super) fn split(stream: BoxedPeerStream) -> (FrameReader, FrameWriter) {
    let (read, write) = stream.split();
    let reader = FrameReader {
        stream: read,
        buffer: BytesMut::new(),
        buffers: Arc::default(),
    };
    (reader, FrameWriter { stream: write })
}

impl FrameReader {
    /// The next frame; `None` at an end between two frames.
    ///
    /// # Cancel safety
    /// None: the stream cannot be read on after the future was dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        let mut more = FIRST_READ;
        let begun = loop {
            if let Some(begun) = take_header(&mut self.buffer)? {
                break begun;
            }
            let held = self.buffer.len();
            self.buffer.resize(held + more, 0);
            more = (2 * more).min(MAX_READ);
            let read = self.stream.read(&mut self.buffer[held..]).await;
            let read = read.inspect_err(|_| self.buffer.truncate(held))?;
            self.buffer.truncate(held + read);
            if read == 0 {
                let whole = self.buffer.is_empty();
                let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                return if whole { Ok(None) } else { Err(cut.into()) };
            }
        };
        let data = self.data(begun.data_length).await?;
        Ok(Some(Frame::new(begun.id, begun.body).with_data(data)))
    }

    /// The raw bytes: read to where they stay.
    async fn data(&mut self, length: usize) -> Result<Bytes, LinkError> {
        if self.buffer.len() >= length {
            return Ok(self.buffer.split_to(length).freeze());
        }
        if length < BUFFER_LEN / 2 {
            // It would keep a long buffer from those who need one.
            let mut data = BytesMut::zeroed(length);
            let (held, rest) = data.split_at_mut(self.buffer.len());
            held.copy_from_slice(&self.buffer);
            self.buffer.clear();
            self.stream.read_exact(rest).await?;
            return Ok(data.freeze());
        }
        // No header says more than a buffer takes.
        let mut data = self.buffers.take(length).ok_or(FrameError::Data)?;
        let (held, rest) = data.bytes_mut().split_at_mut(self.buffer.len());
        held.copy_from_slice(&self.buffer);
        self.buffer.clear();
        self.stream.read_exact(rest).await?;
        Ok(data.into_bytes())
    }
}

impl FrameWriter {
    /// Writes a frame.
    ///
    /// # Cancel safety
    /// None: the stream cannot be written on after the future was dropped.
    pub(super) async fn write(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let head = frame.head()?;
        // Together: a stream may make a packet of each write.
        let mut parts = [IoSlice::new(&head), IoSlice::new(&frame.data)];
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.write_vectored(left).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
        Ok(())
    }

    /// Hands on what was written.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(self.stream.flush().await?)
    }

    /// Ends this direction.
    pub(super) async fn close(&mut self) -> Result<(), LinkError> {
        Ok(self.stream.close().await?)
    }
}
