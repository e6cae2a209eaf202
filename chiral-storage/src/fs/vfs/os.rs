//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;

use super::{FileStat, LockGuard, OpenMode, Vfs, VfsFile};

/// Most bytes written in one call. For longer writes the system takes memory in pieces so large
/// that a virtual machine gets them from its host first, if it gives back what is free: that
/// took up to four times as long as the writing itself.
const MAX_WRITE: usize = 16 << 10;

/// The operating system.
#[derive(Debug, Clone, Copy)]
pub(in crate::fs) struct OsVfs;

#[derive(Debug)]
struct OsFile(File);

fn stat(about: &fs::Metadata) -> FileStat {
    FileStat {
        len: about.len(),
        mtime_seconds: about.mtime(),
        mtime_nanos: about.mtime_nsec() as u32,
        inode: about.ino(),
        regular: about.is_file(),
    }
}

impl Vfs for OsVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::OpenOrCreate => options.write(true).create(true).truncate(false),
        };
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        fs::metadata(path).map(|about| stat(&about))
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_and_unlink(from, to),
            result => result.map_err(io::Error::from),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        link_and_unlink(from, to)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A crash in between leaves both names on one inode, which recovery takes as done.
fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

impl VfsFile for OsFile {
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        let held = into.len();
        into.reserve_exact(len);
        loop {
            match rustix::io::pread(&self.0, spare_capacity(into), offset) {
                Ok(read) => {
                    // The spare capacity may be more than what was asked for.
                    into.truncate(held + len);
                    return Ok(read.min(len));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn read_resident(&self, offset: u64, into: &mut [u8]) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};
        let len = into.len();
        let bufs = &mut [io::IoSliceMut::new(into)];
        // Less comes if only the beginning is in memory. Old kernels, and some file systems,
        // answer an error.
        preadv2(&self.0, bufs, offset, ReadWriteFlags::NOWAIT) == Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write_at(&bytes[..bytes.len().min(MAX_WRITE)], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.0.metadata().map(|about| stat(&about))
    }
}
