//! [`PieceAssembly`]: what many sources deliver of a torrent, put together and checked piece by
//! piece, with blame where a piece fails.
//!
//! Sources need not be BitTorrent peers, and what they deliver need not be blocks: any bytes of
//! the stream will do. Nothing leaves but bytes of verified pieces, by file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chiral_core::{Bitmap, ByteRange};

use super::merkle::BLOCK_LEN;
use super::metainfo::Metainfo;
use super::pieces::{PieceError, PieceHasher, VerifiedPiece};
use super::smart_ban::SmartBan;

/// Bytes of a file, from a verified piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The file, by its number in the layout.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// What is there.
    pub bytes: Bytes,
}

/// What became of a piece when its last byte arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<S> {
    /// It passed.
    Verified {
        /// The proof.
        piece: VerifiedPiece,
        /// All its bytes but for padding, in order, to be written.
        parts: Vec<FilePart>,
        /// Who sent wrong blocks of it before: to be banned.
        liars: BTreeSet<S>,
    },
    /// It did not; all of it is to be fetched again.
    Failed {
        /// The piece.
        piece: u32,
        /// Who sent all of it: to be banned. Of several nobody is to blame yet; fetched again,
        /// best from one of them alone, it will show who lied.
        to_blame: Option<S>,
        /// Everybody who sent something of it.
        senders: BTreeSet<S>,
    },
}

#[derive(Debug)]
struct Open<S> {
    hasher: PieceHasher,
    /// By where they begin.
    parts: BTreeMap<u32, (S, Bytes)>,
}

/// Pieces on their way. `S` names a source.
#[derive(Debug)]
pub struct PieceAssembly<S> {
    torrent: Arc<Metainfo>,
    have: Bitmap,
    open: BTreeMap<u32, Open<S>>,
    ban: SmartBan<S>,
    held: u64,
    limit: u64,
}

impl<S: Copy + Ord> PieceAssembly<S> {
    /// For a torrent of which some pieces are there already. At most `limit` bytes are held in
    /// memory, and no fewer than two pieces.
    pub fn new(torrent: Arc<Metainfo>, have: Bitmap, limit: u64) -> Self {
        let least = 2 * u64::from(torrent.layout().piece_length());
        Self {
            torrent,
            have,
            open: BTreeMap::new(),
            ban: SmartBan::new(),
            held: 0,
            limit: limit.max(least),
        }
    }

    /// Pieces that are verified.
    pub fn have(&self) -> &Bitmap {
        &self.have
    }

    /// Bytes held in memory, of pieces that are not complete.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// What is missing of a piece, relative to its start; nothing of one that is verified.
    pub fn lacks(&self, piece: u32) -> Vec<std::ops::Range<u32>> {
        match self.open.get(&piece) {
            _ if self.have.get(piece) => Vec::new(),
            Some(open) => open.hasher.lacks(),
            None => {
                let hasher = self.torrent.hasher(piece);
                hasher.map(|hasher| hasher.lacks()).unwrap_or_default()
            }
        }
    }

    /// Lets go of what is held of a piece.
    pub fn discard(&mut self, piece: u32) {
        if let Some(open) = self.open.remove(&piece) {
            let bytes = open.parts.values().map(|(_, bytes)| bytes.len() as u64);
            self.held -= bytes.sum::<u64>();
        }
    }

    /// Takes bytes of a piece. Costs their hashing.
    ///
    /// # Errors
    /// [`PieceError::Range`] and [`PieceError::Duplicate`], [`PieceError::Unknown`] for a piece
    /// that nothing is known to check against, [`PieceError::Full`]: nothing was taken.
    pub fn put(
        &mut self,
        source: S,
        piece: u32,
        begin: u32,
        bytes: Bytes,
    ) -> Result<Option<Outcome<S>>, PieceError> {
        if self.have.get(piece) {
            return Err(PieceError::Duplicate { piece, begin });
        }
        let len = bytes.len() as u64;
        if self.held + len > self.limit {
            return Err(PieceError::Full { limit: self.limit });
        }
        let mut open = match self.open.remove(&piece) {
            Some(open) => open,
            None => Open {
                hasher: self
                    .torrent
                    .hasher(piece)
                    .ok_or(PieceError::Unknown { piece })?,
                parts: BTreeMap::new(),
            },
        };
        let fed = open.hasher.feed(begin, bytes.clone());
        if fed.is_ok() {
            self.held += len;
            open.parts.insert(begin, (source, bytes));
        }
        if fed.is_err() || !open.hasher.is_complete() {
            if !open.parts.is_empty() {
                self.open.insert(piece, open);
            }
            return fed.map(|()| None);
        }
        let bytes = open.parts.values().map(|(_, bytes)| bytes.len() as u64);
        self.held -= bytes.sum::<u64>();
        match open.hasher.finish() {
            Ok(verified) => Ok(Some(self.passed(verified, open.parts))),
            Err(_) => Ok(Some(self.failed(piece, open.parts))),
        }
    }

