//! [`Payment`]: a line of the statement.

use alloy_primitives::{Address, B256, U256};
use chiral_chain::BlockRef;
use chiral_core::{BillId, Cid, PeerId, Protocol};

use super::problem::Problem;
use super::record::{BillRecord, BillState};

/// How far a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentState {
    /// Nothing was owed.
    Free,
    /// Written down; there is no transaction yet.
    Waiting,
    /// In a transaction that no block has yet.
    Sent,
    /// In a block that is not deep enough yet, or in a transaction that failed there.
    Included,
    /// In a block as deep as is asked for.
    Settled,
}

/// A bill and its payment: a line of the statement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payment {
    /// The bill.
    pub bill: BillId,
    /// The file.
    pub cid: Cid,
    /// Who delivered, if it has an identity.
    pub peer: Option<PeerId>,
    /// Who is paid.
    pub payee: Option<Address>,
    /// Wei.
    pub amount: U256,
    /// Bytes paid for.
    pub bytes: u64,
    /// How they were delivered.
    pub protocol: Option<Protocol>,
    /// How far it is.
    pub state: PaymentState,
    /// The transaction, once there is one: the one in a block, or the newest that was signed.
    pub transaction: Option<B256>,
    /// The block that it is in.
    pub block: Option<BlockRef>,
    /// When the bill was handed in, in seconds since 1970 (UTC).
    pub taken_at: u64,
    /// When it was seen to be settled, in seconds since 1970 (UTC).
    pub settled_at: Option<u64>,
    /// Why it waits, if that is known.
    pub problem: Option<Problem>,
}

impl Payment {
    pub(super) fn new(bill: BillId, record: BillRecord, problem: Option<Problem>) -> Self {
        let block = Some(record.block).filter(|block| !block.hash.is_zero());
        let state = match record.state {
            BillState::Free => PaymentState::Free,
            BillState::Waiting => PaymentState::Waiting,
            BillState::InFlight if block.is_none() => PaymentState::Sent,
            BillState::InFlight => PaymentState::Included,
            BillState::Settled => PaymentState::Settled,
        };
        let settled = state == PaymentState::Settled;
        Self {
            bill,
            cid: record.cid,
            peer: PeerId::from_bytes(&record.peer).ok(),
            payee: Some(record.payee).filter(|payee| !payee.is_zero()),
            amount: record.amount,
            bytes: record.bytes,
            protocol: record.protocol.parse().ok(),
            state,
            transaction: Some(record.transaction).filter(|hash| !hash.is_zero()),
            block,
            taken_at: record.taken_at,
            settled_at: settled.then_some(record.settled_at),
            problem: problem.filter(|_| !settled),
        }
    }
}
