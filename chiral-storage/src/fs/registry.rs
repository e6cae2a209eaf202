//! Adding and removing objects: several steps each, finished or undone after a crash.

use std::path::{Path, PathBuf};

use chiral_core::chunk_store::{Location, ObjectInfo};
use chiral_core::{Cid, ManifestHeader, StoreError};

use super::hash_list;
use super::meta::objects::{ADDING, Unpinned, intent_key};
use super::meta::record::{ObjectRecord, ObjectState, Place};
use super::places::Places;
use super::shared::Shared;
use super::vfs::FileStat;
use crate::blocking::lock;
use crate::requests;

/// Where the bytes of a new object are now.
#[derive(Debug)]
pub(super) enum NewData {
    /// A synced temporary file, to be moved into the store.
    Temporary(PathBuf),
    /// A file of the user's that was in this state throughout the pass over it.
    External(PathBuf, FileStat),
}

/// An object to be registered.
#[derive(Debug)]
pub(super) struct NewObject {
    pub(super) header: ManifestHeader,
    pub(super) data: NewData,
    /// A synced temporary file of hashes, if the object has one.
    pub(super) hashes: Option<PathBuf>,
}

/// What is answered about a record.
pub(super) fn info(record: ObjectRecord, pins: Vec<String>) -> ObjectInfo {
    let location = match record.place {
        Place::Owned => Location::Store,
        Place::External { path, .. } => Location::External(path),
    };
    ObjectInfo::new(record.header, location, pins)
}

impl Shared {
    /// An object that is there for the outside.
    pub(super) fn visible_object(
        &self,
        cid: Cid,
    ) -> Result<Option<(ObjectRecord, Vec<String>)>, StoreError> {
        let object = self.meta.object(cid)?;
        Ok(object.filter(|(record, _)| record.state != ObjectState::Deleting))
    }

    /// Where the bytes of an object are.
    pub(super) fn data_path(&self, record: &ObjectRecord) -> PathBuf {
        match &record.place {
            Place::Owned => self.places.object_data(record.header.cid),
            Place::External { path, .. } => path.clone(),
        }
    }

    /// Whether the object's bytes still are what they were, as far as can be seen at once.
    pub(super) fn is_sound(&self, record: &ObjectRecord) -> bool {
        record.state == ObjectState::Live
            && self
                .disk
                .stat(&self.data_path(record))
                .is_ok_and(|now| match &record.place {
                    Place::Owned => now.len == record.header.size,
                    Place::External { stat, .. } => now == *stat,
                })
    }

    /// Registers an object, or takes its data as those of the object that is there.
    pub(super) fn add(&self, new: NewObject) -> Result<ObjectInfo, StoreError> {
        let _registry = lock(&self.registry);
        self.check_open()?;
        self.recover_if_needed()?;
        let cid = new.header.cid;
        let held = self.visible_object(cid)?;
        let sound = held
            .as_ref()
            .is_some_and(|(record, _)| self.is_sound(record));
        if let (Some((record, pins)), true) = (&held, sound) {
            let moves = match (&record.place, &new.data) {
                (Place::External { .. }, NewData::Temporary(_)) => true,
                (Place::External { path, .. }, NewData::External(new, _)) => path == new,
                (Place::Owned, _) => false,
            };
            if !moves {
                return Ok(info(record.clone(), pins.clone()));
            }
        }
        let (header, pins) = match held {
            Some((record, pins)) => (record.header, pins),
            None => (new.header.clone(), Vec::new()),
        };
        let result = self.place(&new, header, pins.len() as u32);
        if result.is_err() {
            self.meta.unsettle();
        }
        Ok(info(result?, pins))
    }

