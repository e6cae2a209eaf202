//! [`Geometry`]: how a torrent is cut in pieces and blocks, and what of it is held.

use chiral_core::{Bitmap, ByteRange, CHUNK_SIZE, ChunkLayout, ChunkRuns, Coverage, RequestGrid};

/// Bytes of a block: what one request asks for, and the most that one may ask for.
pub const BLOCK_LEN: u32 = 16_384;

/// Most pieces of a torrent: of 256 KiB each, 2 TiB; a bitfield of them has 1 MiB.
pub const MAX_PIECES: u32 = 1 << 23;

/// Longest piece in bytes: 512 MiB.
pub const MAX_PIECE_LEN: u32 = crate::bittorrent::layout::MAX_PIECE_LENGTH;

/// A piece length or size that no torrent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no torrent has {length} bytes in pieces of {piece_len}")]
pub struct GeometryError {
    /// Bytes of all files.
    pub length: u64,
    /// Bytes of a piece.
    pub piece_len: u32,
}

/// A block as requests name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// First byte within the piece.
    pub begin: u32,
    /// Number of bytes.
    pub len: u32,
}

/// A block that the torrent does not have, or that nobody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes {}+{} of piece {} cannot be asked for", .block.begin, .block.len, .block.piece)]
pub struct BlockError {
    /// The block.
    pub block: Block,
}

/// A torrent's cutting: pieces of one length, the last one short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    piece_len: u32,
    length: u64,
    padded: bool,
}

impl Geometry {
    /// Of a torrent with this many bytes in pieces of this length.
    ///
    /// # Errors
    /// [`GeometryError`] for nothing at all, pieces of none or over [`MAX_PIECE_LEN`] bytes, and
    /// over [`MAX_PIECES`] pieces.
    pub const fn new(piece_len: u32, length: u64) -> Result<Self, GeometryError> {
        let bad = length == 0
            || piece_len == 0
            || piece_len > MAX_PIECE_LEN
            || length.div_ceil(piece_len as u64) > MAX_PIECES as u64;
        if bad {
            return Err(GeometryError { length, piece_len });
        }
        Ok(Self {
            piece_len,
            length,
            padded: false,
        })
    }

    /// Of a torrent of version 2 alone: peers may ask for a whole block where the file ends, and
    /// get zeros behind its bytes. (libtorrent does; what is asked for here are the bytes.)
    #[must_use]
    pub const fn padded(mut self) -> Self {
        self.padded = true;
        self
    }

    /// Bytes of all pieces.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of a full piece.
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Number of pieces.
    pub const fn pieces(&self) -> u32 {
        self.length.div_ceil(self.piece_len as u64) as u32
    }

    /// Bytes of a bitfield.
    pub const fn bitfield_len(&self) -> usize {
        self.pieces().div_ceil(8) as usize
    }

    /// The bytes of a piece; empty past the last.
    pub const fn piece(&self, index: u32) -> ByteRange {
        let start = index as u64 * self.piece_len as u64;
        let end = start + self.piece_len as u64;
        let end = if end > self.length { self.length } else { end };
        ByteRange::new(if start > end { end } else { start }, end)
    }

    /// Checks a block that somebody names.
    ///
    /// # Errors
    /// [`BlockError`] unless it has 1 to [`BLOCK_LEN`] bytes, all of one piece.
    pub fn check(&self, block: Block) -> Result<(), BlockError> {
        let end = u64::from(block.begin) + u64::from(block.len);
        let inside = block.piece < self.pieces() && end <= self.piece(block.piece).len();
        if !inside || block.len == 0 || block.len > BLOCK_LEN {
            return Err(BlockError { block });
        }
        Ok(())
    }

    /// Checks a block that a peer asks for: as [`Self::check`], but that it may reach over the
    /// end of the last piece where that is [padded](Self::padded).
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn check_asked(&self, block: Block) -> Result<(), BlockError> {
        let last = block.piece == self.pieces() - 1;
        if !self.padded || !last || self.piece(block.piece).len() <= block.begin.into() {
            return self.check(block);
        }
        let end = u64::from(block.begin) + u64::from(block.len);
        if end > self.piece_len.into() || block.len == 0 || block.len > BLOCK_LEN {
            return Err(BlockError { block });
        }
        Ok(())
    }

    /// The bytes of a block that passed [`Self::check`].
    pub fn range(&self, block: Block) -> ByteRange {
        let start = self.piece(block.piece).start + u64::from(block.begin);
        ByteRange::new(start, start + u64::from(block.len))
    }

    /// The longest block that begins at an offset.
    pub fn block_at(&self, offset: u64) -> Block {
        let piece = (offset / u64::from(self.piece_len)) as u32;
        let begin = (offset % u64::from(self.piece_len)) as u32;
        let left = self.piece(piece).end - offset;
        Block {
            piece,
            begin,
            len: left.min(u64::from(BLOCK_LEN)) as u32,
        }
    }

    /// The blocks of a range, rising. It begins on the grid, or where a file does; of a block
    /// that it ends in, the part before the end.
    pub fn blocks(&self, range: ByteRange) -> impl Iterator<Item = Block> + use<> {
        let geometry = *self;
        let mut at = range.start;
        std::iter::from_fn(move || {
            let mut block = (at < range.end).then(|| geometry.block_at(at))?;
            block.len = u64::from(block.len).min(range.end - at) as u32;
            at += u64::from(block.len);
            Some(block)
        })
    }

    /// Where requests are cut.
    pub fn grid(&self) -> RequestGrid {
        RequestGrid::parts(self.piece_len.into(), BLOCK_LEN.into())
    }

