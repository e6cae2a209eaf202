//! Records in the journal: 32-byte keys, ABI-encoded values.

use alloy_sol_types::SolValue;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::JournalError;

/// A table of one kind of record.
pub(crate) type Table = TableDefinition<'static, &'static [u8; 32], &'static [u8]>;

/// A table by its name.
pub(crate) const fn table(name: &'static str) -> Table {
    TableDefinition::new(name)
}

/// Writes a record.
pub(crate) fn put(
    step: &WriteTransaction,
    table: Table,
    key: &[u8; 32],
    record: &impl SolValue,
) -> Result<(), JournalError> {
    step.open_table(table)?
        .insert(key, record.abi_encode().as_slice())?;
    Ok(())
}

/// Removes a record, if there is one.
pub(crate) fn remove(
    step: &WriteTransaction,
    table: Table,
    key: &[u8; 32],
) -> Result<(), JournalError> {
    step.open_table(table)?.remove(key)?;
    Ok(())
}

/// Reads a record within a step that may write it.
pub(crate) fn get<T: Record>(
    step: &WriteTransaction,
    table: Table,
    key: &[u8; 32],
) -> Result<Option<T>, JournalError> {
    let table = step.open_table(table)?;
    let found = table.get(key)?;
    found.map(|value| parse(value.value())).transpose()
}

/// Reads a record.
pub(crate) fn read<T: Record>(
    step: &ReadTransaction,
    table: Table,
    key: &[u8; 32],
) -> Result<Option<T>, JournalError> {
    match step.open_table(table) {
        Ok(table) => {
            let found = table.get(key)?;
            found.map(|value| parse(value.value())).transpose()
        }
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads all records.
pub(crate) fn all<T: Record>(
    step: &ReadTransaction,
    table: Table,
) -> Result<Vec<([u8; 32], T)>, JournalError> {
    let table = match step.open_table(table) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        records.push((*key.value(), parse(value.value())?));
    }
    Ok(records)
}

/// What can be kept as a record.
pub(crate) trait Record: Sized {
    /// Reads it; `None` if the bytes are not one.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

impl<T> Record for T
where
    T: SolValue + From<<T::SolType as alloy_sol_types::SolType>::RustType>,
{
    fn parse(bytes: &[u8]) -> Option<Self> {
        T::abi_decode_validate(bytes).ok()
    }
}

fn parse<T: Record>(bytes: &[u8]) -> Result<T, JournalError> {
    T::parse(bytes).ok_or(DAMAGED)
}

/// A record that does not mean anything.
pub(crate) const DAMAGED: JournalError = JournalError::Damaged {
    what: "a record of agreements or bills cannot be read",
};
