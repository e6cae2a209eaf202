//! Checking chunks against their hashes on one thread and on two, beside plain SHA-256.
//!
//! `cargo bench --bench verify`. A check costs what hashing the chunk costs, and chunks are
//! checked independently of each other.

use chiral_core::{CHUNK_SIZE, ChunkHash, ChunkHasher, ChunkLayout, chain};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};

const CHUNKS: u32 = 64;

struct File {
    bytes: Vec<u8>,
    layout: ChunkLayout,
    hashes: Vec<ChunkHash>,
}

impl File {
    fn new() -> Self {
        let size = u64::from(CHUNKS) * CHUNK_SIZE;
        let byte = |i: u64| (i.wrapping_mul(2_654_435_761) >> 13 & 0xff) as u8;
        let bytes: Vec<u8> = (0..size).map(byte).collect();
        let mut hasher = ChunkHasher::new();
        hasher.update(&bytes);
        let (hashes, _) = hasher.finish().expect("a small file");
        Self {
            bytes,
            layout: ChunkLayout::new(size).expect("a small file"),
            hashes,
        }
    }

    fn chunk(&self, index: u32) -> &[u8] {
        let range = self.layout.range(index);
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn check(&self, chunks: impl Iterator<Item = u32>) {
        for index in chunks {
            let at = index as usize;
            let before = if at == 0 {
                chain::INITIAL
            } else {
                self.hashes[at - 1]
            };
            chain::check(
                self.layout,
                index,
                before,
                self.hashes[at],
                self.chunk(index),
            )
            .expect("a right chunk");
        }
    }
}

fn benches(criterion: &mut Criterion) {
    let file = File::new();
    let mut group = criterion.benchmark_group("verify 16 MiB");
    group
        .throughput(Throughput::Bytes(file.bytes.len() as u64))
        .sample_size(30);
    group.bench_function("plain sha2", |bench| {
        bench.iter(|| {
            (0..CHUNKS)
                .map(|index| Sha256::digest(file.chunk(index))[0])
                .max()
        });
    });
    group.bench_function("one thread", |bench| bench.iter(|| file.check(0..CHUNKS)));
    group.bench_function("two threads", |bench| {
        bench.iter(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| file.check((0..CHUNKS).step_by(2)));
                file.check((1..CHUNKS).step_by(2));
            });
        });
    });
    group.finish();
}

criterion_group!(verify_benches, benches);
criterion_main!(verify_benches);
