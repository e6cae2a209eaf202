//! [`Journal`]: what must not be forgotten about money, one durable step after the other.
//!
//! Settlements, quotes, the seeder's books: whatever has to survive a crash goes through one
//! database of one file. A step is a name and a closure over one transaction; when
//! [`Journal::write`] has answered, it is on disk. Because every step has a name and a
//! number, tests (and `CHIRAL_JOURNAL_CRASH`) can end the process right before or after any
//! of them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

mod fault;

pub use fault::{CRASH_VARIABLE, Crash, CrashSide, CrashStep, ParseCrashError};

use fault::{Faults, Manner};

/// Version of the file's format.
///
/// The tables' own formats belong to it: whoever changes one raises it, and reads the old.
pub const FORMAT: u32 = 2;

/// Memory for pages of the database, in bytes.
const CACHE_BYTES: usize = 8 << 20;

const META: TableDefinition<'static, &str, u32> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "chiral-payment-format";

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process, or another handle of this one, has the file open.
    #[error("the journal is open elsewhere")]
    Locked,
    /// A later version of this library wrote the file.
    #[error("the journal has format {found}, this version reads up to {FORMAT}")]
    NewerFormat {
        /// Format of the file.
        found: u32,
    },
    /// The file is no journal, or what is in it cannot be read.
    #[error("the journal is damaged: {what}")]
    Damaged {
        /// What does not hold.
        what: &'static str,
    },
    /// The disk, or the database on it, failed.
    #[error("the journal's store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A crash that was asked for, by [`Journal::crash`].
    #[error("the journal crashed on purpose at {point}")]
    Crashed {
        /// Name of the step.
        point: &'static str,
    },
    /// [`CRASH_VARIABLE`] does not say what it should.
    #[error("{CRASH_VARIABLE} is not understood")]
    CrashVariable(#[source] ParseCrashError),
    /// It has been closed.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked | Self::Store(_))
    }

    fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }
}

macro_rules! from_store_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for JournalError {
            fn from(error: $error) -> Self {
                Self::store(error)
            }
        }
    )*};
}

from_store_errors!(
    redb::CommitError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

impl From<DatabaseError> for JournalError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Locked,
            other => Self::store(other),
        }
    }
}

/// A handle of one journal; clones are handles of the same.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    /// None once it is closed. Whoever uses the database holds this for reading.
    database: Arc<RwLock<Option<Database>>>,
    /// Writers wait here, in order, and not on threads.
    writer: Arc<Mutex<()>>,
    faults: Arc<Faults>,
}

impl Journal {
    /// Opens the journal in the file at `path`, or begins one there. Blocks on the disk.
    ///
    /// # Errors
    /// [`JournalError::Locked`], [`JournalError::NewerFormat`], [`JournalError::Damaged`],
    /// [`JournalError::Store`]; [`JournalError::CrashVariable`] if [`CRASH_VARIABLE`] is set
    /// and not understood.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let journal = Self::over(database)?;
        // The file's name is durable before anything in it is relied upon.
        #[cfg(unix)]
        {
            let folder = path.parent().filter(|at| !at.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            std::fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(JournalError::store)?;
        }
        if let Ok(text) = std::env::var(CRASH_VARIABLE) {
            let crash = text.parse().map_err(JournalError::CrashVariable)?;
            journal.shared.faults.plan(crash, Manner::Abort);
        }
        Ok(journal)
    }

