//! The files of a torrent in their places: where each goes is said before anything of it comes, and
//! what has come lies there and nowhere else.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use chiral_core::RangeSet;
use chiral_core::file_spans::{FileSpan, FileSpans};

use super::download::{Plan, TorrentError};
use super::target::{TargetDirectory, TargetError};

/// Why files could not be put in their places.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
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
        false
    }
}

/// Where the selected files of a torrent go, in a directory of the user's: in the order of
/// [`Plan::files`]. Makes the directories on the way. Reads and writes the disk.
///
/// # Errors
/// [`TorrentError::Target`] for a file that has no place; [`TorrentError::FileSpans`] for files that
/// cannot lie beside each other.
pub(super) fn place(plan: &Plan, directory: &TargetDirectory) -> Result<FileSpans, TorrentError> {
    let (layout, selection) = (plan.torrent.layout(), &plan.selection);
    let above = plan.torrent.info().directory();
    let mut spans = Vec::with_capacity(plan.files.len());
    for &file in &plan.files {
        let entry = plan.torrent.files().get(file as usize);
        let (Some(entry), Some(stream)) = (entry, layout.file_range(file)) else {
            continue;
        };
        let path = directory.place(above.as_ref(), &entry.path)?;
        // All of its pieces were selected: what is one run there is one here.
        let run = selection.from_stream(stream).next();
        let range = run.map_or_else(Default::default, |run| run.here());
        spans.push(FileSpan { range, path });
    }
    let whole = chiral_core::ByteRange::new(0, layout.size());
    let padding = layout.segments(whole).filter(|it| it.file.is_none());
    let padding: RangeSet = padding
        .flat_map(|it| selection.from_stream(it.stream))
        .map(|run| run.here())
        .collect();
    Ok(FileSpans::new(selection.size(), spans, padding)?)
}

/// Lets whoever may read a file run it, as the torrent says of it. Writes the disk.
///
/// # Errors
/// [`UnpackError::Io`].
pub fn make_executable(path: &Path) -> Result<(), UnpackError> {
    let failed = |operation| {
        move |source| UnpackError::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    };
    // What came in between and leads elsewhere is not followed.
    let found = fs::symlink_metadata(path).map_err(failed("look at"))?;
    if !found.is_file() {
        let path = path.to_path_buf();
        return Err(TargetError::NotAFile { path }.into());
    }
    let file = File::open(path).map_err(failed("open"))?;
    add_permission(&file).map_err(failed("change"))
}

impl From<TargetError> for UnpackError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Link { path }
            | TargetError::NotADirectory { path }
            | TargetError::NotAFile { path } => Self::Exists { path },
            TargetError::Io {
                operation,
                path,
                source,
            } => Self::Io {
                operation,
                path,
                source,
            },
        }
    }
}

#[cfg(unix)]
fn add_permission(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    let mode = permissions.mode();
    permissions.set_mode(mode | (mode & 0o444) >> 2);
    file.set_permissions(permissions)
}

#[cfg(not(unix))]
fn add_permission(_: &File) -> io::Result<()> {
    Ok(())
}
