//! What callers ask for, checked.

use std::path::Path;

use chiral_core::chunk_store::{ImportRequest, ImportSource, MAX_READ, PartialRequest};
use chiral_core::manifest::MAX_HEADER_LEN;
use chiral_core::sidecar::{self, MAX_SIDECAR_LEN, MAX_SIDECARS};
use chiral_core::{
    ByteRange, ChunkLayout, Cid, FileIdentification, MAX_FILE_SIZE, ManifestHeader, MerkleRoot,
    StoreError,
};

/// Limit on the name of a pin, in bytes.
pub(crate) const MAX_PIN_LEN: usize = 255;

/// What is said of files that do not make the download.
pub(crate) const OTHER_SIZE: &str = "files of another size than the download";

/// The cutting of a download.
pub(crate) fn partial_layout(request: &PartialRequest) -> Result<ChunkLayout, StoreError> {
    let spans = request.spans.as_ref();
    if spans.is_some_and(|spans| spans.size() != request.size) {
        return Err(StoreError::Unsupported { what: OTHER_SIZE });
    }
    layout(request.size)
}

/// The header of an imported file. A path's last component is its name unless one is given.
pub(crate) fn imported(
    request: &ImportRequest,
    size: u64,
    cid: Cid,
    root: MerkleRoot,
) -> Result<ManifestHeader, StoreError> {
    let of_path = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let name = match (&request.name, &request.source) {
        (Some(name), _) => Some(name.clone()),
        (None, ImportSource::Path(path)) => of_path(path),
        _ => None,
    };
    let mime = request.mime.clone();
    let created_at = request.created_at;
    let header = ManifestHeader {
        size,
        cid,
        root,
        name,
        mime,
        created_at,
        aliases: Vec::new(),
    };
    encode(&header)?;
    Ok(header)
}

/// The header as bytes; hints that do not fit are an error of the caller's.
pub(crate) fn encode(header: &ManifestHeader) -> Result<Vec<u8>, StoreError> {
    header.encode().map_err(|_| StoreError::TooLarge {
        what: "manifest header",
        limit: MAX_HEADER_LEN as u64,
    })
}

/// Refuses ranges that no content of this layout can answer.
pub(crate) fn check_range(layout: ChunkLayout, range: ByteRange) -> Result<(), StoreError> {
    if range.end < range.start || range.end > layout.size() || range.len() > MAX_READ {
        return Err(StoreError::Range { range });
    }
    Ok(())
}

/// The cutting of a file of `size` bytes.
pub(crate) fn layout(size: u64) -> Result<ChunkLayout, StoreError> {
    let over = |_| StoreError::TooLarge {
        what: "file",
        limit: MAX_FILE_SIZE,
    };
    ChunkLayout::new(size).map_err(over)
}

/// Refuses pin names that are too long.
pub(crate) fn check_pin(pin: &str) -> Result<(), StoreError> {
    if pin.len() <= MAX_PIN_LEN {
        return Ok(());
    }
    Err(StoreError::TooLarge {
        what: "name of a pin",
        limit: MAX_PIN_LEN as u64,
    })
}

/// Refuses what an import cannot keep.
pub(crate) fn check_sidecars(request: &ImportRequest) -> Result<(), StoreError> {
    if request.sidecars.len() > MAX_SIDECARS {
        return Err(StoreError::TooLarge {
            what: "number of sidecars",
            limit: MAX_SIDECARS as u64,
        });
    }
    let mut names = request.sidecars.iter().map(|sidecar| sidecar.name());
    names.try_for_each(check_sidecar_name)
}

/// Refuses a sidecar that cannot be kept.
pub(crate) fn check_sidecar(name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    check_sidecar_name(name)?;
    match bytes.len() <= MAX_SIDECAR_LEN {
        true => Ok(()),
        false => Err(StoreError::TooLarge {
            what: "sidecar",
            limit: MAX_SIDECAR_LEN as u64,
        }),
    }
}

fn check_sidecar_name(name: &str) -> Result<(), StoreError> {
    match sidecar::is_name(name) {
        true => Ok(()),
        false => Err(StoreError::Unsupported {
            what: "this name of a sidecar",
        }),
    }
}

/// Whether a partial file begun for `held` (served under `header`, if it has one) is one of
/// `target`. What was proven under the root of one link counts for no other link, and not
/// for the bare cid: a root that lies can prove other bytes up to the place of the lie.
pub(crate) fn same_target(
    held: &FileIdentification,
    header: Option<&ManifestHeader>,
    target: &FileIdentification,
) -> bool {
    match (target.cid(), target.root()) {
        (Some(cid), root) => {
            let known = held.cid().or(header.map(|header| header.cid));
            known == Some(cid) && held.root() == root
        }
        (None, Some(root)) => held.root() == Some(root),
        (None, None) => held == target,
    }
}
