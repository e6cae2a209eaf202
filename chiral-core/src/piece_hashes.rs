//! [`PieceHashes`]: another network's own hashes of a file, for a download of which neither
//! cid nor root is known.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::chunk_store::Destination;
use crate::{PartialFile, TransferError};

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

/// What a [`PieceLookup`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundPieces {
    /// How what comes is checked.
    pub hashes: Arc<dyn PieceHashes>,
    /// What the file is called, as a hint.
    pub name: Option<String>,
    /// Where it goes, if that follows from what was found; else as the request has it.
    pub destination: Option<Destination>,
}

impl FoundPieces {
    /// Without a name, to where the request has it.
    pub fn new(hashes: Arc<dyn PieceHashes>) -> Self {
        Self {
            hashes,
            name: None,
            destination: None,
        }
    }
}

/// Learns [`PieceHashes`] that are not known when a download begins, as from the peers of a
/// magnet link, and follows what becomes of them. The download is there meanwhile: it can be
/// paused and cancelled, and its sources connect.
#[async_trait]
pub trait PieceLookup: Send + Sync + fmt::Debug + 'static {
    /// The hashes. Asked for once the download has its turn, and again if it is dropped.
    ///
    /// # Errors
    /// [`TransferError`]: what is to be had cannot be downloaded.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn look_up(&self) -> Result<FoundPieces, TransferError>;

    /// The download has a file, perhaps with chunks of an earlier run in it.
    fn begun(&self, partial: &Arc<dyn PartialFile>) {
        let _ = partial;
    }

    /// Every piece that this chunk of the file lies in has passed.
    fn passed(&self, chunk: u32) {
        let _ = chunk;
    }
}
