//! What the journal holds of bills and of transactions, and its one encoding: Solidity's ABI,
//! of structs that are never changed, only followed by later versions.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolValue;
use bytes::Bytes;
use chiral_chain::{BlockRef, SignedTransaction};
use chiral_core::{Bill, BillId, Cid, Protocol, SettlementStatus};

use crate::calldata::PaymentMetadata;
use crate::journal::JournalError;

/// Doublings at most of the time that a bill rests whose payment failed.
const MAX_DOUBLINGS: u32 = 8;

mod sol {
    alloy_sol_types::sol! {
        struct StoredBill {
            bytes32 digest;
            bytes32 cid;
            bytes peer;
            address payee;
            uint256 amount;
            uint64 size;
            string protocol;
            bytes meta;
            uint64 order;
            uint256 legNonce;
            uint64 takenAt;
            uint8 state;
            uint64 flight;
            bytes32 transaction;
            uint64 blockNumber;
            bytes32 blockHash;
            uint64 settledAt;
            uint32 failures;
            uint64 notBefore;
        }

        struct StoredFlight {
            uint64 nonce;
            bool batch;
            bytes32[] bills;
            bytes[] variants;
            uint64 signedAtBlock;
            uint64 signedAt;
            uint8 state;
            uint16 variant;
            uint64 blockNumber;
            bytes32 blockHash;
            bool succeeded;
        }

        struct StoredIdentity {
            uint64 chainId;
            bytes32 genesis;
            address wallet;
            uint128 salt;
            uint64 bills;
            uint64 flights;
        }
    }
}

/// In place of a protocol's name, which never has a capital letter.
const CALL: &str = "Call";

/// What makes a call another.
pub(super) fn call_digest(to: Address, value: U256, input: &Bytes) -> B256 {
    let mut bytes = to.into_word().to_vec();
    bytes.extend_from_slice(&value.to_be_bytes::<32>());
    bytes.extend_from_slice(input);
    alloy_primitives::keccak256(bytes)
}

/// How far a bill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BillState {
    /// Nothing was owed.
    Free,
    /// It waits for a transaction.
    Waiting,
    /// A transaction is on its way.
    InFlight,
    /// The ledger shows it, as deep as is asked for.
    Settled,
}

/// A bill's nonce in the batch contract. Neighbours share a word of the contract's bitmap. The
/// salt is another each time that the journal is opened: should an old copy of it be restored,
/// no number that it gives out anew was ever used by what is lost.
pub(super) fn leg_nonce(salt: u128, number: u64) -> U256 {
    (U256::from(salt) << 64) | U256::from(number)
}

/// What is known of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BillRecord {
    /// Of all its contents.
    pub(super) digest: B256,
    pub(super) cid: Cid,
    pub(super) peer: Bytes,
    /// The zero address if there is none.
    pub(super) payee: Address,
    pub(super) amount: U256,
    pub(super) bytes: u64,
    pub(super) protocol: String,
    /// Its payment's metadata, encoded.
    pub(super) meta: Bytes,
    /// Place among all bills of this journal.
    pub(super) order: u64,
    /// The payer's nonce for it in the batch contract; the same in every attempt.
    pub(super) leg_nonce: U256,
    pub(super) taken_at: u64,
    pub(super) state: BillState,
    /// The transaction that it is or was last in.
    pub(super) flight: u64,
    pub(super) transaction: B256,
    pub(super) block: BlockRef,
    pub(super) settled_at: u64,
    /// Transactions that were reverted.
    pub(super) failures: u32,
    /// When it may be tried again, in seconds since 1970.
    pub(super) not_before: u64,
}

const NO_BLOCK: BlockRef = BlockRef {
    number: 0,
    hash: B256::ZERO,
};

impl BillRecord {
    pub(super) fn new(bill: &Bill, order: u64, salt: u128, now: u64) -> Self {
        let peer = bill.payee_peer.as_ref().map(|peer| peer.as_bytes());
        Self {
            digest: digest(bill),
            cid: bill.cid,
            peer: Bytes::copy_from_slice(peer.unwrap_or(&[])),
            payee: bill.payee.unwrap_or_default(),
            amount: bill.amount,
            bytes: bill.bytes,
            protocol: bill.protocol.as_str().to_owned(),
            meta: PaymentMetadata::for_bill(bill).encode(),
            order,
            leg_nonce: leg_nonce(salt, order),
            taken_at: now,
            state: match bill.is_free() {
                true => BillState::Free,
                false => BillState::Waiting,
            },
            flight: 0,
            transaction: B256::ZERO,
            block: NO_BLOCK,
            settled_at: 0,
            failures: 0,
            not_before: 0,
        }
    }

