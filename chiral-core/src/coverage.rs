//! Which chunks of a file somebody holds: runs, bitmaps, and their coarser word.

use std::ops::Range;

use crate::chunk::ChunkLayout;
use crate::range::RangeSet;

/// Limit on the number of runs taken from a stranger.
pub const MAX_RUNS: usize = 16_384;

/// Why a list of runs was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunsError {
    /// More than [`MAX_RUNS`] runs.
    #[error("{found} runs of chunks, at most {MAX_RUNS} are taken")]
    TooMany {
        /// Number of runs offered.
        found: usize,
    },
    /// A run that is empty, touches or overlaps the one before, or is out of order.
    #[error("run {index} is empty, out of order, or touches the run before it")]
    Order {
        /// Position of the run in the list.
        index: usize,
    },
    /// A run that ends past the last chunk.
    #[error("run {index} ends at chunk {end}, the file has {count}")]
    PastEnd {
        /// Position of the run in the list.
        index: usize,
        /// One past the run's last chunk.
        end: u32,
        /// Number of chunks in the file.
        count: u32,
    },
}

/// A set of chunks as rising runs `first..end` that do not touch each other.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(transparent)]
pub struct ChunkRuns(Vec<(u32, u32)>);

impl ChunkRuns {
    /// Checks runs that came from outside.
    ///
    /// # Errors
    /// [`RunsError`], by case.
    pub fn new(runs: Vec<(u32, u32)>, layout: ChunkLayout) -> Result<Self, RunsError> {
        if runs.len() > MAX_RUNS {
            return Err(RunsError::TooMany { found: runs.len() });
        }
        let mut least = 0;
        for (index, &(first, end)) in runs.iter().enumerate() {
            let touches = index > 0 && first <= least;
            if first >= end || touches {
                return Err(RunsError::Order { index });
            }
            if end > layout.count() {
                return Err(RunsError::PastEnd {
                    index,
                    end,
                    count: layout.count(),
                });
            }
            least = end;
        }
        Ok(Self(runs))
    }

    /// All chunks of a file.
    pub fn complete(layout: ChunkLayout) -> Self {
        Self(
            (layout.count() > 0)
                .then_some((0, layout.count()))
                .into_iter()
                .collect(),
        )
    }

    /// The runs of a rising sequence of chunk indices; repeats are ignored.
    pub fn from_sorted(indices: impl IntoIterator<Item = u32>) -> Self {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for index in indices {
            match runs.last_mut() {
                Some((_, end)) if index < *end => {}
                Some((_, end)) if index == *end => *end += 1,
                _ => runs.push((index, index + 1)),
            }
        }
        Self(runs)
    }

    /// The runs, rising.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u32>> + '_ {
        self.0.iter().map(|&(first, end)| first..end)
    }

    /// Every chunk, rising: the architecture's list view.
    pub fn chunks(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter().flatten()
    }

    /// Number of chunks in the set.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|(first, end)| u64::from(end - first))
            .sum()
    }

    /// Whether the set holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether chunk `index` is in the set.
    pub fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= index);
        at > 0 && self.0[at - 1].1 > index
    }

    /// The bytes of these chunks.
    pub fn to_ranges(&self, layout: ChunkLayout) -> RangeSet {
        self.iter()
            .map(|run| layout.span(run.start, run.end))
            .collect()
    }
}

/// What a seeder holds of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// All of it.
    Complete,
    /// These chunks.
    Partial(ChunkRuns),
}

impl Coverage {
    /// Whether chunk `index` is held.
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::Complete => true,
            Self::Partial(runs) => runs.contains(index),
        }
    }

    /// The held chunks of a file with this layout, as runs.
    pub fn runs(&self, layout: ChunkLayout) -> ChunkRuns {
        match self {
            Self::Complete => ChunkRuns::complete(layout),
            Self::Partial(runs) => runs.clone(),
        }
    }

    /// The held bytes of a file with this layout.
    pub fn to_ranges(&self, layout: ChunkLayout) -> RangeSet {
        self.runs(layout).to_ranges(layout)
    }
}

/// One bit per chunk; bit `i` is `bytes[i / 8] >> (7 - i % 8) & 1`, as in BEP 3's bitfield.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

