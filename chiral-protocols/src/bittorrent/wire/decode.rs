//! [`Decoder`]: bytes as they come in, messages out of it.

use bytes::{Buf, Bytes, BytesMut};

use super::message::{MAX_EXTENDED, MAX_HASHES};
use super::{BLOCK_LEN, Block, HashRange, MAX_PIECES, Message};

/// Longest message of an unknown kind that is passed over, in bytes.
const MAX_UNKNOWN: usize = 16 << 10;

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A length prefix that no message of the kind has.
    #[error("a message {id} of {len} bytes")]
    Length {
        /// Kind of the message.
        id: u8,
        /// The length prefix.
        len: u32,
    },
    /// A bitfield with bits set past the last piece.
    #[error("a bitfield with spare bits set")]
    SpareBits,
}

/// Messages out of a stream of bytes, however it is cut. Bodies are slices of what was
/// received, not copies.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    pieces: Option<u32>,
}

impl Decoder {
    /// For a torrent with this many pieces, if it is known.
    pub fn new(pieces: Option<u32>) -> Self {
        Self {
            buffer: BytesMut::new(),
            pieces,
        }
    }

    /// Tells the number of pieces. Bitfields that came before were only held to the general limit.
    pub fn set_pieces(&mut self, pieces: u32) {
        self.pieces = Some(pieces);
    }

    /// Where received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes received that are no whole message yet.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes still to come until the message that has begun is whole, as far as can be said.
    pub fn missing(&self) -> usize {
        match self.buffer.first_chunk::<5>() {
            Some([prefix @ .., _]) => {
                let len = u32::from_be_bytes(*prefix) as usize;
                (len + 4).saturating_sub(self.buffer.len())
            }
            None => 5 - self.buffer.len(),
        }
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// [`WireError`]; the connection is of no use any more.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix);
        if len == 0 {
            self.buffer.advance(4);
            return Ok(Some(Message::KeepAlive));
        }
        let Some(&id) = self.buffer.get(4) else {
            return Ok(None);
        };
        if !self.fits(id, len as usize) {
            return Err(WireError::Length { id, len });
        }
        let whole = 4 + len as usize;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut body = self.buffer.split_to(whole).freeze();
        body.advance(5);
        self.message(id, body).map(Some)
    }

    /// Whether a message of a kind may have this length, its id counted.
    fn fits(&self, id: u8, len: usize) -> bool {
        match id {
            0..=3 | 14 | 15 => len == 1,
            4 | 13 | 17 => len == 5,
            5 => match self.pieces {
                Some(pieces) => len == 1 + pieces.div_ceil(8) as usize,
                None => (2..=1 + MAX_PIECES as usize / 8).contains(&len),
            },
            6 | 8 | 16 => len == 13,
            7 => (10..=9 + BLOCK_LEN as usize).contains(&len),
            9 => len == 3,
            20 => (2..=2 + MAX_EXTENDED).contains(&len),
            21 | 23 => len == 49,
            22 => (49..=49 + 32 * MAX_HASHES).contains(&len) && (len - 49).is_multiple_of(32),
            _ => len <= MAX_UNKNOWN,
        }
    }

    /// A message whose length was checked.
    fn message(&self, id: u8, mut body: Bytes) -> Result<Message, WireError> {
        Ok(match id {
            0 => Message::Choke,
            1 => Message::Unchoke,
            2 => Message::Interested,
            3 => Message::NotInterested,
            4 => Message::Have(body.get_u32()),
            5 => {
                if let Some(pieces) = self.pieces {
                    let spare = body.len() as u32 * 8 - pieces;
                    if body
                        .last()
                        .is_some_and(|last| last.trailing_zeros() < spare)
                    {
                        return Err(WireError::SpareBits);
                    }
                }
                Message::Bitfield(body)
            }
            6 => Message::Request(block(&mut body)),
            7 => Message::Piece {
                piece: body.get_u32(),
                begin: body.get_u32(),
                data: body,
            },
            8 => Message::Cancel(block(&mut body)),
            9 => Message::Port(body.get_u16()),
            13 => Message::Suggest(body.get_u32()),
            14 => Message::HaveAll,
            15 => Message::HaveNone,
            16 => Message::Reject(block(&mut body)),
            17 => Message::AllowedFast(body.get_u32()),
            20 => Message::Extended {
                id: body.get_u8(),
                body,
            },
            21 => Message::HashRequest(hash_range(&mut body)),
            22 => Message::Hashes {
                range: hash_range(&mut body),
                hashes: body,
            },
            23 => Message::HashReject(hash_range(&mut body)),
            other => Message::Unknown(other),
        })
    }
}

fn block(body: &mut Bytes) -> Block {
    Block {
        piece: body.get_u32(),
        begin: body.get_u32(),
        len: body.get_u32(),
    }
}

fn hash_range(body: &mut Bytes) -> HashRange {
    let mut pieces_root = [0; 32];
    body.copy_to_slice(&mut pieces_root);
    HashRange {
        pieces_root,
        base_layer: body.get_u32(),
        index: body.get_u32(),
        length: body.get_u32(),
        proof_layers: body.get_u32(),
    }
}

#[cfg(test)]
mod tests;
