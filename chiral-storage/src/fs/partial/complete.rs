//! The end of a download: from a partial file to an object, through any crash.
//!
//! An intent says what is about to be renamed to where. Until the rename the partial file is
//! as it was; after it there is only the way forward, here or at the next start.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use chiral_core::chunk_store::{Destination, ObjectInfo};
use chiral_core::{ManifestHeader, MerkleRoot, StoreError, TransferId, chain};

use super::super::disk::DiskFile;
use super::super::hash_list;
use super::super::meta::partials::{COMPLETING, intent_key};
use super::super::meta::record::{CompletionRecord, ObjectRecord, ObjectState, Place};
use super::super::places::Places;
use super::super::registry::info;
use super::super::shared::Shared;
use super::super::vfs::OpenMode;
use super::{Data, Partial, Phase};
use crate::blocking::lock;
use crate::requests;

/// Bytes copied at once to another device.
const COPY_LEN: usize = 1 << 20;

/// Keeps recovery away from a completion that is running.
struct Completing<'a>(&'a Shared, TransferId);

impl<'a> Completing<'a> {
    fn new(shared: &'a Shared, transfer: TransferId) -> Self {
        lock(&shared.completing).insert(transfer);
        Self(shared, transfer)
    }
}

impl Drop for Completing<'_> {
    fn drop(&mut self) {
        lock(&self.0.completing).remove(&self.1);
    }
}

impl Partial {
    pub(super) fn recomputed_root(&self) -> Result<Option<MerkleRoot>, StoreError> {
        if !lock(&self.pending).proven.is_full() {
            return Ok(None);
        }
        let nodes = hash_list::nodes(&self.hashes, self.layout)?;
        Ok(Some(hash_list::seal(self.layout, &nodes)))
    }

    pub(super) fn complete(
        &self,
        destination: Destination,
        header: ManifestHeader,
    ) -> Result<ObjectInfo, StoreError> {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        self.shared.check_open()?;
        if *phase != Phase::Live {
            return Err(StoreError::Closed);
        }
        let data = match (&destination, &self.data) {
            (Destination::Files(spans), _) => {
                return self.complete_spans(&mut phase, spans, header);
            }
            (_, Data::Whole(data)) => data,
            (_, Data::Spread(_)) => {
                return Err(StoreError::Unsupported {
                    what: "one file for what lies in several",
                });
            }
        };
        let path = match destination {
            Destination::Store => None,
            Destination::File(path) => Some(self.shared.absolute(&path)?),
            _ => {
                return Err(StoreError::Unsupported {
                    what: "this destination",
                });
            }
        };
        if let Some(path) = &path
            && self.shared.disk.exists(path)?
        {
            return Err(StoreError::AlreadyExists { path: path.clone() });
        }
        let header = self.identify(header)?;
        self.flush()?;
        let _completing = Completing::new(&self.shared, self.transfer);
        let (copy, file) = (None, None);
        let mut record = CompletionRecord {
            header,
            path,
            copy,
            file,
        };
        match self.take_off(data, &mut record) {
            Ok(None) => {}
            Ok(Some(known)) => {
                *phase = Phase::Complete;
                return Ok(known);
            }
            Err(error) => {
                self.roll_back(&record);
                return Err(error);
            }
        }
        let landed = {
            let _registry = lock(&self.shared.registry);
            self.shared.land(self.transfer, &record)
        };
        *phase = if landed.is_ok() {
            Phase::Complete
        } else {
            Phase::Gone
        };
        if landed.is_err() {
            self.shared.meta.unsettle();
        }
        landed
    }

    /// Identity from what was proven, with the hints of `header`; writes the tree above the
    /// hashes.
    pub(super) fn identify(&self, header: ManifestHeader) -> Result<ManifestHeader, StoreError> {
        let count = self.layout.count();
        let missing = count - lock(&self.pending).proven.count_ones();
        if missing > 0 {
            return Err(StoreError::Incomplete { missing });
        }
        let cid = match count.checked_sub(1) {
            Some(last) => self.hash(last)?.into_cid(),
            None => chain::EMPTY_CID,
        };
        let target = lock(&self.record).target;
        if target.cid().is_some_and(|wanted| wanted != cid) {
            // What was proven is another file: its last chunk is not proven of this one.
            return Err(StoreError::Incomplete { missing: 1 });
        }
        let nodes = hash_list::nodes(&self.hashes, self.layout)?;
        let root = hash_list::seal(self.layout, &nodes);
        let header = ManifestHeader {
            size: self.layout.size(),
            cid,
            root,
            ..header
        };
        requests::encode(&header)?;
        hash_list::write_nodes(&self.hashes, self.layout, &nodes)?;
        self.hashes.sync()?;
        Ok(header)
    }

    /// Everything up to and with the rename. Answers the object if it is in the store
    /// already and there was nothing to do.
    fn take_off(
        &self,
        data: &DiskFile,
        record: &mut CompletionRecord,
    ) -> Result<Option<ObjectInfo>, StoreError> {
        let shared = &self.shared;
        // The time of the last change is part of how a file seeded in place is known.
        data.sync_all()?;
        {
            let _registry = lock(&shared.registry);
            shared.recover_if_needed()?;
            if record.path.is_none()
                && let Some((held, pins)) = shared.visible_object(record.header.cid)?
                && shared.is_sound(&held)
            {
                shared.meta.complete_partial(self.transfer, None)?;
                shared.clear_partial_files(self.transfer);
                return Ok(Some(info(held, pins)));
            }
            record.file = Some(data.stat()?);
            shared.meta.intend_completion(self.transfer, record)?;
            let moved = match &record.path {
                Some(path) => shared.disk.rename(data.path(), path)?,
                None => {
                    shared
                        .disk
                        .create_dir(&shared.places.bucket(record.header.cid))?;
                    shared
                        .disk
                        .rename_over(data.path(), &shared.places.object_data(record.header.cid))?;
                    true
                }
            };
            if moved {
                return Ok(None);
            }
        }
        match record.path.clone() {
            Some(path) => self.copy_across(data, record, &path).map(|()| None),
            // The directory of the store spans devices.
            None => Err(StoreError::Unsupported {
                what: "a store on several devices",
            }),
        }
    }

