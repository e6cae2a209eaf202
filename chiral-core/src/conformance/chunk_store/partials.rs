//! Partial files: from the first chunk to an object.

use std::path::Path;

use super::{CHUNK_SIZE, Sample, begin, object, open, refused, transfer, write_all};
use crate::chunk_store::{
    ChunkStore, Destination, Location, PartialInfo, PartialRequest, StoreError,
};
use crate::{ByteRange, FileIdentification, MAX_FILE_SIZE, ManifestHeader};

const SIZE: u64 = 4 * CHUNK_SIZE + 77;

/// Identity and hints with which a download ends, its identity not yet known.
fn hints(file: &Sample) -> ManifestHeader {
    file.header.clone()
}

pub(super) async fn beginning_and_going_on(store: &dyn ChunkStore) {
    let file = Sample::new(SIZE);
    assert!(store.partials().await.expect("list").is_empty());
    let partial = begin(store, 1, &file).await;
    assert_eq!(
        (partial.transfer(), partial.layout()),
        (transfer(1), file.layout)
    );
    assert_eq!(
        (partial.present().len(), partial.present().count_ones()),
        (5, 0)
    );
    assert_eq!(
        (partial.proven().len(), partial.proven().count_ones()),
        (5, 0)
    );
    assert_eq!(partial.header().await.expect("header"), None);
    assert_eq!(partial.recomputed_root().await.expect("root"), None);
    partial.write(file.verified(2)).await.expect("write");
    let again = begin(store, 2, &file).await;
    assert_eq!(
        again.transfer(),
        transfer(1),
        "the same target is gone on with"
    );
    assert!(again.proven().get(2));
    let cid_alone = FileIdentification::Content {
        cid: file.header.cid,
        root: None,
        size: None,
    };
    let again = store
        .begin(PartialRequest::new(transfer(3), cid_alone, SIZE))
        .await
        .expect("begin");
    assert_eq!(
        again.transfer(),
        transfer(3),
        "what was proven under a link's root is not taken over for the cid alone"
    );
    let other_size = PartialRequest::new(transfer(4), file.target(), SIZE + 1);
    let other = store
        .begin(other_size)
        .await
        .expect("begin at another size");
    assert_eq!(
        other.transfer(),
        transfer(4),
        "another size is another partial file"
    );
    let root = FileIdentification::Root(Sample::salted(SIZE, 9).header.root);
    let by_root = |number| PartialRequest::new(transfer(number), root, SIZE);
    let first = store.begin(by_root(5)).await.expect("begin by root");
    let second = store.begin(by_root(6)).await.expect("begin by root");
    assert_eq!(
        (first.transfer(), second.transfer()),
        (transfer(5), transfer(5))
    );
    let taken = PartialRequest::new(transfer(1), Sample::salted(SIZE, 10).target(), SIZE);
    assert!(
        store.begin(taken).await.is_err(),
        "a transfer id is taken once"
    );
    let huge = PartialRequest::new(transfer(7), file.target(), MAX_FILE_SIZE + 1);
    refused!(store.begin(huge).await, StoreError::TooLarge { .. });
    let mut listed = store.partials().await.expect("list");
    listed.sort_by_key(|info| info.transfer);
    assert_eq!(listed.len(), 4);
    assert_eq!(
        listed[0],
        PartialInfo::new(transfer(1), file.target(), SIZE, 1, 1)
    );
}

pub(super) async fn verified_chunks_in_any_order(store: &dyn ChunkStore) {
    let file = Sample::new(SIZE);
    let partial = begin(store, 1, &file).await;
    for index in 0..5 {
        assert_eq!(partial.proven_hash(index).await.expect("hash"), None);
        let range = file.layout.range(index);
        refused!(partial.read(index).await, StoreError::Range { range: r } if r == range);
    }
    partial.write(file.verified(3)).await.expect("write");
    assert_eq!(
        partial.proven_hash(3).await.expect("hash"),
        Some(file.hashes[3])
    );
    assert_eq!(
        partial.proven_hash(2).await.expect("hash"),
        Some(file.hashes[2]),
        "a proven chunk proves the hash before it"
    );
    assert_eq!(partial.proven_hash(1).await.expect("hash"), None);
    assert_eq!(partial.proven_hash(4).await.expect("hash"), None);
    assert_eq!(partial.proven_hash(u32::MAX).await.expect("hash"), None);
    partial
        .write(file.verified(3))
        .await
        .expect("the same chunk again");
    partial.write(file.verified(0)).await.expect("write");
    partial.write(file.verified(4)).await.expect("write");
    assert_eq!(partial.proven().ones().collect::<Vec<_>>(), [0, 3, 4]);
    assert_eq!(partial.present(), partial.proven());
    for index in [0, 3, 4] {
        assert!(
            partial.read(index).await.expect("read") == file.chunk(index),
            "chunk {index}"
        );
    }
    refused!(partial.read(5).await, StoreError::Range { .. });
    let longer = Sample::new(6 * CHUNK_SIZE);
    refused!(
        partial.write(longer.verified(4)).await,
        StoreError::Chunk { index: 4 }
    );
    refused!(
        partial.write(longer.verified(5)).await,
        StoreError::Chunk { index: 5 }
    );
    partial.flush().await.expect("flush");
}

