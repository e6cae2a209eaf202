//! [`Selection`]: the pieces of a torrent that a download is for, and where their bytes are in
//! it.
//!
//! A download is one run of bytes. For a whole torrent that is the torrent's own stream, padding
//! included; for some of its files, the pieces that hold something of them, one behind the
//! other, each with the gap behind it (version 2). Of another length than the others is the
//! torrent's last piece alone, which is the last here too: the download is cut into pieces as
//! the torrent is.

use chiral_core::{Bitmap, ByteRange};

use super::layout::TorrentLayout;

/// A run of bytes, in the download and in the torrent's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it begins in the download.
    pub at: u64,
    /// Where it begins in the stream.
    pub stream: u64,
    /// Its bytes.
    pub len: u64,
}

impl Run {
    /// Where it lies in the download.
    pub fn here(&self) -> ByteRange {
        ByteRange::new(self.at, self.at + self.len)
    }

    /// Where it lies in the stream.
    pub fn there(&self) -> ByteRange {
        ByteRange::new(self.stream, self.stream + self.len)
    }
}

/// Pieces of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    piece_length: u64,
    stream: u64,
    size: u64,
    /// Rising in both, and as long as can be.
    runs: Vec<Run>,
}

impl Selection {
    /// All of them.
    pub fn all(layout: &TorrentLayout) -> Self {
        let size = layout.size();
        let whole = Run {
            at: 0,
            stream: 0,
            len: size,
        };
        Self {
            piece_length: layout.piece_length().into(),
            stream: size,
            size,
            runs: (size > 0).then_some(whole).into_iter().collect(),
        }
    }

    /// Those that hold something of the selected files.
    pub fn of_files(layout: &TorrentLayout, selected: impl FnMut(u32) -> bool) -> Self {
        Self::of_pieces(layout, &layout.needed(selected))
    }

    fn of_pieces(layout: &TorrentLayout, pieces: &Bitmap) -> Self {
        let (mut runs, mut at) = (Vec::<Run>::new(), 0);
        for piece in pieces.ones() {
            let range = layout.piece_span(piece);
            match runs.last_mut() {
                Some(run) if run.there().end == range.start => run.len += range.len(),
                _ => runs.push(Run {
                    at,
                    stream: range.start,
                    len: range.len(),
                }),
            }
            at += range.len();
        }
        Self {
            piece_length: layout.piece_length().into(),
            stream: layout.size(),
            size: at,
            runs,
        }
    }

    /// Bytes of the download.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the torrent's stream.
    pub fn stream_size(&self) -> u64 {
        self.stream
    }

    /// Whether it is the stream itself.
    pub fn is_all(&self) -> bool {
        self.size == self.stream
    }

    /// The torrent's number for a piece of the download.
    pub fn piece(&self, piece: u32) -> Option<u32> {
        let at = u64::from(piece) * self.piece_length;
        let stream = self.to_stream(ByteRange::new(at, at + 1)).next()?;
        u32::try_from(stream.stream / self.piece_length).ok()
    }

    /// Bytes of the download, in the stream.
    pub fn to_stream(&self, here: ByteRange) -> impl Iterator<Item = Run> + use<'_> {
        let first = self
            .runs
            .partition_point(|run| run.here().end <= here.start);
        let runs = self.runs[first..].iter();
        runs.map_while(move |run| {
            let part = run.here().intersection(here)?;
            Some(Run {
                at: part.start,
                stream: run.stream + (part.start - run.at),
                len: part.len(),
            })
        })
    }

    /// Bytes of the stream, in the download; those that it is not for are left out.
    pub fn from_stream(&self, there: ByteRange) -> impl Iterator<Item = Run> + use<'_> {
        let first = self
            .runs
            .partition_point(|run| run.there().end <= there.start);
        let runs = self.runs[first..].iter();
        runs.map_while(move |run| {
            let part = run.there().intersection(there)?;
            Some(Run {
                at: run.at + (part.start - run.stream),
                stream: part.start,
                len: part.len(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bittorrent::layout::Entry;

    fn layout(files: &[u64]) -> TorrentLayout {
        TorrentLayout::new(16, files.iter().copied().map(Entry::File)).unwrap()
    }

    #[test]
    fn a_file_needs_the_pieces_it_lies_in() {
        let layout = layout(&[10, 30, 40, 5]);
        // Bytes 10 to 40 and 80 to 85, in pieces 0 to 2 and 5.
        let selection = Selection::of_files(&layout, |file| file == 1 || file == 3);
        assert_eq!(selection.size(), 48 + 5);
        let pieces: Vec<_> = (0..5).map(|piece| selection.piece(piece)).collect();
        assert_eq!(pieces, [Some(0), Some(1), Some(2), Some(5), None]);
        assert!(!selection.is_all());
        let there: Vec<_> = selection.to_stream(ByteRange::new(40, 53)).collect();
        let run = |at, stream, len| Run { at, stream, len };
        assert_eq!(there, [run(40, 40, 8), run(48, 80, 5)]);
        let here: Vec<_> = selection.from_stream(ByteRange::new(40, 85)).collect();
        assert_eq!(here, there);
        assert_eq!(selection.from_stream(ByteRange::new(50, 70)).count(), 0);
        let all = Selection::of_files(&layout, |_| true);
        assert_eq!(all, Selection::all(&layout));
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_byte(files in proptest::collection::vec(0u64..40, 1..8), mask: u8) {
            let layout = layout(&files);
            let selection = Selection::of_files(&layout, |file| mask & (1 << file) != 0);
            for at in 0..selection.size() {
                let there: Vec<_> = selection.to_stream(ByteRange::new(at, at + 1)).collect();
                prop_assert_eq!(there.len(), 1);
                let byte = there[0].there();
                let back: Vec<_> = selection.from_stream(byte).collect();
                prop_assert_eq!(back, there);
                let piece = selection.piece((at / 16) as u32);
                prop_assert_eq!(piece, Some((byte.start / 16) as u32));
            }
            for (number, len) in (0..).zip(&files) {
                let file = layout.file_range(number).unwrap();
                if mask & (1 << number) != 0 {
                    let held: u64 = selection.from_stream(file).map(|run| run.len).sum();
                    prop_assert_eq!(held, *len);
                }
            }
        }
    }
}