    /// Moves files to their places, and registers the object.
    fn place(
        &self,
        new: &NewObject,
        header: ManifestHeader,
        pins: u32,
    ) -> Result<ObjectRecord, StoreError> {
        let cid = header.cid;
        let moved: Vec<(&Path, PathBuf)> = [
            match &new.data {
                NewData::Temporary(from) => Some((from.as_path(), self.places.object_data(cid))),
                NewData::External(..) => None,
            },
            new.hashes
                .as_deref()
                .map(|from| (from, self.places.object_hashes(cid))),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !moved.is_empty() {
            self.disk.create_dir(&self.places.bucket(cid))?;
            self.meta.intend(&intent_key(ADDING, cid), &[])?;
            // What is there already is the same content, or was left behind.
            for (from, to) in &moved {
                self.disk.rename_over(from, to)?;
            }
            self.disk.sync_dir(&self.places.bucket(cid))?;
        }
        let place = match &new.data {
            NewData::Temporary(_) => Place::Owned,
            NewData::External(path, stat) => Place::External {
                path: path.clone(),
                stat: *stat,
            },
        };
        let record = ObjectRecord {
            state: ObjectState::Live,
            place,
            pins,
            header,
        };
        self.meta.set_object(&record)?;
        Ok(record)
    }

    /// Adds a pin.
    pub(super) fn pin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        let _registry = lock(&self.registry);
        self.recover_if_needed()?;
        self.meta.pin(cid, pin)
    }

    /// Takes a pin away; with the last, the object.
    pub(super) fn unpin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        let _registry = lock(&self.registry);
        self.recover_if_needed()?;
        match self.meta.unpin(cid, pin)? {
            Unpinned::Left(left) => Ok(left),
            Unpinned::Last => self.delete_marked(cid).map(|()| 0),
        }
    }

    /// Removes an object that nobody pins.
    pub(super) fn remove(&self, cid: Cid) -> Result<bool, StoreError> {
        let _registry = lock(&self.registry);
        self.recover_if_needed()?;
        let marked = self.meta.mark_removed(cid)?;
        if marked {
            self.delete_marked(cid)?;
        }
        Ok(marked)
    }

    fn delete_marked(&self, cid: Cid) -> Result<(), StoreError> {
        let deleted = self.finish_removal(cid);
        if deleted.is_err() {
            self.meta.unsettle();
        }
        deleted
    }

    /// Second half of a removal: unlinks the files, then forgets the record.
    pub(super) fn finish_removal(&self, cid: Cid) -> Result<(), StoreError> {
        self.remove_object_files(cid, true)?;
        self.meta.forget_object(cid)
    }

    /// Undoes or finishes an addition that was interrupted.
    pub(super) fn finish_addition(&self, cid: Cid) -> Result<(), StoreError> {
        match self.meta.object(cid)? {
            None => self.remove_object_files(cid, true)?,
            Some((
                ObjectRecord {
                    place: Place::External { .. },
                    ..
                },
                _,
            )) => {
                self.remove_object_files(cid, false)?;
            }
            Some(_) => {}
        }
        self.meta.give_up(&intent_key(ADDING, cid))
    }

    fn remove_object_files(&self, cid: Cid, hashes: bool) -> Result<(), StoreError> {
        let bucket = self.places.bucket(cid);
        if !self.disk.exists(&bucket)? {
            return Ok(());
        }
        self.disk.remove(&self.places.object_data(cid))?;
        if hashes {
            self.disk.remove(&self.places.object_hashes(cid))?;
        }
        self.disk.sync_dir(&bucket)
    }

    /// Adds the hashes of a completed download to those of the objects.
    pub(super) fn place_hashes(
        &self,
        from: &Path,
        header: &ManifestHeader,
    ) -> Result<(), StoreError> {
        let to = self.places.object_hashes(header.cid);
        let kept = hash_list::has_file(requests::layout(header.size)?);
        if kept && self.disk.exists(from)? {
            self.disk.create_dir(&self.places.bucket(header.cid))?;
            self.disk.rename_over(from, &to)?;
            self.disk.sync_dir(Places::parent(&to))?;
        }
        Ok(())
    }
}
