//! Frames: length of the header (unsigned varint), header, raw bytes.

use bytes::{Buf, Bytes, BytesMut};
use chiral_core::CHUNK_SIZE;
use prost::Message;

use super::messages::{Body, Header};

/// Limit on the length of a frame's header in bytes: a payment message fits.
pub const MAX_HEADER: usize = 24 * 1024;

/// Limit on the raw bytes of a frame: a chunk.
pub const MAX_DATA: usize = CHUNK_SIZE as usize;

/// Bytes that the length of a header takes at most.
const MAX_LENGTH: usize = 3;

/// What is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A header over [`MAX_HEADER`], or of no length at all.
    #[error("a header of no possible length")]
    Length,
    /// More raw bytes than [`MAX_DATA`].
    #[error("more raw bytes than a frame may have")]
    Data,
    /// The header cannot be read, or says nothing that is known.
    #[error("a header that cannot be read")]
    Header,
}

/// A frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Number of the request, or 0.
    pub id: u32,
    /// What is said.
    pub body: Body,
    /// The raw bytes.
    pub data: Bytes,
}

impl Frame {
    /// Without raw bytes.
    pub fn new(id: u32, body: Body) -> Self {
        Self {
            id,
            body,
            data: Bytes::new(),
        }
    }

    /// With raw bytes, at most [`MAX_DATA`].
    #[must_use]
    pub fn with_data(mut self, data: Bytes) -> Self {
        self.data = data;
        self
    }

    /// Takes a frame off the front of what has come; `None` if it is not all there yet.
    ///
    /// # Errors
    /// [`FrameError`]; what follows cannot be read then.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let mut ahead = buffer.clone();
        let Some(begun) = take_header(&mut ahead)? else {
            return Ok(None);
        };
        if ahead.len() < begun.data_length {
            return Ok(None);
        }
        buffer.advance(buffer.len() - ahead.len());
        let data = buffer.split_to(begun.data_length).freeze();
        Ok(Some(Self::new(begun.id, begun.body).with_data(data)))
    }

    /// What is sent before the raw bytes.
    ///
    /// # Errors
    /// [`FrameError`], if it is over a limit.
    pub fn head(&self) -> Result<Bytes, FrameError> {
        if self.data.len() > MAX_DATA {
            return Err(FrameError::Data);
        }
        let header = Header {
            id: self.id,
            data_length: self.data.len() as u32,
            body: Some(self.body.clone()),
        };
        if header.encoded_len() > MAX_HEADER {
            return Err(FrameError::Length);
        }
        Ok(header.encode_length_delimited_to_vec().into())
    }
}

/// A frame whose header has come, and how many raw bytes follow.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) id: u32,
    pub(super) body: Body,
    pub(super) data_length: usize,
}

/// Takes a header off the front of what has come; `None` if it is not all there yet.
///
/// # Errors
/// [`FrameError`]; the stream cannot be read on.
pub(super) fn take_header(buffer: &mut BytesMut) -> Result<Option<Begun>, FrameError> {
    let (mut length, mut used) = (0usize, 0);
    loop {
        let Some(&byte) = buffer.get(used) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if used == MAX_LENGTH {
            return Err(FrameError::Length);
        }
    }
    if length == 0 || length > MAX_HEADER {
        return Err(FrameError::Length);
    }
    if buffer.len() < used + length {
        return Ok(None);
    }
    buffer.advance(used);
    let header =
        Header::decode(buffer.split_to(length).freeze()).map_err(|_| FrameError::Header)?;
    let body = header.body.ok_or(FrameError::Header)?;
    let data_length = header.data_length as usize;
    if data_length > MAX_DATA {
        return Err(FrameError::Data);
    }
    Ok(Some(Begun {
        id: header.id,
        body,
        data_length,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::messages::*;
    use super::*;
    use proptest::prelude::*;

    fn body() -> impl Strategy<Value = Body> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
        prop_oneof![
            (bytes(40), any::<u32>()).prop_map(|(file_hash, version)| Body::OpenSession(
                OpenSession { file_hash, version }
            )),
            (bytes(512), bytes(33), bytes(21)).prop_map(|(manifest_header, price, wallet)| {
                Body::SessionAccepted(SessionAccepted {
                    manifest_header,
                    price,
                    wallet,
                    version: 1,
                })
            }),
            any::<u32>().prop_map(|index| Body::RequestPage(RequestPage { index })),
            (any::<u64>(), any::<u64>(), proptest::option::of(bytes(300))).prop_map(
                |(offset, length, credential)| Body::RequestChunks(RequestChunks {
                    offset,
                    length,
                    credential,
                })
            ),
            any::<u64>().prop_map(|offset| Body::StreamChunk(StreamChunk { offset })),
            (any::<i32>(), ".{0,50}")
                .prop_map(|(kind, reason)| Body::Failed(Failed { kind, reason })),
            bytes(2000).prop_map(|message| Body::PaymentBatch(PaymentBatch { message })),
            Just(Body::Cancel(Cancel {})),
        ]
    }

    proptest! {
        #[test]
        fn what_is_sent_comes_however_it_is_cut(
            id: u32, body in body(), data in proptest::collection::vec(any::<u8>(), 0..500), cut: usize,
        ) {
            let frame = Frame::new(id, body).with_data(data.into());
            let head = frame.head().unwrap();
            let cut = cut % head.len();
            let mut buffer = BytesMut::from(&head[..cut]);
            prop_assert!(take_header(&mut buffer).unwrap().is_none());
            buffer.extend_from_slice(&head[cut..]);
            buffer.extend_from_slice(&frame.data);
            let begun = take_header(&mut buffer).unwrap().unwrap();
            prop_assert_eq!(begun.id, id);
            prop_assert_eq!(begun.body, frame.body);
            prop_assert_eq!(begun.data_length, frame.data.len());
            prop_assert_eq!(&buffer[..], &frame.data[..]);
        }

        #[test]
        fn nothing_panics_and_nothing_long_is_waited_for(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(begun)) = take_header(&mut buffer) {
                prop_assert!(begun.data_length <= MAX_DATA);
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_at_once() {
        let refused = |bytes: &[u8]| take_header(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(refused(&[0]), FrameError::Length);
        assert_eq!(refused(&[0xff, 0xff, 0xff]), FrameError::Length);
        assert_eq!(refused(&[0x81, 0xc0, 0x01]), FrameError::Length);
        assert_eq!(refused(&[1, 0xff]), FrameError::Header);
        let mut nothing = Header {
            id: 1,
            data_length: 0,
            body: None,
        }
        .encode_length_delimited_to_vec();
        assert_eq!(refused(&nothing), FrameError::Header);
        nothing.clear();
        let long = Header {
            id: 1,
            data_length: MAX_DATA as u32 + 1,
            body: Some(Body::Page(Page {})),
        };
        assert_eq!(
            refused(&long.encode_length_delimited_to_vec()),
            FrameError::Data
        );
    }
}
