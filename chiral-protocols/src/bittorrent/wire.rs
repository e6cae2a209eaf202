//! The peer wire as bytes: handshake and messages of BEP 3, 6, 10 and 52, and the cutting of
//! a torrent that they refer to. No socket, no clock, no state but what is half received.
//!
//! Everything is checked as soon as it can be: a message's length once its first five bytes
//! are there, so that nobody has more buffered than the longest message of its kind.

mod decode;
mod geometry;
mod handshake;
mod message;

pub use decode::{Decoder, WireError};
pub use geometry::{
    BLOCK_LEN, Block, BlockError, Geometry, GeometryError, MAX_PIECE_LEN, MAX_PIECES,
};
pub use handshake::{HANDSHAKE_LEN, Handshake, HandshakeError, PROTOCOL, Reserved};
pub use message::{HashRange, MAX_EXTENDED, MAX_HASHES, Message, piece_header};
