use chiral_core::conformance::chunk_store;

use super::*;

async fn open(dir: PathBuf) -> Arc<dyn ChunkStore> {
    Arc::new(FsStore::open(dir, FsStoreConfig::default()).await.unwrap())
}

#[tokio::test]
async fn conforms_to_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let stores = tempfile::tempdir().unwrap();
    let make = async |name: &'static str| open(stores.path().join(name)).await;
    chunk_store::run(scratch.path(), &make).await;
    chunk_store::run_durable(scratch.path(), &make).await;
}