    /// What somebody with these pieces has in chunks: those all of whose bytes he has.
    pub fn coverage(&self, pieces: &Bitmap) -> Coverage {
        if pieces.is_full() {
            return Coverage::Complete;
        }
        let last = self.length.div_ceil(CHUNK_SIZE) as u32;
        let chunk = |run: std::ops::Range<u32>| {
            let (start, end) = (self.piece(run.start).start, self.piece(run.end - 1).end);
            let first = start.div_ceil(CHUNK_SIZE) as u32;
            let end = if end == self.length {
                last
            } else {
                (end / CHUNK_SIZE) as u32
            };
            first..end
        };
        let runs = pieces.to_runs();
        Coverage::Partial(ChunkRuns::from_sorted(runs.iter().flat_map(chunk)))
    }

    /// The pieces all of whose bytes are in these chunks.
    pub fn pieces_in(&self, coverage: &Coverage) -> Bitmap {
        let mut pieces = Bitmap::new(self.pieces());
        let Ok(layout) = ChunkLayout::new(self.length) else {
            return pieces;
        };
        for run in coverage.runs(layout).iter() {
            let span = layout.span(run.start, run.end);
            let first = span.start.div_ceil(self.piece_len.into()) as u32;
            let end = if span.end == self.length {
                self.pieces()
            } else {
                (span.end / u64::from(self.piece_len)) as u32
            };
            for piece in first..end {
                pieces.set(piece, true);
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn torrents_that_nobody_makes_are_refused() {
        for (piece_len, length) in [
            (0, 1),
            (16_384, 0),
            (1 << 31, 1),
            (1, 1 << 24),
            (1, u64::MAX),
        ] {
            assert!(
                Geometry::new(piece_len, length).is_err(),
                "{piece_len} {length}"
            );
        }
        assert!(Geometry::new(MAX_PIECE_LEN, u64::from(MAX_PIECE_LEN) << 20).is_ok());
    }

    #[test]
    fn blocks_that_overflow_or_are_too_long_are_refused() {
        let geometry = Geometry::new(32_768, 100_000).unwrap();
        let block = |piece, begin, len| geometry.check(Block { piece, begin, len }).is_ok();
        assert!(block(0, 0, 16_384) && block(3, 0, 1_696) && block(3, 1_695, 1));
        for (piece, begin, len) in [
            (0, 0, 0),
            (0, 0, 16_385),
            (0, 16_385, 16_384),
            (0, u32::MAX, 16_384),
            (0, u32::MAX, u32::MAX),
            (3, 0, 1_697),
            (4, 0, 1),
            (u32::MAX, 0, 1),
        ] {
            assert!(!block(piece, begin, len), "{piece} {begin} {len}");
        }
    }

    #[test]
    fn where_the_end_is_padded_a_whole_block_may_be_asked_for() {
        let plain = Geometry::new(32_768, 65_536 + 5).unwrap();
        let padded = plain.padded();
        let block = |piece, begin, len| Block { piece, begin, len };
        for whole in [block(2, 0, 16_384), block(2, 4, 2), block(2, 0, 6)] {
            assert!(plain.check_asked(whole).is_err());
            assert!(padded.check_asked(whole).is_ok() && padded.check(whole).is_err());
        }
        assert!(padded.check_asked(block(2, 0, 5)).is_ok());
        for wrong in [
            block(2, 0, 0),
            block(2, 0, 16_385),
            block(2, 5, 1),
            block(2, 16_384, 16_384),
            block(2, u32::MAX, 1),
            block(3, 0, 1),
            block(u32::MAX, 0, 1),
            block(1, 32_767, 2),
        ] {
            assert!(padded.check_asked(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_and_chunks_agree_byte_by_byte(
            piece_len in 1u32..900_000, length in 1u64..6_000_000,
            bits in proptest::collection::vec(any::<bool>(), 64),
        ) {
            prop_assume!(length.div_ceil(piece_len.into()) <= 4096);
            let geometry = Geometry::new(piece_len, length).unwrap();
            let layout = ChunkLayout::new(length).unwrap();
            let mut pieces = Bitmap::new(geometry.pieces());
            for index in 0..geometry.pieces() {
                pieces.set(index, bits[index as usize % bits.len()]);
            }
            let held: chiral_core::RangeSet = pieces.ones().map(|i| geometry.piece(i)).collect();
            let coverage = geometry.coverage(&pieces);
            for chunk in 0..layout.count() {
                prop_assert_eq!(coverage.contains(chunk), held.covers(layout.range(chunk)));
            }
            let mine = coverage.to_ranges(layout);
            let back = geometry.pieces_in(&coverage);
            for index in 0..geometry.pieces() {
                prop_assert_eq!(back.get(index), mine.covers(geometry.piece(index)));
            }
        }

        #[test]
        fn blocks_fill_a_range_on_the_grid(piece_len in 1u32..100_000, length in 1u64..400_000,
            a in 0u64..400_000, b in 0u64..400_000) {
            let geometry = Geometry::new(piece_len, length).unwrap();
            let range = ByteRange::new(a.min(b).min(length), a.max(b).min(length));
            let range = geometry.grid().expand(range, length);
            let mut at = range.start;
            for block in geometry.blocks(range) {
                prop_assert!(geometry.check(block).is_ok());
                prop_assert_eq!(geometry.range(block).start, at);
                at = geometry.range(block).end;
            }
            prop_assert_eq!(at, range.end);
        }
    }
}
