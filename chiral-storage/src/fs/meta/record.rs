//! Records as bytes: big-endian integers, lengths before what varies. `design.md` has the
//! tables. A record that cannot be read is damage, never a panic.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use chiral_core::{Alias, Cid, FileIdentification, ManifestHeader, MerkleRoot};

use super::super::vfs::FileStat;
use super::MetaError;
use crate::requests;

/// Where the bytes of an object are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Place {
    /// `objects/<aa>/<cid>.data`.
    Owned,
    /// A file of the user's, as it was when it was hashed.
    External { path: PathBuf, stat: FileStat },
}

/// Whether an object may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum ObjectState {
    Live,
    /// Its bytes are not what they were; it waits to be imported again or removed.
    Changed,
    /// Being removed; to the outside it is gone.
    Deleting,
}

/// A complete object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fs) struct ObjectRecord {
    pub(in crate::fs) state: ObjectState,
    pub(in crate::fs) place: Place,
    /// Number of pins; always that of the rows in the table of pins.
    pub(in crate::fs) pins: u32,
    pub(in crate::fs) header: ManifestHeader,
}

/// A partial file, apart from its bitmaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fs) struct PartialRecord {
    pub(in crate::fs) target: FileIdentification,
    pub(in crate::fs) size: u64,
    pub(in crate::fs) header: Option<ManifestHeader>,
}

/// The end of a download, as begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fs) struct CompletionRecord {
    pub(in crate::fs) header: ManifestHeader,
    /// The file of the user's that it becomes; none for an object of the store.
    pub(in crate::fs) path: Option<PathBuf>,
    /// A copy on its way to another device.
    pub(in crate::fs) copy: Option<PathBuf>,
    /// State of the file that is renamed, once that is about to happen.
    pub(in crate::fs) file: Option<FileStat>,
}

const LIVE: u8 = 1;
const CHANGED: u8 = 2;
const DELETING: u8 = 3;

impl ObjectRecord {
    pub(in crate::fs) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_u8(match self.state {
            ObjectState::Live => LIVE,
            ObjectState::Changed => CHANGED,
            ObjectState::Deleting => DELETING,
        });
        out.put_u32(self.pins);
        match &self.place {
            Place::Owned => out.put_u8(0),
            Place::External { path, stat } => {
                out.put_u8(1);
                put_stat(&mut out, *stat);
                put_path(&mut out, path);
            }
        }
        put_header(&mut out, &self.header);
        out
    }

    pub(in crate::fs) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        read(bytes, "an object", |input| {
            let state = match input.try_get_u8().ok()? {
                LIVE => ObjectState::Live,
                CHANGED => ObjectState::Changed,
                DELETING => ObjectState::Deleting,
                _ => return None,
            };
            let pins = input.try_get_u32().ok()?;
            let place = match input.try_get_u8().ok()? {
                0 => Place::Owned,
                1 => {
                    let stat = take_stat(input)?;
                    Place::External {
                        path: take_path(input)?,
                        stat,
                    }
                }
                _ => return None,
            };
            Some(Self {
                state,
                place,
                pins,
                header: take_header(input)?,
            })
        })
    }
}

