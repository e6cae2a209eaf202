//! A download in memory that ends as several files.

use bytes::Bytes;
use chiral_core::parts::Parts;
use chiral_core::{ByteRange, CHUNK_SIZE, StoreError};

use super::partial::MemoryPartial;

/// The bytes of a part, without a copy. The chunks are all there.
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

/// Writes each part to its file. One that is there already with the same bytes stays; with
/// others, nothing is written.
pub(super) fn write(chunks: &[Bytes], parts: &Parts) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for part in parts.parts() {
        let bytes = cut(chunks, part.range);
        if part.path.symlink_metadata().is_err() {
            missing.push((bytes, &part.path));
            continue;
        }
        let there = std::fs::read(&part.path).ok();
        if there.is_none_or(|there| there != bytes.concat()) {
            let path = part.path.clone();
            return Err(StoreError::AlreadyExists { path });
        }
    }
    missing
        .into_iter()
        .try_for_each(|(bytes, path)| MemoryPartial::write_out(&bytes, path))
}