pub(super) async fn checked_chunks(store: &dyn ChunkStore) {
    let (file, wrong) = (Sample::new(SIZE), Sample::salted(SIZE, 1));
    let partial = begin(store, 1, &file).await;
    let none = partial.write_checked(Vec::new()).await.expect("nothing");
    assert!(none.is_empty());
    let mut elsewhere = file.claim(1, file.chunk(1));
    elsewhere.before = file.hashes[1];
    let mut past = file.claim(1, file.chunk(1));
    past.index = 5;
    let claims = vec![
        file.claim(3, file.chunk(3)),
        file.claim(2, wrong.chunk(2)),
        elsewhere,
        past,
        file.claim(4, file.chunk(4).slice(1..)),
        file.claim(0, file.chunk(0)),
        file.claim(3, wrong.chunk(3)),
    ];
    let passed = partial.write_checked(claims).await.expect("check");
    assert_eq!(
        passed,
        [true, false, false, false, false, true, false],
        "in the order given"
    );
    assert_eq!(partial.proven().ones().collect::<Vec<_>>(), [0, 3]);
    assert_eq!(
        partial.present(),
        partial.proven(),
        "what does not pass is not written"
    );
    for index in [0, 3] {
        assert!(
            partial.read(index).await.expect("read") == file.chunk(index),
            "chunk {index}"
        );
    }
}

pub(super) async fn unproven_chunks(store: &dyn ChunkStore) {
    let (file, wrong) = (Sample::new(SIZE), Sample::salted(SIZE, 1));
    let partial = begin(store, 1, &file).await;
    for (index, len) in [
        (0, 0),
        (0, CHUNK_SIZE - 1),
        (0, CHUNK_SIZE + 1),
        (4, 76),
        (5, 1),
    ] {
        let bytes = vec![0; len as usize].into();
        refused!(
            partial.write_unproven(index, bytes).await,
            StoreError::Chunk { .. }
        );
    }
    partial
        .write_unproven(1, wrong.chunk(1))
        .await
        .expect("write unproven");
    assert!(partial.present().get(1) && !partial.proven().get(1));
    assert!(partial.read(1).await.expect("read") == wrong.chunk(1));
    assert_eq!(partial.proven_hash(1).await.expect("hash"), None);
    partial.forget(1).await.expect("forget");
    partial.forget(1).await.expect("forget what is not there");
    assert!(!partial.present().get(1));
    refused!(partial.read(1).await, StoreError::Range { .. });
    refused!(
        partial.prove(vec![file.link(1)]).await,
        StoreError::Chunk { index: 1 }
    );
    partial
        .write_unproven(1, wrong.chunk(1))
        .await
        .expect("write unproven");
    partial
        .write_unproven(1, file.chunk(1))
        .await
        .expect("other bytes, still unproven");
    partial
        .write_unproven(2, file.chunk(2))
        .await
        .expect("write unproven");
    refused!(
        partial
            .prove(vec![file.link(2), file.link(1), file.link(0)])
            .await,
        StoreError::Chunk { index: 0 }
    );
    assert_eq!(
        partial.proven().ones().collect::<Vec<_>>(),
        [1, 2],
        "in the order given"
    );
    partial.forget(1).await.expect("forget");
    partial
        .write_unproven(1, wrong.chunk(1))
        .await
        .expect("write over what is proven");
    assert!(partial.proven().get(1), "a proven chunk stays");
    assert!(
        partial.read(1).await.expect("read") == file.chunk(1),
        "and so do its bytes"
    );
    partial
        .write_unproven(0, wrong.chunk(0))
        .await
        .expect("write unproven");
    partial
        .write(file.verified(0))
        .await
        .expect("write over what is unproven");
    assert!(partial.read(0).await.expect("read") == file.chunk(0));
    for index in 0..3 {
        let known = partial.proven_hash(index).await.expect("hash");
        assert_eq!(known, Some(file.hashes[index as usize]), "hash {index}");
    }
}

