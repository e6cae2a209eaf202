//! [`MetadataMessage`]: parts of the info dictionary, between peers (BEP 9).

use bytes::Bytes;

use super::handshake::ExtensionError;
use super::read;
use crate::bittorrent::bencode::DictWriter;

/// Bytes of a part of the info dictionary; the last one is short.
pub const METADATA_PIECE: u32 = 16_384;

/// Largest info dictionary that is fetched, in bytes: that of 400,000 pieces.
pub const MAX_METADATA: u32 = 8 << 20;

/// A message of `ut_metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a part.
    Request(u32),
    /// A part.
    Data {
        /// Which.
        piece: u32,
        /// Bytes of the whole dictionary.
        total: u32,
        /// The bytes.
        data: Bytes,
    },
    /// The sender does not give that part.
    Reject(u32),
}

impl MetadataMessage {
    /// The body of the message.
    pub fn encode(&self) -> Vec<u8> {
        let write = |kind, piece: u32| {
            DictWriter::new()
                .int("msg_type", kind)
                .int("piece", piece.into())
        };
        match self {
            Self::Request(piece) => write(0, *piece).finish(),
            Self::Data { piece, total, data } => {
                let mut body = write(1, *piece).int("total_size", (*total).into()).finish();
                body.extend_from_slice(data);
                body
            }
            Self::Reject(piece) => write(2, *piece).finish(),
        }
    }

    /// Reads one; `None` for a kind that is not known, which is to be ignored.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub fn decode(body: &Bytes) -> Result<Option<Self>, ExtensionError> {
        let what = "metadata message";
        let message = read(body, |dict, rest| {
            let piece = u32::try_from(dict.int_of("piece")?).ok()?;
            let data = body.slice(body.len() - rest.len()..);
            Some(match dict.int_of("msg_type")? {
                0 => Some(Self::Request(piece)),
                1 => {
                    let total = u32::try_from(dict.int_of("total_size")?).ok()?;
                    if total > MAX_METADATA || data.len() > METADATA_PIECE as usize {
                        return None;
                    }
                    Some(Self::Data { piece, total, data })
                }
                2 => Some(Self::Reject(piece)),
                _ => None,
            })
        });
        message.ok_or(ExtensionError { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let decode = |body: &'static [u8]| MetadataMessage::decode(&Bytes::from_static(body));
        assert_eq!(
            decode(b"d8:msg_typei0e5:piecei0ee"),
            Ok(Some(MetadataMessage::Request(0)))
        );
        let data = MetadataMessage::Data {
            piece: 0,
            total: 3425,
            data: Bytes::from_static(b"xxxxxxxx"),
        };
        let body = b"d8:msg_typei1e5:piecei0e10:total_sizei3425eexxxxxxxx";
        assert_eq!(decode(body), Ok(Some(data)));
        assert_eq!(
            decode(b"d8:msg_typei2e5:piecei0ee"),
            Ok(Some(MetadataMessage::Reject(0)))
        );
        assert_eq!(decode(b"d8:msg_typei9e5:piecei0ee"), Ok(None));
        for bad in [
            &b"d5:piecei0ee"[..],
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_typei1e5:piecei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei99999999eex",
            b"x",
        ] {
            assert!(decode(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn messages_come_back(kind in 0..3, piece: u32, total in 0..=MAX_METADATA,
            data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let message = match kind {
                0 => MetadataMessage::Request(piece),
                1 => MetadataMessage::Data { piece, total, data: data.into() },
                _ => MetadataMessage::Reject(piece),
            };
            prop_assert_eq!(MetadataMessage::decode(&message.encode().into()), Ok(Some(message)));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MetadataMessage::decode(&body.into());
        }
    }
}
