use proptest::prelude::*;

use super::*;
use crate::bittorrent::create::CollectionHasher;
use crate::bittorrent::metainfo::{Outer, Version};

const PIECE: u32 = 65_536;

/// A torrent of three files and its stream, padding included.
fn torrent(version: Version) -> (Arc<Metainfo>, Vec<u8>, Vec<Vec<u8>>) {
    let lens = [100_000u64, 0, 250_001];
    let named = |(i, len): (usize, u64)| (vec![format!("file {i}")], len);
    let list = lens.into_iter().enumerate().map(named).collect();
    let mut hasher = CollectionHasher::new("dir", list, PIECE, version).unwrap();
    let byte = |i: u64| (i.wrapping_mul(2_654_435_761) >> 11) as u8;
    let files = lens.map(|len| (len..2 * len).map(byte).collect::<Vec<u8>>());
    hasher.update(&files.concat()).unwrap();
    let torrent = hasher.finish(Outer::default()).unwrap();
    let mut stream = vec![0; torrent.layout().size() as usize];
    for (number, file) in (0..).zip(&files) {
        let range = torrent.layout().file_range(number).unwrap();
        stream[range.start as usize..range.end as usize].copy_from_slice(file);
    }
    (Arc::new(torrent), stream, files.to_vec())
}

fn assembly(torrent: &Arc<Metainfo>) -> PieceAssembly<u8> {
    let have = Bitmap::new(torrent.layout().piece_count());
    PieceAssembly::new(Arc::clone(torrent), have, 1 << 20)
}

/// Feeds a piece block by block, from senders in turn; of some blocks a bit is wrong.
fn feed(
    assembly: &mut PieceAssembly<u8>,
    stream: &[u8],
    piece: u32,
    senders: &[u8],
    wrong: &[u32],
) -> Outcome<u8> {
    let start = assembly.torrent.layout().piece_range(piece).start as usize;
    let mut last = None;
    for (block, lack) in (0..).zip(blocks(&assembly.lacks(piece))) {
        assert!(last.is_none());
        let mut bytes = stream[start + lack.start as usize..start + lack.end as usize].to_vec();
        if wrong.contains(&block) {
            bytes[7] ^= 1;
        }
        let sender = senders[block as usize % senders.len()];
        last = assembly
            .put(sender, piece, lack.start, bytes.into())
            .unwrap();
    }
    assert_eq!(assembly.held(), 0);
    last.unwrap()
}

fn blocks(lacks: &[std::ops::Range<u32>]) -> Vec<std::ops::Range<u32>> {
    let cut = |lack: &std::ops::Range<u32>| {
        let end = lack.end;
        let starts = (lack.start..end).step_by(BLOCK_LEN as usize);
        starts.map(move |start| start..(start + BLOCK_LEN).min(end))
    };
    lacks.iter().flat_map(cut).collect()
}

#[test]
fn who_sent_a_wrong_piece_alone_is_to_blame_at_once() {
    let (torrent, stream, _) = torrent(Version::V1);
    let mut assembly = assembly(&torrent);
    let failed = feed(&mut assembly, &stream, 0, &[5], &[2]);
    let senders = BTreeSet::from([5]);
    assert_eq!(
        failed,
        Outcome::Failed {
            piece: 0,
            to_blame: Some(5),
            senders,
        }
    );
    assert_eq!(assembly.lacks(0), std::slice::from_ref(&(0..PIECE)));
    let passed = feed(&mut assembly, &stream, 0, &[6], &[]);
    assert!(matches!(passed, Outcome::Verified { liars, .. } if liars.is_empty()));
    assert!(assembly.lacks(0).is_empty() && assembly.have().get(0));
    let again = assembly.put(6, 0, 0, Bytes::from_static(b"x"));
    assert_eq!(again, Err(PieceError::Duplicate { piece: 0, begin: 0 }));
}

