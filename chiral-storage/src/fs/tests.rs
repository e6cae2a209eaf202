use std::time::Duration;

use bytes::Bytes;
use chiral_core::chunk_store::{Destination, Location};
use chiral_core::conformance::chunk_store;
use chiral_core::{
    ByteRange, CHUNK_SIZE, ChunkClaim, ChunkHasher, FileIdentification, VerifiedChunk, chain,
};

use super::*;

mod damage;
mod races;
mod spans;

fn generated(size: u64) -> Vec<u8> {
    (0..size)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13 & 0xff) as u8)
        .collect()
}

async fn open(dir: impl Into<PathBuf>) -> FsStore {
    FsStore::open(dir, FsStoreConfig::default()).await.unwrap()
}

fn in_place(path: &std::path::Path) -> ImportRequest {
    ImportRequest::new(ImportSource::Path(path.to_path_buf()))
}

#[tokio::test]
async fn conforms_to_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let stores = tempfile::tempdir().unwrap();
    let make = async |name: &'static str| {
        Arc::new(open(stores.path().join(name)).await) as Arc<dyn ChunkStore>
    };
    chunk_store::run(scratch.path(), &make).await;
    chunk_store::run_durable(scratch.path(), &make).await;
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = FsStore::open(dir.path(), FsStoreConfig::default()).await;
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    store.shutdown().await.unwrap();
    let store = open(dir.path()).await;
    drop(store);
    open(dir.path()).await.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_that_changes_while_seeded_is_dropped_until_it_is_imported_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    let bytes = generated(3 * CHUNK_SIZE);
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path().join("store")).await;
    let cid = store.import(in_place(&path)).await.unwrap().header.cid;
    let content = store.open(cid).await.unwrap().unwrap();
    content.read(ByteRange::new(0, 9)).await.unwrap();
    for change in ["truncated", "edited", "gone"] {
        match change {
            "truncated" => std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(CHUNK_SIZE)
                .unwrap(),
            "edited" => {
                let mut other = bytes.clone();
                other[5] ^= 1;
                std::fs::write(&path, other).unwrap();
            }
            _ => std::fs::remove_file(&path).unwrap(),
        }
        if change == "truncated" {
            let read = content.read(ByteRange::new(0, 9)).await;
            assert!(matches!(read, Err(StoreError::Changed { .. })), "{change}");
        }
        let opened = store.open(cid).await;
        assert!(
            matches!(opened, Err(StoreError::Changed { .. })),
            "{change}"
        );
        assert_eq!(
            store.changed().await.unwrap(),
            [(cid, path.clone())],
            "{change}"
        );
        std::fs::write(&path, &bytes).unwrap();
        let again = store.open(cid).await;
        assert!(
            matches!(again, Err(StoreError::Changed { .. })),
            "not without being asked"
        );
        assert_eq!(store.import(in_place(&path)).await.unwrap().header.cid, cid);
        assert!(store.changed().await.unwrap().is_empty());
        store.open(cid).await.unwrap().unwrap();
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_edit_behind_an_unchanged_time_is_found_by_hashing_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    std::fs::write(&path, generated(2 * CHUNK_SIZE)).unwrap();
    let config = FsStoreConfig::default().with_verify_served_one_in(1);
    let store = FsStore::open(dir.path().join("store"), config)
        .await
        .unwrap();
    let cid = store.import(in_place(&path)).await.unwrap().header.cid;
    let content = store.open(cid).await.unwrap().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"edited", CHUNK_SIZE + 7).unwrap();
    file.set_modified(modified).unwrap();
    content.read(ByteRange::new(0, CHUNK_SIZE)).await.unwrap();
    let read = content
        .read(ByteRange::new(2 * CHUNK_SIZE - 1, 2 * CHUNK_SIZE))
        .await;
    assert!(matches!(read, Err(StoreError::Changed { .. })));
    assert!(matches!(
        store.open(cid).await,
        Err(StoreError::Changed { .. })
    ));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_object_is_kept_open_until_it_changes_or_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().join("store")).await;
    let bytes = generated(2 * CHUNK_SIZE);
    let source = || ImportRequest::new(ImportSource::Bytes(bytes.clone().into()));
    let cid = store.import(source()).await.unwrap().header.cid;
    assert!(store.shared.still_open(cid).is_none());
    store.open(cid).await.unwrap().unwrap();
    let kept = store.shared.still_open(cid).unwrap();
    assert_eq!(kept.read(ByteRange::new(3, 9)).await.unwrap(), bytes[3..9]);

    assert!(store.remove(cid).await.unwrap());
    assert!(store.shared.still_open(cid).is_none());
    assert!(store.open(cid).await.unwrap().is_none());

    store.import(source()).await.unwrap();
    store.open(cid).await.unwrap().unwrap();
    let later = std::time::Instant::now() + std::time::Duration::from_secs(60);
    assert!(store.shared.opened.expire(later).is_none());
    assert!(store.shared.still_open(cid).is_none());

    store.open(cid).await.unwrap().unwrap();
    store.shutdown().await.unwrap();
    assert!(matches!(store.open(cid).await, Err(StoreError::Closed)));
    assert!(
        store.shared.still_open(cid).is_none(),
        "files are let go of"
    );
}

