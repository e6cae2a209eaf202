//! A download in memory that ends as several files.

use bytes::Bytes;
use chiral_core::file_spans::FileSpans;
use chiral_core::{ByteRange, CHUNK_SIZE, StoreError};

use super::partial::MemoryPartial;

/// The bytes of a span, without a copy. The chunks are all there.
fn cut(chunks: &[Bytes], range: ByteRange) -> Vec<Bytes> {
    let mut cut = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let Some(chunk) = chunks.get((at / CHUNK_SIZE) as usize) else {
            break;
        };
        let from = (at % CHUNK_SIZE) as usize;
        let to = chunk.len().min(from + (range.end - at) as usize);
        if from >= to {
            break;
        }
        cut.push(chunk.slice(from..to));
        at += (to - from) as u64;
    }
    cut
}

/// Writes each span to its file. One that is there already with the same bytes stays; with
/// others, nothing is written.
pub(super) fn write(chunks: &[Bytes], spans: &FileSpans) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for span in spans.spans() {
        let bytes = cut(chunks, span.range);
        if span.path.symlink_metadata().is_err() {
            missing.push((bytes, &span.path));
            continue;
        }
        let there = std::fs::read(&span.path).ok();
        if there.is_none_or(|there| there != bytes.concat()) {
            let path = span.path.clone();
            return Err(StoreError::AlreadyExists { path });
        }
    }
    missing
        .into_iter()
        .try_for_each(|(bytes, path)| MemoryPartial::write_out(&bytes, path))
}