    /// A call of a contract, that goes the way of a bill.
    pub(super) fn call(
        (to, value, input): (Address, U256, Bytes),
        order: u64,
        salt: u128,
        now: u64,
    ) -> Self {
        Self {
            digest: call_digest(to, value, &input),
            cid: Cid::from_bytes([0; 32]),
            peer: Bytes::new(),
            payee: to,
            amount: value,
            bytes: 0,
            protocol: CALL.to_owned(),
            meta: input,
            order,
            leg_nonce: (U256::from(salt) << 64) | U256::from(order),
            taken_at: now,
            state: BillState::Waiting,
            flight: 0,
            transaction: B256::ZERO,
            block: NO_BLOCK,
            settled_at: 0,
            failures: 0,
            not_before: 0,
        }
    }

    /// Whether it is one: then it never shares a transaction.
    pub(super) fn is_call(&self) -> bool {
        self.protocol == CALL
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state == BillState::Waiting
    }

    pub(super) fn status(&self) -> SettlementStatus {
        let transaction = self.transaction;
        match self.state {
            BillState::Free => SettlementStatus::Free,
            BillState::Waiting => SettlementStatus::Pending { transaction: None },
            BillState::InFlight => SettlementStatus::Pending {
                transaction: Some(transaction),
            },
            BillState::Settled => SettlementStatus::Settled { transaction },
        }
    }

    /// Takes it out of its transaction, which pays nothing any more.
    pub(super) fn back_to_waiting(&mut self) {
        self.state = BillState::Waiting;
        self.transaction = B256::ZERO;
        self.block = NO_BLOCK;
        self.settled_at = 0;
    }

    /// Counts a failure, and puts it off for `seconds`, doubled with each one before.
    pub(super) fn put_off(&mut self, now: u64, seconds: u64) {
        let times = 1 << self.failures.min(MAX_DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(seconds.saturating_mul(times));
    }

    /// Takes back that a block has it.
    pub(super) fn back_in_flight(&mut self) {
        self.state = BillState::InFlight;
        self.block = NO_BLOCK;
        self.settled_at = 0;
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        sol::StoredBill {
            digest: self.digest,
            cid: B256::from(*self.cid.as_bytes()),
            peer: self.peer.clone().into(),
            payee: self.payee,
            amount: self.amount,
            size: self.bytes,
            protocol: self.protocol.clone(),
            meta: self.meta.clone().into(),
            order: self.order,
            legNonce: self.leg_nonce,
            takenAt: self.taken_at,
            state: self.state as u8,
            flight: self.flight,
            transaction: self.transaction,
            blockNumber: self.block.number,
            blockHash: self.block.hash,
            settledAt: self.settled_at,
            failures: self.failures,
            notBefore: self.not_before,
        }
        .abi_encode()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let stored: sol::StoredBill = decode(bytes, "a bill")?;
        let state = match stored.state {
            0 => BillState::Free,
            1 => BillState::Waiting,
            2 => BillState::InFlight,
            3 => BillState::Settled,
            _ => return Err(damaged("the state of a bill")),
        };
        if stored.protocol != CALL && stored.protocol.parse::<Protocol>().is_err() {
            return Err(damaged("the protocol of a bill"));
        }
        Ok(Self {
            digest: stored.digest,
            cid: Cid::from_bytes(stored.cid.0),
            peer: stored.peer.0,
            payee: stored.payee,
            amount: stored.amount,
            bytes: stored.size,
            protocol: stored.protocol,
            meta: stored.meta.0,
            order: stored.order,
            leg_nonce: stored.legNonce,
            taken_at: stored.takenAt,
            state,
            flight: stored.flight,
            transaction: stored.transaction,
            block: BlockRef {
                number: stored.blockNumber,
                hash: stored.blockHash,
            },
            settled_at: stored.settledAt,
            failures: stored.failures,
            not_before: stored.notBefore,
        })
    }
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightState {
    /// Signed, and maybe sent.
    Signed,
    /// A node took it.
    Broadcast,
    /// In a block.
    Included,
    /// As deep as is asked for, and still looked at.
    Final,
    /// So deep that nobody looks any more.
    Closed,
    /// Another transaction took its nonce, for good.
    Lost,
    /// In a block, reverted, for good.
    Reverted,
}

/// A transaction: one nonce of the wallet, and all that was signed for it. At most one of the
/// variants is ever in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) nonce: u64,
    pub(super) batch: bool,
    pub(super) bills: Vec<BillId>,
    /// Oldest first; never empty.
    pub(super) variants: Vec<SignedTransaction>,
    /// The best block's number when it was signed: its nonce was unused there.
    pub(super) signed_at_block: u64,
    /// Seconds since 1970.
    pub(super) signed_at: u64,
    pub(super) state: FlightState,
    /// Of [`FlightState::Included`] and what follows: which variant, where, how it ended.
    pub(super) variant: usize,
    pub(super) block: BlockRef,
    pub(super) succeeded: bool,
}

impl Flight {
    pub(super) fn new(
        signed: SignedTransaction,
        batch: bool,
        bills: Vec<BillId>,
        head: u64,
        now: u64,
    ) -> Self {
        Self {
            nonce: signed.transaction.nonce,
            batch,
            bills,
            variants: vec![signed],
            signed_at_block: head,
            signed_at: now,
            state: FlightState::Signed,
            variant: 0,
            block: NO_BLOCK,
            succeeded: false,
        }
    }

