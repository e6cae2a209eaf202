use std::sync::Arc;

use chiral_core::chunk_store::{ImportRequest, ImportSource};
use chiral_core::{ChunkLayout, ChunkStore};
use chiral_storage::MemoryStore;
use proptest::prelude::*;

use super::*;

fn content(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn hashes(bytes: &[u8], version: Version) -> TorrentHashes {
    let mut hasher = TorrentHasher::new(version);
    bytes.chunks(100_003).for_each(|part| hasher.update(part));
    hasher.finish()
}

/// Every piece of a torrent of one file passes with these bytes.
fn verify(torrent: &Metainfo, bytes: &[u8]) {
    let layout = torrent.layout();
    for piece in 0..layout.piece_count() {
        let mut hasher = torrent.hasher(piece).unwrap();
        let range = layout.piece_range(piece);
        let part = &bytes[range.start as usize..range.end as usize];
        hasher.feed(0, Bytes::copy_from_slice(part)).unwrap();
        assert_eq!(hasher.finish().unwrap().piece(), piece);
    }
}

#[test]
fn the_pieces_of_a_share_are_its_chunks() {
    let bytes = content(3 * PIECE_LENGTH as usize + 17);
    let torrent = hashes(&bytes, Version::V1)
        .metainfo("x", Outer::default())
        .unwrap();
    let chunks = ChunkLayout::new(bytes.len() as u64).unwrap();
    assert_eq!(torrent.layout().piece_count(), chunks.count());
    for chunk in 0..chunks.count() {
        assert_eq!(torrent.layout().piece_range(chunk), chunks.range(chunk));
    }
}

/// What `maketorrent.py`-like tools and libtorrent (without its `private` and dates) give it.
#[test]
fn the_info_dictionary_has_what_it_must_and_nothing_else() {
    let torrent = hashes(b"abc", Version::V1)
        .metainfo("a.txt", Outer::default())
        .unwrap();
    let expected = b"d6:lengthi3e4:name5:a.txt12:piece lengthi262144e6:pieces20:\
        \xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9de";
    assert_eq!(torrent.info_bytes(), &expected[..]);
    let again = hashes(b"abc", Version::V1)
        .metainfo("a.txt", Outer::default())
        .unwrap();
    assert_eq!(again.hashes(), torrent.hashes());
}

#[test]
fn all_sizes_in_all_versions_verify() {
    let piece = PIECE_LENGTH as usize;
    for size in [
        1,
        16_384,
        16_385,
        piece - 1,
        piece,
        piece + 1,
        5 * piece + 40_000,
    ] {
        let bytes = content(size);
        for version in [Version::V1, Version::V2, Version::Hybrid] {
            let hashes = hashes(&bytes, version);
            assert_eq!(hashes.version(), version);
            let torrent = hashes.metainfo("name", Outer::default()).unwrap();
            assert_eq!(torrent.info().version(), version);
            assert!(torrent.info().is_single_file());
            verify(&torrent, &bytes);
            let magnet = torrent.magnet();
            assert_eq!(
                (magnet.hashes, magnet.length),
                (torrent.hashes(), Some(size as u64))
            );
            assert_eq!(magnet.to_string().parse::<Magnet>(), Ok(magnet));
            assert_eq!(TorrentHashes::decode(&hashes.encode()).unwrap(), hashes);
        }
    }
    let nothing = hashes(b"", Version::Hybrid).metainfo("name", Outer::default());
    assert!(matches!(nothing, Err(CreateError::Empty)));
    let nameless = hashes(b"abc", Version::V1).metainfo("", Outer::default());
    assert!(matches!(nameless, Err(CreateError::Refused(_))));
}

#[test]
fn hashes_that_were_kept_and_damaged_are_refused() {
    let whole = hashes(&content(300_000), Version::Hybrid).encode();
    let decode = |bytes: &[u8]| TorrentHashes::decode(bytes).map(drop);
    assert!(decode(&whole).is_ok());
    for bad in [
        &b""[..],
        b"de",
        b"d6:lengthi3e12:piece lengthi262144ee",
        &whole[1..],
    ] {
        assert!(matches!(decode(bad), Err(CreateError::Damaged)));
    }
    for (piece_length, fits) in [(16_384, true), (1 << 29, true), (0, false), (16_383, false)] {
        let hasher = TorrentHasher::with_piece_length(Version::V1, piece_length);
        assert_eq!(hasher.is_ok(), fits, "{piece_length}");
    }
}

#[tokio::test]
async fn made_by_an_import_or_read_later_they_are_the_same() {
    let bytes = Bytes::from(content(6 << 20));
    let store = MemoryStore::new(32 << 20);
    let sidecar = TorrentSidecar(Version::Hybrid);
    let mut request = ImportRequest::new(ImportSource::Bytes(bytes.clone()));
    request.sidecars = vec![Arc::new(sidecar)];
    let cid = store.import(request).await.unwrap().header.cid;
    let kept = store
        .sidecar(cid, sidecar.name())
        .await
        .unwrap()
        .expect("made with the import");
    let kept = TorrentHashes::decode(&kept).unwrap();
    assert_eq!(kept, hashes(&bytes, Version::Hybrid));
    let stored = store.open(cid).await.unwrap().unwrap();
    let later = TorrentHashes::of_content(&*stored, Version::Hybrid)
        .await
        .unwrap();
    assert_eq!(later, kept);
    for version in [Version::V1, Version::V2, Version::Hybrid] {
        let alone = TorrentHashes::of_content(&*stored, version).await.unwrap();
        assert_eq!(later.clone().only(version), alone);
        assert_eq!(
            alone.clone().only(Version::Hybrid),
            alone,
            "nothing comes of nothing"
        );
    }
    let nothing: Box<dyn FileHasher> = TorrentSidecar(Version::V1).start();
    assert_eq!(nothing.finish(), None);
    for (version, most) in [
        (Version::V1, 860_000_000_000),
        (Version::V2, 530_000_000_000),
        (Version::Hybrid, 330_000_000_000),
    ] {
        let suits =
            [0, 1, most, 2 * most, u64::MAX].map(|size| TorrentSidecar(version).suits(size));
        assert_eq!(suits, [false, true, true, false, false], "{version:?}");
    }
}

proptest! {
    #[test]
    fn directories_in_all_versions_verify(
        files in prop::collection::btree_map("[a-c]/[a-z]{1,3}", 0u64..120_000, 1..7),
        version in prop::sample::select(vec![Version::V1, Version::V2, Version::Hybrid]),
    ) {
        let list = files.iter().map(|(path, len)| {
            (path.split('/').map(str::to_owned).collect(), *len)
        });
        let hasher = CollectionHasher::new("dir", list.collect(), 32_768, version);
        let empty = files.values().all(|len| *len == 0);
        let Ok(mut hasher) = hasher else {
            prop_assert!(empty);
            return Ok(());
        };
        let all: Vec<Vec<u8>> = hasher.files().iter().enumerate()
            .map(|(i, (_, len))| content(*len as usize + i).split_off(i)).collect();
        let stream = all.concat();
        for part in stream.chunks(50_001) {
            hasher.update(part).unwrap();
        }
        prop_assert!(matches!(hasher.update(b"x"), Err(CreateError::Length)));
        let torrent = hasher.finish(Outer::default()).unwrap();
        prop_assert_eq!(torrent.files().len(), files.len());
        let layout = torrent.layout();
        for piece in 0..layout.piece_count() {
            let range = layout.piece_range(piece);
            let mut checker = torrent.hasher(piece).unwrap();
            for part in layout.segments(range) {
                let Some(file) = part.file else { continue };
                let bytes = &all[file as usize][part.offset as usize..];
                let bytes = Bytes::copy_from_slice(&bytes[..part.stream.len() as usize]);
                checker.feed((part.stream.start - range.start) as u32, bytes).unwrap();
            }
            checker.finish().unwrap();
        }
        prop_assert_eq!(torrent.magnet().hashes, torrent.hashes());
    }

    #[test]
    fn any_kept_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = TorrentHashes::decode(&bytes);
    }
}
