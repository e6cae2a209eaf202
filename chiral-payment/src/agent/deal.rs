//! [`Deal`]: an agreement as the buyer keeps it.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use chiral_chain::PrivateKey;
use chiral_core::bill::AmountOverflow;
use chiral_core::{ByteRange, Cid, Endpoint, PeerId, Price, Protocol, RangeSet};

use crate::channel::ChannelTerms;
use crate::channel::past::About;
use crate::messages::{Ack, MAX_ACK_RANGES, Policy, Pricing};

/// Counters that are set aside in one durable step.
pub(super) const COUNTERS: u64 = 4096;

/// For whom a deal is: the same file from the same wallet at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) cid: Cid,
    pub(super) payee: Address,
    pub(super) endpoint: Endpoint,
}

/// An agreement as the buyer keeps it.
#[derive(Debug)]
pub(super) struct Deal {
    pub(super) key: Key,
    pub(super) peer: Option<PeerId>,
    pub(super) protocol: Protocol,
    pub(super) pricing: Pricing,
    pub(super) policy: Policy,
    pub(super) prepay_bytes: u64,
    pub(super) valid_until: u64,
    /// The message that made it.
    pub(super) accept: bytes::Bytes,
    pub(super) session: Arc<PrivateKey>,
    /// Whether the seeder said that it has it.
    pub(super) agreed: bool,
    /// Whether the seeder said that it has it no longer.
    pub(super) ended: bool,
    /// Whether its file may be bought again: then what was verified here counts no more.
    pub(super) closed: bool,
    pub(super) next_counter: u64,
    /// Counters below this are set aside on disk, used or not.
    pub(super) reserved: u64,
    /// What was asked for since the start of the process.
    pub(super) requested: RangeSet,
    pub(super) verified: RangeSet,
    /// Of which on a bill.
    pub(super) billed: RangeSet,
    /// Of which acknowledged, or said to be in `pending`.
    pub(super) acked: RangeSet,
    pub(super) ack_sequence: u32,
    /// An acknowledgement that the seeder has not confirmed.
    pub(super) pending: Option<Ack>,
    pub(super) next_bill: u32,
    /// Bytes on bills in advance.
    pub(super) prepaid: u64,
    pub(super) channel: ChannelTerms,
    /// Bytes that vouchers pay for, or are about to: they are in `billed` too.
    pub(super) in_band: u64,
    /// Whether the seeder said in this run that it sees the channel.
    pub(super) bound: bool,
    /// Bytes that the seeder said in this run to have vouchers for.
    pub(super) confirmed: u64,
    /// Times that the last voucher was said again.
    pub(super) repeats: u8,
    /// What the last key opened, until it is verified.
    pub(super) unsealed: Option<ByteRange>,
    /// What was bought before, and the seeder does not know of it.
    pub(super) unknown: RangeSet,
    /// Bytes of it that had been verified before: bought for a second time.
    pub(super) again: u64,
}

impl Deal {
    /// Whether requests can be made under it.
    pub(super) fn is_usable(&self, now: u64) -> bool {
        self.agreed && !self.ended && now < self.valid_until
    }

    /// What it is for, as channels remember it.
    pub(super) fn about(&self) -> About {
        About {
            cid: self.key.cid,
            peer: self.peer.clone(),
            protocol: self.protocol.clone(),
            time: self.valid_until,
        }
    }

    /// Verified and on no bill, nor paid by a voucher; nothing where bills come before delivery,
    /// or not at all.
    pub(super) fn unbilled(&self) -> RangeSet {
        match self.policy {
            Policy::PayAfter | Policy::Incremental => difference(&self.verified, &self.billed),
            Policy::PayFirst | Policy::Channel | Policy::LockedVoucher => RangeSet::new(),
        }
    }

    /// What the first bytes of the agreement cost, so many, as channels count money.
    pub(super) fn total_cost(&self, bytes: u64) -> Option<u128> {
        u128::try_from(self.pricing.cost(0, bytes)?).ok()
    }

    /// Bytes that come before those of the next bill.
    pub(super) fn position(&self) -> u64 {
        match self.policy {
            Policy::PayAfter | Policy::Incremental => self.billed.len(),
            Policy::Channel | Policy::LockedVoucher => self.in_band,
            Policy::PayFirst => self.pricing.free_bytes().saturating_add(self.prepaid),
        }
    }

    /// What the next bill is over if it is for so many bytes, in wei.
    ///
    /// # Errors
    /// [`AmountOverflow`], for prices beyond all money.
    pub(super) fn cost(&self, bytes: u64) -> Result<U256, AmountOverflow> {
        let cost = self.pricing.cost(self.position(), bytes);
        cost.ok_or(AmountOverflow)
    }

    /// Bytes that were bought sealed and found right; those that were bought twice count twice.
    pub(super) fn opened(&self) -> u64 {
        let twice = self.in_band.saturating_sub(self.billed.len());
        self.verified
            .len()
            .saturating_add(twice)
            .saturating_add(self.again)
    }

    /// A voucher is about to take a lock's place: it pays for so many bytes in all, and they are
    /// all that was opened.
    pub(super) fn paid_by_lock(&mut self, bytes: u64) {
        if bytes > self.in_band {
            self.repeats = 0;
        }
        self.billed = self.verified.clone();
        self.in_band = bytes;
        self.again = 0;
    }

    /// The price that was agreed on, without what is taken off.
    pub(super) fn price(&self) -> Price {
        self.pricing.price()
    }

    /// Bytes that were paid for in advance, and did not come.
    pub(super) fn undelivered(&self) -> u64 {
        let free = self.pricing.free_bytes();
        let delivered = self.verified.len().saturating_sub(free);
        self.prepaid.saturating_sub(delivered)
    }

    /// Bytes that no acknowledgement was made for.
    pub(super) fn unacked(&self) -> u64 {
        self.verified.len().saturating_sub(self.acked.len())
    }

    /// The acknowledgement to send now: the one that waits for its answer, or a new one for
    /// all that is verified, as far as it fits. True if it is new.
    pub(super) fn acknowledge(&mut self, agreement: B256) -> Option<(Ack, bool)> {
        if let Some(pending) = &self.pending {
            return Some((pending.clone(), false));
        }
        let ranges: RangeSet = difference(&self.verified, &self.acked)
            .iter()
            .take(MAX_ACK_RANGES)
            .collect();
        if ranges.is_empty() {
            return None;
        }
        let ack = Ack {
            agreement,
            sequence: self.ack_sequence.checked_add(1)?,
            total: self.acked.len() + ranges.len(),
            ranges,
        };
        for range in ack.ranges.iter() {
            self.acked.insert(range);
        }
        self.ack_sequence = ack.sequence;
        self.pending = Some(ack.clone());
        Some((ack, true))
    }

    /// The seeder has noted acknowledgements up to this one. True if that is news.
    pub(super) fn confirm(&mut self, sequence: u32) -> bool {
        let news = matches!(&self.pending, Some(ack) if ack.sequence <= sequence);
        if news {
            self.pending = None;
        }
        news
    }
}

/// What is in one set and not in the other.
pub(super) fn difference(of: &RangeSet, without: &RangeSet) -> RangeSet {
    let mut left = of.clone();
    for range in without.iter() {
        left.remove(range);
    }
    left
}

/// The parts of a range that are not in a set.
pub(super) fn missing(range: ByteRange, set: &RangeSet) -> RangeSet {
    let mut left = RangeSet::from(range);
    for part in set.within(range) {
        left.remove(part);
    }
    left
}
