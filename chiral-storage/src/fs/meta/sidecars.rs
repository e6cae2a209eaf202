//! Sidecars of objects: they come after their object and go with it.

use chiral_core::sidecar::MAX_SIDECARS;
use chiral_core::{Cid, StoreError};
use redb::{ReadableTable, TableError, WriteTransaction};

use super::objects::get_visible;
use super::{Bytes2, Meta, MetaError};
use crate::beside::Sidecar;

/// cid ‖ name ‖ 0 ‖ number of the part (u32) → bytes. Stores of before there were sidecars get
/// the table with the first one.
const SIDECARS: Bytes2 = Bytes2::new("sidecars");

/// Bytes of a part, but for the last: with its key, less than the power of two to which redb
/// rounds it up.
const PART_LEN: usize = 60_000;

/// What the keys of all parts begin with. No name has a zero byte.
fn prefix(cid: Cid, name: &str) -> Vec<u8> {
    [cid.as_bytes().as_slice(), name.as_bytes(), &[0]].concat()
}

fn key(prefix: &[u8], part: u32) -> Vec<u8> {
    [prefix, &part.to_be_bytes()].concat()
}

/// All keys that begin like this.
fn keys(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, MetaError> {
    let mut keys = Vec::new();
    for row in table.range(prefix..)? {
        let (key, _) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        keys.push(key.value().to_vec());
    }
    Ok(keys)
}

/// Forgets all sidecars of an object that is forgotten.
pub(super) fn remove_all(transaction: &WriteTransaction, cid: Cid) -> Result<(), MetaError> {
    let mut table = transaction.open_table(SIDECARS)?;
    for key in keys(&table, cid.as_bytes())? {
        table.remove(key.as_slice())?;
    }
    Ok(())
}

/// For tests: objects that have sidecars.
#[cfg(test)]
pub(super) fn owners(
    transaction: &redb::ReadTransaction,
) -> Result<std::collections::BTreeSet<Cid>, MetaError> {
    let table = match transaction.open_table(SIDECARS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Default::default()),
        table => table?,
    };
    let mut owners = std::collections::BTreeSet::new();
    for row in table.iter()? {
        let (key, _) = row?;
        owners.insert(Cid::from_bytes(super::record::id(&key.value()[..32])?));
    }
    Ok(owners)
}

impl Meta {
    /// A sidecar, whether or not its object is there for the outside.
    pub(in crate::fs) fn sidecar(
        &self,
        cid: Cid,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = prefix(cid, name);
        self.read(|transaction| {
            let table = match transaction.open_table(SIDECARS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let mut bytes = None;
            for row in table.range(prefix.as_slice()..)? {
                let (key, part) = row?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let bytes: &mut Vec<u8> = bytes.get_or_insert_default();
                bytes.extend_from_slice(part.value());
            }
            Ok(bytes)
        })
    }

    /// Whether there is such a sidecar.
    pub(in crate::fs) fn has_sidecar(&self, cid: Cid, name: &str) -> Result<bool, StoreError> {
        let first = key(&prefix(cid, name), 0);
        self.read(|transaction| match transaction.open_table(SIDECARS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(false),
            table => Ok(table?.get(first.as_slice())?.is_some()),
        })
    }

    /// Keeps sidecars of an object; with `replace`, in place of those of the same names.
    pub(in crate::fs) fn set_sidecars(
        &self,
        cid: Cid,
        sidecars: &[Sidecar],
        replace: bool,
    ) -> Result<(), StoreError> {
        self.write("keep a sidecar", |transaction| {
            get_visible(transaction, cid)?;
            let mut table = transaction.open_table(SIDECARS)?;
            for (name, bytes) in sidecars {
                let prefix = prefix(cid, name);
                let held = keys(&table, &prefix)?;
                if !held.is_empty() && !replace {
                    continue;
                }
                for key in held {
                    table.remove(key.as_slice())?;
                }
                let others = keys(&table, cid.as_bytes())?;
                let others = others.iter().filter(|key| key.ends_with(&[0; 5])).count();
                if others >= MAX_SIDECARS {
                    return Err(MetaError::Store(StoreError::TooLarge {
                        what: "number of sidecars",
                        limit: MAX_SIDECARS as u64,
                    }));
                }
                // An empty one has a part, too.
                let (first, rest) = bytes.split_at(bytes.len().min(PART_LEN));
                let parts = std::iter::once(first).chain(rest.chunks(PART_LEN));
                for (part, bytes) in (0..).zip(parts) {
                    table.insert(key(&prefix, part).as_slice(), bytes)?;
                }
            }
            Ok(())
        })
    }
}
