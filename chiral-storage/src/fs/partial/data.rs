//! [`Data`]: the bytes of a download, in one file or in several.

use chiral_core::StoreError;

use super::super::disk::DiskFile;
use super::spread::Spread;

/// Where the bytes of a partial file are.
#[derive(Debug)]
pub(super) enum Data {
    /// In a file of the store's.
    Whole(DiskFile),
    /// In the files that they become.
    Spread(Spread),
}

impl Data {
    /// Writes all bytes at `offset`.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Whole(file) => file.write(offset, bytes),
            Self::Spread(spread) => spread.write(offset, bytes),
        }
    }

    /// Exactly `len` bytes at `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Whole(file) => file.read(offset, len),
            Self::Spread(spread) => spread.read(offset, len),
        }
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        match self {
            Self::Whole(file) => file.sync(),
            Self::Spread(spread) => spread.sync(),
        }
    }

    /// Whether it is there, with all the bytes that it has room for.
    pub(super) fn is_there(&self, size: u64) -> Result<bool, StoreError> {
        match self {
            Self::Whole(file) => Ok(file.stat()?.len == size),
            Self::Spread(spread) => spread.is_there(size),
        }
    }
}
