//! Tables of complete objects, their pins, and the files seeded in place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use chiral_core::{Cid, StoreError};
use redb::{ReadableTable, WriteTransaction};

use super::record::{ObjectRecord, ObjectState, Place, id};
use super::{Bytes2, Meta, MetaError, done, intend, sidecars};

/// cid → [`ObjectRecord`].
const OBJECTS: Bytes2 = Bytes2::new("objects");
/// cid ‖ name of the pin → nothing.
const PINS: Bytes2 = Bytes2::new("pins");
/// Path of a file seeded in place → cid.
const PATHS: Bytes2 = Bytes2::new("paths");

/// What taking a pin away led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Unpinned {
    /// So many are left.
    Left(u32),
    /// That was the last: the object is marked for removal.
    Last,
}

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), MetaError> {
    transaction.open_table(OBJECTS)?;
    transaction.open_table(PINS)?;
    transaction.open_table(PATHS)?;
    Ok(())
}

/// Key of the intent to add an object, or to remove one.
pub(in crate::fs) fn intent_key(kind: u8, cid: Cid) -> Vec<u8> {
    [&[kind], cid.as_bytes().as_slice()].concat()
}

/// Intent: files of this object may be in place without a record.
pub(in crate::fs) const ADDING: u8 = b'a';
/// Intent: the files of this object are to go, and then its record.
pub(in crate::fs) const REMOVING: u8 = b'r';

fn get(transaction: &WriteTransaction, cid: Cid) -> Result<Option<ObjectRecord>, MetaError> {
    let objects = transaction.open_table(OBJECTS)?;
    let row = objects.get(cid.as_bytes().as_slice())?;
    row.map(|row| ObjectRecord::decode(row.value())).transpose()
}

fn put(transaction: &WriteTransaction, cid: Cid, record: &ObjectRecord) -> Result<(), MetaError> {
    let mut objects = transaction.open_table(OBJECTS)?;
    objects.insert(cid.as_bytes().as_slice(), record.encode().as_slice())?;
    Ok(())
}

/// The record of an object that is there for the outside.
pub(super) fn get_visible(
    transaction: &WriteTransaction,
    cid: Cid,
) -> Result<ObjectRecord, MetaError> {
    get(transaction, cid)?
        .filter(|record| record.state != ObjectState::Deleting)
        .ok_or(MetaError::Store(StoreError::NotFound { cid }))
}

/// Writes a record and the path it is found by, and takes away the path it had.
pub(in crate::fs) fn set(
    transaction: &WriteTransaction,
    record: &ObjectRecord,
) -> Result<(), MetaError> {
    let cid = record.header.cid;
    unset_path(transaction, cid)?;
    if let Place::External { path, .. } = &record.place {
        let mut paths = transaction.open_table(PATHS)?;
        paths.insert(path.as_os_str().as_bytes(), cid.as_bytes().as_slice())?;
    }
    put(transaction, cid, record)
}

/// Removes the row of the object's path, if it is the object's.
fn unset_path(transaction: &WriteTransaction, cid: Cid) -> Result<(), MetaError> {
    if let Some(ObjectRecord {
        place: Place::External { path, .. },
        ..
    }) = get(transaction, cid)?
    {
        let mut paths = transaction.open_table(PATHS)?;
        let key = path.as_os_str().as_bytes();
        let own = paths
            .get(key)?
            .is_some_and(|row| row.value() == cid.as_bytes());
        if own {
            paths.remove(key)?;
        }
    }
    Ok(())
}

/// Marks an object for removal and takes its pins away.
fn mark(transaction: &WriteTransaction, cid: Cid, record: ObjectRecord) -> Result<(), MetaError> {
    put(
        transaction,
        cid,
        &ObjectRecord {
            state: ObjectState::Deleting,
            pins: 0,
            ..record
        },
    )?;
    intend(transaction, &intent_key(REMOVING, cid), &[])
}

fn pin_key(cid: Cid, pin: &str) -> Vec<u8> {
    [cid.as_bytes().as_slice(), pin.as_bytes()].concat()
}

