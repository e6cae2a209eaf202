//! What outlives the store that it was given to.

use std::path::Path;
use std::sync::Arc;

use super::sidecars::{sum, with};
use super::{CHUNK_SIZE, Sample, begin, object, open, transfer, write_all};
use crate::chunk_store::{ChunkStore, Destination, Location, PartialInfo};

/// Checks that content is there again after a shutdown. `make` opens the same store
/// whenever it is called with the same name.
///
/// # Panics
/// On the first promise that is not kept.
pub async fn run_durable(scratch: &Path, make: impl AsyncFn(&'static str) -> Arc<dyn ChunkStore>) {
    let objects = async || make("durable objects").await;
    objects_and_pins(scratch, objects).await;
    let partials = async || make("durable partials").await;
    partial_files(scratch, partials).await;
}

async fn objects_and_pins(scratch: &Path, make: impl AsyncFn() -> Arc<dyn ChunkStore>) {
    let files = [
        Sample::new(0),
        Sample::new(3 * CHUNK_SIZE + 1),
        Sample::new(CHUNK_SIZE + 2),
    ];
    let path = scratch.join("durable in place");
    let store = make().await;
    let copied = store.import(files[0].import()).await.expect("import");
    let pinned = store
        .import(with(&["sum"], files[1].import()))
        .await
        .expect("import");
    let in_place = store
        .import(files[2].import_path(&path))
        .await
        .expect("import");
    for pin in ["x", "y"] {
        store.pin(pinned.header.cid, pin).await.expect("pin");
    }
    store.shutdown().await.expect("shutdown");
    let store = make().await;
    assert_eq!(object(&*store, copied.header.cid).await, Some(copied));
    assert_eq!(object(&*store, in_place.header.cid).await, Some(in_place));
    assert_eq!(
        object(&*store, pinned.header.cid).await.expect("kept").pins,
        ["x", "y"]
    );
    let kept = store
        .sidecar(pinned.header.cid, "sum")
        .await
        .expect("sidecar");
    assert_eq!(kept, sum(&files[1].bytes), "a sidecar outlives the store");
    for file in &files {
        file.check_content(&*open(&*store, file.header.cid).await)
            .await;
    }
    assert_eq!(store.unpin(pinned.header.cid, "x").await.expect("unpin"), 1);
    assert_eq!(store.unpin(pinned.header.cid, "y").await.expect("unpin"), 0);
    store.shutdown().await.expect("shutdown");
    let store = make().await;
    assert_eq!(
        object(&*store, pinned.header.cid).await,
        None,
        "what was removed stays so"
    );
    let gone = store
        .sidecar(pinned.header.cid, "sum")
        .await
        .expect("sidecar");
    assert_eq!(gone, None, "and its sidecar with it");
    store.shutdown().await.expect("shutdown");
}

async fn partial_files(scratch: &Path, make: impl AsyncFn() -> Arc<dyn ChunkStore>) {
    let file = Sample::new(6 * CHUNK_SIZE - 1);
    let gone = Sample::salted(CHUNK_SIZE, 3);
    let store = make().await;
    let partial = begin(&*store, 1, &file).await;
    partial.write(file.verified(5)).await.expect("write");
    partial.write(file.verified(2)).await.expect("write");
    partial
        .write_unproven(0, file.chunk(0))
        .await
        .expect("write unproven");
    partial
        .write_unproven(1, file.chunk(1))
        .await
        .expect("write unproven");
    partial.forget(1).await.expect("forget");
    partial
        .store_page(&file.page(0))
        .await
        .expect("keep a page");
    partial
        .set_header(file.header.clone())
        .await
        .expect("set the header");
    begin(&*store, 2, &gone).await;
    assert!(store.discard(transfer(2)).await.expect("discard"));
    store.shutdown().await.expect("shutdown");

    let store = make().await;
    let expected = PartialInfo::new(transfer(1), file.target(), file.header.size, 3, 2);
    assert_eq!(store.partials().await.expect("list"), [expected]);
    let content = open(&*store, file.header.cid).await;
    let served: Vec<u32> = content.coverage().runs(file.layout).chunks().collect();
    assert_eq!(served, [2, 5], "proven chunks are served again");
    let partial = begin(&*store, 9, &file).await;
    assert_eq!(partial.transfer(), transfer(1));
    assert_eq!(partial.present().ones().collect::<Vec<_>>(), [0, 2, 5]);
    assert_eq!(partial.proven().ones().collect::<Vec<_>>(), [2, 5]);
    for index in [1, 2, 4, 5] {
        let known = partial.proven_hash(index).await.expect("hash");
        assert_eq!(known, Some(file.hashes[index as usize]), "hash {index}");
    }
    assert_eq!(partial.proven_hash(0).await.expect("hash"), None);
    assert_eq!(
        partial.page(0).await.expect("page").as_ref(),
        Some(file.page(0).page())
    );
    assert_eq!(
        partial.header().await.expect("header").as_ref(),
        Some(&file.header)
    );
    for index in [0, 2, 5] {
        assert!(
            partial.read(index).await.expect("read") == file.chunk(index),
            "chunk {index}"
        );
    }
    partial.prove(vec![file.link(0)]).await.expect("prove");
    write_all(&*partial, &file).await;
    let path = scratch.join("durable download");
    partial
        .complete(Destination::File(path.clone()), file.header.clone())
        .await
        .expect("complete");
    store.shutdown().await.expect("shutdown");

    let store = make().await;
    assert!(store.partials().await.expect("list").is_empty());
    let info = object(&*store, file.header.cid).await.expect("completed");
    assert_eq!(info.location, Location::External(path));
    file.check_content(&*open(&*store, file.header.cid).await)
        .await;
    store.shutdown().await.expect("shutdown");
}