#[tokio::test]
async fn a_known_file_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    std::fs::write(&path, generated(2 * CHUNK_SIZE)).unwrap();
    let store = open(dir.path().join("store")).await;
    let first = store.import(in_place(&path)).await.unwrap();
    let mut request = in_place(&path);
    request.progress = Some(Arc::new(|_, _| panic!("the file was read again")));
    assert_eq!(store.import(request).await.unwrap(), first);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_a_file_seeded_in_place_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    std::fs::write(&path, generated(CHUNK_SIZE + 1)).unwrap();
    let store = open(dir.path().join("store")).await;
    let info = store.import(in_place(&path)).await.unwrap();
    assert_eq!(info.location, Location::External(path.clone()));
    store.pin(info.header.cid, "p").await.unwrap();
    let mut copied = in_place(&path);
    copied.mode = ImportMode::Copy;
    let info = store.import(copied).await.unwrap();
    assert_eq!(
        (info.location, info.pins),
        (Location::Store, vec!["p".to_owned()])
    );
    std::fs::remove_file(&path).unwrap();
    let content = store.open(info.header.cid).await.unwrap().unwrap();
    assert_eq!(
        content.read(ByteRange::new(0, 5)).await.unwrap(),
        generated(5)
    );
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn large_files_have_the_same_identity_when_read_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    let bytes = generated((9 << 20) + 17);
    std::fs::write(&path, &bytes).unwrap();
    let identity = chiral_core::ContentIdentity::of(&bytes).unwrap();
    let store = open(dir.path().join("store")).await;
    for mode in [ImportMode::InPlace, ImportMode::Copy] {
        let mut request = in_place(&path);
        request.mode = mode;
        let info = store.import(request).await.unwrap();
        assert_eq!(
            (info.header.cid, info.header.root),
            (identity.cid, identity.root)
        );
        let content = store.open(identity.cid).await.unwrap().unwrap();
        let end = bytes.len() as u64;
        let read = content.read(ByteRange::new(end - 99, end)).await.unwrap();
        assert_eq!(read, bytes[bytes.len() - 99..]);
        assert!(store.remove(identity.cid).await.unwrap());
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_page_of_a_file_over_a_gibibyte_leads_to_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((1 << 30) + CHUNK_SIZE + 5).unwrap();
    let store = open(dir.path().join("store")).await;
    let header = store.import(in_place(&path)).await.unwrap().header;
    let layout = header.layout().unwrap();
    let content = store.open(header.cid).await.unwrap().unwrap();
    for index in 0..2 {
        let page = content.page(index).await.unwrap().unwrap();
        let page = page.verify(header.root, layout, index).unwrap();
        let (before, after) = page.around(page.chunks().end - 1).unwrap();
        assert_eq!(after == header.cid.into(), index == 1);
        assert_ne!(before, after);
    }
    assert!(content.page(2).await.unwrap().is_none());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dropped_import_registers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().join("store")).await;
    let path = dir.path().join("big");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(8 << 30)
        .unwrap();
    let request = in_place(&path);
    let begun = std::time::Instant::now();
    let dropped = tokio::time::timeout(Duration::from_millis(50), store.import(request)).await;
    assert!(dropped.is_err());
    store.shutdown().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the pass stops soon"
    );
    let store = open(dir.path().join("store")).await;
    assert!(store.objects().await.unwrap().is_empty());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn writes_become_durable_by_themselves_and_an_abandoned_store_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = Bytes::from(generated(40 * CHUNK_SIZE));
    let mut hasher = ChunkHasher::new();
    hasher.update(&bytes);
    let (hashes, cid) = hasher.finish().unwrap();
    let size = bytes.len() as u64;
    let target = FileIdentification::Content {
        cid,
        root: None,
        size: Some(size),
    };
    let request = PartialRequest::new(TransferId::from_bytes([1; 16]), target, size);
    let partial = store.begin(request.clone()).await.unwrap();
    let layout = partial.layout();
    let chunk = |index: u32| {
        let range = layout.range(index);
        let before = index
            .checked_sub(1)
            .map_or(chain::INITIAL, |at| hashes[at as usize]);
        let part = bytes.slice(range.start as usize..range.end as usize);
        VerifiedChunk::check(layout, index, before, hashes[index as usize], part).unwrap()
    };
    for index in 0..33 {
        partial.write(chunk(index)).await.unwrap();
    }
    let durable = || {
        store
            .shared
            .meta
            .partial_state(partial.transfer(), layout)
            .unwrap()
            .proven
    };
    let begun = std::time::Instant::now();
    while durable().count_ones() < 33 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{} of 33",
            durable().count_ones()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop((partial, store));
    let store = open(dir.path()).await;
    let partial = store.begin(request).await.unwrap();
    assert_eq!(partial.proven().count_ones(), 33);
    for index in 33..40 {
        partial.write(chunk(index)).await.unwrap();
    }
    let header = chiral_core::ManifestHeader {
        size,
        cid,
        root: partial.recomputed_root().await.unwrap().unwrap(),
        name: None,
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    };
    let info = partial
        .complete(Destination::Store, header.clone())
        .await
        .unwrap();
    assert_eq!(info.header, header);
    store.shutdown().await.unwrap();
}
