//! [`PaymentMetadata`]: what a payment on the chain says of itself, in the calldata of a plain
//! transfer or in a leg of a batch.
//!
//! Anybody may put anything there: it names a bill, and proves nothing. Three words of 32
//! bytes come first, so that a hex dump is readable by eye:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | `chirlpay` |
//! | 8 | version, 1 |
//! | 9 | 0: the runs are exact; 1: they are coarse, and hold chunks that were not delivered |
//! | 10 | number of runs, at most [`MAX_RUNS`] |
//! | 11 | length of the protocol's name, 1 to 32 |
//! | 12..24 | zero |
//! | 24..32 | bytes paid for, big-endian |
//! | 32..64 | bill id |
//! | 64..96 | cid |
//! | 96.. | the protocol's name, then the runs |
//!
//! A run is two numbers: chunks between it and the run before (which do not touch, so one is
//! taken off; of the first run, chunks before it), and its length less one. Numbers are LEB128
//! in its shortest form. There is one encoding of each value, and nothing behind it.

use alloy_primitives::B256;
use bytes::Bytes;
use chiral_core::{Bill, BillId, CHUNK_SIZE, Cid, Protocol, RangeSet};

/// First bytes of the metadata.
pub const MAGIC: [u8; 8] = *b"chirlpay";

/// Version that is written, and the only one that is read.
pub const VERSION: u8 = 1;

/// Runs of chunks at most; a delivery in more pieces is told more coarsely.
pub const MAX_RUNS: usize = 16;

/// Longest metadata, in bytes: the head, a name, and runs of two numbers of five bytes.
pub const MAX_METADATA_BYTES: usize = HEAD + MAX_NAME + MAX_RUNS * 10;

const HEAD: usize = 96;
const MAX_NAME: usize = 32;

/// Why bytes are no payment metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// It does not begin with [`MAGIC`]: calldata of something else.
    #[error("not the metadata of a payment")]
    Foreign,
    /// Another version than [`VERSION`].
    #[error("metadata of version {0}, this library reads {VERSION}")]
    Version(u8),
    /// Over a limit, cut short, not in the one encoding, or bytes behind it.
    #[error("malformed metadata: {what}")]
    Malformed {
        /// What does not hold.
        what: &'static str,
    },
}

impl MetadataError {
    /// Whether the same call may succeed later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The chunks that a payment is for, as rising runs `first..end` that do not touch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeliveredChunks {
    runs: Vec<(u32, u32)>,
    coarse: bool,
}

impl DeliveredChunks {
    /// The chunks that hold at least one of these bytes. Beyond [`MAX_RUNS`] runs the
    /// narrowest gaps are taken as delivered too, and it is marked as coarse.
    pub fn of(ranges: &RangeSet) -> Self {
        let chunk = |offset: u64| u32::try_from(offset / CHUNK_SIZE).unwrap_or(u32::MAX - 1);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for range in ranges.iter() {
            let (first, end) = (chunk(range.start), chunk(range.end - 1) + 1);
            match runs.last_mut() {
                Some((_, before)) if first <= *before => *before = end.max(*before),
                _ => runs.push((first, end)),
            }
        }
        let coarse = runs.len() > MAX_RUNS;
        if coarse {
            runs = coarser(&runs);
        }
        Self { runs, coarse }
    }

    /// The runs, rising.
    pub fn runs(&self) -> &[(u32, u32)] {
        &self.runs
    }

    /// Whether the runs hold chunks that were not delivered.
    pub fn is_coarse(&self) -> bool {
        self.coarse
    }
}

/// Closes all but the widest gaps, so that [`MAX_RUNS`] runs are left.
fn coarser(runs: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let gap = |at: usize| runs[at].0 - runs[at - 1].1;
    let mut widest: Vec<usize> = (1..runs.len()).collect();
    widest.sort_by_key(|&at| std::cmp::Reverse(gap(at)));
    widest.truncate(MAX_RUNS - 1);
    widest.sort_unstable();
    let mut coarse = Vec::with_capacity(MAX_RUNS);
    let mut from = 0;
    for to in widest.into_iter().chain([runs.len()]) {
        coarse.push((runs[from].0, runs[to - 1].1));
        from = to;
    }
    coarse
}

