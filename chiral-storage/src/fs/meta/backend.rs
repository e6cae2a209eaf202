//! redb's file on the store's own file operations.

use std::io;

use redb::StorageBackend;

use super::super::disk::DiskFile;

/// The file of the metadata. The lock of the store keeps others out.
#[derive(Debug)]
pub(super) struct Backend(DiskFile);

impl Backend {
    pub(super) fn new(file: DiskFile) -> Self {
        Self(file)
    }
}

/// The error as the operating system gave it.
fn io_error(error: chiral_core::StoreError) -> io::Error {
    match error {
        chiral_core::StoreError::Io { source, .. } => source,
        chiral_core::StoreError::NoSpace { .. } => io::ErrorKind::StorageFull.into(),
        other => io::Error::other(other),
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.stat().map(|stat| stat.len).map_err(io_error)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read(offset, out.len()).map_err(io_error)?;
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len).map_err(io_error)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(io_error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).map_err(io_error)
    }
}
