//! [`unpack`]: the files of a torrent out of its stream, to their places in a directory.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chiral_core::chunk_store::MAX_READ;
use chiral_core::{ByteRange, StoreError, StoredContent};

use super::download::Plan;
use super::target::{TargetDirectory, TargetError};

/// What a file is called until all of it is there: its name, and this.
const UNFINISHED: &str = ".chiral-part";

/// Why files could not be put in their places.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The stream cannot be read, or does not have all that was selected.
    #[error("the content of the torrent cannot be read")]
    Content(#[from] StoreError),
    /// A file has no place.
    #[error("a file of the torrent has no place")]
    Target(#[from] TargetError),
    /// Something else is there, and stays.
    #[error("{path} exists, and is another file")]
    Exists {
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

impl UnpackError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Content(error) if error.is_retryable())
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_path_buf();
    move |source| UnpackError::Io {
        operation,
        path,
        source,
    }
}

/// A file that was put in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Its number in the torrent.
    pub file: u32,
    /// Where it is.
    pub path: PathBuf,
}

/// Writes the selected files of a download to a directory. A file that is there already, with
/// the same bytes, is as good; any other stays, and is an error. Each file has its name only
/// once all of it is there, so that it can be gone on with after a crash.
///
/// # Errors
/// [`UnpackError`], by case; files before stay in their places.
///
/// # Cancel safety
/// Dropping the future may leave files in their places, and one that is not complete under
/// another name.
pub async fn unpack(
    content: &dyn StoredContent,
    plan: &Plan,
    directory: &TargetDirectory,
) -> Result<Vec<Unpacked>, UnpackError> {
    let mut unpacked = Vec::with_capacity(plan.files.len());
    let above = plan.torrent.info().directory();
    for &file in &plan.files {
        let Some(entry) = plan.torrent.files().get(file as usize) else {
            continue;
        };
        let (directory, above) = (directory.clone(), above.clone());
        let (inside, executable) = (entry.path.clone(), entry.executable);
        let (path, mut writing) = blocking(move || {
            let path = directory.place(above.as_ref(), &inside)?;
            let writing = Writing::begin(&path)?;
            Ok((path, writing))
        })
        .await?;
        let range = ByteRange::new(0, entry.len);
        let stream = plan.torrent.layout().to_stream(file, range);
        for run in stream
            .into_iter()
            .flat_map(|range| plan.selection.from_stream(range))
        {
            let mut at = run.at;
            while at < run.here().end {
                let end = run.here().end.min(at + MAX_READ);
                let bytes = content.read(ByteRange::new(at, end)).await?;
                writing = blocking(move || writing.write(bytes)).await?;
                at = end;
            }
        }
        let len = entry.len;
        blocking(move || writing.end(len, executable)).await?;
        unpacked.push(Unpacked { file, path });
    }
    Ok(unpacked)
}

/// Work with the disk, on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UnpackError> + Send + 'static,
) -> Result<T, UnpackError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Closed.into()),
    }
}

/// A file on its way to its place, or one that is there and compared.
struct Writing {
    path: PathBuf,
    part: PathBuf,
    file: File,
    /// It is there, and only looked at.
    is_there: bool,
    len: u64,
}

impl Writing {
    fn begin(path: &Path) -> Result<Self, UnpackError> {
        let mut part = path.as_os_str().to_owned();
        part.push(UNFINISHED);
        let part = PathBuf::from(part);
        let is_there = path.symlink_metadata().is_ok();
        let file = if is_there {
            File::open(path).map_err(io_error("open", path))?
        } else {
            match fs::remove_file(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &part)(error));
                }
                _ => {}
            }
            // New: a link that is in its way is not followed.
            File::create_new(&part).map_err(io_error("make", &part))?
        };
        Ok(Self {
            path: path.to_owned(),
            part,
            file,
            is_there,
            len: 0,
        })
    }

    fn write(mut self, bytes: Bytes) -> Result<Self, UnpackError> {
        self.len += bytes.len() as u64;
        if self.is_there {
            let mut found = vec![0; bytes.len()];
            let same = self.file.read_exact(&mut found).is_ok() && found == bytes;
            if !same {
                return Err(UnpackError::Exists { path: self.path });
            }
        } else {
            let written = self.file.write_all(&bytes);
            written.map_err(io_error("write", &self.part))?;
        }
        Ok(self)
    }

    fn end(mut self, len: u64, executable: bool) -> Result<(), UnpackError> {
        if self.len != len {
            let range = ByteRange::new(0, len);
            return Err(StoreError::Range { range }.into());
        }
        if self.is_there {
            return match self.file.read(&mut [0]) {
                Ok(0) => Ok(()),
                _ => Err(UnpackError::Exists { path: self.path }),
            };
        }
        if executable {
            make_executable(&self.file).map_err(io_error("change", &self.part))?;
        }
        self.file
            .sync_all()
            .map_err(io_error("write", &self.part))?;
        // What came to be there meanwhile stays.
        if self.path.symlink_metadata().is_ok() {
            return Err(UnpackError::Exists { path: self.path });
        }
        fs::rename(&self.part, &self.path).map_err(io_error("move", &self.path))
    }
}

#[cfg(unix)]
fn make_executable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    // As whoever may read it.
    let mode = permissions.mode();
    permissions.set_mode(mode | (mode & 0o444) >> 2);
    file.set_permissions(permissions)
}

#[cfg(not(unix))]
fn make_executable(_: &File) -> io::Result<()> {
    Ok(())
}
