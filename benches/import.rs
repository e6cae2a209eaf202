//! Import of a file that is in the page cache, beside one plain pass of SHA-256 over it.
//!
//! `cargo bench --bench import`. The import makes the cid, every chunk hash, the tree and
//! the record in the store; the mark is 0.9 of what the plain pass does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chiral_core::chunk_store::{ChunkStore, ImportMode, ImportRequest, ImportSource};
use chiral_storage::{FsStore, FsStoreConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};

const SIZE: u64 = 64 << 20;

fn generated() -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(2_654_435_761) >> 13 & 0xff) as u8;
    (0..SIZE).map(byte).collect()
}

fn hash_file(path: &Path) -> [u8; 32] {
    let mut file = std::fs::File::open(path).expect("the file was just written");
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).expect("the file can be read") {
            0 => return hasher.finalize().into(),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Time of the import alone; the object is removed in between.
async fn import(store: Arc<FsStore>, path: &Path, mode: ImportMode, times: u64) -> Duration {
    let mut all = Duration::ZERO;
    for _ in 0..times {
        let mut request = ImportRequest::new(ImportSource::Path(path.to_path_buf()));
        request.mode = mode;
        let begun = Instant::now();
        let info = store.import(request).await.expect("import");
        all += begun.elapsed();
        store.remove(info.header.cid).await.expect("remove");
    }
    all
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("file");
    std::fs::write(&path, generated()).expect("room for the file");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("a runtime");
    let opened = FsStore::open(dir.path().join("store"), FsStoreConfig::default());
    let store = Arc::new(runtime.block_on(opened).expect("a new store"));
    let mut group = criterion.benchmark_group("import 64 MiB");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(20);
    group.bench_function("plain sha2", |bench| bench.iter(|| hash_file(&path)));
    for (name, mode) in [
        ("in place", ImportMode::InPlace),
        ("copy", ImportMode::Copy),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|times| {
                runtime.block_on(import(Arc::clone(&store), &path, mode, times))
            });
        });
    }
    group.finish();
    runtime.block_on(store.shutdown()).expect("shutdown");
}

criterion_group!(import_benches, benches);
criterion_main!(import_benches);
