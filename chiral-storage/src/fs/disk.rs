//! Files with typed errors: what was being done, and to which path.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chiral_core::StoreError;

use super::vfs::{FileStat, LockGuard, OpenMode, Vfs, VfsFile};

/// A file system whose errors name path and operation.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    vfs: Arc<dyn Vfs>,
}

/// An open file that knows its path.
#[derive(Clone, Debug)]
pub(super) struct DiskFile {
    file: Arc<dyn VfsFile>,
    path: Arc<Path>,
}

/// The error of an operation on a path.
pub(super) fn failed(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StoreError::NoSpace { operation, path }
        }
        ErrorKind::AlreadyExists => StoreError::AlreadyExists { path },
        _ => StoreError::Io {
            operation,
            path,
            source,
        },
    }
}

/// Whether the error says that the file is not there.
pub(super) fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Whether the error says that a file ended early.
pub(super) fn is_cut_short(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::UnexpectedEof)
}

impl Disk {
    pub(super) fn new(vfs: Arc<dyn Vfs>) -> Self {
        Self { vfs }
    }

    pub(super) fn open(&self, path: &Path, mode: OpenMode) -> Result<DiskFile, StoreError> {
        let operation = if mode == OpenMode::CreateNew {
            "create"
        } else {
            "open"
        };
        let file = self
            .vfs
            .open(path, mode)
            .map_err(|error| failed(operation, path, error))?;
        Ok(DiskFile {
            file,
            path: path.into(),
        })
    }

    pub(super) fn stat(&self, path: &Path) -> Result<FileStat, StoreError> {
        self.vfs
            .stat(path)
            .map_err(|error| failed("look at", path, error))
    }

    /// Whether something is at `path`.
    pub(super) fn exists(&self, path: &Path) -> Result<bool, StoreError> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renames without replacing; `Ok(false)` if the two are on different devices.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<bool, StoreError> {
        match self.vfs.rename_noreplace(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(failed("rename", from, error)),
            Err(error) => Err(failed("rename to", to, error)),
        }
    }

    /// Renames over whatever is at `to`, at once.
    pub(super) fn rename_over(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.vfs
            .rename_over(from, to)
            .map_err(|error| failed("rename to", to, error))
    }

    /// Unlinks a file if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.vfs.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Makes a directory that is durable when the call returns.
    pub(super) fn create_dir(&self, path: &Path) -> Result<(), StoreError> {
        if self.exists(path)? {
            return Ok(());
        }
        self.vfs
            .create_dir_all(path)
            .map_err(|error| failed("create", path, error))?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
        self.vfs
            .list(dir)
            .map_err(|error| failed("list", dir, error))
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        // The parent of a bare file name is the empty path.
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        self.vfs
            .sync_dir(dir)
            .map_err(|error| failed("sync", dir, error))
    }

    pub(super) fn try_lock(&self, path: &Path) -> Result<Option<LockGuard>, StoreError> {
        self.vfs
            .try_lock(path)
            .map_err(|error| failed("lock", path, error))
    }
}

impl DiskFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends up to `len` bytes at `offset` to `into`; fewer only at the end of the file.
    pub(super) fn read_some(
        &self,
        offset: u64,
        len: usize,
        into: &mut Vec<u8>,
    ) -> Result<usize, StoreError> {
        let mut done = 0;
        while done < len {
            match self.file.read_at(offset + done as u64, len - done, into) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.path, error)),
            }
        }
        Ok(done)
    }

    /// Exactly `len` bytes at `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::with_capacity(len);
        if self.read_some(offset, len, &mut bytes)? < len {
            let error = io::Error::from(ErrorKind::UnexpectedEof);
            return Err(failed("read", &self.path, error));
        }
        Ok(bytes)
    }

    /// Fills all of `into` from `offset` if it need not wait for that; whether it did.
    pub(super) fn read_resident(&self, offset: u64, into: &mut [u8]) -> bool {
        self.file.read_resident(offset, into)
    }

    /// Writes all bytes at `offset`.
    pub(super) fn write(&self, offset: u64, mut bytes: &[u8]) -> Result<(), StoreError> {
        let mut at = offset;
        while !bytes.is_empty() {
            match self.file.write_at(at, bytes) {
                Ok(0) => {
                    let error = io::Error::from(ErrorKind::WriteZero);
                    return Err(failed("write", &self.path, error));
                }
                Ok(written) => {
                    at += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("write", &self.path, error)),
            }
        }
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> Result<(), StoreError> {
        self.file
            .set_len(len)
            .map_err(|error| failed("resize", &self.path, error))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(|error| failed("sync", &self.path, error))
    }

    /// Syncs the time of the last change too.
    pub(super) fn sync_all(&self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(|error| failed("sync", &self.path, error))
    }

    pub(super) fn stat(&self) -> Result<FileStat, StoreError> {
        self.file
            .stat()
            .map_err(|error| failed("look at", &self.path, error))
    }
}
