//! Torrents of strangers: a layout that holds together, and the same torrent again when
//! written.
#![no_main]

use chiral_protocols::bittorrent::metainfo::Metainfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(torrent) = Metainfo::parse(bytes) else {
        return;
    };
    let layout = torrent.layout();
    let pieces = layout.piece_count();
    for piece in (0..pieces.min(50)).chain(pieces.saturating_sub(2)..pieces + 2) {
        let range = layout.piece_range(piece);
        assert_eq!(range.is_empty(), piece >= pieces);
        let parts = layout.segments(range).map(|part| part.stream.len());
        assert_eq!(parts.sum::<u64>(), range.len());
        let hasher = torrent.hasher(piece).is_some();
        assert!(hasher || piece >= pieces || torrent.missing_trees().next().is_some());
        assert!(!hasher || piece < pieces);
    }
    for (number, file) in (0..).zip(torrent.files()) {
        assert_eq!(layout.file_range(number).map(|range| range.len()), Some(file.len));
    }
    let again = Metainfo::parse(&torrent.encode()).expect("as it was written");
    assert_eq!(again.hashes(), torrent.hashes());
    assert_eq!(again.files(), torrent.files());
    let bare = Metainfo::from_info(torrent.info_bytes(), &torrent.hashes());
    assert_eq!(bare.expect("as it came").layout(), layout);
});
