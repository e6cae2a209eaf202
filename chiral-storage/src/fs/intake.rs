//! The three ways of taking a file in.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use chiral_core::chunk_store::{ImportRequest, ObjectInfo};
use chiral_core::{ManifestHeader, StoreError};

use super::disk::DiskFile;
use super::import::{Imported, Interrupt, Pass, import_bytes};
use super::meta::record::{ObjectState, Place};
use super::registry::{NewData, NewObject, info};
use super::shared::{Shared, Temporary};
use super::vfs::{FileStat, OpenMode};
use crate::requests;

impl Shared {
    /// Copies bytes in memory into the store.
    pub(super) fn take_bytes(
        &self,
        request: &ImportRequest,
        bytes: &Bytes,
        cancelled: &AtomicBool,
    ) -> Result<ObjectInfo, StoreError> {
        let (data, hashes) = (Temporary::new(self), Temporary::new(self));
        let copy = data.create()?;
        let imported = import_bytes(bytes, &copy, self.interrupt(cancelled), request, || {
            hashes.create()
        })?;
        copy.sync()?;
        self.register(
            request,
            &imported,
            NewData::Temporary(data.path.clone()),
            cancelled,
        )
    }

    /// Copies a file into the store.
    pub(super) fn take_copy(
        &self,
        request: &ImportRequest,
        path: PathBuf,
        cancelled: &AtomicBool,
    ) -> Result<ObjectInfo, StoreError> {
        let (source, stat) = self.open_source(&path)?;
        let (data, hashes) = (Temporary::new(self), Temporary::new(self));
        let copy = data.create()?;
        let pass = self.pass(request, &source, stat, cancelled);
        let imported = Pass {
            copy: Some(&copy),
            ..pass
        }
        .run(|| hashes.create())?;
        self.check_unchanged(&source, stat)?;
        copy.sync()?;
        self.register(
            request,
            &imported,
            NewData::Temporary(data.path.clone()),
            cancelled,
        )
    }

    /// Takes a file in where it is. One that is known and has not changed is not read again.
    pub(super) fn take_in_place(
        &self,
        request: &ImportRequest,
        path: PathBuf,
        cancelled: &AtomicBool,
    ) -> Result<ObjectInfo, StoreError> {
        let (source, stat) = self.open_source(&path)?;
        if let Some(known) = self.known_at(&path, stat)?
            && self.has_sidecars(request, &known.header)?
        {
            return Ok(known);
        }
        let hashes = Temporary::new(self);
        let pass = self.pass(request, &source, stat, cancelled);
        let imported = pass.run(|| hashes.create())?;
        self.check_unchanged(&source, stat)?;
        if self.disk.stat(&path)? != stat {
            return Err(StoreError::Changed { path });
        }
        self.register(request, &imported, NewData::External(path, stat), cancelled)
    }

    fn open_source(&self, path: &std::path::Path) -> Result<(DiskFile, FileStat), StoreError> {
        // Before opening: to open a pipe waits for its other end.
        if !self.disk.stat(path)?.regular {
            return Err(StoreError::NotAFile {
                path: path.to_path_buf(),
            });
        }
        let source = self.disk.open(path, OpenMode::Read)?;
        let stat = source.stat()?;
        match stat.regular {
            true => Ok((source, stat)),
            false => Err(StoreError::NotAFile {
                path: path.to_path_buf(),
            }),
        }
    }

    fn interrupt<'a>(&'a self, cancelled: &'a AtomicBool) -> Interrupt<'a> {
        Interrupt {
            cancelled,
            closed: &self.closed,
        }
    }

    fn pass<'a>(
        &'a self,
        request: &'a ImportRequest,
        source: &'a DiskFile,
        stat: FileStat,
        cancelled: &'a AtomicBool,
    ) -> Pass<'a> {
        let interrupt = self.interrupt(cancelled);
        Pass {
            source,
            size: stat.len,
            copy: None,
            interrupt,
            request,
        }
    }

    fn check_unchanged(&self, source: &DiskFile, stat: FileStat) -> Result<(), StoreError> {
        match source.stat()? == stat {
            true => Ok(()),
            false => Err(StoreError::Changed {
                path: source.path().to_path_buf(),
            }),
        }
    }

    /// The object that this file is seeded as, if it has not changed since.
    fn known_at(
        &self,
        path: &std::path::Path,
        now: FileStat,
    ) -> Result<Option<ObjectInfo>, StoreError> {
        let Some(cid) = self.meta.object_at(path)? else {
            return Ok(None);
        };
        let Some((record, pins)) = self.visible_object(cid)? else {
            return Ok(None);
        };
        let same = matches!(&record.place, Place::External { path: at, stat } if at == path && *stat == now);
        let known = same && record.state == ObjectState::Live;
        Ok(known.then(|| info(record, pins)))
    }

    fn register(
        &self,
        request: &ImportRequest,
        imported: &Imported,
        data: NewData,
        cancelled: &AtomicBool,
    ) -> Result<ObjectInfo, StoreError> {
        let size = imported.layout.size();
        let header: ManifestHeader =
            requests::imported(request, size, imported.cid, imported.root)?;
        let hashes = imported
            .hashes
            .as_ref()
            .map(|file| file.path().to_path_buf());
        self.interrupt(cancelled).check()?;
        let object = self.add(NewObject {
            header,
            data,
            hashes,
        })?;
        if !imported.sidecars.is_empty() {
            let kept = self
                .meta
                .set_sidecars(imported.cid, &imported.sidecars, false);
            match kept {
                // Removed already: it went with what it had.
                Err(StoreError::NotFound { .. }) => {}
                kept => kept?,
            }
        }
        Ok(object)
    }

    /// Whether a request would make no sidecar that is not there.
    fn has_sidecars(
        &self,
        request: &ImportRequest,
        header: &ManifestHeader,
    ) -> Result<bool, StoreError> {
        let sidecars = request.sidecars.iter();
        for sidecar in sidecars.filter(|sidecar| sidecar.suits(header.size)) {
            if !self.meta.has_sidecar(header.cid, sidecar.name())? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