pub(super) async fn serving_while_downloading(store: &dyn ChunkStore) {
    let (file, wrong) = (Sample::new(SIZE), Sample::salted(SIZE, 1));
    let cid = file.header.cid;
    let partial = begin(store, 1, &file).await;
    partial.write(file.verified(1)).await.expect("write");
    partial
        .write_unproven(3, wrong.chunk(3))
        .await
        .expect("write unproven");
    assert!(
        store.open(cid).await.expect("open").is_none(),
        "not served without a header"
    );
    assert_eq!(partial.page(0).await.expect("page"), None);
    partial
        .store_page(&file.page(0))
        .await
        .expect("keep a page");
    refused!(
        partial.store_page(&Sample::new(9).page(0)).await,
        StoreError::Chunk { .. }
    );
    assert_eq!(
        partial.page(0).await.expect("page").as_ref(),
        Some(file.page(0).page())
    );
    assert_eq!(partial.page(1).await.expect("page"), None);
    assert!(
        partial.set_header(Sample::new(9).header).await.is_err(),
        "of another size"
    );
    partial
        .set_header(file.header.clone())
        .await
        .expect("set the header");
    assert_eq!(
        partial.header().await.expect("header").as_ref(),
        Some(&file.header)
    );
    assert_eq!(object(store, cid).await, None, "it is not complete");
    let content = open(store, cid).await;
    assert_eq!(content.header(), &file.header);
    let chunks = |content: &dyn crate::StoredContent| {
        content
            .coverage()
            .runs(file.layout)
            .chunks()
            .collect::<Vec<_>>()
    };
    assert_eq!(chunks(&*content), [1], "only proven chunks are served");
    let range = ByteRange::new(CHUNK_SIZE + 3, 2 * CHUNK_SIZE);
    assert!(content.read(range).await.expect("read") == file.slice(range));
    for (start, end) in [
        (0, 1),
        (CHUNK_SIZE - 1, CHUNK_SIZE + 1),
        (3 * CHUNK_SIZE, 3 * CHUNK_SIZE + 1),
    ] {
        refused!(
            content.read(ByteRange::new(start, end)).await,
            StoreError::Range { .. }
        );
    }
    assert_eq!(
        content.page(0).await.expect("page").as_ref(),
        Some(file.page(0).page())
    );
    partial.write(file.verified(0)).await.expect("write");
    assert_eq!(chunks(&*content), [0, 1], "coverage grows");
    let range = ByteRange::new(CHUNK_SIZE - 1, CHUNK_SIZE + 1);
    assert!(content.read(range).await.expect("read") == file.slice(range));
    write_all(&*partial, &file).await;
    file.check_content(&*content).await;
    partial
        .complete(Destination::Store, hints(&file))
        .await
        .expect("complete");
    file.check_content(&*content).await;
}

pub(super) async fn completion_in_the_store(store: &dyn ChunkStore) {
    for size in [0, 1, CHUNK_SIZE, SIZE] {
        let file = Sample::new(size);
        let partial = begin(store, 1, &file).await;
        if let Some(missing @ 1..) = Some(file.layout.count()) {
            assert_eq!(partial.recomputed_root().await.expect("root"), None);
            match partial.complete(Destination::Store, hints(&file)).await {
                Err(StoreError::Incomplete { missing: told }) => assert_eq!(told, missing),
                other => panic!("completed without its chunks: {other:?}"),
            }
        }
        write_all(&*partial, &file).await;
        assert_eq!(
            partial.recomputed_root().await.expect("root"),
            Some(file.header.root)
        );
        let stranger = ManifestHeader {
            size: 5,
            ..Sample::new(5).header
        };
        let told = ManifestHeader {
            name: Some("other".into()),
            ..stranger
        };
        let info = partial
            .complete(Destination::Store, told)
            .await
            .expect("complete");
        let expected = ManifestHeader {
            name: Some("other".into()),
            ..file.header.clone()
        };
        assert_eq!(
            info.header, expected,
            "identity from what was proven, hints as given"
        );
        assert_eq!((&info.location, info.pins.len()), (&Location::Store, 0));
        assert_eq!(object(store, file.header.cid).await.as_ref(), Some(&info));
        assert!(
            store.partials().await.expect("list").is_empty(),
            "it is partial no longer"
        );
        let named = Sample {
            header: expected,
            ..file
        };
        named
            .check_content(&*open(store, named.header.cid).await)
            .await;
        let again = begin(store, 2, &named).await;
        assert_eq!(
            again.present().count_ones(),
            0,
            "a new download starts from nothing"
        );
        write_all(&*again, &named).await;
        let known = again
            .complete(Destination::Store, hints(&named))
            .await
            .expect("complete");
        assert_eq!(
            known.header.cid, info.header.cid,
            "the object was there already"
        );
        assert!(store.remove(named.header.cid).await.expect("remove"));
    }
    let (file, other) = (Sample::new(SIZE), Sample::salted(SIZE, 1));
    let partial = begin(store, 3, &file).await;
    write_all(&*partial, &other).await;
    refused!(
        partial.complete(Destination::Store, hints(&file)).await,
        StoreError::Incomplete { .. }
    );
    assert_eq!(
        object(store, file.header.cid).await,
        None,
        "another file is not the target"
    );
}