    /// Copies to beside the destination on another device, and renames there.
    fn copy_across(
        &self,
        data: &DiskFile,
        record: &mut CompletionRecord,
        path: &Path,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let beside = Places::beside(path, self.transfer);
        record.file = None;
        record.copy = Some(beside.clone());
        shared.meta.intend_completion(self.transfer, record)?;
        shared.disk.remove(&beside)?;
        let copy = shared.disk.open(&beside, OpenMode::CreateNew)?;
        let mut buffer = Vec::with_capacity(COPY_LEN);
        let mut offset = 0;
        while data.read_some(offset, COPY_LEN, &mut buffer)? > 0 {
            copy.write(offset, &buffer)?;
            offset += buffer.len() as u64;
            buffer.clear();
            shared.check_open()?;
        }
        copy.sync_all()?;
        shared.disk.sync_dir(Places::parent(path))?;
        record.file = Some(copy.stat()?);
        let _registry = lock(&shared.registry);
        shared.meta.intend_completion(self.transfer, record)?;
        shared.disk.rename(&beside, path)?;
        Ok(())
    }

    /// After a failure before the rename: the partial file stays as it was. If even that
    /// cannot be recorded, the next start does it.
    fn roll_back(&self, record: &CompletionRecord) {
        let shared = &self.shared;
        let undone = shared.remove_copy(record);
        let key = intent_key(COMPLETING, self.transfer);
        if let Err(error) = undone.and_then(|()| shared.meta.give_up(&key)) {
            tracing::warn!(transfer = %self.transfer, %error, "completion to be undone later");
            shared.meta.unsettle();
        }
    }
}

impl Shared {
    /// Everything after the rename, here or at the next start; with `registry` held.
    pub(in crate::fs) fn land(
        &self,
        transfer: TransferId,
        record: &CompletionRecord,
    ) -> Result<ObjectInfo, StoreError> {
        let header = &record.header;
        let target = self.completion_target(record);
        self.disk.sync_dir(Places::parent(&target))?;
        self.disk.sync_dir(&self.places.partial())?;
        let held = self.visible_object(header.cid)?;
        let keep = held
            .as_ref()
            .is_some_and(|(held, _)| record.path.is_some() && self.is_sound(held));
        if !keep {
            self.place_hashes(&self.places.partial_hashes(transfer), header)?;
        }
        let pins = held
            .as_ref()
            .map(|(_, pins)| pins.clone())
            .unwrap_or_default();
        let object = match (held, keep) {
            (Some((held, _)), true) => {
                self.meta.complete_partial(transfer, None)?;
                held
            }
            (held, _) => {
                let place = match (&record.path, record.file) {
                    (Some(path), Some(stat)) => Place::External {
                        path: path.clone(),
                        stat,
                    },
                    _ => Place::Owned,
                };
                let count = held.map_or(0, |(held, _)| held.pins);
                let (state, header) = (ObjectState::Live, header.clone());
                let object = ObjectRecord {
                    state,
                    place,
                    pins: count,
                    header,
                };
                self.meta.complete_partial(transfer, Some(&object))?;
                object
            }
        };
        self.clear_partial_files(transfer);
        Ok(info(object, pins))
    }

    /// Lands or undoes a completion that was interrupted; with `registry` held.
    pub(in crate::fs) fn finish_completion(
        &self,
        transfer: TransferId,
        record: &CompletionRecord,
    ) -> Result<(), StoreError> {
        let target = self.completion_target(record);
        let moved = match record.file {
            Some(file) => self
                .disk
                .stat(&target)
                .is_ok_and(|now| now.inode == file.inode),
            None => false,
        };
        if moved {
            return self.land(transfer, record).map(drop);
        }
        self.remove_copy(record)?;
        self.meta.give_up(&intent_key(COMPLETING, transfer))
    }

    /// Durably removes a copy beside the destination, before the intent that tells of it.
    fn remove_copy(&self, record: &CompletionRecord) -> Result<(), StoreError> {
        match &record.copy {
            Some(copy) => {
                self.disk.remove(copy)?;
                self.disk.sync_dir(Places::parent(copy))
            }
            None => Ok(()),
        }
    }

    fn completion_target(&self, record: &CompletionRecord) -> PathBuf {
        match &record.path {
            Some(path) => path.clone(),
            None => self.places.object_data(record.header.cid),
        }
    }

    /// Unlinks what a completed download leaves; what stays goes at the next start.
    pub(super) fn clear_partial_files(&self, transfer: TransferId) {
        if let Err(error) = self.remove_partial_files(transfer) {
            tracing::debug!(%transfer, %error, "files of a completed download stay for now");
        }
    }

    /// The path from the root, so that it means the same at the next start.
    pub(in crate::fs) fn absolute(&self, path: &Path) -> Result<PathBuf, StoreError> {
        std::path::absolute(path).map_err(|source| {
            let path = path.to_path_buf();
            StoreError::Io {
                operation: "resolve",
                path,
                source,
            }
        })
    }
}
