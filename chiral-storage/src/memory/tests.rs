use chiral_core::conformance::chunk_store;

use super::*;

#[tokio::test]
async fn conforms_to_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    chunk_store::run(scratch.path(), async |_| {
        Arc::new(MemoryStore::new(64 << 20)) as Arc<dyn ChunkStore>
    })
    .await;
}

#[tokio::test]
async fn content_over_the_limit_is_refused_and_removal_makes_room() {
    let store = MemoryStore::new(1000);
    let import = |byte: u8, len: usize| {
        store.import(ImportRequest::new(ImportSource::Bytes(
            vec![byte; len].into(),
        )))
    };
    let first = import(1, 600).await.unwrap();
    assert!(matches!(
        import(2, 600).await,
        Err(StoreError::TooLarge { limit: 1000, .. })
    ));
    assert_eq!(import(1, 600).await.unwrap(), first);
    assert_eq!(store.used_bytes(), 600);
    assert!(store.remove(first.header.cid).await.unwrap());
    assert_eq!(store.used_bytes(), 0);
    import(2, 600).await.unwrap();
}
