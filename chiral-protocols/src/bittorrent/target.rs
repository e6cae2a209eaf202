//! [`TargetDirectory`]: where the files of a torrent go, and nothing outside it.
//!
//! A [`SafePath`] leads nowhere by its names. What lies in the directory already may: a link in
//! it can point anywhere. So every directory on the way is made here or must be one, and a link
//! is followed nowhere but in the path of the target directory itself, which the user chose.
//! Torrents make no links, so none comes in between by a stranger's doing; against other users
//! who may write to the directory at the same time this does not help.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::paths::SafePath;

/// Why a file has no place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A link is in the way. It is not followed.
    #[error("{path} is a symbolic link")]
    Link {
        /// Where.
        path: PathBuf,
    },
    /// Something that is no directory is where one must be.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// Something is there that is no file.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("could not {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A directory of the user's, for the files of torrents.
#[derive(Debug, Clone)]
pub struct TargetDirectory {
    root: PathBuf,
}

impl TargetDirectory {
    /// An existing directory; it may be reached over links. Reads the disk.
    ///
    /// # Errors
    /// [`TargetError::Io`], [`TargetError::NotADirectory`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TargetError> {
        let path = path.as_ref();
        let root = fs::canonicalize(path).map_err(io_error("find", path))?;
        match root.is_dir() {
            true => Ok(Self { root }),
            false => Err(TargetError::NotADirectory { path: root }),
        }
    }

    /// Its path, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file goes: beneath `name`, the torrent's, unless that is a single file
    /// ([`Info::directory`](super::metainfo::Info::directory)). Makes the directories on the way. There may be a regular file already, and nothing else. Reads
    /// and writes the disk.
    ///
    /// # Errors
    /// [`TargetError`], by case.
    pub fn place(&self, name: Option<&SafePath>, file: &SafePath) -> Result<PathBuf, TargetError> {
        let above = name.into_iter().flat_map(SafePath::components);
        let mut components: Vec<&str> = above.chain(file.components()).collect();
        let last = components.pop().unwrap_or_default();
        let mut at = self.root.clone();
        for component in components {
            at.push(component);
            enter(&at)?;
        }
        at.push(last);
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => Err(TargetError::Link { path: at }),
            Ok(found) if !found.is_file() => Err(TargetError::NotAFile { path: at }),
            Ok(_) => Ok(at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(at),
            Err(error) => Err(io_error("look at", &at)(error)),
        }
    }
}

/// Makes a directory, or finds that it is one.
fn enter(path: &Path) -> Result<(), TargetError> {
    match fs::create_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("make", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    let path = path.to_path_buf();
    match found.file_type() {
        kind if kind.is_symlink() => Err(TargetError::Link { path }),
        kind if kind.is_dir() => Ok(()),
        _ => Err(TargetError::NotADirectory { path }),
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let path = path.to_path_buf();
    move |source| TargetError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::bittorrent::paths::safe_path;

    fn path(text: &str) -> SafePath {
        safe_path(text.split('/')).unwrap()
    }

    #[test]
    fn directories_are_made_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let target = TargetDirectory::open(dir.path()).unwrap();
        let at = target
            .place(Some(&path("torrent")), &path("a/b/c.txt"))
            .unwrap();
        assert_eq!(at, target.root().join("torrent/a/b/c.txt"));
        fs::write(&at, "there already").unwrap();
        let again = target.place(Some(&path("torrent")), &path("a/b/c.txt"));
        assert_eq!(again.unwrap(), at);
        let single = target.place(None, &path("c.txt")).unwrap();
        assert_eq!(single, target.root().join("c.txt"));
    }

    #[test]
    fn no_link_is_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = TargetDirectory::open(dir.path()).unwrap();
        symlink(elsewhere.path(), dir.path().join("dir")).unwrap();
        symlink(elsewhere.path().join("file"), dir.path().join("file")).unwrap();
        symlink(".", dir.path().join("itself")).unwrap();
        for file in ["dir/x", "dir/x/y", "file", "itself/x", "file/x"] {
            let refused = target.place(None, &path(file));
            assert!(
                matches!(refused, Err(TargetError::Link { .. })),
                "{file}: {refused:?}"
            );
        }
        assert_eq!(
            fs::read_dir(elsewhere.path()).unwrap().count(),
            0,
            "nothing was made there"
        );
        let over_a_link = TargetDirectory::open(dir.path().join("dir")).unwrap();
        assert_eq!(
            over_a_link.root(),
            fs::canonicalize(elsewhere.path()).unwrap()
        );
    }

    #[test]
    fn what_is_something_else_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = TargetDirectory::open(dir.path()).unwrap();
        fs::write(dir.path().join("file"), "bytes").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        let refused = target.place(None, &path("file/x"));
        assert!(
            matches!(refused, Err(TargetError::NotADirectory { .. })),
            "{refused:?}"
        );
        let refused = target.place(None, &path("dir"));
        assert!(
            matches!(refused, Err(TargetError::NotAFile { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"bytes");
        let none = TargetDirectory::open(dir.path().join("none"));
        assert!(matches!(none, Err(TargetError::Io { .. })));
        let none = TargetDirectory::open(dir.path().join("file"));
        assert!(matches!(none, Err(TargetError::NotADirectory { .. })));
    }
}
