//! [`SpansList`]: what is kept of the files that a download lies in.
//!
//! It is a file beside the download's others, written before the first of those files is made,
//! without their inodes, and once more when all are there: a crash in between leaves nothing
//! behind that nobody knows of.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use chiral_core::file_spans::{FileSpan, FileSpans};
use chiral_core::{ByteRange, RangeSet, StoreError, TransferId};

use super::super::disk::is_missing;
use super::super::places::Places;
use super::super::shared::Shared;
use super::super::vfs::OpenMode;

/// How the file begins; its version is part of that.
const MAGIC: &[u8; 8] = b"CHSPANS1";

/// The files of a download, and how they are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpansList {
    pub(super) transfer: TransferId,
    pub(super) spans: Arc<FileSpans>,
    /// Zero for a file that has not been made.
    inodes: Vec<u64>,
}

impl SpansList {
    pub(super) fn inode(&self, number: u32) -> Option<u64> {
        let inode = self.inodes.get(number as usize).copied();
        inode.filter(|inode| *inode != 0)
    }

    /// What a file is called until the download is complete.
    pub(super) fn unfinished(&self, number: u32, span: &FileSpan) -> PathBuf {
        let name = format!(".{}-{number}.chiral", self.transfer);
        span.path.with_file_name(name)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u64(self.spans.size());
        out.put_u32(self.spans.spans().len() as u32);
        for (span, inode) in self.spans.spans().iter().zip(&self.inodes) {
            out.put_u64(span.range.start);
            out.put_u64(span.range.end);
            out.put_u64(*inode);
            let path = span.path.as_os_str().as_bytes();
            out.put_u32(path.len() as u32);
            out.put_slice(path);
        }
        for range in self.spans.padding().iter() {
            out.put_u64(range.start);
            out.put_u64(range.end);
        }
        out
    }

    fn decode(transfer: TransferId, bytes: &[u8]) -> Option<Self> {
        let mut input = bytes.strip_prefix(MAGIC)?;
        let input = &mut input;
        let size = input.try_get_u64().ok()?;
        let count = input.try_get_u32().ok()?;
        let (mut spans, mut inodes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let range = take_range(input)?;
            inodes.push(input.try_get_u64().ok()?);
            let len = input.try_get_u32().ok()? as usize;
            let path = input.split_off(..len)?;
            let path = OsString::from_vec(path.to_vec()).into();
            spans.push(FileSpan { range, path });
        }
        let mut padding = RangeSet::new();
        while !input.is_empty() {
            padding.insert(take_range(input)?);
        }
        let spans = Arc::new(FileSpans::new(size, spans, padding).ok()?);
        Some(Self {
            transfer,
            spans,
            inodes,
        })
    }

    /// What is kept of a download; `None` if it lies in one file.
    pub(super) fn load(shared: &Shared, transfer: TransferId) -> Result<Option<Self>, StoreError> {
        let path = shared.places.partial_spans(transfer);
        let file = match shared.disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.stat()?.len as usize;
        let list = Self::decode(transfer, &file.read(0, len)?);
        list.map(Some).ok_or_else(|| StoreError::Metadata {
            operation: "read the list of a download's files",
            source: "it is damaged".into(),
        })
    }

    fn save(&self, shared: &Shared) -> Result<(), StoreError> {
        let new = shared.places.partial_spans_new(self.transfer);
        shared.disk.remove(&new)?;
        let file = shared.disk.open(&new, OpenMode::CreateNew)?;
        file.write(0, &self.encode())?;
        file.sync()?;
        let path = shared.places.partial_spans(self.transfer);
        shared.disk.rename_over(&new, &path)?;
        shared.disk.sync_dir(&shared.places.partial())
    }

    /// Makes the files of a download, each as long as it will be and without a block of the disk.
    pub(super) fn make(
        shared: &Shared,
        transfer: TransferId,
        spans: &Arc<FileSpans>,
    ) -> Result<(), StoreError> {
        let mut list = Self {
            transfer,
            spans: spans.clone(),
            inodes: vec![0; spans.spans().len()],
        };
        list.save(shared)?;
        let mut directories = BTreeSet::new();
        for (number, span) in (0..).zip(spans.spans()) {
            let path = list.unfinished(number, span);
            // New: a link that is in its way is not followed.
            let file = shared.disk.open(&path, OpenMode::CreateNew)?;
            file.set_len(span.range.len())?;
            file.sync()?;
            list.inodes[number as usize] = file.stat()?.inode;
            directories.insert(Places::parent(&span.path));
        }
        for directory in directories {
            shared.disk.sync_dir(directory)?;
        }
        list.save(shared)
    }

    /// Deletes the files of a download that do not have their own names yet.
    pub(super) fn remove_unfinished(&self, shared: &Shared) -> Result<(), StoreError> {
        for (number, span) in (0..).zip(self.spans.spans()) {
            let path = self.unfinished(number, span);
            match shared.disk.stat(&path) {
                Ok(stat) if self.inode(number).is_none_or(|inode| inode == stat.inode) => {
                    shared.disk.remove(&path)?;
                }
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn take_range(input: &mut &[u8]) -> Option<ByteRange> {
    let (start, end) = (input.try_get_u64().ok()?, input.try_get_u64().ok()?);
    Some(ByteRange::new(start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_nothing_else_is() {
        let span = |start, end, path: &str| FileSpan {
            range: ByteRange::new(start, end),
            path: path.into(),
        };
        let files = vec![span(0, 5, "/a/b"), span(8, 20, "/c"), span(0, 0, "/d")];
        let padding = RangeSet::from(ByteRange::new(5, 8));
        let list = SpansList {
            transfer: TransferId::from_bytes([7; 16]),
            spans: Arc::new(FileSpans::new(30, files, padding).unwrap()),
            inodes: vec![1, 0, 3],
        };
        let bytes = list.encode();
        assert_eq!(SpansList::decode(list.transfer, &bytes), Some(list.clone()));
        assert_eq!(
            (list.inode(0), list.inode(1), list.inode(9)),
            (Some(1), None, None)
        );
        for cut in 0..bytes.len() - 16 {
            assert_eq!(
                SpansList::decode(list.transfer, &bytes[..cut]),
                None,
                "{cut}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(SpansList::decode(list.transfer, &longer), None);
    }
}
