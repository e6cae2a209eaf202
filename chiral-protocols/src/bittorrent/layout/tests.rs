use chiral_core::ChunkLayout;
use proptest::prelude::*;

use super::*;

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = prop_oneof![
        4 => (0u64..200_000).prop_map(Entry::File),
        1 => (0u64..40_000).prop_map(Entry::Padding),
    ];
    prop::collection::vec(entry, 0..12)
}

#[test]
fn what_makes_no_torrent_is_refused() {
    for piece_length in [0, MAX_PIECE_LENGTH + 1, u32::MAX] {
        let refused = TorrentLayout::new(piece_length, [Entry::File(1)]);
        assert!(matches!(refused, Err(LayoutError::PieceLength { .. })));
    }
    let huge = [Entry::File(u64::MAX), Entry::File(2)];
    assert_eq!(
        TorrentLayout::new(1 << 20, huge),
        Err(LayoutError::TooLarge)
    );
    let many = TorrentLayout::new(1, [Entry::File(u64::from(MAX_PIECES) + 1)]);
    assert!(matches!(many, Err(LayoutError::TooManyPieces { .. })));
    let none = TorrentLayout::new(1 << 14, []).unwrap();
    assert_eq!(
        (none.piece_count(), none.piece_len(0), none.size()),
        (0, 0, 0)
    );
}

#[test]
fn pieces_and_chunks_that_do_not_divide_each_other() {
    let size = 3 * 262_144 + 1000;
    let layout = TorrentLayout::new(100_000, [Entry::File(size)]).unwrap();
    let chunks = ChunkLayout::new(size).unwrap();
    assert_eq!(layout.piece_count(), 8);
    assert_eq!(layout.piece_len(7), 87_432);
    assert_eq!(layout.block_count(0), 7);
    assert_eq!(layout.block(0, 6), 98_304..100_000);
    // Chunk 1 is bytes 262,144 to 524,288: pieces 2 to 5.
    assert_eq!(layout.pieces_of(chunks.range(1)), 2..6);
    let mut have = Bitmap::new(8);
    for piece in 2..6 {
        have.set(piece, true);
    }
    let covered = layout.file_coverage(0, &have);
    let whole = (0..chunks.count()).filter(|chunk| covered.covers(chunks.range(*chunk)));
    assert_eq!(whole.collect::<Vec<_>>(), [1]);
}

#[test]
fn a_piece_of_version_2_ends_with_its_file() {
    let layout = TorrentLayout::aligned(65_536, [70_000, 0, 5, 65_536, 1]).unwrap();
    assert_eq!(layout.piece_count(), 5);
    let lens: Vec<u32> = (0..5).map(|piece| layout.piece_len(piece)).collect();
    assert_eq!(lens, [65_536, 4464, 5, 65_536, 1]);
    assert_eq!(layout.file_pieces(1), 0..0);
    assert_eq!(layout.file_pieces(2), 2..3);
    assert!(layout.padding(1).is_empty());
    assert!(layout.may_ask(1, 0, 4464) && !layout.may_ask(1, 0, 4465));
    assert_eq!(layout.payload(), 70_000 + 5 + 65_536 + 1);
}

#[test]
fn what_a_peer_may_ask() {
    let layout = TorrentLayout::new(40_000, [Entry::File(50_000)]).unwrap();
    for (piece, begin, length) in [(0, 0, 1), (0, 32_768, 7232), (1, 5, 9995), (0, 39_999, 1)] {
        assert!(
            layout.may_ask(piece, begin, length),
            "{piece} {begin} {length}"
        );
    }
    for (piece, begin, length) in [
        (0, 0, 0),
        (0, 0, 16_385),
        (0, 39_999, 2),
        (0, 40_000, 1),
        (1, 9999, 2),
        (2, 0, 1),
        (u32::MAX, 0, 1),
        (0, u32::MAX, 1),
        (0, 1, u32::MAX),
    ] {
        assert!(
            !layout.may_ask(piece, begin, length),
            "{piece} {begin} {length}"
        );
    }
}

proptest! {
    #[test]
    fn pieces_blocks_and_segments_make_up_the_stream(
        entries in entries(), piece_length in 1u32..70_000, aligned in any::<bool>(),
    ) {
        let files = || entries.iter().filter_map(|entry| match entry {
            Entry::File(len) => Some(*len),
            Entry::Padding(_) => None,
        });
        let layout = match aligned {
            true => TorrentLayout::aligned(piece_length.max(300), files()),
            false => TorrentLayout::new(piece_length.max(300), entries.clone()),
        }.unwrap();
        prop_assert_eq!(layout.payload(), files().sum::<u64>());
        let (mut bytes, mut padding) = (0, 0);
        for piece in 0..layout.piece_count() {
            let range = layout.piece_range(piece);
            prop_assert_eq!(layout.piece_at(range.start), piece);
            prop_assert!(!range.is_empty());
            let blocks: u32 = (0..layout.block_count(piece))
                .map(|block| layout.block(piece, block).len() as u32).sum();
            prop_assert_eq!(blocks, layout.piece_len(piece));
            let mut at = range.start;
            for segment in layout.segments(range) {
                prop_assert_eq!(segment.stream.start, at);
                at = segment.stream.end;
                if let Some(file) = segment.file {
                    let within = ByteRange::new(segment.offset, segment.offset + segment.stream.len());
                    prop_assert_eq!(layout.to_stream(file, within), Some(segment.stream));
                    prop_assert!(layout.file_pieces(file).contains(&piece));
                }
            }
            prop_assert_eq!(at, range.end);
            padding += layout.padding(piece).iter().map(|pad| pad.len() as u64).sum::<u64>();
            bytes += range.len();
        }
        prop_assert_eq!(bytes - padding, layout.payload());
    }

    #[test]
    fn all_pieces_of_the_selected_files_cover_them(
        entries in entries(), chosen in any::<u16>(),
    ) {
        let layout = TorrentLayout::new(30_000, entries).unwrap();
        let selected = |file: u32| chosen >> (file % 16) & 1 == 1;
        let needed = layout.needed(selected);
        for file in 0..layout.file_count() {
            let len = layout.file_range(file).unwrap().len();
            let covered = layout.file_coverage(file, &needed).len();
            prop_assert!(covered <= len);
            if selected(file) {
                prop_assert_eq!(covered, len);
            }
        }
        let held = layout.held_pieces(|file, _| selected(file));
        for piece in held.ones() {
            let touched = layout.segments(layout.piece_range(piece));
            prop_assert!(touched.filter_map(|part| part.file).all(selected));
        }
    }
}
