//! [`TorrentLayout`]: the one stream of bytes that a torrent's files make, cut into pieces and
//! blocks.
//!
//! Files follow each other in the order of the torrent, with padding between them where it has
//! some. A torrent of version 2 alone names no padding, but begins every file with a piece: the
//! gap is padding here too, and the piece before it ends where its file ends.
//!
//! Pieces and Chiral's chunks need not divide each other. What is common to both are bytes of a
//! file: [`TorrentLayout::file_coverage`] says which are right once some pieces are.

use std::ops::Range;

use chiral_core::{Bitmap, ByteRange, RangeSet};

use super::merkle::BLOCK_LEN;

/// Limit on the bytes of a torrent, padding included: 2^60.
pub const MAX_TORRENT_SIZE: u64 = 1 << 60;

/// Limit on the pieces of a torrent. (libtorrent's is 2^21 unless raised.)
pub const MAX_PIECES: u32 = 1 << 23;

/// Limit on the length of a piece: 512 MiB.
pub const MAX_PIECE_LENGTH: u32 = 1 << 29;

/// Why files and a piece length make no torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Pieces of no bytes, or of more than [`MAX_PIECE_LENGTH`].
    #[error("a piece length of {piece_length} bytes")]
    PieceLength {
        /// The length found.
        piece_length: i64,
    },
    /// Over [`MAX_TORRENT_SIZE`] in all.
    #[error("files of more than 2^60 bytes")]
    TooLarge,
    /// Over [`MAX_PIECES`].
    #[error("{pieces} pieces, over the limit of {MAX_PIECES}")]
    TooManyPieces {
        /// Pieces found.
        pieces: u64,
    },
}

/// A part of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    len: u64,
    /// None for padding.
    file: Option<u32>,
}

impl Span {
    fn range(&self) -> ByteRange {
        ByteRange::new(self.start, self.start + self.len)
    }
}

/// A part of the stream that lies in one file, or in padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The file by its number, without padding files; `None` for padding: zero bytes that are
    /// nowhere written.
    pub file: Option<u32>,
    /// Where in the file it begins.
    pub offset: u64,
    /// Where in the stream it lies.
    pub stream: ByteRange,
}

/// What comes next in a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file of so many bytes, perhaps none.
    File(u64),
    /// So many bytes of padding.
    Padding(u64),
}

/// The pieces of a torrent and the files in them. Files are numbered from 0 as they come,
/// without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentLayout {
    piece_length: u32,
    size: u64,
    /// In order, without empty ones.
    spans: Vec<Span>,
    /// Where each file lies.
    files: Vec<ByteRange>,
    /// Version 2 alone: a piece ends where its file does.
    short_pieces: bool,
}

