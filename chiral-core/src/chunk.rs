//! How a file is cut in chunks: 262,144 bytes each, the last one short.

use crate::ByteRange;

/// Bytes in a full chunk.
pub const CHUNK_SIZE: u64 = 262_144;

/// Chunk indices are 32 bits wide, so a file holds at most 2^32 − 1 chunks (1 PiB − 256 KiB).
pub const MAX_CHUNKS: u64 = u32::MAX as u64;

/// Size in bytes of the largest file that the format takes.
pub const MAX_FILE_SIZE: u64 = MAX_CHUNKS * CHUNK_SIZE;

/// A file size over [`MAX_FILE_SIZE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("file size {size} is over the limit of {MAX_FILE_SIZE} bytes")]
pub struct FileTooLarge {
    /// The refused size in bytes.
    pub size: u64,
}

/// The cutting of a file of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkLayout {
    size: u64,
}

impl ChunkLayout {
    /// The layout of a file of `size` bytes.
    ///
    /// # Errors
    /// [`FileTooLarge`] over [`MAX_FILE_SIZE`].
    pub const fn new(size: u64) -> Result<Self, FileTooLarge> {
        if size > MAX_FILE_SIZE {
            Err(FileTooLarge { size })
        } else {
            Ok(Self { size })
        }
    }

    /// File size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Number of chunks; an empty file has none.
    pub const fn count(&self) -> u32 {
        self.size.div_ceil(CHUNK_SIZE) as u32
    }

    /// Index of the last chunk, if the file has any.
    pub const fn last(&self) -> Option<u32> {
        self.count().checked_sub(1)
    }

    /// Whether `index` names a chunk of this file.
    pub const fn contains(&self, index: u32) -> bool {
        index < self.count()
    }

    /// Whether `index` is the last chunk, whose compression includes SHA-256's padding.
    pub const fn is_last(&self, index: u32) -> bool {
        self.size > 0 && index == self.count() - 1
    }

    /// The bytes of chunk `index`; empty at the end of the file for an index past the last.
    pub const fn range(&self, index: u32) -> ByteRange {
        let start = index as u64 * CHUNK_SIZE;
        if start >= self.size {
            return ByteRange::new(self.size, self.size);
        }
        let end = start + CHUNK_SIZE;
        ByteRange::new(start, if end > self.size { self.size } else { end })
    }

    /// The bytes of the chunks `first..end`.
    pub const fn span(&self, first: u32, end: u32) -> ByteRange {
        let start = first as u64 * CHUNK_SIZE;
        let stop = end as u64 * CHUNK_SIZE;
        ByteRange::new(
            if start > self.size { self.size } else { start },
            if stop > self.size { self.size } else { stop },
        )
    }

    /// Index of the chunk that holds the byte at `offset`.
    pub const fn chunk_at(offset: u64) -> u32 {
        (offset / CHUNK_SIZE) as u32
    }

    /// The chunks that share a byte with `range`, as `first..end`.
    pub fn touched(&self, range: ByteRange) -> std::ops::Range<u32> {
        match range.intersection(ByteRange::new(0, self.size)) {
            Some(r) => Self::chunk_at(r.start)..Self::chunk_at(r.end - 1) + 1,
            None => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ranges_at_the_boundaries() {
        for (size, count) in [
            (0, 0),
            (1, 1),
            (262_143, 1),
            (262_144, 1),
            (262_145, 2),
            (MAX_FILE_SIZE, u32::MAX),
        ] {
            let layout = ChunkLayout::new(size).unwrap();
            assert_eq!(layout.count(), count, "{size}");
            if let Some(last) = layout.last() {
                assert_eq!(layout.range(last).end, size);
                assert!(layout.is_last(last) && !layout.contains(count));
            }
            assert!(layout.range(count).is_empty());
        }
        assert!(ChunkLayout::new(MAX_FILE_SIZE + 1).is_err());
        assert!(ChunkLayout::new(u64::MAX).is_err());
        let layout = ChunkLayout::new(262_145).unwrap();
        assert_eq!(layout.touched(ByteRange::new(262_143, 262_145)), 0..2);
        assert_eq!(layout.touched(ByteRange::new(262_144, u64::MAX)), 1..2);
        assert_eq!(layout.touched(ByteRange::new(262_145, 262_146)), 0..0);
    }
}
