//! Metadata in redb: one writer at a time, every commit durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use chiral_core::StoreError;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, TableDefinition, TableError,
    WriteTransaction,
};

use super::config::FsStoreConfig;
use super::disk::{DiskFile, failed};

mod backend;
pub(super) mod objects;
pub(super) mod partials;
pub(super) mod record;
mod sidecars;

use backend::Backend;

/// Version of everything on disk.
const FORMAT: u64 = 1;

/// Keys and values of all tables are bytes; `record` says what they mean.
pub(super) type Bytes2 = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A row, copied: key and value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

const FORMATS: TableDefinition<&str, u64> = TableDefinition::new("format");
/// What was begun and is not finished.
const INTENTS: Bytes2 = TableDefinition::new("intents");

/// The metadata of a store.
#[derive(Debug)]
pub(super) struct Meta {
    file: DiskFile,
    config: FsStoreConfig,
    state: RwLock<State>,
    /// A write failed, and what became of it is not known: intents must be looked at.
    unsettled: AtomicBool,
    /// Counts what may have changed something.
    writes: AtomicU64,
}

#[derive(Debug)]
enum State {
    Open(Database),
    /// An I/O error came between; opened again when next needed.
    Broken,
    Closed,
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetaError {
    #[error(transparent)]
    Database(Box<redb::Error>),
    #[error("the record of {what} is damaged")]
    Damaged { what: &'static str },
    #[error("the metadata has format {found}, this program knows {FORMAT}")]
    Format { found: u64 },
    #[error("the database gave up on its file")]
    Panicked,
    #[error(transparent)]
    Store(StoreError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for MetaError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

impl MetaError {
    fn into_store(self, operation: &'static str, file: &DiskFile) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Database(error) => match *error {
                redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    failed(operation, file.path(), error)
                }
                redb::Error::DatabaseClosed => StoreError::Closed,
                error => StoreError::Metadata {
                    operation,
                    source: Box::new(error),
                },
            },
            other => StoreError::Metadata {
                operation,
                source: Box::new(other),
            },
        }
    }

    /// After an I/O error redb refuses everything until it is opened again.
    fn needs_reopening(&self) -> bool {
        matches!(self, Self::Database(error)
            if matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo))
    }
}

impl Meta {
    /// Opens the metadata in `file`, or makes it if the file is empty.
    pub(super) fn open(file: DiskFile, config: &FsStoreConfig) -> Result<Self, StoreError> {
        let database = open_database(&file, config)?;
        let state = RwLock::new(State::Open(database));
        Ok(Self {
            file,
            config: config.clone(),
            state,
            unsettled: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        })
    }

    /// Closes the file; later transactions answer [`StoreError::Closed`].
    pub(super) fn close(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }

    /// Reads a consistent state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, MetaError>,
    ) -> Result<T, StoreError> {
        self.with("read", |database| {
            let transaction = database.begin_read()?;
            work(&transaction)
        })
    }

    /// Changes several records at once, durable when the call returns; nothing on an error.
    pub(super) fn write<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&WriteTransaction) -> Result<T, MetaError>,
    ) -> Result<T, StoreError> {
        let written = self.with(operation, |database| {
            let transaction = database.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        });
        // Also after a failure: what became of it is not always known.
        self.writes.fetch_add(1, Ordering::AcqRel);
        if !matches!(written, Ok(_) | Err(StoreError::NotFound { .. })) {
            self.unsettle();
        }
        written
    }

    /// A number that is another one after every change. What was read after asking for it
    /// holds for as long as it stays.
    pub(super) fn version(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Notes that an operation of several steps failed in between.
    pub(super) fn unsettle(&self) {
        self.unsettled.store(true, Ordering::Release);
    }

    /// Whether intents must be looked at before anything else; asked once.
    pub(super) fn take_unsettled(&self) -> bool {
        self.unsettled.swap(false, Ordering::AcqRel)
    }

    fn with<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database) -> Result<T, MetaError>,
    ) -> Result<T, StoreError> {
        loop {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match &*state {
                State::Closed => return Err(StoreError::Closed),
                State::Broken => {}
                State::Open(database) => {
                    let error = match work(database) {
                        Ok(value) => return Ok(value),
                        Err(error) => error,
                    };
                    drop(state);
                    if error.needs_reopening() {
                        self.mark_broken();
                    }
                    return Err(error.into_store(operation, &self.file));
                }
            }
            drop(state);
            self.reopen()?;
        }
    }

    fn mark_broken(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Open(_)) {
            *state = State::Broken;
        }
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Broken) {
            *state = State::Open(open_database(&self.file, &self.config)?);
        }
        Ok(())
    }

    /// All intents: key and value.
    pub(super) fn intents(&self) -> Result<Vec<Row>, StoreError> {
        self.read(|transaction| {
            let rows = transaction.open_table(INTENTS)?;
            collect(redb::ReadableTable::iter(&rows)?)
        })
    }

    /// Records what is about to be done.
    pub(super) fn intend(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write("record an intent", |transaction| {
            intend(transaction, key, value)
        })
    }

    /// Forgets an intent without anything else.
    pub(super) fn give_up(&self, key: &[u8]) -> Result<(), StoreError> {
        self.write("drop an intent", |transaction| done(transaction, key))
    }
}

/// Records an intent in a transaction with other changes.
pub(super) fn intend(
    transaction: &WriteTransaction,
    key: &[u8],
    value: &[u8],
) -> Result<(), MetaError> {
    transaction.open_table(INTENTS)?.insert(key, value)?;
    Ok(())
}

/// Removes an intent in the transaction that ends what it began.
pub(super) fn done(transaction: &WriteTransaction, key: &[u8]) -> Result<(), MetaError> {
    transaction.open_table(INTENTS)?.remove(key)?;
    Ok(())
}

/// All rows of an iterator, copied.
fn collect(rows: redb::Range<'_, &'static [u8], &'static [u8]>) -> Result<Vec<Row>, MetaError> {
    rows.map(|row| {
        let (key, value) = row?;
        Ok((key.value().to_vec(), value.value().to_vec()))
    })
    .collect()
}

fn open_database(file: &DiskFile, config: &FsStoreConfig) -> Result<Database, StoreError> {
    let open = || -> Result<Database, MetaError> {
        let database = Builder::new()
            .set_cache_size(config.metadata_cache_bytes)
            .set_check_integrity_on_open(config.check_metadata)
            .create_with_backend(Backend::new(file.clone()))?;
        prepare(&database)?;
        Ok(database)
    };
    // redb checks what it reads, but some damage trips an assertion of its own.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result,
        Err(_) => Err(MetaError::Panicked),
    }
    .map_err(|error| error.into_store("open", file))
}

/// Checks the format, or makes all tables in new metadata.
fn prepare(database: &Database) -> Result<(), MetaError> {
    match database.begin_read()?.open_table(FORMATS) {
        Ok(table) => {
            let found = redb::ReadableTable::get(&table, "chiral-storage")?.map(|row| row.value());
            return match found {
                Some(FORMAT) => Ok(()),
                other => Err(MetaError::Format {
                    found: other.unwrap_or(0),
                }),
            };
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let transaction = database.begin_write()?;
    transaction.open_table(INTENTS)?;
    objects::make_tables(&transaction)?;
    partials::make_tables(&transaction)?;
    transaction
        .open_table(FORMATS)?
        .insert("chiral-storage", FORMAT)?;
    transaction.commit()?;
    Ok(())
}
