//! Complete objects: identity, reading, pins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CHUNK_SIZE, Sample, object, open, refused};
use crate::chunk_store::{
    ChunkStore, ImportMode, ImportRequest, ImportSource, Location, MAX_READ, StoreError,
};
use crate::{ByteRange, Cid, ContentIdentity, manifest};

const SIZES: [u64; 7] = [
    0,
    1,
    CHUNK_SIZE - 1,
    CHUNK_SIZE,
    CHUNK_SIZE + 1,
    3 * CHUNK_SIZE,
    5 * CHUNK_SIZE + 12_345,
];

pub(super) async fn identity_at_all_sizes(store: &dyn ChunkStore, scratch: &Path) {
    for size in SIZES {
        let file = Sample::new(size);
        let cid = file.header.cid;
        assert_eq!(
            object(store, cid).await,
            None,
            "nothing is there before the import"
        );
        assert!(
            store.open(cid).await.expect("open").is_none(),
            "nothing can be opened yet"
        );
        let path = scratch.join(format!("identity-{size}"));
        for (number, request) in [
            file.import(),
            file.import_path(&path),
            ImportRequest {
                mode: ImportMode::Copy,
                ..file.import_path(&path)
            },
        ]
        .into_iter()
        .enumerate()
        {
            let info = store.import(request).await.expect("import");
            assert_eq!(
                info.header, file.header,
                "header of import {number} of {size} bytes"
            );
            assert_eq!(info.pins, Vec::<String>::new(), "an import pins nothing");
            let identity = ContentIdentity::of(&file.bytes).expect("a small file");
            assert_eq!((identity.cid, identity.root), (cid, info.header.root));
            assert_eq!(object(store, cid).await.as_ref(), Some(&info));
            file.check_content(&*open(store, cid).await).await;
            assert!(
                store.remove(cid).await.expect("remove"),
                "it was there to remove"
            );
            assert!(
                !store.remove(cid).await.expect("remove"),
                "it is not there any more"
            );
            assert_eq!(object(store, cid).await, None);
        }
        assert_eq!(
            std::fs::read(&path).expect("the user's file stays"),
            file.bytes
        );
    }
}

pub(super) async fn reads_and_refusals(store: &dyn ChunkStore) {
    let size = 17 * CHUNK_SIZE + 5;
    let file = Sample::new(size);
    store.import(file.import()).await.expect("import");
    let content = open(store, file.header.cid).await;
    let edge = CHUNK_SIZE;
    for (start, end) in [
        (0, 0),
        (0, 1),
        (size - 1, size),
        (size, size),
        (edge - 1, edge),
        (edge, edge + 1),
        (edge - 1, edge + 1),
        (5, 3 * edge + 7),
        (0, MAX_READ),
        (size - MAX_READ, size),
    ] {
        let range = ByteRange::new(start, end);
        let read = content.read(range).await.expect("read");
        assert!(
            read == file.slice(range),
            "bytes {range:?}, neither more nor fewer"
        );
    }
    for (start, end) in [
        (0, size + 1),
        (size, size + 1),
        (0, MAX_READ + 1),
        (u64::MAX - 1, u64::MAX),
        (size + 1, size + 1),
    ] {
        refused!(
            content.read(ByteRange::new(start, end)).await,
            StoreError::Range { .. }
        );
    }
    assert_eq!(manifest::page_count(file.layout), 1);
}

pub(super) async fn equal_content_is_one_object(store: &dyn ChunkStore, scratch: &Path) {
    let (one, other) = (
        Sample::new(CHUNK_SIZE + 9),
        Sample::salted(CHUNK_SIZE + 9, 1),
    );
    let path = scratch.join("equal");
    store.import(one.import()).await.expect("import");
    store.pin(one.header.cid, "keep").await.expect("pin");
    store.import(other.import()).await.expect("import");
    let again = store
        .import(one.import_path(&path))
        .await
        .expect("import again");
    assert_eq!(again.pins, ["keep"], "importing again keeps the pins");
    assert_eq!(again.header, one.header);
    let all = store.objects().await.expect("list");
    let cids: Vec<Cid> = all.iter().map(|object| object.header.cid).collect();
    let mut expected = [one.header.cid, other.header.cid];
    expected.sort();
    assert_eq!(cids, expected, "every object once, by cid");
    one.check_content(&*open(store, one.header.cid).await).await;
}

