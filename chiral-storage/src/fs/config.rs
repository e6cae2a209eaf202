//! Settings of an [`FsStore`](super::FsStore).

use std::time::Duration;

/// Settings of an [`FsStore`](super::FsStore). The defaults are for a desktop disk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FsStoreConfig {
    /// Memory that the metadata may use as cache.
    pub metadata_cache_bytes: usize,
    /// Check every page of the metadata when the store is opened, which reads all of it.
    /// Without this, damage shows when it is met, or not at all.
    pub check_metadata: bool,
    /// A share of one in so many served chunks is hashed again before it is sent; 0 for none.
    pub verify_served_one_in: u32,
    /// A commit of partial files begins when so many chunks are not durable.
    pub commit_chunks: u32,
    /// Or when one has not been durable for so long.
    pub commit_delay: Duration,
    /// A writer waits when so many chunks are not durable,
    pub max_undurable_chunks: u32,
    /// and one has not been for so long.
    pub max_undurable_delay: Duration,
    /// Commit on a thread of the store's own; otherwise the writers do it.
    pub(super) background: bool,
}

impl Default for FsStoreConfig {
    fn default() -> Self {
        Self {
            metadata_cache_bytes: 4 << 20,
            check_metadata: true,
            verify_served_one_in: 256,
            commit_chunks: 32,
            commit_delay: Duration::from_millis(250),
            max_undurable_chunks: 64,
            max_undurable_delay: Duration::from_millis(500),
            background: true,
        }
    }
}

impl FsStoreConfig {
    /// Sets the memory that the metadata may use as cache, in bytes.
    #[must_use]
    pub fn with_metadata_cache_bytes(mut self, bytes: usize) -> Self {
        self.metadata_cache_bytes = bytes;
        self
    }

    /// Sets whether all metadata is checked when the store is opened.
    #[must_use]
    pub fn with_check_metadata(mut self, check: bool) -> Self {
        self.check_metadata = check;
        self
    }

    /// Sets the share of served chunks that is hashed again: one in `chunks`; 0 for none.
    #[must_use]
    pub fn with_verify_served_one_in(mut self, chunks: u32) -> Self {
        self.verify_served_one_in = chunks;
        self
    }
}