#[test]
fn of_several_those_who_lied_are_found_when_the_piece_is_right() {
    for version in [Version::V1, Version::V2, Version::Hybrid] {
        let (torrent, stream, _) = torrent(version);
        let mut assembly = assembly(&torrent);
        for (senders, wrong) in [([1, 2, 3, 4], &[1][..]), ([4, 3, 2, 1], &[1, 3])] {
            let failed = feed(&mut assembly, &stream, 0, &senders, wrong);
            assert!(
                matches!(failed, Outcome::Failed { to_blame: None, .. }),
                "{failed:?}"
            );
        }
        let Outcome::Verified { liars, .. } = feed(&mut assembly, &stream, 0, &[4], &[]) else {
            panic!("right bytes must pass");
        };
        assert_eq!(liars, BTreeSet::from([1, 2, 3]), "{version:?}");
    }
}

#[test]
fn what_cannot_be_checked_or_held_is_not_taken() {
    let (torrent, stream, _) = torrent(Version::V2);
    let mut bare = assembly(&torrent);
    assert_eq!(
        bare.put(1, 6, 0, Bytes::from_static(b"x")),
        Err(PieceError::Unknown { piece: 6 })
    );
    let info = Metainfo::from_info(torrent.info_bytes(), &torrent.hashes()).unwrap();
    let mut bare = assembly(&Arc::new(info));
    assert!(bare.lacks(0).is_empty());
    assert_eq!(
        bare.put(1, 0, 0, Bytes::from_static(b"x")),
        Err(PieceError::Unknown { piece: 0 })
    );
    let have = Bitmap::new(6);
    let mut small = PieceAssembly::new(Arc::clone(&torrent), have, 0);
    for piece in 2..4 {
        let bytes = vec![0; PIECE as usize - 1];
        assert_eq!(small.put(1, piece, 0, bytes.into()), Ok(None));
    }
    let full = small.put(1, 4, 0, vec![0; 3].into());
    assert_eq!(full, Err(PieceError::Full { limit: 131_072 }));
    assert!(full.unwrap_err().is_retryable());
    small.discard(3);
    small.discard(3);
    assert_eq!(small.held(), u64::from(PIECE) - 1);
    let past = small.put_stream(1, stream.len() as u64 - 1, Bytes::from_static(b"xy"));
    assert!(matches!(past, Err(PieceError::Range { .. })));
    let past = small.put_stream(1, u64::MAX, Bytes::from_static(b"xy"));
    assert!(matches!(past, Err(PieceError::Range { .. })));
}

proptest! {
    #[test]
    fn any_parts_of_the_stream_from_anybody_make_up_the_files(
        version in prop::sample::select(vec![Version::V1, Version::V2, Version::Hybrid]),
        cuts in prop::collection::vec((0usize..400_000, 1usize..90_000), 0..30),
    ) {
        let (torrent, stream, files) = torrent(version);
        let mut assembly = assembly(&torrent);
        let mut written: Vec<Vec<u8>> = files.iter().map(|file| vec![0; file.len()]).collect();
        // First what was drawn, overlapping, and then everything, so that nothing is missing.
        let all = (0..stream.len()).step_by(77_777).map(|at| (at, 77_777));
        for (number, (at, len)) in cuts.into_iter().chain(all).enumerate() {
            let at = at.min(stream.len());
            let part = Bytes::copy_from_slice(&stream[at..stream.len().min(at + len)]);
            for outcome in assembly.put_stream(number as u8, at as u64, part).unwrap() {
                let Outcome::Verified { parts, .. } = outcome else {
                    panic!("right bytes must pass");
                };
                for part in parts {
                    let at = part.offset as usize;
                    written[part.file as usize][at..at + part.bytes.len()]
                        .copy_from_slice(&part.bytes);
                }
            }
        }
        prop_assert!(assembly.have().is_full());
        prop_assert_eq!(assembly.held(), 0);
        prop_assert_eq!(written, files);
    }
}
