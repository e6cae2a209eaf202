//! The suite of [`ChunkSource`]: what it delivers is what was asked for, once, and nothing
//! that its user does or omits breaks it.
//!
//! [`any_source`] runs everything that holds for complete and partial sources alike. None
//! of these functions knows time: run them under a limit.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::manifest::page_count;
use crate::{
    ByteRange, CHUNK_SIZE, ChunkLayout, ChunkSource, ContentIdentity, RangeSet, TransferError,
};

/// Everything, on a connected source of a file with these bytes; the source is closed
/// afterwards.
pub async fn any_source(source: Arc<dyn ChunkSource>, bytes: &Bytes) {
    assert!(source.max_requests() >= 1, "a source takes requests");
    if let Some(size) = source.size() {
        assert_eq!(size, bytes.len() as u64, "the size that the source tells");
    }
    ranges_come_whole(&*source, bytes).await;
    what_is_not_held_is_an_error(&*source, bytes).await;
    the_manifest_verifies(&*source, bytes).await;
    a_dropped_request_leaves_the_source_usable(&*source, bytes).await;
    requests_run_together(&*source, bytes).await;
    closing_is_final(&*source, bytes).await;
}

/// Ranges that begin and end at, before and behind the cuts of chunks and of the grid.
pub async fn ranges_come_whole(source: &dyn ChunkSource, bytes: &Bytes) {
    for range in interesting(source, bytes).await {
        receive(source, range, bytes).await;
    }
    let nothing = source.fetch(ByteRange::new(0, 0)).collect::<Vec<_>>().await;
    assert!(nothing.is_empty(), "nothing was asked for: {nothing:?}");
}

/// Bytes past the end, and chunks outside of the coverage.
pub async fn what_is_not_held_is_an_error(source: &dyn ChunkSource, bytes: &Bytes) {
    let size = bytes.len() as u64;
    let cell = source.grid().cell().min(1 << 40);
    fails(source, ByteRange::new(size, size.saturating_add(cell))).await;
    let layout = layout(bytes);
    let coverage = source
        .coverage()
        .await
        .expect("a source knows what it holds");
    let lacking = (0..layout.count()).find(|index| !coverage.contains(*index));
    if let Some(index) = lacking {
        let range = source.grid().expand(layout.range(index), size);
        fails(source, range).await;
    }
    if let Some(range) = interesting(source, bytes).await.first() {
        receive(source, *range, bytes).await;
    }
}

/// Header and pages belong to the file, if the source has any.
pub async fn the_manifest_verifies(source: &dyn ChunkSource, bytes: &Bytes) {
    let layout = layout(bytes);
    let header = source.manifest_header().await.expect("a header, or none");
    let past = source.manifest_page(page_count(layout)).await;
    assert!(past.is_err(), "a page that the file does not have");
    let Some(header) = header else {
        let page = source.manifest_page(0).await;
        let missing = matches!(
            page,
            Err(TransferError::Missing { .. } | TransferError::Unsupported { .. })
        );
        assert!(missing, "a page without a header: {page:?}");
        return;
    };
    let identity = ContentIdentity::of(bytes).expect("of a possible size");
    assert_eq!(
        (header.size, header.cid, header.root),
        (identity.size, identity.cid, identity.root),
        "the header is the file's"
    );
    for index in 0..page_count(layout) {
        let page = source
            .manifest_page(index)
            .await
            .expect("a page of the file");
        let verified = page.verify(identity.root, layout, index);
        assert!(verified.is_ok(), "page {index}: {verified:?}");
    }
}

/// Requests that are dropped at once, and after their first bytes.
pub async fn a_dropped_request_leaves_the_source_usable(source: &dyn ChunkSource, bytes: &Bytes) {
    let Some(range) = longest(source, bytes).await else {
        return;
    };
    for _ in 0..2 * source.max_requests() + 1 {
        drop(source.fetch(range));
        let mut stream = source.fetch(range);
        let first = stream.next().await.expect("something of it");
        assert!(first.is_ok(), "{first:?}");
    }
    receive(source, range, bytes).await;
}

/// As many requests as the source says that it takes, all at once.
pub async fn requests_run_together(source: &dyn ChunkSource, bytes: &Bytes) {
    let ranges = interesting(source, bytes).await;
    if ranges.is_empty() {
        return;
    }
    let asked = ranges.iter().cycle().take(source.max_requests());
    join_all(asked.map(|range| receive(source, *range, bytes))).await;
}

/// Closing twice, and asking afterwards.
pub async fn closing_is_final(source: &dyn ChunkSource, bytes: &Bytes) {
    let range = interesting(source, bytes).await.first().copied();
    source.close().await;
    source.close().await;
    if let Some(range) = range {
        fails(source, range).await;
    }
}

/// Fetches a range and checks every delivery.
pub async fn receive(source: &dyn ChunkSource, range: ByteRange, bytes: &Bytes) {
    let mut stream = source.fetch(range);
    let mut got = RangeSet::new();
    while let Some(delivery) = stream.next().await {
        let delivery = delivery.unwrap_or_else(|error| panic!("{range:?}: {error}"));
        let part = delivery.range();
        assert!(!part.is_empty(), "{range:?}: an empty delivery");
        assert!(range.covers(part), "{range:?}: {part:?} was not asked for");
        assert_eq!(
            got.insert(part),
            part.len(),
            "{range:?}: {part:?} came twice"
        );
        let expected = &bytes[part.start as usize..part.end as usize];
        assert!(
            delivery.bytes == expected,
            "{range:?}: wrong bytes in {part:?}"
        );
    }
    assert!(got.covers(range), "{range:?}: only {got:?} came");
}

async fn fails(source: &dyn ChunkSource, range: ByteRange) {
    let mut stream = source.fetch(range);
    while let Some(delivery) = stream.next().await {
        if delivery.is_err() {
            return;
        }
    }
    panic!("{range:?} was delivered, and should have been refused");
}

fn layout(bytes: &Bytes) -> ChunkLayout {
    ChunkLayout::new(bytes.len() as u64).expect("of a possible size")
}

/// Ranges on the grid and in the coverage, longest first.
async fn interesting(source: &dyn ChunkSource, bytes: &Bytes) -> Vec<ByteRange> {
    let size = bytes.len() as u64;
    let grid = source.grid();
    let coverage = source
        .coverage()
        .await
        .expect("a source knows what it holds");
    let held = coverage.to_ranges(layout(bytes));
    let mut ranges = Vec::new();
    for run in held.iter() {
        let cuts = [
            run.start,
            run.start + 1,
            run.start + 12_345,
            run.start + CHUNK_SIZE - 1,
            run.start + CHUNK_SIZE,
            run.start + CHUNK_SIZE + 1,
            run.end.saturating_sub(CHUNK_SIZE),
            run.end - 1,
            run.end,
        ];
        for start in cuts {
            for end in cuts {
                let wish = ByteRange::new(start, end).intersection(run);
                ranges.extend(wish.map(|wish| grid.expand(wish, size)));
            }
        }
    }
    ranges.retain(|range| held.covers(*range) && range.end <= size);
    ranges.sort_by_key(|range| (std::cmp::Reverse(range.len()), range.start));
    ranges.dedup();
    ranges
}

async fn longest(source: &dyn ChunkSource, bytes: &Bytes) -> Option<ByteRange> {
    interesting(source, bytes).await.first().copied()
}
