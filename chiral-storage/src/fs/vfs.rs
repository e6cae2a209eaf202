//! The file operations that a store is made of. The operating system does them; in tests a
//! simulated disk does, which loses what was not synced.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod os;
#[cfg(test)]
pub(super) mod sim;

pub(super) use os::OsVfs;

/// What identifies the state of a file. Numbers of devices do not: they may be others after
/// the next start of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStat {
    pub(super) len: u64,
    pub(super) mtime_seconds: i64,
    pub(super) mtime_nanos: u32,
    pub(super) inode: u64,
    pub(super) regular: bool,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMode {
    /// To read a file that exists.
    Read,
    /// To read and write a file that exists.
    ReadWrite,
    /// A new file; one that exists is an error.
    CreateNew,
    /// A file that exists, or a new one.
    OpenOrCreate,
}

/// Held while a store is open; dropping it lets others in.
pub(super) type LockGuard = Box<dyn Debug + Send + Sync>;

/// A file system.
pub(super) trait Vfs: Send + Sync + Debug + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// The state of what is at `path`, following links.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Renames a file; an error of kind `AlreadyExists` if `to` exists, `CrossesDevices` if
    /// it is elsewhere. Durable when both directories have been synced.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file over whatever is at `to`, at once.
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Paths of the files in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an advisory lock; `None` if somebody else has it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}

/// An open file, read and written at positions.
pub(super) trait VfsFile: Send + Sync + Debug + 'static {
    /// Reads up to `len` bytes at `offset`, appending them to `into`; 0 at the end.
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize>;

    /// Fills all of `into` from `offset` if that is possible at once, without waiting for a
    /// disk; otherwise it answers false, and `into` may hold anything.
    fn read_resident(&self, offset: u64, into: &mut [u8]) -> bool {
        let _ = (offset, into);
        false
    }

    /// Writes some of the bytes at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the time of the last change durable too.
    fn sync_all(&self) -> io::Result<()>;

    /// The state of the file.
    fn stat(&self) -> io::Result<FileStat>;
}
