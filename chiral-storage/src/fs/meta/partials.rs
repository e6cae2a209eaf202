//! Tables of partial files: records, slices of their bitmaps, pages kept.

use std::collections::BTreeMap;

use chiral_core::{Bitmap, ChunkLayout, StoreError, TransferId};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::record::{CompletionRecord, ObjectRecord, PartialRecord, id};
use super::{Bytes2, INTENTS, Meta, MetaError, Row, done, intend, objects};

/// transfer → [`PartialRecord`].
const PARTIALS: Bytes2 = Bytes2::new("partials");
/// transfer ‖ [`PRESENT`] or [`PROVEN`] ‖ slice u32 → up to [`SLICE_BYTES`] bytes of bitmap.
const BITS: Bytes2 = Bytes2::new("bits");
/// transfer ‖ page u32 → bytes in the file of pages u32.
const PAGES: Bytes2 = Bytes2::new("pages");

const PRESENT: u8 = 0;
const PROVEN: u8 = 1;

/// Bytes of bitmap in one row: a commit rewrites the rows it touches, not the bitmap.
const SLICE_BYTES: usize = 512;

/// Chunks in one row of a bitmap.
pub(in crate::fs) const SLICE_CHUNKS: u32 = SLICE_BYTES as u32 * 8;

/// Intent: the download is being ended.
pub(in crate::fs) const COMPLETING: u8 = b'c';
/// Intent: the files of the download are to go, and then its records.
pub(in crate::fs) const DISCARDING: u8 = b'd';

/// What a partial file has durable.
#[derive(Clone, Debug)]
pub(in crate::fs) struct PartialState {
    pub(in crate::fs) present: Bitmap,
    pub(in crate::fs) proven: Bitmap,
    /// Pages kept, with their lengths.
    pub(in crate::fs) pages: BTreeMap<u32, u32>,
}

/// Changes of a partial file that are to become durable together.
#[derive(Clone, Debug)]
pub(in crate::fs) struct PartialChanges {
    pub(in crate::fs) transfer: TransferId,
    /// Slice, and its bytes of both bitmaps.
    pub(in crate::fs) slices: Vec<(u32, Vec<u8>, Vec<u8>)>,
    pub(in crate::fs) pages: Vec<(u32, u32)>,
}

/// The bytes of one slice of a bitmap.
pub(in crate::fs) fn slice(bitmap: &Bitmap, slice: u32) -> Vec<u8> {
    let bytes = bitmap.as_bytes();
    let first = (slice as usize * SLICE_BYTES).min(bytes.len());
    bytes[first..bytes.len().min(first + SLICE_BYTES)].to_vec()
}

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), MetaError> {
    transaction.open_table(PARTIALS)?;
    transaction.open_table(BITS)?;
    transaction.open_table(PAGES)?;
    Ok(())
}

/// Key of the intent to end or discard a download.
pub(in crate::fs) fn intent_key(kind: u8, transfer: TransferId) -> Vec<u8> {
    [&[kind], transfer.as_bytes().as_slice()].concat()
}

fn bits_key(transfer: TransferId, kind: u8, slice: u32) -> [u8; 21] {
    let mut key = [0; 21];
    key[..16].copy_from_slice(transfer.as_bytes());
    key[16] = kind;
    key[17..].copy_from_slice(&slice.to_be_bytes());
    key
}

fn page_key(transfer: TransferId, page: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(transfer.as_bytes());
    key[16..].copy_from_slice(&page.to_be_bytes());
    key
}

/// Rows whose key begins with `prefix`: the rest of the key, and the value.
fn rows_of(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
) -> Result<Vec<Row>, MetaError> {
    let mut rows = Vec::new();
    for row in table.range(prefix..)? {
        let (key, value) = row?;
        let Some(rest) = key.value().strip_prefix(prefix) else {
            break;
        };
        rows.push((rest.to_vec(), value.value().to_vec()));
    }
    Ok(rows)
}

fn load_bitmap(
    transaction: &ReadTransaction,
    prefix: &[u8],
    layout: ChunkLayout,
) -> Result<Bitmap, MetaError> {
    let mut bytes = vec![0; layout.count().div_ceil(8) as usize];
    for (slice, bits) in rows_of(&transaction.open_table(BITS)?, prefix)? {
        let first = u32::from_be_bytes(id(&slice)?) as usize * SLICE_BYTES;
        let end = bytes.len().min(first + SLICE_BYTES);
        let part = bytes
            .get_mut(first..end)
            .filter(|part| part.len() == bits.len());
        part.ok_or(MetaError::Damaged { what: "a bitmap" })?
            .copy_from_slice(&bits);
    }
    Bitmap::from_bytes(bytes, layout.count()).ok_or(MetaError::Damaged { what: "a bitmap" })
}

