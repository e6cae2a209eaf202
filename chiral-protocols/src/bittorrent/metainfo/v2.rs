//! The file tree of version 2 (BEP 52).

use super::info::Attributes;
use super::{MAX_FILES, MetainfoError};
use crate::bittorrent::bencode::Value;
use crate::bittorrent::merkle::NodeHash;

/// A leaf of the file tree, in order.
#[derive(Debug)]
pub(super) struct FileV2<'a> {
    pub(super) path: Vec<&'a [u8]>,
    pub(super) len: u64,
    pub(super) root: Option<NodeHash>,
    pub(super) attributes: Attributes,
}

pub(super) fn read<'a>(info: Value<'_, 'a>) -> Result<Vec<FileV2<'a>>, MetainfoError> {
    let tree = info.get("file tree").filter(|tree| tree.is_dict());
    let tree = tree.ok_or(MetainfoError::Key { key: "file tree" })?;
    let mut files = Vec::new();
    descend(tree, &mut Vec::new(), &mut files)?;
    match files.is_empty() {
        true => Err(MetainfoError::Key { key: "file tree" }),
        false => Ok(files),
    }
}

/// As deep as bencode may be nested, and no deeper.
fn descend<'a>(
    directory: Value<'_, 'a>,
    path: &mut Vec<&'a [u8]>,
    files: &mut Vec<FileV2<'a>>,
) -> Result<(), MetainfoError> {
    let wrong = MetainfoError::Key { key: "file tree" };
    let entries = directory.dict().ok_or_else(|| wrong.clone())?;
    for (name, entry) in entries {
        if name.is_empty() {
            // A file that is a directory as well.
            return Err(wrong);
        }
        path.push(name);
        match entry.get("") {
            Some(file) => {
                if entry.dict().is_none_or(|entries| entries.len() != 1) {
                    return Err(wrong);
                }
                files.push(read_file(file, path.clone())?);
                if files.len() > MAX_FILES {
                    return Err(MetainfoError::TooManyFiles);
                }
            }
            None => descend(entry, path, files)?,
        }
        path.pop();
    }
    Ok(())
}

fn read_file<'a>(file: Value<'_, '_>, path: Vec<&'a [u8]>) -> Result<FileV2<'a>, MetainfoError> {
    let key = |key| MetainfoError::Key { key };
    let attributes = Attributes::read(file);
    if attributes.padding {
        return Err(key("attr"));
    }
    if attributes.symlink {
        return Ok(FileV2 {
            path,
            len: 0,
            root: None,
            attributes,
        });
    }
    let len = file
        .get("length")
        .and_then(|len| len.unsigned())
        .ok_or(key("length"))?;
    let root = match len {
        0 => None,
        _ => {
            let root = file.get("pieces root").and_then(|root| root.array());
            let root = root.filter(|root| *root != [0; 32]);
            Some(root.ok_or(key("pieces root"))?)
        }
    };
    Ok(FileV2 {
        path,
        len,
        root,
        attributes,
    })
}
