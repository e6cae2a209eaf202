//! Where things are in the directory of a store.

use std::path::{Path, PathBuf};

use chiral_core::{Cid, TransferId};

/// Paths below the directory of a store.
#[derive(Clone, Debug)]
pub(super) struct Places {
    dir: PathBuf,
}

impl Places {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn root(&self) -> &Path {
        &self.dir
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn meta(&self) -> PathBuf {
        self.dir.join("meta.redb")
    }

    pub(super) fn new_meta(&self) -> PathBuf {
        self.dir.join("meta.redb.new")
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.dir.join("objects")
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.dir.join("partial")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// The directory of an object: 256 of them, by the first byte of the cid.
    pub(super) fn bucket(&self, cid: Cid) -> PathBuf {
        self.objects().join(format!("{:02x}", cid.as_bytes()[0]))
    }

    pub(super) fn object_data(&self, cid: Cid) -> PathBuf {
        self.bucket(cid).join(format!("{cid}.data"))
    }

    pub(super) fn object_hashes(&self, cid: Cid) -> PathBuf {
        self.bucket(cid).join(format!("{cid}.hashes"))
    }

    pub(super) fn partial_data(&self, transfer: TransferId) -> PathBuf {
        self.partial().join(format!("{transfer}.data"))
    }

    pub(super) fn partial_hashes(&self, transfer: TransferId) -> PathBuf {
        self.partial().join(format!("{transfer}.hashes"))
    }

    pub(super) fn partial_pages(&self, transfer: TransferId) -> PathBuf {
        self.partial().join(format!("{transfer}.pages"))
    }

    /// Which files a download lies in, if it is several.
    pub(super) fn partial_spans(&self, transfer: TransferId) -> PathBuf {
        self.partial().join(format!("{transfer}.spans"))
    }

    /// The same before it has that name.
    pub(super) fn partial_spans_new(&self, transfer: TransferId) -> PathBuf {
        self.partial().join(format!("{transfer}.spans-new"))
    }

    /// Where a download is copied beside its destination on another device.
    pub(super) fn beside(destination: &Path, transfer: TransferId) -> PathBuf {
        destination.with_file_name(format!(".{transfer}.chiral"))
    }

    /// The directory that holds the name of `path`.
    pub(super) fn parent(path: &Path) -> &Path {
        path.parent().unwrap_or(Path::new(""))
    }
}