/// Removes all rows of a partial file.
fn remove(transaction: &WriteTransaction, transfer: TransferId) -> Result<(), MetaError> {
    let prefix = transfer.as_bytes().as_slice();
    transaction.open_table(PARTIALS)?.remove(prefix)?;
    for table in [BITS, PAGES] {
        let mut table = transaction.open_table(table)?;
        for (rest, _) in rows_of(&table, prefix)? {
            table.remove([prefix, &rest].concat().as_slice())?;
        }
    }
    Ok(())
}

impl Meta {
    /// All partial files but those that are on their way out.
    pub(in crate::fs) fn partials(&self) -> Result<Vec<(TransferId, PartialRecord)>, StoreError> {
        self.read(|transaction| {
            let leaving: Vec<_> = rows_of(&transaction.open_table(INTENTS)?, &[DISCARDING])?;
            super::collect(transaction.open_table(PARTIALS)?.iter()?)?
                .into_iter()
                .filter(|(key, _)| leaving.iter().all(|(transfer, _)| transfer != key))
                .map(|(key, value)| {
                    Ok((
                        TransferId::from_bytes(id(&key)?),
                        PartialRecord::decode(&value)?,
                    ))
                })
                .collect()
        })
    }

    /// What a partial file has durable.
    pub(in crate::fs) fn partial_state(
        &self,
        transfer: TransferId,
        layout: ChunkLayout,
    ) -> Result<PartialState, StoreError> {
        self.read(|transaction| {
            let id_bytes = transfer.as_bytes().as_slice();
            let bits = |kind: u8| load_bitmap(transaction, &[id_bytes, &[kind]].concat(), layout);
            let rows = rows_of(&transaction.open_table(PAGES)?, id_bytes)?;
            let number = |bytes: Vec<u8>| Ok::<_, MetaError>(u32::from_be_bytes(id(&bytes)?));
            let pages = rows
                .into_iter()
                .map(|(page, len)| Ok((number(page)?, number(len)?)));
            Ok(PartialState {
                present: bits(PRESENT)?,
                proven: bits(PROVEN)?,
                pages: pages.collect::<Result<_, MetaError>>()?,
            })
        })
    }

    /// Writes the record of a partial file.
    pub(in crate::fs) fn set_partial(
        &self,
        transfer: TransferId,
        record: &PartialRecord,
    ) -> Result<(), StoreError> {
        self.write("register a partial file", |transaction| {
            let mut partials = transaction.open_table(PARTIALS)?;
            partials.insert(transfer.as_bytes().as_slice(), record.encode().as_slice())?;
            Ok(())
        })
    }

    /// Makes the bits and pages of several partial files durable at once.
    pub(in crate::fs) fn commit_partials(
        &self,
        changes: &[PartialChanges],
    ) -> Result<(), StoreError> {
        self.write("commit partial files", |transaction| {
            let mut bits = transaction.open_table(BITS)?;
            let mut pages = transaction.open_table(PAGES)?;
            for change in changes {
                for (slice, present, proven) in &change.slices {
                    for (kind, bytes) in [(PRESENT, present), (PROVEN, proven)] {
                        let key = bits_key(change.transfer, kind, *slice);
                        bits.insert(key.as_slice(), bytes.as_slice())?;
                    }
                }
                for (page, len) in &change.pages {
                    let key = page_key(change.transfer, *page);
                    pages.insert(key.as_slice(), len.to_be_bytes().as_slice())?;
                }
            }
            Ok(())
        })
    }

    /// Begins to end a download, or tells how far that is.
    pub(in crate::fs) fn intend_completion(
        &self,
        transfer: TransferId,
        completion: &CompletionRecord,
    ) -> Result<(), StoreError> {
        self.intend(&intent_key(COMPLETING, transfer), &completion.encode())
    }

    /// Ends a download: the object is there, the partial file is not.
    pub(in crate::fs) fn complete_partial(
        &self,
        transfer: TransferId,
        object: Option<&ObjectRecord>,
    ) -> Result<(), StoreError> {
        self.write("complete a partial file", |transaction| {
            if let Some(object) = object {
                objects::set(transaction, object)?;
            }
            remove(transaction, transfer)?;
            done(transaction, &intent_key(COMPLETING, transfer))
        })
    }

    /// Marks a partial file as to be deleted.
    pub(in crate::fs) fn mark_discarded(&self, transfer: TransferId) -> Result<(), StoreError> {
        self.write("discard a partial file", |transaction| {
            intend(transaction, &intent_key(DISCARDING, transfer), &[])
        })
    }

    /// Forgets a partial file whose files are gone.
    pub(in crate::fs) fn forget_partial(&self, transfer: TransferId) -> Result<(), StoreError> {
        self.write("discard a partial file", |transaction| {
            remove(transaction, transfer)?;
            done(transaction, &intent_key(DISCARDING, transfer))
        })
    }
}
