//! What every [`ChunkStore`] promises.
//!
//! Call [`run`] in a test of your implementation, and [`run_durable`] too if content
//! outlives the store that it was given to.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk_store::{
    ChunkStore, ImportRequest, ImportSource, ObjectInfo, PartialFile, PartialRequest,
};
use crate::{
    ByteRange, CHUNK_SIZE, ChunkClaim, ChunkHash, ChunkHasher, ChunkLayout, ChunkLink, Cid,
    FileIdentification, ManifestHeader, ManifestPage, PageRoots, ProvenLink, StoredContent,
    TransferId, VerifiedChunk, VerifiedPage, chain,
};

mod durable;
mod objects;
mod partials;
mod sidecars;
mod spans;

pub use durable::run_durable;

/// Checks all that holds for stores in memory too. `make` gives an empty store for each of
/// the names it is called with; `scratch` is an empty directory for files. The store must
/// have room for 32 MiB.
///
/// # Panics
/// On the first promise that is not kept.
pub async fn run(scratch: &Path, make: impl AsyncFn(&'static str) -> Arc<dyn ChunkStore>) {
    objects::identity_at_all_sizes(&*make("sizes").await, scratch).await;
    objects::reads_and_refusals(&*make("reads").await).await;
    objects::equal_content_is_one_object(&*make("equal").await, scratch).await;
    objects::pins_are_counted_by_name(&*make("pins").await, scratch).await;
    objects::imports_report_and_refuse(&*make("imports").await, scratch).await;
    sidecars::made_with_the_import(&*make("sidecars").await, scratch).await;
    sidecars::kept_and_replaced(&*make("kept sidecars").await, scratch).await;
    sidecars::bounded(&*make("bounded sidecars").await).await;
    partials::beginning_and_going_on(&*make("begin").await).await;
    partials::verified_chunks_in_any_order(&*make("verified").await).await;
    partials::checked_chunks(&*make("checked").await).await;
    partials::unproven_chunks(&*make("unproven").await).await;
    partials::serving_while_downloading(&*make("serving").await).await;
    partials::completion_in_the_store(&*make("complete").await).await;
    partials::completion_as_a_file(&*make("file").await, scratch).await;
    spans::completion_as_several_files(&*make("several").await, scratch).await;
    spans::several_files_gone_on_with(&*make("several again").await, scratch).await;
    partials::contradicting_proofs(&*make("contradiction").await).await;
    partials::discarding(&*make("discard").await).await;
    shutdown_closes(make("shutdown").await).await;
}

async fn shutdown_closes(store: Arc<dyn ChunkStore>) {
    let file = Sample::new(CHUNK_SIZE + 1);
    let object = store.import(file.import()).await.expect("import");
    let content = open(&*store, object.header.cid).await;
    let other = Sample::new(2 * CHUNK_SIZE);
    let partial = begin(&*store, 1, &other).await;
    store.shutdown().await.expect("shutdown");
    store
        .shutdown()
        .await
        .expect("a second shutdown does nothing");
    closed("import", store.import(file.import()).await);
    closed("object", store.object(file.header.cid).await);
    closed("objects", store.objects().await);
    closed("open", store.open(file.header.cid).await);
    closed("sidecar", store.sidecar(file.header.cid, "a").await);
    closed(
        "set_sidecar",
        store.set_sidecar(file.header.cid, "a", Bytes::new()).await,
    );
    closed("pin", store.pin(file.header.cid, "a").await);
    closed("unpin", store.unpin(file.header.cid, "a").await);
    closed("remove", store.remove(file.header.cid).await);
    closed("begin", store.begin(other.request(2)).await);
    closed("partials", store.partials().await);
    closed("discard", store.discard(transfer(1)).await);
    closed("read", content.read(ByteRange::new(0, 1)).await);
    closed("write", partial.write(other.verified(0)).await);
}

fn closed<T>(call: &str, result: Result<T, crate::StoreError>) {
    let refused = matches!(result, Err(crate::StoreError::Closed));
    assert!(
        refused,
        "{call} after shutdown must answer StoreError::Closed"
    );
}

/// Asserts that a call failed as it should.
macro_rules! refused {
    ($call:expr, $error:pat $(if $guard:expr)?) => {
        match $call {
            Err($error) $(if $guard)? => {}
            Err(other) => panic!("{} failed with {other:?}", stringify!($call)),
            Ok(_) => panic!("{} must fail with {}", stringify!($call), stringify!($error)),
        }
    };
}
use refused;

/// Byte `i` of the generated files.
fn byte(i: u64, salt: u64) -> u8 {
    (i.wrapping_add(salt).wrapping_mul(2_654_435_761) >> 13 & 0xff) as u8
}

fn transfer(number: u8) -> TransferId {
    TransferId::from_bytes([number; 16])
}

/// A generated file and all that is known of it.
struct Sample {
    bytes: Bytes,
    layout: ChunkLayout,
    hashes: Vec<ChunkHash>,
    header: ManifestHeader,
}

impl Sample {
    fn new(size: u64) -> Self {
        Self::salted(size, 0)
    }

    /// A file of the same size with other bytes.
    fn salted(size: u64, salt: u64) -> Self {
        Self::of((0..size).map(|i| byte(i, salt)).collect())
    }

    /// A file of these bytes.
    fn of(bytes: Vec<u8>) -> Self {
        let (size, bytes) = (bytes.len() as u64, Bytes::from(bytes));
        let layout = ChunkLayout::new(size).expect("a small file");
        let mut hasher = ChunkHasher::new();
        hasher.update(&bytes);
        let (hashes, cid) = hasher.finish().expect("a small file");
        let root = PageRoots::from_hashes(layout, &hashes)
            .expect("all hashes")
            .root();
        let header = ManifestHeader {
            size,
            cid,
            root,
            name: Some("a name".into()),
            mime: Some("text/plain".into()),
            created_at: 7,
            aliases: Vec::new(),
        };
        Self {
            bytes,
            layout,
            hashes,
            header,
        }
    }

    fn slice(&self, range: ByteRange) -> Bytes {
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn chunk(&self, index: u32) -> Bytes {
        self.slice(self.layout.range(index))
    }

    fn before(&self, index: u32) -> ChunkHash {
        index
            .checked_sub(1)
            .map_or(chain::INITIAL, |previous| self.hashes[previous as usize])
    }

    fn verified(&self, index: u32) -> VerifiedChunk {
        let after = self.hashes[index as usize];
        VerifiedChunk::check(
            self.layout,
            index,
            self.before(index),
            after,
            self.chunk(index),
        )
        .expect("a right chunk")
    }

    fn claim(&self, index: u32, bytes: Bytes) -> ChunkClaim {
        ChunkClaim {
            index,
            before: self.before(index),
            after: self.hashes[index as usize],
            bytes,
            checked: None,
        }
    }

    fn link(&self, index: u32) -> ProvenLink {
        ChunkLink::compress(self.layout, index, self.before(index), &self.chunk(index))
            .and_then(|link| link.prove(self.hashes[index as usize]))
            .expect("a right chunk")
    }

    fn page(&self, index: u32) -> VerifiedPage {
        let roots = PageRoots::from_hashes(self.layout, &self.hashes).expect("all hashes");
        let page = roots
            .page(index, self.hashes.clone(), &[])
            .expect("a small file has one page");
        page.verify(self.header.root, self.layout, index)
            .expect("a right page")
    }

    fn target(&self) -> FileIdentification {
        let (cid, root) = (self.header.cid, Some(self.header.root));
        FileIdentification::Content {
            cid,
            root,
            size: Some(self.header.size),
        }
    }

    fn request(&self, number: u8) -> PartialRequest {
        PartialRequest::new(transfer(number), self.target(), self.header.size)
    }

    /// Imports the bytes with the hints of the header.
    fn import(&self) -> ImportRequest {
        let mut request = ImportRequest::new(ImportSource::Bytes(self.bytes.clone()));
        request.name = self.header.name.clone();
        request.mime = self.header.mime.clone();
        request.created_at = self.header.created_at;
        request
    }

    /// Writes the file, and asks for its import from there.
    fn import_path(&self, path: &Path) -> ImportRequest {
        std::fs::write(path, &self.bytes).expect("scratch directory must be writable");
        ImportRequest {
            source: ImportSource::Path(path.to_path_buf()),
            ..self.import()
        }
    }

    /// All bytes, the manifest and the coverage are as they should be.
    async fn check_content(&self, content: &dyn StoredContent) {
        assert_eq!(content.header(), &self.header, "header of what is served");
        let coverage = content.coverage().to_ranges(self.layout);
        assert_eq!(
            coverage.len(),
            self.header.size,
            "coverage of a complete object"
        );
        for index in 0..self.layout.count() {
            let read = content
                .read(self.layout.range(index))
                .await
                .expect("read a chunk");
            assert!(
                read == self.chunk(index),
                "bytes of chunk {index} of {}",
                self.header.size
            );
        }
        self.check_pages(content).await;
    }

    /// Every page leads to the root, and there are no more.
    async fn check_pages(&self, content: &dyn StoredContent) {
        let count = crate::manifest::page_count(self.layout);
        for index in 0..count {
            let page: ManifestPage = content
                .page(index)
                .await
                .expect("make a page")
                .expect("a complete object has all its pages");
            page.verify(self.header.root, self.layout, index)
                .expect("page leads to the root");
        }
        assert_eq!(content.page(count).await.expect("no such page"), None);
        assert_eq!(content.page(u32::MAX).await.expect("no such page"), None);
    }
}

async fn open(store: &dyn ChunkStore, cid: Cid) -> Arc<dyn StoredContent> {
    store
        .open(cid)
        .await
        .expect("open")
        .expect("the store has this content")
}

async fn object(store: &dyn ChunkStore, cid: Cid) -> Option<ObjectInfo> {
    store.object(cid).await.expect("look up an object")
}

async fn begin(store: &dyn ChunkStore, number: u8, file: &Sample) -> Arc<dyn PartialFile> {
    store
        .begin(file.request(number))
        .await
        .expect("begin a partial file")
}

/// Writes all chunks, the last first.
async fn write_all(partial: &dyn PartialFile, file: &Sample) {
    for index in (0..file.layout.count()).rev() {
        partial
            .write(file.verified(index))
            .await
            .expect("write a chunk");
    }
}
