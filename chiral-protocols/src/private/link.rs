//! Frames over a stream: one half reads, the other writes.

use std::io;

use bytes::{Bytes, BytesMut};
use chiral_core::peer_network::BoxedPeerStream;
use futures_util::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{Frame, FrameError, take_header};

/// Bytes read at once while a header is waited for.
const READ: usize = 16 * 1024;

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
    };
    (reader, FrameWriter { stream: write })
}

impl FrameReader {
    /// The next frame; `None` at an end between two frames.
    ///
    /// # Cancel safety
    /// None: the stream cannot be read on after the future was dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        let begun = loop {
            if let Some(begun) = take_header(&mut self.buffer)? {
                break begun;
            }
            let held = self.buffer.len();
            self.buffer.resize(held + READ, 0);
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
        let mut data = BytesMut::with_capacity(length);
        data.extend_from_slice(&self.buffer.split());
        let held = data.len();
        data.resize(length, 0);
        self.stream.read_exact(&mut data[held..]).await?;
        Ok(data.freeze())
    }
}

impl FrameWriter {
    /// Writes a frame.
    ///
    /// # Cancel safety
    /// None: the stream cannot be written on after the future was dropped.
    pub(super) async fn write(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.stream.write_all(&frame.head()?).await?;
        if !frame.data.is_empty() {
            self.stream.write_all(&frame.data).await?;
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
