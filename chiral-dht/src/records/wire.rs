//! The records as protobuf messages. Each format has one encoding: bytes that are not what
//! their content is written as are refused, unknown fields with them.

use prost::Message;

use super::RecordError;

/// What an announcement's envelope holds. Empty `alias`: the announcement itself; otherwise
/// a pointer from that name to the cid.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Announcement {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) cid: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) root: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) size: u64,
    #[prost(uint64, tag = "4")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "5")]
    pub(super) expires_at: u64,
    #[prost(bool, tag = "6")]
    pub(super) withdrawn: bool,
    #[prost(string, tag = "7")]
    pub(super) alias: String,
    #[prost(message, repeated, tag = "8")]
    pub(super) endpoints: Vec<Endpoint>,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) wallet: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub(super) wallet_sig: Vec<u8>,
    /// Wei per MiB, big-endian, without leading zeros.
    #[prost(bytes = "vec", tag = "11")]
    pub(super) price: Vec<u8>,
    #[prost(message, optional, tag = "12")]
    pub(super) coverage: Option<Coverage>,
    #[prost(bytes = "vec", tag = "13")]
    pub(super) header_digest: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Endpoint {
    #[prost(string, tag = "1")]
    pub(super) protocol: String,
    #[prost(string, tag = "2")]
    pub(super) address: String,
    #[prost(bool, tag = "3")]
    pub(super) mirror: bool,
    /// Instead of the announcement's.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) price: Option<Vec<u8>>,
    /// Instead of the announcement's.
    #[prost(message, optional, tag = "5")]
    pub(super) coverage: Option<Coverage>,
}

/// `kind` is one of the constants of the module `coverage`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Coverage {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SeederSet {
    /// Envelopes.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) announcements: Vec<Vec<u8>>,
    /// Manifest headers.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) headers: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct NodeRecord {
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "2")]
    pub(super) expires_at: u64,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) addresses: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "4")]
    pub(super) protocols: Vec<String>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) capacity_bytes: Option<u64>,
    #[prost(uint64, tag = "6")]
    pub(super) used_bytes: u64,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) wallet: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub(super) wallet_sig: Vec<u8>,
    #[prost(uint64, tag = "9")]
    pub(super) seeded_count: u64,
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub(super) seeded: Vec<Vec<u8>>,
}

/// Reads a message of at most `limit` bytes.
pub(super) fn decode<M: Message + Default>(
    bytes: &[u8],
    what: &'static str,
    limit: usize,
) -> Result<M, RecordError> {
    check_len(bytes.len(), what, limit)?;
    let message = M::decode(bytes).map_err(|_| RecordError::Malformed { what })?;
    if message.encoded_len() == bytes.len() && message.encode_to_vec() == bytes {
        Ok(message)
    } else {
        Err(RecordError::Malformed { what })
    }
}

pub(super) fn check_len(found: usize, what: &'static str, limit: usize) -> Result<(), RecordError> {
    if found > limit {
        Err(RecordError::TooLarge { what, found, limit })
    } else {
        Ok(())
    }
}

/// A field of a fixed length.
pub(super) fn array<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<[u8; N], RecordError> {
    bytes
        .try_into()
        .map_err(|_| RecordError::Malformed { what })
}
