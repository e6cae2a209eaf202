//! The files of version 1 (BEP 3), with attributes (BEP 47).

use bytes::Bytes;

use super::info::Attributes;
use super::{MAX_FILES, MetainfoError};
use crate::bittorrent::bencode::Value;
use crate::bittorrent::layout::TorrentLayout;

/// How BitComet called padding before there was an attribute for it.
const PADDING_NAME: &[u8] = b"_____padding_file_";

/// Files as they are listed.
#[derive(Debug)]
pub(super) struct FilesV1<'a> {
    pub(super) is_single_file: bool,
    pub(super) files: Vec<FileV1<'a>>,
}

#[derive(Debug)]
pub(super) struct FileV1<'a> {
    pub(super) path: Vec<&'a [u8]>,
    pub(super) len: u64,
    pub(super) attributes: Attributes,
}

pub(super) fn read<'a>(info: Value<'_, 'a>, name: &'a [u8]) -> Result<FilesV1<'a>, MetainfoError> {
    let key = |key| MetainfoError::Key { key };
    let Some(files) = info.get("files") else {
        let attributes = Attributes::read(info);
        if attributes.padding || attributes.symlink {
            return Err(key("attr"));
        }
        let len = info
            .get("length")
            .and_then(|len| len.unsigned())
            .ok_or(key("length"))?;
        let path = vec![name];
        return Ok(FilesV1 {
            is_single_file: true,
            files: vec![FileV1 {
                path,
                len,
                attributes,
            }],
        });
    };
    if info.get("length").is_some() {
        return Err(key("length"));
    }
    let files = files
        .list()
        .filter(|files| files.len() > 0)
        .ok_or(key("files"))?;
    if files.len() > MAX_FILES {
        return Err(MetainfoError::TooManyFiles);
    }
    let files = files.map(read_file).collect::<Result<_, _>>()?;
    Ok(FilesV1 {
        is_single_file: false,
        files,
    })
}

fn read_file<'a>(file: Value<'_, 'a>) -> Result<FileV1<'a>, MetainfoError> {
    let key = |key| MetainfoError::Key { key };
    let mut attributes = Attributes::read(file);
    let len = file.get("length").and_then(|len| len.unsigned());
    let path = ["path.utf-8", "path"]
        .iter()
        .find_map(|key| file.get(key)?.list());
    let path: Option<Vec<&[u8]>> = path.and_then(|path| path.map(|part| part.bytes()).collect());
    let path = match path {
        Some(path) => path,
        // Nobody writes it, so it needs no name.
        None if attributes.padding => Vec::new(),
        None => return Err(key("path")),
    };
    let named = |name: &&[u8]| name.starts_with(PADDING_NAME);
    attributes.padding |= path.last().is_some_and(named);
    let len = match attributes.symlink {
        true => 0,
        false => len.ok_or(key("length"))?,
    };
    Ok(FileV1 {
        path,
        len,
        attributes,
    })
}

/// The hashes of all pieces.
pub(super) fn pieces(info: Value<'_, '_>, layout: &TorrentLayout) -> Result<Bytes, MetainfoError> {
    let bytes = info.get("pieces").and_then(|pieces| pieces.bytes());
    let bytes = bytes.filter(|bytes| bytes.len().is_multiple_of(20));
    let bytes = bytes.ok_or(MetainfoError::Key { key: "pieces" })?;
    let (found, expected) = (bytes.len() as u64 / 20, u64::from(layout.piece_count()));
    match found == expected {
        true => Ok(Bytes::copy_from_slice(bytes)),
        false => Err(MetainfoError::Pieces { found, expected }),
    }
}