pub(super) async fn completion_as_a_file(store: &dyn ChunkStore, scratch: &Path) {
    let file = Sample::new(SIZE);
    let (taken, free) = (scratch.join("taken"), scratch.join("free"));
    std::fs::write(&taken, "precious").expect("scratch directory must be writable");
    let partial = begin(store, 1, &file).await;
    write_all(&*partial, &file).await;
    refused!(
        partial.complete(Destination::File(taken.clone()), hints(&file)).await,
        StoreError::AlreadyExists { path } if path == taken
    );
    assert_eq!(
        std::fs::read(&taken).expect("still there"),
        b"precious",
        "nothing overwritten"
    );
    assert!(partial.proven().is_full(), "the partial file is as it was");
    assert!(partial.read(1).await.expect("read") == file.chunk(1));
    assert_eq!(store.partials().await.expect("list").len(), 1);
    let nowhere = Destination::File(scratch.join("no directory").join("file"));
    assert!(partial.complete(nowhere, hints(&file)).await.is_err());
    let info = partial
        .complete(Destination::File(free.clone()), hints(&file))
        .await
        .expect("complete after a refusal");
    assert_eq!(info.location, Location::External(free.clone()));
    assert!(
        std::fs::read(&free).expect("the file") == file.bytes,
        "bytes of the file"
    );
    file.check_content(&*open(store, file.header.cid).await)
        .await;
    assert!(store.partials().await.expect("list").is_empty());
    assert!(store.remove(file.header.cid).await.expect("remove"));
    assert!(free.exists(), "the file is the user's");
}

pub(super) async fn contradicting_proofs(store: &dyn ChunkStore) {
    let (file, other) = (Sample::new(SIZE), Sample::salted(SIZE, 1));
    let partial = begin(store, 1, &file).await;
    write_all(&*partial, &other).await;
    partial.write(file.verified(1)).await.expect("write");
    assert_eq!(
        partial.proven().ones().collect::<Vec<_>>(),
        [1, 3, 4],
        "the last proof stands, and its neighbours contradict it"
    );
    assert!(partial.read(1).await.expect("read") == file.chunk(1));
    assert_eq!(
        partial.proven_hash(0).await.expect("hash"),
        Some(file.hashes[0])
    );
    assert_eq!(
        partial.proven_hash(1).await.expect("hash"),
        Some(file.hashes[1])
    );
    write_all(&*partial, &file).await;
    let info = partial
        .complete(Destination::Store, hints(&file))
        .await
        .expect("complete");
    assert_eq!(info.header, file.header);
    file.check_content(&*open(store, file.header.cid).await)
        .await;
}

pub(super) async fn discarding(store: &dyn ChunkStore) {
    let file = Sample::new(SIZE);
    assert!(
        !store.discard(transfer(1)).await.expect("discard"),
        "there is none"
    );
    let partial = begin(store, 1, &file).await;
    write_all(&*partial, &file).await;
    partial
        .set_header(file.header.clone())
        .await
        .expect("set the header");
    assert!(store.discard(transfer(1)).await.expect("discard"));
    assert!(!store.discard(transfer(1)).await.expect("discard"));
    assert!(store.partials().await.expect("list").is_empty());
    assert!(store.open(file.header.cid).await.expect("open").is_none());
    refused!(partial.write(file.verified(0)).await, StoreError::Closed);
    refused!(partial.read(0).await, StoreError::Closed);
    refused!(
        partial.complete(Destination::Store, hints(&file)).await,
        StoreError::Closed
    );
    let again = begin(store, 1, &file).await;
    assert_eq!(again.present().count_ones(), 0);
    write_all(&*again, &file).await;
}
