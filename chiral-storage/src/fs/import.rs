//! One pass of SHA-256 over a file, with reading, and copying, ahead on another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chiral_core::chunk_store::{ImportRequest, ProgressFn};
use chiral_core::{ChunkHasher, ChunkLayout, Cid, MAX_FILE_SIZE, MerkleRoot, StoreError};

use super::disk::DiskFile;
use super::hash_list::HashListWriter;
use crate::beside::{Beside, Sidecar};
use crate::read_ahead::{BUFFER_LEN, read_ahead};
use crate::requests;

/// Files up to this size are hashed on the thread that reads them.
const SERIAL_LEN: u64 = 4 << 20;

/// What one pass found.
#[derive(Debug)]
pub(super) struct Imported {
    pub(super) layout: ChunkLayout,
    pub(super) cid: Cid,
    pub(super) root: MerkleRoot,
    /// The list of hashes, if it is in a file.
    pub(super) hashes: Option<DiskFile>,
    pub(super) sidecars: Vec<Sidecar>,
}

/// A pass over a file.
pub(super) struct Pass<'a> {
    /// What is read.
    pub(super) source: &'a DiskFile,
    /// Its size when the pass begins; a file that has another at the end has changed.
    pub(super) size: u64,
    /// Where a copy goes.
    pub(super) copy: Option<&'a DiskFile>,
    pub(super) interrupt: Interrupt<'a>,
    /// Who is told, and what is made beside.
    pub(super) request: &'a ImportRequest,
}

/// Tells a pass that nobody waits for it, or that the store closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupt<'a> {
    pub(super) cancelled: &'a AtomicBool,
    pub(super) closed: &'a AtomicBool,
}

impl Interrupt<'_> {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if set(self.cancelled) || set(self.closed) {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }
}

/// Hashing, apart from where the bytes come from.
struct Sink<F> {
    hasher: ChunkHasher,
    list: HashListWriter<F>,
    beside: Beside,
    progress: Option<ProgressFn>,
    size: u64,
}

impl<F: Fn() -> Result<DiskFile, StoreError>> Sink<F> {
    fn new(create: F, size: u64, request: &ImportRequest) -> Result<Self, StoreError> {
        Ok(Self {
            hasher: ChunkHasher::new(),
            list: HashListWriter::new(create),
            beside: Beside::start(request, size, size > SERIAL_LEN)?,
            progress: request.progress.clone(),
            size,
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.beside.take(bytes);
        self.hash(bytes)
    }

    fn take_shared(&mut self, bytes: &Arc<Vec<u8>>) -> Result<(), StoreError> {
        self.beside.take_shared(bytes);
        self.hash(bytes)
    }

    fn hash(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.list.extend(self.hasher.drain())?;
        if let Some(progress) = &self.progress {
            progress(self.hasher.size(), self.size);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Imported, StoreError> {
        let layout = requests::layout(self.hasher.size())?;
        let over = |_| StoreError::TooLarge {
            what: "file",
            limit: MAX_FILE_SIZE,
        };
        let (rest, cid) = self.hasher.finish().map_err(over)?;
        self.list.extend(rest.into_iter())?;
        let (root, hashes) = self.list.finish(layout)?;
        Ok(Imported {
            layout,
            cid,
            root,
            hashes,
            sidecars: self.beside.finish(),
        })
    }
}

/// Hashes bytes in memory, writing them to `copy`.
pub(super) fn import_bytes(
    bytes: &[u8],
    copy: &DiskFile,
    interrupt: Interrupt<'_>,
    request: &ImportRequest,
    create: impl Fn() -> Result<DiskFile, StoreError>,
) -> Result<Imported, StoreError> {
    let mut sink = Sink::new(create, bytes.len() as u64, request)?;
    for part in bytes.chunks(BUFFER_LEN) {
        interrupt.check()?;
        copy.write(sink.hasher.size(), part)?;
        sink.take(part)?;
    }
    sink.finish()
}

impl Pass<'_> {
    /// Reads the file once; `create` makes the file of its hashes.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if the file does not end at its size.
    pub(super) fn run(
        self,
        create: impl Fn() -> Result<DiskFile, StoreError>,
    ) -> Result<Imported, StoreError> {
        requests::layout(self.size)?;
        let mut sink = Sink::new(create, self.size, self.request)?;
        if self.size <= SERIAL_LEN {
            self.run_serial(&mut sink)?;
        } else {
            self.run_ahead(&mut sink)?;
        }
        if sink.hasher.size() != self.size {
            return Err(self.changed());
        }
        sink.finish()
    }

    fn changed(&self) -> StoreError {
        StoreError::Changed {
            path: self.source.path().to_path_buf(),
        }
    }

    /// Fills a buffer from `offset` and copies it; empty at the end.
    fn fill(&self, offset: u64, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        self.interrupt.check()?;
        buffer.clear();
        self.source.read_some(offset, BUFFER_LEN, buffer)?;
        if offset + buffer.len() as u64 > self.size {
            return Err(self.changed());
        }
        match self.copy {
            Some(copy) => copy.write(offset, buffer),
            None => Ok(()),
        }
    }

    fn run_serial<F>(&self, sink: &mut Sink<F>) -> Result<(), StoreError>
    where
        F: Fn() -> Result<DiskFile, StoreError>,
    {
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        loop {
            self.fill(sink.hasher.size(), &mut buffer)?;
            if buffer.is_empty() {
                return Ok(());
            }
            sink.take(&buffer)?;
        }
    }

    fn run_ahead<F>(&self, sink: &mut Sink<F>) -> Result<(), StoreError>
    where
        F: Fn() -> Result<DiskFile, StoreError>,
    {
        read_ahead(
            |offset, buffer| self.fill(offset, buffer),
            |bytes| sink.take_shared(bytes),
        )
    }
}