impl PartialRecord {
    pub(in crate::fs) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_u64(self.size);
        match self.target {
            FileIdentification::Content { cid, root, size } => {
                out.put_u8(1);
                out.put_slice(cid.as_bytes());
                put_optional(&mut out, root, |out, root| out.put_slice(root.as_bytes()));
                put_optional(&mut out, size, |out, size| out.put_u64(size));
            }
            FileIdentification::Root(root) => {
                out.put_u8(2);
                out.put_slice(root.as_bytes());
            }
            FileIdentification::Alias(alias) => {
                out.put_u8(3);
                put_bytes(&mut out, alias.to_string().as_bytes());
            }
            // Refused before a record is made of it: see `is_storable`.
            _ => out.put_u8(0),
        }
        put_optional(&mut out, self.header.as_ref(), put_header);
        out
    }

    /// Whether [`PartialRecord::encode`] knows this kind of target.
    pub(in crate::fs) fn is_storable(target: &FileIdentification) -> bool {
        matches!(
            target,
            FileIdentification::Content { .. }
                | FileIdentification::Root(_)
                | FileIdentification::Alias(_)
        )
    }

    pub(in crate::fs) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        read(bytes, "a partial file", |input| {
            let size = input.try_get_u64().ok()?;
            requests::layout(size).ok()?;
            let target = match input.try_get_u8().ok()? {
                1 => FileIdentification::Content {
                    cid: Cid::from_bytes(take(input)?),
                    root: take_optional(input, |input| take(input).map(MerkleRoot::from_bytes))?,
                    size: take_optional(input, |input| input.try_get_u64().ok())?,
                },
                2 => FileIdentification::Root(MerkleRoot::from_bytes(take(input)?)),
                3 => {
                    let text = take_bytes(input)?;
                    FileIdentification::Alias(
                        std::str::from_utf8(text).ok()?.parse::<Alias>().ok()?,
                    )
                }
                _ => return None,
            };
            let header = take_optional(input, take_header)?;
            Some(Self {
                target,
                size,
                header,
            })
        })
    }
}

impl CompletionRecord {
    pub(in crate::fs) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        put_header(&mut out, &self.header);
        put_optional(&mut out, self.path.as_deref(), put_path);
        put_optional(&mut out, self.copy.as_deref(), put_path);
        put_optional(&mut out, self.file, put_stat);
        out
    }

    pub(in crate::fs) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        read(bytes, "a completion", |input| {
            Some(Self {
                header: take_header(input)?,
                path: take_optional(input, take_path)?,
                copy: take_optional(input, take_path)?,
                file: take_optional(input, take_stat)?,
            })
        })
    }
}

/// Reads a record that must end where the bytes do.
fn read<'a, T>(
    mut bytes: &'a [u8],
    what: &'static str,
    parse: impl FnOnce(&mut &'a [u8]) -> Option<T>,
) -> Result<T, MetaError> {
    parse(&mut bytes)
        .filter(|_| bytes.is_empty())
        .ok_or(MetaError::Damaged { what })
}

/// Identifiers out of keys.
pub(in crate::fs) fn id<const N: usize>(key: &[u8]) -> Result<[u8; N], MetaError> {
    key.try_into()
        .map_err(|_| MetaError::Damaged { what: "a key" })
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = input.try_get_u32().ok()? as usize;
    input.split_off(..len)
}

fn put_stat(out: &mut Vec<u8>, stat: FileStat) {
    out.put_u64(stat.len);
    out.put_i64(stat.mtime_seconds);
    out.put_u32(stat.mtime_nanos);
    out.put_u64(stat.inode);
}

fn take_stat(input: &mut &[u8]) -> Option<FileStat> {
    Some(FileStat {
        len: input.try_get_u64().ok()?,
        mtime_seconds: input.try_get_i64().ok()?,
        mtime_nanos: input.try_get_u32().ok()?,
        inode: input.try_get_u64().ok()?,
        regular: true,
    })
}

fn put_path(out: &mut Vec<u8>, path: &Path) {
    put_bytes(out, path.as_os_str().as_bytes());
}

fn take_path(input: &mut &[u8]) -> Option<PathBuf> {
    Some(OsString::from_vec(take_bytes(input)?.to_vec()).into())
}

/// A header that does not fit was refused when it was given.
fn put_header(out: &mut Vec<u8>, header: &ManifestHeader) {
    put_bytes(out, &header.encode().unwrap_or_default());
}

fn take_header(input: &mut &[u8]) -> Option<ManifestHeader> {
    ManifestHeader::decode(take_bytes(input)?).ok()
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(value.is_some().into());
    if let Some(value) = value {
        put(out, value);
    }
}

fn take_optional<'a, T>(
    input: &mut &'a [u8],
    parse: impl FnOnce(&mut &'a [u8]) -> Option<T>,
) -> Option<Option<T>> {
    match input.try_get_u8().ok()? {
        0 => Some(None),
        1 => parse(input).map(Some),
        _ => None,
    }
}
