//! [`PieceHashes`]: another network's own hashes of a file, for a download of which neither
//! cid nor root is known.

use std::fmt;

/// What a torrent, or something like it, says of the bytes: they are cut into pieces, and
/// each piece has a hash.
///
/// A download that is given these believes them as it believes a cid: they come from the
/// link that the user chose. Bytes count as right once every piece that they lie in has
/// passed; the cid is what all of them together turn out to have.
pub trait PieceHashes: Send + Sync + fmt::Debug + 'static {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// Bytes of every piece but the last, which is what is left. Never 0.
    fn piece_length(&self) -> u64;

    /// Checks a piece. Indices are below `size / piece_length`, rounded up.
    fn checker(&self, piece: u32) -> Box<dyn PieceChecker>;
}

/// The check of one piece.
pub trait PieceChecker: Send {
    /// Takes the next bytes of the piece, in order.
    fn update(&mut self, bytes: &[u8]);

    /// Whether all bytes of the piece have come and are right.
    fn passes(self: Box<Self>) -> bool;
}
