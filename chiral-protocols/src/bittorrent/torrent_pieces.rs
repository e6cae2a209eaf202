//! [`TorrentPieces`]: a torrent's own hashes, for a download that knows no others.

use std::ops::Range;
use std::sync::Arc;

use chiral_core::{PieceChecker, PieceHashes};

use super::metainfo::Metainfo;
use super::pieces::PieceHasher;
use super::selection::Selection;

/// The hashes of those pieces of a torrent that a download is for.
#[derive(Debug, Clone)]
pub struct TorrentPieces {
    torrent: Arc<Metainfo>,
    selection: Arc<Selection>,
}

impl TorrentPieces {
    /// Of these pieces.
    pub fn new(torrent: Arc<Metainfo>, selection: Arc<Selection>) -> Self {
        Self { torrent, selection }
    }
}

impl PieceHashes for TorrentPieces {
    fn size(&self) -> u64 {
        self.selection.size()
    }

    fn piece_length(&self) -> u64 {
        self.torrent.layout().piece_length().into()
    }

    fn checker(&self, piece: u32) -> Box<dyn PieceChecker> {
        let piece = self.selection.piece(piece);
        let known = piece.and_then(|piece| StreamChecker::of(&self.torrent, piece));
        Box::new(known.unwrap_or_default())
    }
}

/// Checks a piece as the torrent's stream has it. Padding is part of what comes, and must be
/// zeros; so is the gap behind a piece of version 2, which its hash is not over.
#[derive(Default)]
pub(super) struct StreamChecker {
    /// None if nothing is known of the piece: then it does not pass.
    hasher: Option<PieceHasher>,
    padding: Vec<Range<u32>>,
    at: u32,
    is_bad: bool,
}

impl StreamChecker {
    /// Of a piece; `None` if nothing is known to check it against.
    pub(super) fn of(torrent: &Metainfo, piece: u32) -> Option<Self> {
        Some(Self {
            hasher: Some(torrent.hasher(piece)?),
            padding: torrent.layout().padding_and_gap(piece),
            at: 0,
            is_bad: false,
        })
    }

    /// How many of the next bytes are all padding, or all of files.
    fn step(&self, most: u32) -> (bool, u32) {
        let end = self.at.saturating_add(most);
        for pad in &self.padding {
            if pad.contains(&self.at) {
                return (true, pad.end.min(end) - self.at);
            }
            if self.at < pad.start && pad.start < end {
                return (false, pad.start - self.at);
            }
        }
        (false, end - self.at)
    }
}

impl PieceChecker for StreamChecker {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_bad {
            let most = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let (is_padding, len) = self.step(most);
            let (now, rest) = bytes.split_at(len as usize);
            if is_padding {
                self.is_bad |= now.iter().any(|byte| *byte != 0);
            } else {
                let fed = match &mut self.hasher {
                    Some(hasher) => hasher.feed_slice(self.at, now).is_ok(),
                    None => false,
                };
                self.is_bad |= !fed;
            }
            self.at = self.at.saturating_add(len);
            bytes = rest;
        }
    }

    fn passes(self: Box<Self>) -> bool {
        let hasher = self.hasher.filter(|_| !self.is_bad);
        hasher.is_some_and(|hasher| hasher.finish().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::create::CollectionHasher;
    use crate::bittorrent::metainfo::Version;

    /// A hybrid of two files: the first ends within a piece, padding fills it.
    fn torrent() -> (Metainfo, Vec<u8>) {
        let (first, second) = (vec![1; 20_000], vec![2; 16_384 + 7]);
        let files = vec![
            (vec!["a".to_owned()], first.len() as u64),
            (vec!["b".to_owned()], second.len() as u64),
        ];
        let mut hasher = CollectionHasher::new("dir", files, 16_384, Version::Hybrid).unwrap();
        hasher.update(&first).unwrap();
        hasher.update(&second).unwrap();
        let mut stream = first;
        stream.resize(32_768, 0);
        stream.extend(second);
        (hasher.finish(Default::default()).unwrap(), stream)
    }

    fn passes(pieces: &TorrentPieces, piece: u32, bytes: &[u8]) -> bool {
        let mut checker = pieces.checker(piece);
        // In parts that do not end where padding does.
        bytes.chunks(1000).for_each(|part| checker.update(part));
        checker.passes()
    }

    #[test]
    fn right_pieces_pass_and_no_others() {
        let (torrent, stream) = torrent();
        let torrent = Arc::new(torrent);
        let all = Arc::new(Selection::all(torrent.layout()));
        let pieces = TorrentPieces::new(torrent.clone(), all);
        assert_eq!(pieces.size(), stream.len() as u64);
        for (number, piece) in (0..).zip(stream.chunks(16_384)) {
            assert!(passes(&pieces, number, piece), "{number}");
            for at in [0, piece.len() / 2, piece.len() - 1] {
                let mut wrong = piece.to_vec();
                wrong[at] ^= 1;
                assert!(!passes(&pieces, number, &wrong), "{number} {at}");
            }
            assert!(!passes(&pieces, number, &piece[1..]));
            assert!(!passes(&pieces, number, &[piece, &[0]].concat()));
        }
        assert!(!passes(&pieces, 4, b""), "past the end");

        let second = Selection::of_files(torrent.layout(), |file| file == 1);
        let pieces = TorrentPieces::new(torrent, Arc::new(second));
        assert_eq!(pieces.size(), 16_384 + 7);
        assert!(passes(&pieces, 0, &stream[32_768..49_152]));
        assert!(!passes(&pieces, 0, &stream[..16_384]));
        assert!(passes(&pieces, 1, &stream[49_152..]));
    }
}
