//! What the key of a session signs: requests, acknowledgements, notices of payment.

use alloy_primitives::{B256, U256};
use chiral_core::{ByteRange, RangeSet};

use super::signed::Statement;
use super::{MAX_ACK_RANGES, Malformed, ranges, sol};

/// The credential of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Under which agreement.
    pub agreement: B256,
    /// Never the same twice in an agreement; roughly rising.
    pub counter: u64,
    /// What may be served for it.
    pub range: ByteRange,
}

impl Statement for Request {
    type Sol = sol::Request;

    fn to_sol(&self) -> sol::Request {
        sol::Request {
            agreement: self.agreement,
            counter: self.counter,
            start: self.range.start,
            end: self.range.end,
        }
    }

    fn from_sol(request: sol::Request) -> Result<Self, Malformed> {
        if request.start >= request.end {
            return Err(Malformed {
                reason: "a request for nothing",
            });
        }
        Ok(Self {
            agreement: request.agreement,
            counter: request.counter,
            range: ByteRange::new(request.start, request.end),
        })
    }
}

/// The buyer verified these bytes, and owes what they cost. Each acknowledgement adds to
/// the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Under which agreement.
    pub agreement: B256,
    /// 1, 2, 3, …; the same number says the same thing again.
    pub sequence: u32,
    /// Bytes acknowledged with this one and all before it.
    pub total: u64,
    /// The bytes that this one adds, at most [`MAX_ACK_RANGES`] ranges.
    pub ranges: RangeSet,
}

impl Statement for Ack {
    type Sol = sol::Ack;

    fn to_sol(&self) -> sol::Ack {
        sol::Ack {
            agreement: self.agreement,
            sequence: self.sequence,
            total: self.total,
            ranges: ranges::encode(&self.ranges).into(),
        }
    }

    fn from_sol(ack: sol::Ack) -> Result<Self, Malformed> {
        let ranges = ranges::decode(&ack.ranges, MAX_ACK_RANGES)?;
        if ranges.is_empty() || ack.sequence == 0 || ack.total < ranges.len() {
            return Err(Malformed {
                reason: "an acknowledgement that does not add up",
            });
        }
        Ok(Self {
            agreement: ack.agreement,
            sequence: ack.sequence,
            total: ack.total,
            ranges,
        })
    }
}

/// A bill was paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Under which agreement.
    pub agreement: B256,
    /// Which bill of it.
    pub sequence: u32,
    /// Bytes that the bill is for.
    pub bytes: u64,
    /// Wei.
    pub amount: U256,
    /// The transaction.
    pub transaction: B256,
}

impl Statement for Notice {
    type Sol = sol::Notice;

    fn to_sol(&self) -> sol::Notice {
        sol::Notice {
            agreement: self.agreement,
            sequence: self.sequence,
            bytesPaid: self.bytes,
            amount: self.amount,
            payment: self.transaction,
        }
    }

    fn from_sol(notice: sol::Notice) -> Result<Self, Malformed> {
        Ok(Self {
            agreement: notice.agreement,
            sequence: notice.sequence,
            bytes: notice.bytesPaid,
            amount: notice.amount,
            transaction: notice.payment,
        })
    }
}
