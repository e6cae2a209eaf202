//! Partial files that lie in the several files that they become.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CHUNK_SIZE, Sample, object, refused, transfer, write_all};
use crate::chunk_store::{ChunkStore, Destination, Location, PartialRequest, StoreError};
use crate::{ByteRange, FileSpan, FileSpans, RangeSet};

const SIZE: u64 = 3 * CHUNK_SIZE + 77;

/// Where the files and the padding lie; a few bytes lie in neither.
const FILES: [(&str, u64, u64); 4] = [
    ("first", 0, CHUNK_SIZE + 100),
    ("second", CHUNK_SIZE + 5000, 2 * CHUNK_SIZE),
    ("empty", 0, 0),
    ("last", 2 * CHUNK_SIZE + 9, SIZE),
];
const PADDING: ByteRange = ByteRange::new(CHUNK_SIZE + 100, CHUNK_SIZE + 5000);

fn sample(salt: u64) -> Sample {
    let mut bytes = Sample::salted(SIZE, salt).bytes.to_vec();
    bytes[PADDING.start as usize..PADDING.end as usize].fill(0);
    Sample::of(bytes)
}

fn spans(directory: &Path) -> Arc<FileSpans> {
    let files = FILES.map(|(name, start, end)| FileSpan {
        range: ByteRange::new(start, end),
        path: directory.join(name),
    });
    Arc::new(
        FileSpans::new(SIZE, files.into(), RangeSet::from(PADDING)).expect("files of their own"),
    )
}

fn request(file: &Sample, number: u8, spans: &Arc<FileSpans>) -> PartialRequest {
    PartialRequest::new(transfer(number), file.target(), SIZE).with_spans(spans.clone())
}

fn directory(scratch: &Path, name: &str) -> PathBuf {
    let directory = std::path::absolute(scratch.join(name)).expect("a path");
    std::fs::create_dir(&directory).expect("scratch directory must be writable");
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// All files, with their bytes, and nothing else.
fn check(directory: &Path, file: &Sample) {
    assert_eq!(names(directory), ["empty", "first", "last", "second"]);
    for (name, start, end) in FILES {
        let bytes = std::fs::read(directory.join(name)).expect("a file");
        assert!(bytes == file.slice(ByteRange::new(start, end)), "{name}");
    }
}

pub(super) async fn completion_as_several_files(store: &dyn ChunkStore, scratch: &Path) {
    let file = sample(0);
    let directory = directory(scratch, "several");
    let spans = spans(&directory);
    let partial = store.begin(request(&file, 1, &spans)).await.expect("begin");
    write_all(&*partial, &file).await;
    for chunk in 0..file.layout.count() {
        assert!(partial.read(chunk).await.expect("read") == file.chunk(chunk));
    }
    let destination = || Destination::Files(spans.clone());
    let taken = directory.join("last");
    std::fs::write(&taken, "precious").expect("scratch directory must be writable");
    refused!(
        partial.complete(destination(), file.header.clone()).await,
        StoreError::AlreadyExists { path } if path == taken
    );
    assert_eq!(std::fs::read(&taken).expect("still there"), b"precious");
    assert!(!directory.join("first").exists(), "all of them or none");
    assert!(partial.proven().is_full(), "the partial file is as it was");
    // The same bytes are as good.
    let (_, start, end) = FILES[3];
    std::fs::write(&taken, file.slice(ByteRange::new(start, end))).expect("scratch directory");
    let done = partial.complete(destination(), file.header.clone()).await;
    let done = done.expect("complete");
    assert_eq!(
        (done.location, done.header.cid),
        (Location::Files, file.header.cid)
    );
    check(&directory, &file);
    assert!(store.partials().await.expect("list").is_empty());
    assert_eq!(object(store, file.header.cid).await, None);
}

pub(super) async fn several_files_gone_on_with(store: &dyn ChunkStore, scratch: &Path) {
    let file = sample(1);
    let place = directory(scratch, "gone on with");
    let spans_there = spans(&place);
    let partial = store
        .begin(request(&file, 1, &spans_there))
        .await
        .expect("begin");
    for chunk in [0, 2] {
        partial.write(file.verified(chunk)).await.expect("write");
    }
    partial.flush().await.expect("flush");
    drop(partial);
    let partial = store
        .begin(request(&file, 2, &spans_there))
        .await
        .expect("begin");
    assert_eq!(partial.transfer(), transfer(1), "the same is gone on with");
    assert_eq!(partial.proven().ones().collect::<Vec<_>>(), [0, 2]);
    assert!(partial.read(2).await.expect("read") == file.chunk(2));
    drop(partial);
    // Elsewhere from now on.
    let other = directory(scratch, "elsewhere");
    let spans_other = spans(&other);
    let partial = store
        .begin(request(&file, 3, &spans_other))
        .await
        .expect("begin");
    write_all(&*partial, &file).await;
    let destination = Destination::Files(spans_other);
    let done = partial.complete(destination, file.header.clone()).await;
    done.expect("complete");
    check(&other, &file);
    assert_eq!(names(&place), [] as [&str; 0], "nothing is left behind");

    let partial = store
        .begin(request(&file, 4, &spans_there))
        .await
        .expect("begin");
    partial.write(file.verified(1)).await.expect("write");
    assert!(store.discard(partial.transfer()).await.expect("discard"));
    assert_eq!(names(&place), [] as [&str; 0]);
    let wrong = PartialRequest::new(transfer(5), file.target(), SIZE + 1);
    let wrong = store.begin(wrong.with_spans(spans_there)).await;
    assert!(wrong.is_err(), "files of another size than the download");
}