    /// A journal in memory, for tests and for what may be forgotten.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    pub fn in_memory() -> Result<Self, JournalError> {
        let backend = redb::backends::InMemoryBackend::new();
        Self::over(Database::builder().create_with_backend(backend)?)
    }

    fn over(database: Database) -> Result<Self, JournalError> {
        let transaction = database.begin_write()?;
        let tables = transaction.list_tables()?.count();
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(FORMAT_KEY)?.map(|value| value.value());
            match found {
                Some(FORMAT) => {}
                // 1 was never released: its quotes had other fields.
                Some(found) if found < FORMAT => {
                    let what = "its format is one of before the first release";
                    return Err(JournalError::Damaged { what });
                }
                Some(found) => return Err(JournalError::NewerFormat { found }),
                None if tables > 0 => {
                    let what = "it is a database of something else";
                    return Err(JournalError::Damaged { what });
                }
                None => {
                    meta.insert(FORMAT_KEY, FORMAT)?;
                }
            }
        }
        transaction.commit()?;
        Ok(Self {
            shared: Arc::new(Shared {
                database: Arc::new(RwLock::new(Some(database))),
                writer: Arc::default(),
                faults: Arc::default(),
            }),
        })
    }

    /// One durable step: runs `f` in a write transaction and commits it, on a thread for
    /// blocking work. When this answers `Ok`, all that `f` did is on disk; if `f` fails,
    /// nothing of it is. Steps happen one after the other, in the order of the calls.
    ///
    /// `point` names the step in crash tests: lower-case words, joined by `-`.
    ///
    /// # Errors
    /// What `f` answers, and [`JournalError`]'s own. After an error of the commit itself the
    /// step may have happened.
    ///
    /// # Cancel safety
    /// A step that has begun goes on when the future is dropped, and may become durable.
    pub async fn write<T, F>(&self, point: &'static str, f: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    {
        let turn = Arc::clone(&self.shared.writer).lock_owned().await;
        let database = self.database().await?;
        let faults = Arc::clone(&self.shared.faults);
        blocking(move || {
            let _turn = turn;
            faults.check()?;
            let transaction = open(&database)?.begin_write()?;
            let value = f(&transaction)?;
            faults.before(point)?;
            transaction.commit()?;
            faults.after(point)?;
            Ok(value)
        })
        .await
    }

    /// Runs `f` in a read transaction, which sees every step that was answered before.
    ///
    /// # Errors
    /// What `f` answers, and [`JournalError`]'s own.
    pub async fn read<T, F>(&self, f: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, JournalError> + Send + 'static,
    {
        let database = self.database().await?;
        let faults = Arc::clone(&self.shared.faults);
        blocking(move || {
            faults.check()?;
            f(&open(&database)?.begin_read()?)
        })
        .await
    }

    /// Ends what runs, and gives the file free. Later calls of any handle answer
    /// [`JournalError::Closed`]. Idempotent.
    pub async fn close(&self) {
        let _turn = self.shared.writer.lock().await;
        let mut database = Arc::clone(&self.shared.database).write_owned().await;
        // Closing a database writes.
        let closed = tokio::task::spawn_blocking(move || drop(database.take())).await;
        if let Err(error) = closed {
            tracing::error!(%error, "closing the journal panicked");
        }
    }

    /// Makes this journal crash at a step: from then on every call of every handle fails,
    /// with [`JournalError::Crashed`], as if the process were gone. For tests of whoever
    /// keeps something here; the file is then closed and opened again.
    pub fn crash(&self, crash: Crash) {
        self.shared.faults.plan(crash, Manner::Fail);
    }

    /// Whether this and another are handles of the same journal.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// How many durable steps there were since it was opened.
    pub fn steps(&self) -> u64 {
        self.shared.faults.steps()
    }

    async fn database(&self) -> Result<OwnedRwLockReadGuard<Option<Database>>, JournalError> {
        let database = Arc::clone(&self.shared.database).read_owned().await;
        match database.is_some() {
            true => Ok(database),
            false => Err(JournalError::Closed),
        }
    }
}

fn open(database: &Option<Database>) -> Result<&Database, JournalError> {
    database.as_ref().ok_or(JournalError::Closed)
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let result = tokio::task::spawn_blocking(f).await;
    // A runtime that shuts down takes the task away before it began.
    result.unwrap_or_else(|error| Err(JournalError::store(error)))
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("steps", &self.steps())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
