//! [`identify_file`]: the identity of a file, without storing anything.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chiral_core::chunk_store::ProgressFn;
use chiral_core::{ContentIdentity, IdentityHasher, MAX_FILE_SIZE, StoreError};

use crate::read_ahead::{BUFFER_LEN, read_ahead};

/// The identity of a file, from one pass over it: what importing the same file answers, with
/// nothing kept. Must be called in a tokio runtime; memory does not grow with the file but by
/// 32 bytes per GiB.
///
/// `progress` is told of bytes hashed and bytes in all, from any thread.
///
/// # Errors
/// [`StoreError::NotAFile`], [`StoreError::Io`], [`StoreError::TooLarge`], or
/// [`StoreError::Changed`] if the file does not have its size at the end.
///
/// # Cancel safety
/// Dropping the future ends the pass soon after.
pub async fn identify_file(
    path: impl Into<PathBuf>,
    progress: Option<ProgressFn>,
) -> Result<ContentIdentity, StoreError> {
    let path = path.into();
    let interest = Interest::default();
    let lost = interest.0.clone();
    let pass = tokio::task::spawn_blocking(move || identify(&path, progress.as_ref(), &lost));
    let result = pass.await;
    drop(interest);
    match result {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Closed),
    }
}

/// Tells the pass when nobody waits for it any more.
#[derive(Default)]
struct Interest(Arc<AtomicBool>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn identify(
    path: &Path,
    progress: Option<&ProgressFn>,
    lost: &AtomicBool,
) -> Result<ContentIdentity, StoreError> {
    let io = |operation, source| StoreError::Io {
        operation,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(|e| io("open", e))?;
    let metadata = file.metadata().map_err(|e| io("look at", e))?;
    if !metadata.is_file() {
        return Err(StoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut hasher = IdentityHasher::default();
    let mut rest = &file;
    read_ahead(
        |_, buffer| {
            let read = rest.by_ref().take(BUFFER_LEN as u64).read_to_end(buffer);
            read.map(|_| ()).map_err(|e| io("read", e))
        },
        |bytes| {
            if lost.load(Ordering::Relaxed) {
                return Err(StoreError::Closed);
            }
            hasher.update(bytes);
            if let Some(progress) = progress {
                progress(hasher.size(), metadata.len());
            }
            Ok(())
        },
    )?;
    if hasher.size() != metadata.len() {
        return Err(StoreError::Changed {
            path: path.to_owned(),
        });
    }
    hasher.finish().map_err(|_| StoreError::TooLarge {
        what: "file",
        limit: MAX_FILE_SIZE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_has_the_identity_of_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        for size in [0, 1, 262_143, 262_144, 262_145, (1 << 20) + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|i: usize| (i * 31 % 251) as u8).collect();
            let path = directory.path().join(format!("{size} bytes"));
            std::fs::write(&path, &bytes).unwrap();
            let identity = identify_file(&path, None).await.unwrap();
            assert_eq!(identity, ContentIdentity::of(&bytes).unwrap(), "{size}");
        }
        let error = identify_file(directory.path(), None).await.unwrap_err();
        assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
    }
}