/// What a payment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaymentMetadata {
    /// The bill that it pays.
    pub bill: BillId,
    /// The file.
    pub cid: Cid,
    /// Bytes paid for.
    pub bytes: u64,
    /// How they were delivered; for statistics only.
    pub protocol: Protocol,
    /// Which chunks; none on a bill that is paid before delivery.
    pub chunks: DeliveredChunks,
}

impl PaymentMetadata {
    /// What the payment of a bill says.
    pub fn for_bill(bill: &Bill) -> Self {
        Self {
            bill: bill.id,
            cid: bill.cid,
            bytes: bill.bytes,
            protocol: bill.protocol.clone(),
            chunks: DeliveredChunks::of(&bill.ranges),
        }
    }

    /// The one encoding, at most [`MAX_METADATA_BYTES`] long.
    pub fn encode(&self) -> Bytes {
        let name = self.protocol.as_str().as_bytes();
        let mut out = Vec::with_capacity(MAX_METADATA_BYTES);
        out.extend_from_slice(&MAGIC);
        let runs = &self.chunks.runs;
        // Both lengths are bounded where the values are made.
        let counts = [runs.len() as u8, name.len() as u8];
        out.extend_from_slice(&[VERSION, u8::from(self.chunks.coarse), counts[0], counts[1]]);
        out.resize(24, 0);
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend_from_slice(self.bill.0.as_slice());
        out.extend_from_slice(self.cid.as_bytes());
        out.extend_from_slice(name);
        let mut least = 0;
        for &(first, end) in runs {
            put_number(&mut out, first - least);
            put_number(&mut out, end - first - 1);
            least = end.saturating_add(1);
        }
        out.into()
    }

    /// Reads metadata that anybody may have written.
    ///
    /// # Errors
    /// [`MetadataError`], by case.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        let malformed = |what| MetadataError::Malformed { what };
        if !bytes.starts_with(&MAGIC) {
            return Err(MetadataError::Foreign);
        }
        match bytes.get(8) {
            Some(&VERSION) => {}
            Some(&other) => return Err(MetadataError::Version(other)),
            None => return Err(malformed("cut short")),
        }
        if bytes.len() > MAX_METADATA_BYTES {
            return Err(malformed("too long"));
        }
        let (head, mut rest) = bytes
            .split_first_chunk::<HEAD>()
            .ok_or(malformed("cut short"))?;
        let (coarse, count, name_len) = (head[9], usize::from(head[10]), usize::from(head[11]));
        if coarse > 1 || count > MAX_RUNS || head[12..24] != [0; 12] {
            return Err(malformed("the first word"));
        }
        let name = rest.split_off(..name_len).ok_or(malformed("cut short"))?;
        let protocol = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse::<Protocol>().ok())
            .ok_or(malformed("the protocol's name"))?;
        let mut runs = Vec::with_capacity(count);
        let mut least = 0u32;
        for _ in 0..count {
            let first = take_number(&mut rest).and_then(|gap| least.checked_add(gap));
            let first = first.ok_or(malformed("a run"))?;
            let len = take_number(&mut rest).and_then(|less| less.checked_add(1));
            let end = len.and_then(|len| first.checked_add(len));
            let end = end.ok_or(malformed("a run"))?;
            runs.push((first, end));
            // The last possible run has none behind it: what follows overflows.
            least = end.saturating_add(1);
        }
        if !rest.is_empty() {
            return Err(malformed("bytes behind the runs"));
        }
        let metadata = Self {
            bill: BillId(B256::from_slice(&head[32..64])),
            cid: Cid::from_bytes(word(&head[64..96])),
            bytes: u64::from_be_bytes(word(&head[24..32])),
            protocol,
            chunks: DeliveredChunks {
                runs,
                coarse: coarse == 1,
            },
        };
        // One encoding for each value, whatever a decoder may forgive.
        if metadata.encode() != bytes {
            return Err(malformed("not in the one encoding"));
        }
        Ok(metadata)
    }
}

/// An array of the head, whose length is fixed.
fn word<const N: usize>(part: &[u8]) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(part);
    word
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *rest.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests;