/// Names out of the rows of pins that begin with the cid.
fn pins_of(
    pins: &impl ReadableTable<&'static [u8], &'static [u8]>,
    cid: Cid,
) -> Result<Vec<String>, MetaError> {
    let prefix = cid.as_bytes().as_slice();
    let mut names = Vec::new();
    for row in pins.range(prefix..)? {
        let (key, _) = row?;
        let Some(name) = key.value().strip_prefix(prefix) else {
            break;
        };
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(names)
}

impl Meta {
    /// The record of an object, in whatever state, with the names of its pins.
    pub(in crate::fs) fn object(
        &self,
        cid: Cid,
    ) -> Result<Option<(ObjectRecord, Vec<String>)>, StoreError> {
        self.read(|transaction| {
            let objects = transaction.open_table(OBJECTS)?;
            let Some(row) = objects.get(cid.as_bytes().as_slice())? else {
                return Ok(None);
            };
            let record = ObjectRecord::decode(row.value())?;
            let pins = pins_of(&transaction.open_table(PINS)?, cid)?;
            Ok(Some((record, pins)))
        })
    }

    /// All records, by cid.
    pub(in crate::fs) fn objects(&self) -> Result<Vec<(ObjectRecord, Vec<String>)>, StoreError> {
        self.read(|transaction| {
            let objects = transaction.open_table(OBJECTS)?;
            let pins = transaction.open_table(PINS)?;
            let mut records = Vec::new();
            for row in objects.iter()? {
                let (key, value) = row?;
                let record = ObjectRecord::decode(value.value())?;
                if record.header.cid.as_bytes() != key.value() {
                    return Err(MetaError::Damaged { what: "an object" });
                }
                let pins = match record.pins {
                    0 => Vec::new(),
                    _ => pins_of(&pins, record.header.cid)?,
                };
                records.push((record, pins));
            }
            Ok(records)
        })
    }

    /// The object that a path is seeded as.
    pub(in crate::fs) fn object_at(&self, path: &Path) -> Result<Option<Cid>, StoreError> {
        self.read(|transaction| {
            let paths = transaction.open_table(PATHS)?;
            let row = paths.get(path.as_os_str().as_bytes())?;
            row.map(|row| Ok(Cid::from_bytes(id(row.value())?)))
                .transpose()
        })
    }

    /// Writes a record, and ends the intent to add the object.
    pub(in crate::fs) fn set_object(&self, record: &ObjectRecord) -> Result<(), StoreError> {
        self.write("register an object", |transaction| {
            set(transaction, record)?;
            done(transaction, &intent_key(ADDING, record.header.cid))
        })
    }

    /// Marks an object as no longer what it was. Answers whether it was live.
    pub(in crate::fs) fn mark_changed(&self, cid: Cid) -> Result<bool, StoreError> {
        self.write("mark an object as changed", |transaction| {
            let Some(record) = get(transaction, cid)? else {
                return Ok(false);
            };
            if record.state != ObjectState::Live {
                return Ok(false);
            }
            put(
                transaction,
                cid,
                &ObjectRecord {
                    state: ObjectState::Changed,
                    ..record
                },
            )?;
            Ok(true)
        })
    }

    /// Adds a pin; answers how many there are.
    pub(in crate::fs) fn pin(&self, cid: Cid, pin: &str) -> Result<u32, StoreError> {
        self.write("pin", |transaction| {
            let mut record = get_visible(transaction, cid)?;
            let mut pins = transaction.open_table(PINS)?;
            let known = pins
                .insert(pin_key(cid, pin).as_slice(), [].as_slice())?
                .is_some();
            record.pins += u32::from(!known);
            put(transaction, cid, &record)?;
            Ok(record.pins)
        })
    }

    /// Takes a pin away.
    pub(in crate::fs) fn unpin(&self, cid: Cid, pin: &str) -> Result<Unpinned, StoreError> {
        self.write("unpin", |transaction| {
            let mut record = get_visible(transaction, cid)?;
            let mut pins = transaction.open_table(PINS)?;
            if pins.remove(pin_key(cid, pin).as_slice())?.is_none() {
                return Ok(Unpinned::Left(record.pins));
            }
            record.pins = record.pins.saturating_sub(1);
            if record.pins == 0 {
                mark(transaction, cid, record)?;
                return Ok(Unpinned::Last);
            }
            put(transaction, cid, &record)?;
            Ok(Unpinned::Left(record.pins))
        })
    }

    /// Marks an object that nobody pins for removal; answers whether there was one.
    pub(in crate::fs) fn mark_removed(&self, cid: Cid) -> Result<bool, StoreError> {
        self.write("remove an object", |transaction| {
            match get(transaction, cid)? {
                Some(record) if record.state != ObjectState::Deleting && record.pins == 0 => {
                    mark(transaction, cid, record)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Forgets an object whose files are gone.
    pub(in crate::fs) fn forget_object(&self, cid: Cid) -> Result<(), StoreError> {
        self.write("remove an object", |transaction| {
            unset_path(transaction, cid)?;
            sidecars::remove_all(transaction, cid)?;
            transaction
                .open_table(OBJECTS)?
                .remove(cid.as_bytes().as_slice())?;
            done(transaction, &intent_key(REMOVING, cid))
        })
    }
}

#[cfg(test)]
mod recount;