impl Bitmap {
    /// `len` bits, all zero.
    pub fn new(len: u32) -> Self {
        Self {
            bytes: vec![0; len.div_ceil(8) as usize],
            len,
            ones: 0,
        }
    }

    /// Bits from their bytes; `None` if the number of bytes is wrong or a spare bit is set.
    pub fn from_bytes(bytes: Vec<u8>, len: u32) -> Option<Self> {
        let spare = len.div_ceil(8) * 8 - len;
        let clean = bytes
            .last()
            .is_none_or(|last| last.trailing_zeros() >= spare);
        if bytes.len() != len.div_ceil(8) as usize || !clean {
            return None;
        }
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bytes, len, ones })
    }

    /// The bytes, spare bits zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bits that are one.
    pub fn count_ones(&self) -> u32 {
        self.ones
    }

    /// Whether every bit is one.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Bit `index`; false past the end.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.bytes[index as usize / 8] & mask(index) != 0
    }

    /// Sets bit `index` to `value` and returns what it was; past the end nothing happens.
    pub fn set(&mut self, index: u32, value: bool) -> bool {
        if index >= self.len {
            return false;
        }
        let old = self.get(index);
        if old != value {
            self.bytes[index as usize / 8] ^= mask(index);
            self.ones = if value { self.ones + 1 } else { self.ones - 1 };
        }
        old
    }

    /// Indices of the ones, rising.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 0)
            .flat_map(move |(at, _)| {
                let first = at as u32 * 8;
                (first..(first + 8).min(self.len)).filter(|index| self.get(*index))
            })
    }

    /// The ones as runs.
    pub fn to_runs(&self) -> ChunkRuns {
        ChunkRuns::from_sorted(self.ones())
    }
}

fn mask(index: u32) -> u8 {
    0x80 >> (index % 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(chunks: u32) -> ChunkLayout {
        ChunkLayout::new(u64::from(chunks) * crate::CHUNK_SIZE).unwrap()
    }

    #[test]
    fn runs_from_outside_are_checked() {
        let at = layout(10);
        assert!(ChunkRuns::new(vec![(0, 3), (4, 10)], at).is_ok());
        for (bad, index) in [
            (vec![(3, 3)], 0),
            (vec![(4, 2)], 0),
            (vec![(0, 3), (3, 4)], 1),
            (vec![(0, 3), (2, 4)], 1),
            (vec![(5, 6), (1, 2)], 1),
        ] {
            assert_eq!(ChunkRuns::new(bad, at), Err(RunsError::Order { index }));
        }
        assert!(matches!(
            ChunkRuns::new(vec![(9, 11)], at),
            Err(RunsError::PastEnd { .. })
        ));
        let many = (0..=MAX_RUNS as u32).map(|i| (i * 2, i * 2 + 1)).collect();
        assert!(matches!(
            ChunkRuns::new(many, layout(1 << 20)),
            Err(RunsError::TooMany { .. })
        ));
    }

    #[test]
    fn spare_bits_and_wrong_lengths_are_refused() {
        assert!(Bitmap::from_bytes(vec![0xff, 0xc0], 10).is_some_and(|b| b.is_full()));
        assert!(Bitmap::from_bytes(vec![0xff, 0xe0], 10).is_none());
        assert!(Bitmap::from_bytes(vec![0xff], 10).is_none());
        assert!(Bitmap::from_bytes(vec![], 0).is_some_and(|b| b.is_full()));
    }

    proptest! {
        #[test]
        fn bitmap_and_runs_agree(set in proptest::collection::btree_set(0u32..300, 0..80)) {
            let mut bitmap = Bitmap::new(300);
            for &index in &set {
                prop_assert!(!bitmap.set(index, true));
            }
            prop_assert_eq!(bitmap.count_ones() as usize, set.len());
            let runs = bitmap.to_runs();
            prop_assert_eq!(runs.chunks().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            let pairs = runs.iter().map(|r| (r.start, r.end)).collect();
            prop_assert_eq!(&ChunkRuns::new(pairs, layout(300)).unwrap(), &runs);
            for index in 0..310 {
                prop_assert_eq!(runs.contains(index), set.contains(&index));
            }
            let again = Bitmap::from_bytes(bitmap.as_bytes().to_vec(), 300);
            prop_assert_eq!(again, Some(bitmap));
        }
    }
}
