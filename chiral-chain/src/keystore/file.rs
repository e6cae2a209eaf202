//! Keystore files: read within a bound, written whole and for their owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use alloy_primitives::hex;

use super::KeystoreError;
use crate::PrivateKeyError;

/// Longest file, in bytes; those of all known programs have less than 1,000.
const MAX_FILE_BYTES: u64 = 16 * 1024;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeystoreError> {
    let fail = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => KeystoreError::Missing { path: path.into() },
        _ => KeystoreError::Read {
            path: path.into(),
            source,
        },
    };
    let file = File::open(path).map_err(fail)?;
    let mut text = Vec::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(KeystoreError::Format {
            reason: "the file is too long",
        });
    }
    Ok(text)
}

/// Writes a file that was not there: beside it first, then under its name, which fails if
/// somebody has taken it meanwhile.
pub(super) fn write_new(path: &Path, text: &[u8]) -> Result<(), KeystoreError> {
    let fail = |source| KeystoreError::Write {
        path: path.into(),
        source,
    };
    let folder = folder_of(path);
    make_folder(folder).map_err(fail)?;
    let mut tag = [0; 8];
    getrandom::fill(&mut tag).map_err(|_| PrivateKeyError::Randomness)?;
    let unfinished = folder.join(format!(".{}.unfinished", hex::encode(tag)));
    let written = write_durable(&unfinished, text).and_then(|()| publish(&unfinished, path));
    // Gone already where it was renamed; all else must not leave a key behind.
    let _ = std::fs::remove_file(&unfinished);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(KeystoreError::Exists { path: path.into() })
        }
        Err(error) => Err(fail(error)),
        Ok(()) => sync_folder(folder).map_err(fail),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_durable(path: &PathBuf, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn publish(unfinished: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(unfinished, path) {
        // File systems without hard links: a moment between looking and renaming remains.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            if path.symlink_metadata().is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(unfinished, path)
        }
        result => result,
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