    /// What is sent: the variant that pays most.
    pub(super) fn newest(&self) -> &SignedTransaction {
        self.variants.last().expect("a flight has a variant")
    }

    /// Whether money may still leave the wallet through it.
    pub(super) fn is_unmined(&self) -> bool {
        matches!(self.state, FlightState::Signed | FlightState::Broadcast)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        sol::StoredFlight {
            nonce: self.nonce,
            batch: self.batch,
            bills: self.bills.iter().map(|bill| bill.0).collect(),
            variants: self.variants.iter().map(|v| v.raw.clone().into()).collect(),
            signedAtBlock: self.signed_at_block,
            signedAt: self.signed_at,
            state: self.state as u8,
            variant: self.variant as u16,
            blockNumber: self.block.number,
            blockHash: self.block.hash,
            succeeded: self.succeeded,
        }
        .abi_encode()
    }

    pub(super) fn decode(bytes: &[u8], chain_id: u64) -> Result<Self, JournalError> {
        let stored: sol::StoredFlight = decode(bytes, "a transaction")?;
        let state = match stored.state {
            0 => FlightState::Signed,
            1 => FlightState::Broadcast,
            2 => FlightState::Included,
            3 => FlightState::Final,
            4 => FlightState::Closed,
            5 => FlightState::Lost,
            6 => FlightState::Reverted,
            _ => return Err(damaged("the state of a transaction")),
        };
        let variants: Vec<_> = stored
            .variants
            .iter()
            .map(|raw| SignedTransaction::decode(raw, chain_id))
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("a signed transaction"))?;
        let variant = usize::from(stored.variant);
        let nonces = variants.iter().all(|v| v.transaction.nonce == stored.nonce);
        if variant >= variants.len() || !nonces || stored.bills.is_empty() {
            return Err(damaged("a transaction"));
        }
        Ok(Self {
            nonce: stored.nonce,
            batch: stored.batch,
            bills: stored.bills.into_iter().map(BillId).collect(),
            variants,
            signed_at_block: stored.signedAtBlock,
            signed_at: stored.signedAt,
            state,
            variant,
            block: BlockRef {
                number: stored.blockNumber,
                hash: stored.blockHash,
            },
            succeeded: stored.succeeded,
        })
    }
}

/// Whose payments the journal holds, and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) chain_id: u64,
    pub(super) genesis: B256,
    pub(super) wallet: Address,
    /// Random: upper half of the nonces in the batch contract.
    pub(super) salt: u128,
    /// Bills so far.
    pub(super) bills: u64,
    /// Transactions so far.
    pub(super) flights: u64,
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        sol::StoredIdentity {
            chainId: self.chain_id,
            genesis: self.genesis,
            wallet: self.wallet,
            salt: self.salt,
            bills: self.bills,
            flights: self.flights,
        }
        .abi_encode()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let stored: sol::StoredIdentity = decode(bytes, "the settler's identity")?;
        Ok(Self {
            chain_id: stored.chainId,
            genesis: stored.genesis,
            wallet: stored.wallet,
            salt: stored.salt,
            bills: stored.bills,
            flights: stored.flights,
        })
    }
}

fn damaged(what: &'static str) -> JournalError {
    JournalError::Damaged { what }
}

fn decode<T>(bytes: &[u8], what: &'static str) -> Result<T, JournalError>
where
    T: SolValue + From<<T::SolType as alloy_sol_types::SolType>::RustType>,
{
    let value = T::abi_decode_validate(bytes).map_err(|_| damaged(what))?;
    match value.abi_encode() == bytes {
        true => Ok(value),
        false => Err(damaged(what)),
    }
}

/// Digest of all contents of a bill, each field of fixed length or preceded by its length.
pub(super) fn digest(bill: &Bill) -> B256 {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(bill.id.0.as_slice());
    bytes.extend_from_slice(bill.cid.as_bytes());
    let peer = bill.payee_peer.as_ref().map(|peer| peer.as_bytes());
    let payee = bill.payee.as_ref().map(|payee| payee.as_slice());
    for field in [
        peer.unwrap_or(&[]),
        payee.unwrap_or(&[]),
        bill.protocol.as_str().as_bytes(),
    ] {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes.extend_from_slice(&bill.bytes.to_be_bytes());
    bytes.extend_from_slice(&bill.price.wei_per_mib().to_be_bytes::<32>());
    bytes.extend_from_slice(&bill.amount.to_be_bytes::<32>());
    for range in bill.ranges.iter() {
        bytes.extend_from_slice(&range.start.to_be_bytes());
        bytes.extend_from_slice(&range.end.to_be_bytes());
    }
    alloy_primitives::keccak256(&bytes)
}

#[cfg(test)]
mod tests;
