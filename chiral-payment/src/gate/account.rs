//! [`Account`]: what was agreed on with one buyer for one file, and how it stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy_primitives::{Address, B256, U256};
use chiral_core::{BillId, ByteRange, Cid, Protocol, RangeSet};

use super::window::CounterWindow;
use crate::channel::{ChannelTerms, Window};
use crate::messages::{Ack, Policy, Pricing};

/// Ranges, at most, that are kept of what was served or acknowledged in one agreement.
pub(super) const MAX_FRAGMENTS: usize = 16_384;

/// Requests in flight, at most, in one agreement.
pub(super) const MAX_IN_FLIGHT: usize = 256;

/// Seconds after which a request that never reported what was sent counts as ended. It is
/// then taken to have sent everything.
pub(super) const IN_FLIGHT_SECONDS: u64 = 15 * 60;

/// Bills of one agreement.
pub(super) const MAX_BILLS: u32 = 65_536;

/// One agreement, as the seeder keeps it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) terms: Terms,
    /// Over what it was last asked for.
    pub(super) protocol: Protocol,
    pub(super) window: CounterWindow,
    in_flight: HashMap<u64, InFlight>,
    /// Bytes sent, repeats included.
    pub(super) sent: u64,
    pub(super) served: RangeSet,
    pub(super) acked: RangeSet,
    pub(super) ack_sequence: u32,
    /// Bytes from the beginning that cost nothing, or are covered by verified payments on the
    /// chain.
    pub(super) paid: u64,
    /// Bytes from the beginning that are covered by vouchers; the channels' own books have it on
    /// disk.
    pub(super) in_band: u64,
    /// Sealed answers by the counter of their request, with their range: their keys can be
    /// paid for. Not on disk: what was sealed before a restart is asked for again.
    pub(super) sealed: BTreeMap<u64, ByteRange>,
    /// Wei of verified payments, and the bytes that they are said to be for.
    received: (U256, u64),
    pub(super) written_off: u64,
    /// The bills that were paid, by their sequence.
    pub(super) bills: BTreeSet<u32>,
    /// When something was last served.
    pub(super) active: u64,
}

/// What does not change in an agreement.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The message that made it.
    pub(super) accept: bytes::Bytes,
    pub(super) cid: Cid,
    pub(super) payer: Address,
    pub(super) session_key: Address,
    pub(super) pricing: Pricing,
    pub(super) policy: Policy,
    pub(super) channel: ChannelTerms,
    pub(super) valid_until: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    range: ByteRange,
    since: u64,
    /// Bytes of it that were sent before.
    repeated: u64,
}

/// Why an acknowledgement was not noted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AckFault {
    /// It does not follow the last one.
    Sequence,
    /// Its total is not what the ranges add up to.
    Total,
    /// A byte that was acknowledged before, or never served.
    Ranges,
}

impl Account {
    pub(super) fn new(terms: Terms, now: u64) -> Self {
        Self {
            paid: terms.pricing.free_bytes(),
            received: (U256::ZERO, 0),
            terms,
            protocol: Protocol::Http,
            window: CounterWindow::default(),
            in_flight: HashMap::new(),
            sent: 0,
            served: RangeSet::new(),
            acked: RangeSet::new(),
            ack_sequence: 0,
            in_band: 0,
            sealed: BTreeMap::new(),
            written_off: 0,
            bills: BTreeSet::new(),
            active: now,
        }
    }

    pub(super) fn bytes_in_flight(&self) -> u64 {
        self.in_flight
            .values()
            .map(|flying| flying.range.len())
            .sum()
    }

    /// Bytes that are not paid for, those in flight included.
    pub(super) fn unpaid(&self) -> u64 {
        self.unpaid_beside(0, 0)
    }

    /// The same, if a request is admitted too.
    pub(super) fn unpaid_with(&self, range: ByteRange) -> u64 {
        self.unpaid_beside(range.len(), self.sent_before(range))
    }

    fn unpaid_beside(&self, bytes: u64, repeated: u64) -> u64 {
        let flying = self.in_flight.values().map(|flying| flying.repeated);
        let repeated = flying.fold(
            self.repeated().saturating_add(repeated),
            u64::saturating_add,
        );
        let given = self.sent.saturating_add(self.bytes_in_flight());
        given
            .saturating_add(bytes)
            .saturating_sub(repeated.min(self.tolerated()))
            .saturating_sub(self.paid_bytes().saturating_add(self.written_off))
    }