pub(super) async fn pins_are_counted_by_name(store: &dyn ChunkStore, scratch: &Path) {
    let file = Sample::new(2 * CHUNK_SIZE);
    let cid = file.header.cid;
    refused!(store.pin(cid, "a").await, StoreError::NotFound { .. });
    refused!(store.unpin(cid, "a").await, StoreError::NotFound { .. });
    let path = scratch.join("pinned");
    store.import(file.import_path(&path)).await.expect("import");
    assert_eq!(
        store.unpin(cid, "a").await.expect("unpin"),
        0,
        "there was no such pin"
    );
    assert!(
        object(store, cid).await.is_some(),
        "an object that was never pinned stays"
    );
    assert_eq!(store.pin(cid, "a").await.expect("pin"), 1);
    assert_eq!(
        store.pin(cid, "a").await.expect("pin"),
        1,
        "a pin is idempotent"
    );
    assert_eq!(
        store.pin(cid, "").await.expect("pin"),
        2,
        "a name may be empty"
    );
    assert_eq!(store.pin(cid, "ab").await.expect("pin"), 3);
    let pins = object(store, cid).await.expect("pinned").pins;
    assert_eq!(pins, ["", "a", "ab"]);
    assert!(
        !store.remove(cid).await.expect("remove"),
        "a pinned object is not removed"
    );
    assert_eq!(store.unpin(cid, "b").await.expect("unpin"), 3);
    assert_eq!(store.unpin(cid, "").await.expect("unpin"), 2);
    assert_eq!(
        store.unpin(cid, "").await.expect("unpin"),
        2,
        "an unpin is idempotent"
    );
    assert_eq!(store.unpin(cid, "a").await.expect("unpin"), 1);
    let content = open(store, cid).await;
    assert_eq!(store.unpin(cid, "ab").await.expect("unpin"), 0);
    assert_eq!(
        object(store, cid).await,
        None,
        "the object goes with its last pin"
    );
    assert!(store.open(cid).await.expect("open").is_none());
    file.check_content(&*content).await;
    refused!(store.unpin(cid, "ab").await, StoreError::NotFound { .. });
    assert!(
        path.exists(),
        "of a file seeded in place only the reference goes"
    );
    let info = store.import(file.import()).await.expect("import again");
    assert_eq!(info.pins, Vec::<String>::new(), "old pins do not come back");
    let long = "p".repeat(4096);
    refused!(store.pin(cid, &long).await, StoreError::TooLarge { .. });
}

pub(super) async fn imports_report_and_refuse(store: &dyn ChunkStore, scratch: &Path) {
    let file = Sample::new(3 * CHUNK_SIZE + 1);
    let path = scratch.join("a file of mine");
    let done = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&done);
    let mut request = file.import_path(&path);
    request.name = None;
    request.progress = Some(Arc::new(move |now, all| {
        assert_eq!(all, 3 * CHUNK_SIZE + 1, "bytes in all");
        assert!(
            told.swap(now, Ordering::Relaxed) <= now,
            "progress does not go back"
        );
    }));
    let info = store.import(request).await.expect("import");
    assert_eq!(
        done.load(Ordering::Relaxed),
        file.header.size,
        "progress ends at the end"
    );
    assert_eq!(
        info.header.name.as_deref(),
        Some("a file of mine"),
        "name from the path"
    );
    if let Location::External(at) = &info.location {
        assert_eq!(at, &path);
    }
    let of = |path: PathBuf| ImportRequest::new(ImportSource::Path(path));
    refused!(
        store.import(of(scratch.to_path_buf())).await,
        StoreError::NotAFile { .. }
    );
    refused!(
        store.import(of(scratch.join("none"))).await,
        StoreError::Io { .. }
    );
    let mut request = Sample::new(5).import();
    request.name = Some("n".repeat(300));
    refused!(store.import(request).await, StoreError::TooLarge { .. });
    assert_eq!(
        store.objects().await.expect("list").len(),
        1,
        "what failed left nothing"
    );
}
