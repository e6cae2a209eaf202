//! Sidecars: made in the pass of the import, kept with the object, gone with it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{CHUNK_SIZE, Sample, refused};
use crate::chunk_store::{ChunkStore, ImportMode, ImportRequest, StoreError};
use crate::sidecar::{FileHasher, MAX_SIDECAR_LEN, MAX_SIDECARS, SidecarHasher};

/// Counts bytes and sums them up by their place; has nothing to say of an empty file.
#[derive(Debug)]
pub(super) struct Sum(pub(super) &'static str);

#[derive(Default)]
struct Summing(u64, u64);

impl SidecarHasher for Sum {
    fn name(&self) -> &str {
        self.0
    }

    fn suits(&self, size: u64) -> bool {
        self.0 != "small" || size < CHUNK_SIZE
    }

    fn start(&self) -> Box<dyn FileHasher> {
        Box::new(Summing::default())
    }
}

impl FileHasher for Summing {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 += 1;
            self.1 = self.1.wrapping_add(self.0.wrapping_mul(u64::from(*byte)));
        }
    }

    fn finish(self: Box<Self>) -> Option<Bytes> {
        let bytes = [self.0.to_be_bytes(), self.1.to_be_bytes()].concat();
        (self.0 > 0).then(|| bytes.into())
    }
}

pub(super) fn sum(bytes: &[u8]) -> Option<Bytes> {
    let mut summing = Box::new(Summing::default());
    summing.update(bytes);
    summing.finish()
}

pub(super) fn with(names: &[&'static str], request: ImportRequest) -> ImportRequest {
    let sidecars = names.iter().map(|name| Arc::new(Sum(name)) as _).collect();
    ImportRequest {
        sidecars,
        ..request
    }
}

pub(super) async fn made_with_the_import(store: &dyn ChunkStore, scratch: &Path) {
    // The last is more than stores hash on one thread.
    for size in [0, 1, CHUNK_SIZE + 7, 21 * CHUNK_SIZE + 3] {
        let file = Sample::new(size);
        let cid = file.header.cid;
        let path = scratch.join(format!("sidecar-{size}"));
        for request in [
            file.import(),
            file.import_path(&path),
            ImportRequest {
                mode: ImportMode::Copy,
                ..file.import_path(&path)
            },
        ] {
            let info = store
                .import(with(&["one", "two", "small"], request))
                .await
                .expect("import");
            assert_eq!(info.header, file.header, "a sidecar changes no identity");
            for name in ["one", "two"] {
                let kept = store.sidecar(cid, name).await.expect("sidecar");
                assert_eq!(kept, sum(&file.bytes), "{name} of {size} bytes");
            }
            let small = store.sidecar(cid, "small").await.expect("sidecar");
            let suits = size > 0 && size < CHUNK_SIZE;
            assert_eq!(small.is_some(), suits, "of {size} bytes");
            assert_eq!(store.sidecar(cid, "on").await.expect("sidecar"), None);
            assert_eq!(store.sidecar(cid, "three").await.expect("sidecar"), None);
            assert!(store.remove(cid).await.expect("remove"));
            assert_eq!(store.sidecar(cid, "one").await.expect("sidecar"), None);
        }
    }
}

pub(super) async fn kept_and_replaced(store: &dyn ChunkStore, scratch: &Path) {
    let file = Sample::new(CHUNK_SIZE + 3);
    let cid = file.header.cid;
    let path = scratch.join("sidecar-known");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    refused!(
        store.set_sidecar(cid, "one", bytes("x")).await,
        StoreError::NotFound { .. }
    );
    store.import(file.import_path(&path)).await.expect("import");
    assert_eq!(store.sidecar(cid, "one").await.expect("sidecar"), None);
    let again = with(&["one"], file.import_path(&path));
    store.import(again).await.expect("a file that is known");
    assert_eq!(
        store.sidecar(cid, "one").await.expect("sidecar"),
        sum(&file.bytes)
    );
    for text in ["mine", "", "mine again"] {
        store
            .set_sidecar(cid, "one", bytes(text))
            .await
            .expect("replace");
        assert_eq!(
            store.sidecar(cid, "one").await.expect("sidecar"),
            Some(bytes(text))
        );
    }
    let again = with(&["one", "two"], file.import());
    store.import(again).await.expect("import again");
    let one = store.sidecar(cid, "one").await.expect("sidecar");
    assert_eq!(one, Some(bytes("mine again")), "one that is there stays");
    assert_eq!(
        store.sidecar(cid, "two").await.expect("sidecar"),
        sum(&file.bytes)
    );
    let large = Bytes::from(vec![7; 300_001]);
    store
        .set_sidecar(cid, "one", large.clone())
        .await
        .expect("replace");
    assert_eq!(
        store.sidecar(cid, "one").await.expect("sidecar"),
        Some(large)
    );
    store
        .set_sidecar(cid, "one", bytes("short"))
        .await
        .expect("replace");
    assert_eq!(
        store.sidecar(cid, "one").await.expect("sidecar"),
        Some(bytes("short"))
    );
    store.pin(cid, "p").await.expect("pin");
    store.unpin(cid, "p").await.expect("unpin");
    assert_eq!(store.sidecar(cid, "one").await.expect("sidecar"), None);
    store.import(file.import()).await.expect("import");
    let gone = store.sidecar(cid, "one").await.expect("sidecar");
    assert_eq!(
        gone, None,
        "what went with the object does not come back with it"
    );
}

pub(super) async fn bounded(store: &dyn ChunkStore) {
    let file = Sample::new(9);
    let cid = file.header.cid;
    let one = Bytes::from_static(b"1");
    let too_many = with(&["a"; MAX_SIDECARS + 1], file.import());
    refused!(store.import(too_many).await, StoreError::TooLarge { .. });
    for name in [
        "",
        "A",
        "a_b",
        "a\0",
        "a/b",
        "ä",
        "a-name-that-is-longer-than-32-byte",
    ] {
        let request = with(&[Box::leak(name.into())], file.import());
        refused!(store.import(request).await, StoreError::Unsupported { .. });
    }
    store.import(file.import()).await.expect("import");
    refused!(
        store.set_sidecar(cid, "A", one.clone()).await,
        StoreError::Unsupported { .. }
    );
    let large = Bytes::from(vec![0; MAX_SIDECAR_LEN + 1]);
    refused!(
        store.set_sidecar(cid, "a", large).await,
        StoreError::TooLarge { .. }
    );
    for number in 0..MAX_SIDECARS {
        let name = format!("n{number}");
        store
            .set_sidecar(cid, &name, one.clone())
            .await
            .expect("within the limit");
    }
    refused!(
        store.set_sidecar(cid, "more", one.clone()).await,
        StoreError::TooLarge { .. }
    );
    store
        .set_sidecar(cid, "n0", one)
        .await
        .expect("one that is there");
}