    /// Bytes sent that are not paid for, written off or tolerated: what can be asked for.
    pub(super) fn outstanding(&self) -> u64 {
        self.sent
            .saturating_sub(self.repeated().min(self.tolerated()))
            .saturating_sub(self.paid_bytes().saturating_add(self.written_off))
    }

    /// Bytes of a range that were sent before.
    fn sent_before(&self, range: ByteRange) -> u64 {
        self.served.within(range).map(|part| part.len()).sum()
    }

    /// Bytes that were sent once more, each time counted.
    fn repeated(&self) -> u64 {
        self.sent.saturating_sub(self.served.len())
    }

    /// Bytes that are sent again without being counted. A buyer that was killed before it had
    /// written down what came asks for it again, pays then, and goes on; what it can have
    /// without paying stays a window. As each byte that was paid is repeated once at most, and
    /// a window beside, nobody has a file sent for ever. Not where nothing but the upload can
    /// be lost, nor under a line of money, which waste shortens.
    fn tolerated(&self) -> u64 {
        match self.terms.policy {
            Policy::PayAfter | Policy::PayFirst | Policy::LockedVoucher => 0,
            Policy::Incremental | Policy::Channel => {
                let paid = self.paid_bytes();
                let paid = paid.saturating_sub(self.terms.pricing.free_bytes());
                let window = self.ahead().map_or(0, |window| window.bytes());
                window.saturating_add(paid)
            }
        }
    }

    /// Bytes that are paid for, on the chain or by vouchers.
    pub(super) fn paid_bytes(&self) -> u64 {
        self.paid.max(self.in_band)
    }

    /// How far ahead of payment is served, where that is counted in chunks.
    pub(super) fn ahead(&self) -> Option<Window> {
        let mut window = self.terms.channel.window(self.terms.policy)?;
        window.paid(self.paid_bytes());
        Some(window)
    }

    /// Vouchers pay for so many bytes in all; never fewer than before. True if that is more.
    pub(super) fn pay_in_band(&mut self, bytes: u64) -> bool {
        let more = bytes > self.in_band;
        self.in_band = self.in_band.max(bytes);
        more
    }

    /// What [`Self::unpaid`] costs. A price too high to be added up is more than any line.
    pub(super) fn exposure(&self) -> U256 {
        match self.terms.policy {
            Policy::PayAfter | Policy::Incremental | Policy::Channel => self.cost(self.unpaid()),
            // Of sealed bytes nothing but the upload is lost.
            Policy::PayFirst | Policy::LockedVoucher => U256::ZERO,
        }
    }

    /// What bytes cost that come after those that are paid.
    pub(super) fn cost(&self, bytes: u64) -> U256 {
        let cost = self.terms.pricing.cost(self.paid_bytes(), bytes);
        cost.unwrap_or(U256::MAX)
    }

    /// What the first bytes of the agreement cost, so many.
    pub(super) fn total_cost(&self, bytes: u64) -> U256 {
        let cost = self.terms.pricing.cost(0, bytes);
        cost.unwrap_or(U256::MAX)
    }

    /// What a request costs that comes after all that was given.
    pub(super) fn next_cost(&self, range: ByteRange) -> U256 {
        let unpaid = self.unpaid();
        let more = self.unpaid_with(range).saturating_sub(unpaid);
        let position = self.paid_bytes().saturating_add(unpaid);
        let cost = self.terms.pricing.cost(position, more);
        cost.unwrap_or(U256::MAX)
    }

    /// What bytes cost without anything taken off.
    pub(super) fn full_cost(&self, bytes: u64) -> U256 {
        let cost = self.terms.pricing.price().cost(bytes);
        cost.unwrap_or(U256::MAX)
    }

    /// What the buyer said it owes, or has shown by paying, and has not paid.
    pub(super) fn owed(&self) -> U256 {
        self.cost(self.acked.len().saturating_sub(self.paid_bytes()))
    }

    /// Bytes sent of which the buyer has said nothing.
    pub(super) fn unacknowledged(&self) -> u64 {
        let known = self.acked.len().max(self.paid_bytes());
        self.sent
            .saturating_sub(self.repeated().min(self.tolerated()))
            .saturating_sub(known.saturating_add(self.written_off))
    }

