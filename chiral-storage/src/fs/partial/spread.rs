//! [`Spread`]: the bytes of a download in the files that they become.
//!
//! Until the download is complete each file has another name beside its own. That it is the one
//! that was made for the download is known by its inode: whatever else has come to be under
//! either name is not touched. What lies in no file is in one of the store's, with holes; padding
//! is written nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use chiral_core::file_spans::{FileSpan, FileSpans, Place};
use chiral_core::{ByteRange, StoreError};

use super::super::disk::{Disk, DiskFile, is_missing};
use super::super::places::Places;
use super::super::vfs::OpenMode;
use super::spans_list::SpansList;
use crate::blocking::lock;

/// Most files that are open at once for one download.
const MAX_OPEN: usize = 64;

/// Bytes compared at once with a file that is in the way.
const COMPARE_LEN: usize = 1 << 18;

/// The files of a download.
#[derive(Debug)]
pub(super) struct Spread {
    disk: Disk,
    list: SpansList,
    rest: DiskFile,
    open: Mutex<Open>,
    /// All files have their own names.
    landed: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    /// By number, with when it was last used.
    files: BTreeMap<u32, (DiskFile, u64)>,
    uses: u64,
    unsynced: BTreeSet<u32>,
}

impl Spread {
    pub(super) fn new(disk: &Disk, list: SpansList, rest: DiskFile) -> Self {
        Self {
            disk: disk.clone(),
            list,
            rest,
            open: Mutex::default(),
            landed: AtomicBool::new(false),
        }
    }

    pub(super) fn spans(&self) -> &FileSpans {
        &self.list.spans
    }

    /// Whether every file is there under one of its names, and as long as it must be.
    pub(super) fn is_there(&self, size: u64) -> Result<bool, StoreError> {
        if self.spans().size() != size || self.rest.stat()?.len != size {
            return Ok(false);
        }
        for (number, span) in self.numbered() {
            let Some(path) = self.find(number, span)? else {
                return Ok(false);
            };
            if self.disk.stat(&path)?.len != span.range.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &FileSpan)> {
        (0..).zip(self.spans().spans())
    }

    fn is_ours(&self, number: u32, path: &Path) -> Result<bool, StoreError> {
        match self.disk.stat(path) {
            Ok(stat) => Ok(stat.regular && self.list.inode(number) == Some(stat.inode)),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The name that a file has now.
    fn find(&self, number: u32, span: &FileSpan) -> Result<Option<PathBuf>, StoreError> {
        let unfinished = self.list.unfinished(number, span);
        if self.is_ours(number, &unfinished)? {
            return Ok(Some(unfinished));
        }
        let own = self.is_ours(number, &span.path)?;
        Ok(own.then(|| span.path.clone()))
    }

    /// A file, opened if it is not.
    fn file(&self, number: u32) -> Result<DiskFile, StoreError> {
        let mut open = lock(&self.open);
        open.uses += 1;
        let used = open.uses;
        if let Some((file, last)) = open.files.get_mut(&number) {
            *last = used;
            return Ok(file.clone());
        }
        let span = self.spans().spans().get(number as usize);
        let span = span.ok_or(StoreError::Closed)?;
        let file = if self.landed.load(Ordering::Acquire) {
            // It may be one with the same bytes that was there before.
            self.disk.open(&span.path, OpenMode::Read)?
        } else {
            let path = self.find(number, span)?;
            let path = path.ok_or_else(|| gone(&span.path))?;
            let file = self.disk.open(&path, OpenMode::ReadWrite)?;
            // It may have been replaced meanwhile.
            if self.list.inode(number) != Some(file.stat()?.inode) {
                return Err(gone(&path));
            }
            file
        };
        if open.files.len() >= MAX_OPEN {
            let oldest = open.files.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                open.files.remove(&oldest);
            }
        }
        open.files.insert(number, (file.clone(), used));
        Ok(file)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let whole = ByteRange::new(offset, offset + bytes.len() as u64);
        for stretch in self.spans().stretches(whole) {
            let from = (stretch.range.start - offset) as usize;
            let bytes = &bytes[from..from + stretch.range.len() as usize];
            match stretch.place {
                Place::Padding => {}
                Place::Rest => self.rest.write(stretch.range.start, bytes)?,
                Place::File(number) => {
                    let file = self.file(number)?;
                    lock(&self.open).unsynced.insert(number);
                    file.write(self.within(number, stretch.range), bytes)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let whole = ByteRange::new(offset, offset + len as u64);
        let mut bytes = Vec::with_capacity(len);
        for stretch in self.spans().stretches(whole) {
            let len = stretch.range.len() as usize;
            match stretch.place {
                Place::Padding => bytes.resize(bytes.len() + len, 0),
                Place::Rest => bytes.extend(self.rest.read(stretch.range.start, len)?),
                Place::File(number) => {
                    let at = self.within(number, stretch.range);
                    bytes.extend(self.file(number)?.read(at, len)?);
                }
            }
        }
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(StoreError::Range { range: whole }),
        }
    }

    /// Where bytes of the download begin in their file.
    fn within(&self, number: u32, range: ByteRange) -> u64 {
        let span = self.spans().spans().get(number as usize);
        range.start - span.map_or(range.start, |span| span.range.start)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let unsynced = std::mem::take(&mut lock(&self.open).unsynced);
        let synced = unsynced
            .iter()
            .try_for_each(|number| self.file(*number)?.sync())
            .and_then(|()| self.rest.sync());
        if synced.is_err() {
            lock(&self.open).unsynced.extend(unsynced);
        }
        synced
    }

    /// Gives every file its own name. One that is there already with the same bytes stays, and
    /// does instead; with others, nothing is done. What was interrupted is gone on with.
    pub(super) fn land(&self) -> Result<(), StoreError> {
        let mut moves = Vec::new();
        for (number, span) in self.numbered() {
            if self.is_ours(number, &span.path)? {
                continue;
            }
            match self.disk.exists(&span.path)? {
                false => moves.push((self.list.unfinished(number, span), &span.path)),
                true if self.is_the_same(number, span)? => {}
                true => {
                    let path = span.path.clone();
                    return Err(StoreError::AlreadyExists { path });
                }
            }
        }
        let mut directories = BTreeSet::new();
        for (from, to) in &moves {
            // Beside each other: on one device.
            self.disk.rename(from, to)?;
            directories.insert(Places::parent(to));
        }
        for directory in directories {
            self.disk.sync_dir(directory)?;
        }
        self.landed.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the file that is in the way has the same bytes.
    fn is_the_same(&self, number: u32, span: &FileSpan) -> Result<bool, StoreError> {
        let there = self.disk.stat(&span.path)?;
        if !there.regular || there.len != span.range.len() {
            return Ok(false);
        }
        let (there, ours) = (
            self.disk.open(&span.path, OpenMode::Read)?,
            self.file(number)?,
        );
        let mut at = 0;
        while at < span.range.len() {
            let len = (span.range.len() - at).min(COMPARE_LEN as u64) as usize;
            if there.read(at, len)? != ours.read(at, len)? {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}

fn gone(path: &Path) -> StoreError {
    StoreError::Io {
        operation: "go on with",
        path: path.to_path_buf(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}
