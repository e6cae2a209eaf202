//! Blocks and state in one redb file (`design.md` has the format), or in memory by the same code.
//!
//! A block, its receipts, its indexes and what it did to the state are one transaction of the
//! database: after a crash all of it is there, or nothing.

use std::path::Path;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::{Decodable, Encodable};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::block::StoredBlock;
use super::state::{Basic, Changes, State};

/// Version of the tables below.
const FORMAT: u64 = 1;

/// Memory that the database may keep pages in, in bytes.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The file in the data directory.
const FILE: &str = "chain.redb";

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HEADERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("headers");
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
const NUMBERS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("numbers");
const TRANSACTIONS: TableDefinition<'_, [u8; 32], (u64, u32)> =
    TableDefinition::new("transactions");
const ACCOUNTS: TableDefinition<'_, [u8; 20], &[u8]> = TableDefinition::new("accounts");
const STORAGE: TableDefinition<'_, ([u8; 20], [u8; 32]), [u8; 32]> =
    TableDefinition::new("storage");
const CODES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("codes");

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed, or another process has it.
    #[error("the chain's database failed")]
    Database(#[source] Box<redb::Error>),
    /// The directory cannot be made.
    #[error("the data directory cannot be made")]
    Directory(#[source] std::io::Error),
    /// It was written by another version.
    #[error("the chain's database has format {found}, this version has {FORMAT}")]
    Format {
        /// What it says.
        found: u64,
    },
    /// It holds a chain with another first block.
    #[error("the chain's database begins with block {found}, the spec with {expected}")]
    Genesis {
        /// Hash of the spec's block 0.
        expected: B256,
        /// Hash of the store's block 0.
        found: B256,
    },
    /// What is in it cannot be.
    #[error("the chain's database is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// An earlier write failed, so nothing is written any more.
    #[error("the chain has stopped since a write failed")]
    Stopped,
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Directory(_))
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The database.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
}

