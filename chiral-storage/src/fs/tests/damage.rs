//! Damaged files of the store: an error that says so, never a panic.

use proptest::prelude::*;

use super::super::meta::record::{CompletionRecord, ObjectRecord, PartialRecord};
use super::*;

/// The metadata of a store with some of everything.
fn metadata() -> Vec<u8> {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES
        .get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let store = open(dir.path()).await;
                for size in 0..20 {
                    let source = ImportSource::Bytes(generated(size * 100).into());
                    let info = store.import(ImportRequest::new(source)).await.unwrap();
                    store.pin(info.header.cid, "pin").await.unwrap();
                }
                let root = FileIdentification::Root(chiral_core::MerkleRoot::from_bytes([7; 32]));
                let transfer = TransferId::from_bytes([1; 16]);
                let request = PartialRequest::new(transfer, root, 1 << 40);
                store.begin(request).await.unwrap();
                store.shutdown().await.unwrap();
                std::fs::read(dir.path().join("meta.redb")).unwrap()
            })
        })
        .clone()
}

/// Opens a store with this metadata and asks for everything.
async fn try_everything(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.redb"), bytes).unwrap();
    let Ok(store) = FsStore::open(dir.path(), FsStoreConfig::default()).await else {
        return;
    };
    let _ = store.partials().await;
    for info in store.objects().await.unwrap_or_default() {
        let _ = store.object(info.header.cid).await;
        let _ = store.open(info.header.cid).await;
        let _ = store.unpin(info.header.cid, "pin").await;
    }
    let _ = store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_metadata_is_an_error(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = metadata();
        // Half of the damage where it hurts most.
        let len = bytes.len();
        for (number, (index, flip)) in flips.iter().enumerate() {
            let limit = if number % 2 == 0 { len } else { len.min(4096) };
            bytes[index.index(limit)] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(len));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(try_everything(&bytes));
    }

    #[test]
    fn arbitrary_records_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ObjectRecord::decode(&bytes);
        let _ = PartialRecord::decode(&bytes);
        let _ = CompletionRecord::decode(&bytes);
    }
}

#[tokio::test]
async fn a_damaged_list_of_hashes_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let source = ImportSource::Bytes(generated(3 * CHUNK_SIZE).into());
    let cid = store
        .import(ImportRequest::new(source))
        .await
        .unwrap()
        .header
        .cid;
    let path = store.shared.places.object_hashes(cid);
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 4 * 32, "three hashes and one node");
    for at in [0, 40, 70, 100] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let content = store.open(cid).await.unwrap().unwrap();
        assert!(
            matches!(content.page(0).await, Err(StoreError::Metadata { .. })),
            "byte {at}"
        );
    }
    std::fs::write(&path, &good[..90]).unwrap();
    let content = store.open(cid).await.unwrap().unwrap();
    assert!(content.page(0).await.is_err());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.shutdown().await.unwrap();
    let database = redb::Database::open(dir.path().join("meta.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let formats = redb::TableDefinition::<&str, u64>::new("format");
    transaction
        .open_table(formats)
        .unwrap()
        .insert("chiral-storage", 2)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let opened = FsStore::open(dir.path(), FsStoreConfig::default()).await;
    assert!(matches!(opened, Err(StoreError::Metadata { .. })));
}
