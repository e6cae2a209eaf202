//! [`Message`]: what peers say to each other after the handshake.

use bytes::{BufMut, Bytes, BytesMut};

use super::Block;

/// Longest body of an extended message in bytes, its id not counted: room for a page of a
/// Chiral manifest.
pub const MAX_EXTENDED: usize = 160 << 10;

/// Most hashes in one message (BEP 52): those asked for and their proof.
pub const MAX_HASHES: usize = 512 + 64;

/// Hashes of a file's tree as BEP 52 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// Root of the file's pieces.
    pub pieces_root: [u8; 32],
    /// Layer of the tree, 0 being that of the 16 KiB leaves.
    pub base_layer: u32,
    /// The first hash of the layer.
    pub index: u32,
    /// How many.
    pub length: u32,
    /// How many layers of uncle hashes follow.
    pub proof_layers: u32,
}

/// A message, without its length prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing; keeps the connection open.
    KeepAlive,
    /// Requests are not answered any more.
    Choke,
    /// Requests are answered.
    Unchoke,
    /// The sender would request something if it were unchoked.
    Interested,
    /// It would not.
    NotInterested,
    /// The sender has this piece.
    Have(u32),
    /// The sender has these pieces; the first message, if at all.
    Bitfield(Bytes),
    /// Asks for a block.
    Request(Block),
    /// A block.
    Piece {
        /// Index of its piece.
        piece: u32,
        /// First byte within the piece.
        begin: u32,
        /// The bytes, at least one.
        data: Bytes,
    },
    /// Takes a request back.
    Cancel(Block),
    /// UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// A piece that is good to ask for (BEP 6).
    Suggest(u32),
    /// The sender has all pieces (BEP 6).
    HaveAll,
    /// The sender has none (BEP 6).
    HaveNone,
    /// A request is not answered (BEP 6).
    Reject(Block),
    /// A piece that may be asked for though choked (BEP 6).
    AllowedFast(u32),
    /// A message of an extension (BEP 10).
    Extended {
        /// The receiver's number for it; 0 is the extended handshake.
        id: u8,
        /// What it says.
        body: Bytes,
    },
    /// Asks for hashes of a tree (BEP 52).
    HashRequest(HashRange),
    /// Hashes of a tree, then their proof.
    Hashes {
        /// What was asked.
        range: HashRange,
        /// 32 bytes each.
        hashes: Bytes,
    },
    /// They are not answered.
    HashReject(HashRange),
    /// A message that no standard here knows; to be ignored.
    Unknown(u8),
}

/// Length prefix, id and place of a block, which the data follows.
pub fn piece_header(block: Block) -> [u8; 13] {
    let mut header = [0; 13];
    header[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
    header[4] = 7;
    header[5..9].copy_from_slice(&block.piece.to_be_bytes());
    header[9..].copy_from_slice(&block.begin.to_be_bytes());
    header
}

impl Message {
    /// Appends the message with its length prefix.
    pub fn encode(&self, out: &mut BytesMut) {
        let plain = |out: &mut BytesMut, id: u8| {
            out.put_u32(1);
            out.put_u8(id);
        };
        let one = |out: &mut BytesMut, id: u8, number: u32| {
            out.put_u32(5);
            out.put_u8(id);
            out.put_u32(number);
        };
        let block = |out: &mut BytesMut, id: u8, block: &Block| {
            out.put_u32(13);
            out.put_u8(id);
            out.put_u32(block.piece);
            out.put_u32(block.begin);
            out.put_u32(block.len);
        };
        let hash = |out: &mut BytesMut, id: u8, range: &HashRange, more: usize| {
            out.put_u32(49 + more as u32);
            out.put_u8(id);
            out.put_slice(&range.pieces_root);
            for number in [
                range.base_layer,
                range.index,
                range.length,
                range.proof_layers,
            ] {
                out.put_u32(number);
            }
        };
        match self {
            Self::KeepAlive => out.put_u32(0),
            Self::Choke => plain(out, 0),
            Self::Unchoke => plain(out, 1),
            Self::Interested => plain(out, 2),
            Self::NotInterested => plain(out, 3),
            Self::Have(piece) => one(out, 4, *piece),
            Self::Bitfield(bits) => {
                out.put_u32(1 + bits.len() as u32);
                out.put_u8(5);
                out.put_slice(bits);
            }
            Self::Request(asked) => block(out, 6, asked),
            Self::Piece { piece, begin, data } => {
                let (piece, begin, len) = (*piece, *begin, data.len() as u32);
                out.put_slice(&piece_header(Block { piece, begin, len }));
                out.put_slice(data);
            }
            Self::Cancel(asked) => block(out, 8, asked),
            Self::Port(port) => {
                out.put_u32(3);
                out.put_u8(9);
                out.put_u16(*port);
            }
            Self::Suggest(piece) => one(out, 13, *piece),
            Self::HaveAll => plain(out, 14),
            Self::HaveNone => plain(out, 15),
            Self::Reject(asked) => block(out, 16, asked),
            Self::AllowedFast(piece) => one(out, 17, *piece),
            Self::Extended { id, body } => {
                out.put_u32(2 + body.len() as u32);
                out.put_u8(20);
                out.put_u8(*id);
                out.put_slice(body);
            }
            Self::HashRequest(range) => hash(out, 21, range, 0),
            Self::Hashes { range, hashes } => {
                hash(out, 22, range, hashes.len());
                out.put_slice(hashes);
            }
            Self::HashReject(range) => hash(out, 23, range, 0),
            Self::Unknown(id) => plain(out, *id),
        }
    }
}