impl Store {
    /// Opens or makes the file in a directory; in memory without one.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = match data_dir {
            None => builder.create_with_backend(InMemoryBackend::new())?,
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(StoreError::Directory)?;
                builder.create(dir.join(FILE))?
            }
        };
        Ok(Self { database })
    }

    /// The newest block, or none if the store is new.
    pub(super) fn head(&self) -> Result<Option<StoredBlock>, StoreError> {
        let read = self.database.begin_read()?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let number = |key: &str| -> Result<u64, StoreError> {
            let value = meta.get(key)?.ok_or(StoreError::Damaged { what: "meta" })?;
            let bytes = value.value().try_into();
            Ok(u64::from_be_bytes(
                bytes.map_err(|_| StoreError::Damaged { what: "meta" })?,
            ))
        };
        let found = number("format")?;
        if found != FORMAT {
            return Err(StoreError::Format { found });
        }
        let head = self.block(number("head")?)?;
        head.map(Some).ok_or(StoreError::Damaged {
            what: "the head is missing",
        })
    }

    /// Writes a block and what it did, durably, in one step.
    pub(super) fn commit(&self, block: &StoredBlock, changes: &Changes) -> Result<(), StoreError> {
        let number = block.header.number;
        let write = self.database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
            meta.insert("head", number.to_be_bytes().as_slice())?;
            write
                .open_table(HEADERS)?
                .insert(number, &*alloy_rlp::encode(&block.header))?;
            write
                .open_table(BODIES)?
                .insert(number, &*block.encode_body())?;
            write.open_table(NUMBERS)?.insert(block.hash.0, number)?;
            let mut transactions = write.open_table(TRANSACTIONS)?;
            for (index, transaction) in (0u32..).zip(&block.transactions) {
                transactions.insert(transaction.tx_hash().0, (number, index))?;
            }
            let mut codes = write.open_table(CODES)?;
            for (hash, code) in &changes.codes {
                codes.insert(hash.0, code.as_ref())?;
            }
            let mut accounts = write.open_table(ACCOUNTS)?;
            let mut storage = write.open_table(STORAGE)?;
            for (address, change) in &changes.accounts {
                match &change.basic {
                    None => accounts.remove(address.0.0)?,
                    Some(basic) => accounts.insert(address.0.0, &*encode_basic(basic))?,
                };
                if change.wiped {
                    let all = (address.0.0, [0; 32])..=(address.0.0, [0xff; 32]);
                    storage.retain_in(all, |_, _| false)?;
                }
                for (slot, value) in &change.storage {
                    let key = (address.0.0, slot.to_be_bytes::<32>());
                    if value.is_zero() {
                        storage.remove(key)?;
                    } else {
                        storage.insert(key, value.to_be_bytes::<32>())?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Everything that the state after `head` is.
    pub(super) fn load_state(&self, head: u64, hashes: usize) -> Result<State, StoreError> {
        let damaged = |what| move |_| StoreError::Damaged { what };
        let read = self.database.begin_read()?;
        let mut state = State::default();
        for entry in read.open_table(ACCOUNTS)?.iter()? {
            let (address, basic) = entry?;
            let basic = decode_basic(basic.value()).map_err(damaged("an account"))?;
            state.load_account(Address::from(address.value()), basic);
        }
        for entry in read.open_table(STORAGE)?.iter()? {
            let (key, value) = entry?;
            let (address, slot) = key.value();
            let value = U256::from_be_bytes(value.value());
            state.load_slot(Address::from(address), U256::from_be_bytes(slot), value);
        }
        for entry in read.open_table(CODES)?.iter()? {
            let (hash, code) = entry?;
            state.load_code(
                B256::from(hash.value()),
                Bytes::copy_from_slice(code.value()),
            );
        }
        let from = (head + 1).saturating_sub(hashes as u64);
        let mut recent = Vec::new();
        for number in from..=head {
            let header = self.header(number)?;
            let header = header.ok_or(StoreError::Damaged {
                what: "a header is missing",
            })?;
            recent.push(header.hash_slow());
        }
        state.load_head(head, recent);
        Ok(state)
    }

    /// A header by its number.
    pub(super) fn header(&self, number: u64) -> Result<Option<Header>, StoreError> {
        let read = self.database.begin_read()?;
        let Some(header) = read.open_table(HEADERS)?.get(number)? else {
            return Ok(None);
        };
        let header = Header::decode(&mut header.value());
        Ok(Some(
            header.map_err(|_| StoreError::Damaged { what: "a header" })?,
        ))
    }

    /// A block by its number.
    pub(super) fn block(&self, number: u64) -> Result<Option<StoredBlock>, StoreError> {
        let read = self.database.begin_read()?;
        let Some(header) = read.open_table(HEADERS)?.get(number)? else {
            return Ok(None);
        };
        let body = read.open_table(BODIES)?.get(number)?;
        let body = body.ok_or(StoreError::Damaged {
            what: "a body is missing",
        })?;
        let block = StoredBlock::decode(header.value(), body.value());
        Ok(Some(
            block.map_err(|_| StoreError::Damaged { what: "a block" })?,
        ))
    }

    /// A block's number by its hash.
    pub(super) fn number(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        let read = self.database.begin_read()?;
        Ok(read
            .open_table(NUMBERS)?
            .get(hash.0)?
            .map(|number| number.value()))
    }

    /// Which block a transaction is in, and where.
    pub(super) fn transaction(&self, hash: B256) -> Result<Option<(u64, usize)>, StoreError> {
        let read = self.database.begin_read()?;
        let found = read.open_table(TRANSACTIONS)?.get(hash.0)?;
        Ok(found
            .map(|found| found.value())
            .map(|(number, index)| (number, index as usize)))
    }
}

fn encode_basic(basic: &Basic) -> Vec<u8> {
    let fields: [&dyn Encodable; 3] = [&basic.nonce, &basic.balance, &basic.code_hash];
    let payload_length = fields.iter().map(|field| field.length()).sum();
    let mut out = Vec::new();
    alloy_rlp::Header {
        list: true,
        payload_length,
    }
    .encode(&mut out);
    for field in fields {
        field.encode(&mut out);
    }
    out
}

fn decode_basic(mut bytes: &[u8]) -> alloy_rlp::Result<Basic> {
    let mut fields = alloy_rlp::Header::decode_bytes(&mut bytes, true)?;
    Ok(Basic {
        nonce: u64::decode(&mut fields)?,
        balance: U256::decode(&mut fields)?,
        code_hash: B256::decode(&mut fields)?,
    })
}