impl TorrentLayout {
    /// Of what a torrent of version 1, or of both, names.
    ///
    /// # Errors
    /// [`LayoutError`], by case.
    pub fn new(
        piece_length: u32,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, LayoutError> {
        Self::build(piece_length, entries, false)
    }

    /// Of files that each begin with a piece (version 2).
    ///
    /// # Errors
    /// [`LayoutError`], by case.
    pub fn aligned(
        piece_length: u32,
        files: impl IntoIterator<Item = u64>,
    ) -> Result<Self, LayoutError> {
        let files = files.into_iter().map(Entry::File);
        Self::build(piece_length, files, true)
    }

    fn build(
        piece_length: u32,
        entries: impl IntoIterator<Item = Entry>,
        short_pieces: bool,
    ) -> Result<Self, LayoutError> {
        if piece_length == 0 || piece_length > MAX_PIECE_LENGTH {
            let piece_length = piece_length.into();
            return Err(LayoutError::PieceLength { piece_length });
        }
        let mut layout = Self {
            piece_length,
            size: 0,
            spans: Vec::new(),
            files: Vec::new(),
            short_pieces,
        };
        for entry in entries {
            match entry {
                Entry::Padding(len) => layout.push(len, None)?,
                Entry::File(len) => {
                    let gap = layout.size.next_multiple_of(piece_length.into()) - layout.size;
                    if short_pieces && len > 0 && gap > 0 {
                        layout.push(gap, None)?;
                    }
                    let start = layout.size;
                    layout.push(len, Some(layout.files.len() as u32))?;
                    layout.files.push(ByteRange::new(start, layout.size));
                }
            }
        }
        let pieces = layout.size.div_ceil(piece_length.into());
        match pieces <= MAX_PIECES.into() {
            true => Ok(layout),
            false => Err(LayoutError::TooManyPieces { pieces }),
        }
    }

    fn push(&mut self, len: u64, file: Option<u32>) -> Result<(), LayoutError> {
        let end = self
            .size
            .checked_add(len)
            .filter(|end| *end <= MAX_TORRENT_SIZE);
        let end = end.ok_or(LayoutError::TooLarge)?;
        if len > 0 {
            let start = self.size;
            self.spans.push(Span { start, len, file });
        }
        self.size = end;
        Ok(())
    }

    /// Bytes of a piece, but for the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes of the stream, padding included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of all files.
    pub fn payload(&self) -> u64 {
        self.files.iter().map(ByteRange::len).sum()
    }

    /// Number of pieces; a torrent of empty files has none.
    pub fn piece_count(&self) -> u32 {
        self.size.div_ceil(self.piece_length.into()) as u32
    }

    /// Where a piece lies in the stream; empty past the end.
    pub fn piece_range(&self, piece: u32) -> ByteRange {
        let start = u64::from(piece) * u64::from(self.piece_length);
        let end = (start + u64::from(self.piece_length)).min(self.size);
        if start >= end {
            return ByteRange::new(self.size, self.size);
        }
        if !self.short_pieces {
            return ByteRange::new(start, end);
        }
        // It begins with the bytes of its file, and has no others.
        match self.spans.get(self.span_at(start)) {
            Some(span) => ByteRange::new(start, end.min(span.range().end)),
            None => ByteRange::new(start, end),
        }
    }

    /// A piece with the gap behind it (version 2): up to where the next one begins.
    pub fn piece_span(&self, piece: u32) -> ByteRange {
        let range = self.piece_range(piece);
        let end = range.start + u64::from(self.piece_length);
        ByteRange::new(range.start, end.min(self.size))
    }

    /// Bytes of a piece: what its hash is over, what peers may be asked for.
    pub fn piece_len(&self, piece: u32) -> u32 {
        self.piece_range(piece).len() as u32
    }

    /// The piece that a byte of the stream lies in.
    pub fn piece_at(&self, offset: u64) -> u32 {
        (offset / u64::from(self.piece_length)) as u32
    }

    /// Blocks of 16 KiB in a piece, the last one short.
    pub fn block_count(&self, piece: u32) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// A block within its piece; empty past the end.
    pub fn block(&self, piece: u32, block: u32) -> Range<u32> {
        let len = self.piece_len(piece);
        let start = block.saturating_mul(BLOCK_LEN).min(len);
        start..start.saturating_add(BLOCK_LEN).min(len)
    }

    /// Whether a peer may ask for these bytes of a piece: at least one, at most 16 KiB, all of
    /// them there. (BEP 3: clients close on more.)
    pub fn may_ask(&self, piece: u32, begin: u32, length: u32) -> bool {
        let end = begin.checked_add(length);
        (1..=BLOCK_LEN).contains(&length) && end.is_some_and(|end| end <= self.piece_len(piece))
    }

    /// Number of files, without padding.
    pub fn file_count(&self) -> u32 {
        self.files.len() as u32
    }

    /// Where a file lies in the stream.
    pub fn file_range(&self, file: u32) -> Option<ByteRange> {
        self.files.get(file as usize).copied()
    }

    /// Bytes of a file in the stream.
    pub fn to_stream(&self, file: u32, range: ByteRange) -> Option<ByteRange> {
        let whole = self.file_range(file)?;
        let inside = range.start <= range.end && range.end <= whole.len();
        inside.then(|| ByteRange::new(whole.start + range.start, whole.start + range.end))
    }

    /// The pieces that bytes of the stream lie in.
    pub fn pieces_of(&self, stream: ByteRange) -> Range<u32> {
        if stream.is_empty() {
            return 0..0;
        }
        self.piece_at(stream.start)..self.piece_at(stream.end - 1) + 1
    }

    /// The pieces that hold something of a file; none of an empty one.
    pub fn file_pieces(&self, file: u32) -> Range<u32> {
        self.file_range(file)
            .map_or(0..0, |range| self.pieces_of(range))
    }

    /// The files and padding that bytes of the stream lie in, in order.
    pub fn segments(&self, stream: ByteRange) -> impl Iterator<Item = Segment> + '_ {
        let first = self.span_at(stream.start);
        let spans = self.spans.get(first..).unwrap_or_default().iter();
        spans
            .take_while(move |span| span.start < stream.end)
            .filter_map(move |span| {
                let part = span.range().intersection(stream)?;
                Some(Segment {
                    file: span.file,
                    offset: part.start - span.start,
                    stream: part,
                })
            })
    }

    /// The span that a byte lies in.
    fn span_at(&self, offset: u64) -> usize {
        self.spans
            .partition_point(|span| span.start + span.len <= offset)
    }

    /// Padding within a piece, relative to its start.
    pub fn padding(&self, piece: u32) -> Vec<Range<u32>> {
        self.padding_in(self.piece_range(piece))
    }

    /// The same, with the gap behind the piece.
    pub fn padding_and_gap(&self, piece: u32) -> Vec<Range<u32>> {
        self.padding_in(self.piece_span(piece))
    }

    fn padding_in(&self, whole: ByteRange) -> Vec<Range<u32>> {
        self.segments(whole)
            .filter(|segment| segment.file.is_none())
            .map(|segment| {
                let from = |offset| (offset - whole.start) as u32;
                from(segment.stream.start)..from(segment.stream.end)
            })
            .collect()
    }

    /// The pieces that are needed for some of the files.
    pub fn needed(&self, mut selected: impl FnMut(u32) -> bool) -> Bitmap {
        let mut pieces = Bitmap::new(self.piece_count());
        for file in (0..self.file_count()).filter(|file| selected(*file)) {
            for piece in self.file_pieces(file) {
                pieces.set(piece, true);
            }
        }
        pieces
    }

    /// Bytes of a file that lie in the pieces that one has.
    pub fn file_coverage(&self, file: u32, pieces: &Bitmap) -> RangeSet {
        let Some(whole) = self.file_range(file) else {
            return RangeSet::new();
        };
        self.file_pieces(file)
            .filter(|piece| pieces.get(*piece))
            .filter_map(|piece| self.piece_range(piece).intersection(whole))
            .map(|part| ByteRange::new(part.start - whole.start, part.end - whole.start))
            .collect()
    }

    /// Pieces all of whose bytes are held, given the bytes of each file that are.
    pub fn held_pieces(&self, mut held: impl FnMut(u32, ByteRange) -> bool) -> Bitmap {
        let mut pieces = Bitmap::new(self.piece_count());
        for piece in 0..self.piece_count() {
            let all = self.segments(self.piece_range(piece)).all(|segment| {
                let range = ByteRange::new(segment.offset, segment.offset + segment.stream.len());
                segment.file.is_none_or(|file| held(file, range))
            });
            pieces.set(piece, all);
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