    /// Whether one more request can be followed.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT
            && self.served.fragments() < MAX_FRAGMENTS
            && self.acked.fragments() < MAX_FRAGMENTS
    }

    /// A request is admitted, its counter used up.
    pub(super) fn begin(&mut self, counter: u64, range: ByteRange, now: u64) {
        let flying = InFlight {
            range,
            since: now,
            repeated: self.sent_before(range),
        };
        self.in_flight.insert(counter, flying);
        self.active = now;
    }

    /// Whether a request is admitted and not over.
    pub(super) fn is_in_flight(&self, counter: u64) -> bool {
        self.in_flight.contains_key(&counter)
    }

    /// A request of which this much was sent is over. False if it never was admitted, or has
    /// been over before.
    pub(super) fn end(&mut self, counter: u64, sent: ByteRange, now: u64) -> bool {
        let Some(flying) = self.in_flight.remove(&counter) else {
            return false;
        };
        let sent = flying.range.intersection(sent).unwrap_or_default();
        self.sent = self.sent.saturating_add(sent.len());
        self.served.insert(sent);
        self.active = now;
        true
    }

    /// Ends requests that nobody reported. True if there were any.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let late = |flying: &InFlight| flying.since + IN_FLIGHT_SECONDS < now;
        let late: Vec<_> = self
            .in_flight
            .iter()
            .filter(|(_, flying)| late(flying))
            .map(|(counter, flying)| (*counter, flying.range))
            .collect();
        for &(counter, range) in &late {
            self.end(counter, range, now);
        }
        !late.is_empty()
    }

    /// Notes an acknowledgement; one that was noted before changes nothing.
    pub(super) fn acknowledge(&mut self, ack: &Ack) -> Result<bool, AckFault> {
        if ack.sequence <= self.ack_sequence {
            return Ok(false);
        }
        if ack.sequence != self.ack_sequence + 1 {
            return Err(AckFault::Sequence);
        }
        if ack.total != self.acked.len().saturating_add(ack.ranges.len()) {
            return Err(AckFault::Total);
        }
        // The buyer may have checked the beginning of an answer of which the end is still
        // being sent.
        let mut given = self.served.clone();
        for flying in self.in_flight.values() {
            given.insert(flying.range);
        }
        for range in ack.ranges.iter() {
            if !given.covers(range) || self.acked.within(range).next().is_some() {
                return Err(AckFault::Ranges);
            }
        }
        for range in ack.ranges.iter() {
            self.acked.insert(range);
        }
        self.ack_sequence = ack.sequence;
        Ok(true)
    }

    /// A payment was verified; false if it was before. What is written off is decided when
    /// all that was acknowledged is paid.
    pub(super) fn pay(
        &mut self,
        sequence: u32,
        bytes: u64,
        amount: U256,
        waste_permille: u16,
    ) -> bool {
        if !self.receive(sequence, bytes, amount) {
            return false;
        }
        let repeated = self.repeated().min(self.tolerated());
        let unpaid = self.sent.saturating_sub(repeated);
        let unpaid = unpaid.saturating_sub(self.paid_bytes());
        if self.terms.policy == Policy::PayAfter && self.paid >= self.acked.len() {
            let most = u128::from(self.sent) * u128::from(waste_permille) / 1000;
            self.written_off = unpaid.min(u64::try_from(most).unwrap_or(u64::MAX));
        }
        self.written_off = self.written_off.min(unpaid);
        true
    }

    /// Adds a payment up; false if it was before. What it covers follows from all the money
    /// that came, and not from the order in which it did; never more than it is said to be for.
    pub(super) fn receive(&mut self, sequence: u32, bytes: u64, amount: U256) -> bool {
        if !self.bills.insert(sequence) {
            return false;
        }
        let (wei, said) = &mut self.received;
        *wei = wei.saturating_add(amount);
        *said = said.saturating_add(bytes);
        let pricing = &self.terms.pricing;
        let covered = pricing.covered(*wei);
        let said = said.saturating_add(pricing.free_bytes());
        self.paid = self.paid.max(covered.min(said));
        true
    }

    /// Which of the bills that may come next has this id.
    pub(super) fn bill_sequence(&self, agreement: B256, bill: BillId) -> Option<u32> {
        /// Bills that may overtake each other on the ledger.
        const AHEAD: u32 = 16;
        let next = self.bills.last().map_or(0, |last| last.saturating_add(1));
        let range = next.saturating_sub(AHEAD)..next.saturating_add(AHEAD);
        range
            .filter(|sequence| *sequence < MAX_BILLS)
            .find(|sequence| BillId::derive(agreement, *sequence) == bill)
    }

    /// The agreement's own hash is not needed to say whether it is over.
    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.terms.valid_until
    }

    /// Whether something acknowledged waits for its payment for longer than `deadline`.
    pub(super) fn is_overdue(&self, deadline: u64, now: u64) -> bool {
        matches!(self.terms.policy, Policy::PayAfter | Policy::Incremental)
            && self.acked.len() > self.paid_bytes()
            && self.active.saturating_add(deadline) < now
    }
}