    /// Takes bytes of the stream, across pieces; what is padding, or there already, is passed
    /// over.
    ///
    /// # Errors
    /// [`PieceError::Range`] past the end of the stream, before anything is taken;
    /// [`PieceError::Unknown`] and [`PieceError::Full`] after what came before was taken.
    pub fn put_stream(
        &mut self,
        source: S,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Vec<Outcome<S>>, PieceError> {
        let torrent = Arc::clone(&self.torrent);
        let layout = torrent.layout();
        let end = offset.checked_add(bytes.len() as u64);
        let Some(end) = end.filter(|end| *end <= layout.size()) else {
            return Err(PieceError::Range {
                piece: layout.piece_at(offset.min(layout.size())),
                begin: 0,
                length: bytes.len(),
            });
        };
        let mut outcomes = Vec::new();
        for piece in layout.pieces_of(ByteRange::new(offset, end)) {
            let whole = layout.piece_range(piece);
            for lack in self.lacks(piece) {
                let place = |at: u32| whole.start + u64::from(at);
                let lack = ByteRange::new(place(lack.start), place(lack.end));
                let Some(part) = lack.intersection(ByteRange::new(offset, end)) else {
                    continue;
                };
                let cut = |at: u64| (at - offset) as usize;
                let bytes = bytes.slice(cut(part.start)..cut(part.end));
                let begin = (part.start - whole.start) as u32;
                outcomes.extend(self.put(source, piece, begin, bytes)?);
            }
        }
        Ok(outcomes)
    }

    fn passed(&mut self, verified: VerifiedPiece, parts: BTreeMap<u32, (S, Bytes)>) -> Outcome<S> {
        let piece = verified.piece();
        let liars = match self.ban.has_failed(piece) {
            true => {
                let mut whole = vec![0; self.torrent.layout().piece_len(piece) as usize];
                for (begin, (_, bytes)) in &parts {
                    whole[*begin as usize..][..bytes.len()].copy_from_slice(bytes);
                }
                self.ban.passed(piece, &whole)
            }
            false => BTreeSet::new(),
        };
        self.have.set(piece, true);
        Outcome::Verified {
            parts: self.by_file(piece, parts),
            piece: verified,
            liars,
        }
    }

    /// Cuts at the borders of files, without copying.
    fn by_file(&self, piece: u32, parts: BTreeMap<u32, (S, Bytes)>) -> Vec<FilePart> {
        let layout = self.torrent.layout();
        let start = layout.piece_range(piece).start;
        let mut cut = Vec::with_capacity(parts.len());
        for (begin, (_, bytes)) in parts {
            let at = start + u64::from(begin);
            let range = ByteRange::new(at, at + bytes.len() as u64);
            cut.extend(layout.segments(range).filter_map(|segment| {
                let from = (segment.stream.start - at) as usize;
                Some(FilePart {
                    file: segment.file?,
                    offset: segment.offset,
                    bytes: bytes.slice(from..from + segment.stream.len() as usize),
                })
            }));
        }
        cut
    }

    fn failed(&mut self, piece: u32, parts: BTreeMap<u32, (S, Bytes)>) -> Outcome<S> {
        let senders: BTreeSet<S> = parts.values().map(|(sender, _)| *sender).collect();
        let mut one = senders.iter().copied();
        let to_blame = one.next().filter(|_| one.next().is_none());
        if to_blame.is_none() {
            let len = self.torrent.layout().piece_len(piece);
            let blocks = blocks_of_one(len, &parts);
            let blocks = blocks
                .iter()
                .map(|(begin, sender, bytes)| (*begin, *sender, &bytes[..]));
            self.ban.note(piece, blocks);
        }
        Outcome::Failed {
            piece,
            to_blame,
            senders,
        }
    }
}

/// Blocks all of whose bytes came from one sender: only of these somebody can be to blame.
fn blocks_of_one<S: Copy + Ord>(
    len: u32,
    parts: &BTreeMap<u32, (S, Bytes)>,
) -> Vec<(u32, S, Bytes)> {
    let mut blocks = Vec::new();
    for begin in (0..len).step_by(BLOCK_LEN as usize) {
        let end = begin.saturating_add(BLOCK_LEN).min(len);
        // The part that the block begins in comes before it, or with it.
        let first = parts
            .range(..=begin)
            .next_back()
            .map_or(begin, |(at, _)| *at);
        let mut block = BytesMut::with_capacity((end - begin) as usize);
        let mut sender = None;
        let mut mixed = false;
        for (at, (from, bytes)) in parts.range(first..end) {
            let cut = |edge: u32| (edge.max(*at) - at).min(bytes.len() as u32) as usize;
            let part = &bytes[cut(begin)..cut(end)];
            if !part.is_empty() {
                mixed |= *sender.get_or_insert(*from) != *from;
                block.extend_from_slice(part);
            }
        }
        // One with padding in it is shorter, and no block of anybody's.
        if let Some(sender) = sender.filter(|_| !mixed && block.len() as u32 == end - begin) {
            blocks.push((begin, sender, block.freeze()));
        }
    }
    blocks
}

#[cfg(test)]
mod tests;
