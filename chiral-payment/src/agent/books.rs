//! [`Books`]: deals, what was verified under each, and the bills that are not yet settled
//! and acknowledged. No clock and no disk: time is passed in, changes are marked.

use std::collections::{BTreeMap, HashMap, HashSet};

use alloy_primitives::{Address, B256, U256};
use chiral_core::bill::AmountOverflow;
use chiral_core::{Bill, BillId, ByteRange, Cid, RangeSet};

use super::deal::{Deal, Key, missing};
use crate::channel::past::About;
use crate::messages::{Notice, Policy};

/// Deals at most; beyond, those that are over and paid are forgotten, the oldest first.
const MAX_DEALS: usize = 65_536;

/// Seconds for which a deal is remembered after it expired: what was verified under it is
/// not billed again.
const REMEMBER_SECONDS: u64 = 30 * 86_400;

/// A bill that the buyer made.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(crate) bill: Bill,
    pub(crate) agreement: B256,
    pub(crate) sequence: u32,
    /// When it was made.
    pub(crate) made: u64,
    /// The transaction that settled it, once it is settled.
    pub(crate) settled: Option<B256>,
    /// The seeder's receipt, as a message.
    pub(crate) receipt: Option<bytes::Bytes>,
    /// The message that made the agreement.
    pub(crate) accept: bytes::Bytes,
}

impl Owed {
    /// The notice of its payment, once there is something to give notice of.
    pub(super) fn notice(&self) -> Option<Notice> {
        let transaction = self.settled.filter(|_| self.receipt.is_none())?;
        Some(Notice {
            agreement: self.agreement,
            sequence: self.sequence,
            bytes: self.bill.bytes,
            amount: self.bill.amount,
            transaction,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) deals: HashMap<B256, Deal>,
    current: HashMap<Key, B256>,
    by_cid: HashMap<Cid, HashSet<B256>>,
    /// Bills that are not settled, or have no receipt.
    pub(super) open: BTreeMap<BillId, Owed>,
    dirty: Dirty,
    /// Steps that have taken what was dirty and are not known to be on disk.
    writing: usize,
    /// Verified bytes that are not on disk.
    pub(super) unwritten: u64,
    /// Agreements that were forgotten, for whoever else keeps books of them.
    ended: Vec<(B256, About)>,
}

/// What has to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    pub(super) deals: HashSet<B256>,
    pub(super) gone: HashSet<B256>,
    pub(super) bills: HashSet<BillId>,
}

impl Books {
    /// A deal is proposed, or comes from disk.
    pub(super) fn restore(&mut self, agreement: B256, deal: Deal) {
        if !deal.closed {
            let of_file = self.by_cid.entry(deal.key.cid).or_default();
            of_file.insert(agreement);
        }
        if deal.agreed && !deal.ended {
            let known = self.current.get(&deal.key);
            let later = known
                .and_then(|known| self.deals.get(known))
                .is_none_or(|known| known.valid_until < deal.valid_until);
            if later {
                self.current.insert(deal.key.clone(), agreement);
            }
        }
        self.deals.insert(agreement, deal);
    }

    /// A deal is proposed to a seeder.
    pub(super) fn propose(&mut self, agreement: B256, deal: Deal, now: u64) {
        if self.deals.len() >= MAX_DEALS {
            self.sweep(now);
        }
        self.restore(agreement, deal);
        self.dirty.deals.insert(agreement);
    }

    /// The seeder took it. False if it was never proposed for this key.
    pub(super) fn agreed(&mut self, agreement: B256, key: &Key) -> bool {
        let Some(deal) = self.deals.get_mut(&agreement) else {
            return false;
        };
        if deal.key != *key || deal.ended {
            return false;
        }
        deal.agreed = true;
        self.current.insert(key.clone(), agreement);
        self.dirty.deals.insert(agreement);
        true
    }

    /// The deal under which requests can be made.
    pub(super) fn usable(&mut self, key: &Key, now: u64) -> Option<(B256, &mut Deal)> {
        let agreement = *self.current.get(key)?;
        let deal = self.deals.get_mut(&agreement)?;
        deal.is_usable(now).then_some((agreement, deal))
    }

    /// The last deal, usable or not.
    pub(super) fn latest(&mut self, key: &Key) -> Option<(B256, &mut Deal)> {
        let agreement = *self.current.get(key)?;
        Some((agreement, self.deals.get_mut(&agreement)?))
    }

    /// No more requests under this deal.
    pub(super) fn end(&mut self, agreement: B256) {
        if let Some(deal) = self.deals.get_mut(&agreement) {
            deal.ended = true;
            self.dirty.deals.insert(agreement);
        }
    }

    pub(super) fn touch(&mut self, agreement: B256) {
        self.dirty.deals.insert(agreement);
    }

    /// Bytes from a seeder are proven. Answers how many of them count.
    pub(super) fn verified(&mut self, key: &Key, range: ByteRange) -> u64 {
        let deals = self.by_cid.get(&key.cid);
        let of_file: Vec<B256> = deals.into_iter().flatten().copied().collect();
        // No byte counts twice, whoever else delivered it. A chunk that came sealed was bought
        // whole, and says nothing of who else delivered some of it.
        let mut fresh = missing(range, &RangeSet::new());
        for agreement in &of_file {
            let deal = self.deals.get(agreement);
            let counts = |deal: &&Deal| deal.policy != Policy::LockedVoucher || deal.key == *key;
            if let Some(deal) = deal.filter(counts) {
                for known in deal.verified.within(range) {
                    fresh.remove(known);
                }
            }
        }
        // Under the deal that it was asked under; a new one may have been made meanwhile.
        let current = self.current.get(key).copied();
        let of_key = |agreement: &B256| self.deals.get(agreement).is_some_and(|d| d.key == *key);
        let mut candidates: Vec<B256> = of_file.into_iter().filter(of_key).collect();
        candidates.sort_by_key(|agreement| {
            let deal = &self.deals[agreement];
            let asked = deal.requested.covers(range);
            (
                !asked,
                current != Some(*agreement),
                u64::MAX - deal.valid_until,
            )
        });
        let Some(agreement) = candidates.first().copied() else {
            return 0;
        };
        let Some(deal) = self.deals.get_mut(&agreement).filter(|deal| deal.agreed) else {
            return 0;
        };
        if deal.policy == Policy::LockedVoucher {
            // What came sealed was bought before it could be seen, whoever else delivered it.
            fresh = missing(range, &deal.verified);
            if deal.unsealed == Some(range) {
                deal.unsealed = None;
                deal.again = range.len() - fresh.len();
            }
        }
        for part in fresh.iter() {
            deal.verified.insert(part);
        }
        if !fresh.is_empty() {
            self.dirty.deals.insert(agreement);
            self.unwritten += fresh.len();
        }
        fresh.len()
    }

    /// Makes bills of all that is verified and on none: of one file or of all, for one
    /// wallet or for all.
    ///
    /// # Errors
    /// [`AmountOverflow`], for prices beyond all money.
    pub(super) fn make_bills(
        &mut self,
        cid: Option<Cid>,
        payee: Option<Address>,
        now: u64,
    ) -> Result<(), AmountOverflow> {
        for (agreement, deal) in &mut self.deals {
            let wanted = cid.is_none_or(|cid| cid == deal.key.cid)
                && payee.is_none_or(|payee| payee == deal.key.payee);
            let ranges = match wanted {
                true => deal.unbilled(),
                false => continue,
            };
            if ranges.is_empty() {
                continue;
            }
            let amount = deal.cost(ranges.len())?;
            let id = BillId::derive(*agreement, deal.next_bill);
            let (cid, protocol) = (deal.key.cid, deal.protocol.clone());
            let mut bill = Bill::new(id, cid, ranges.clone(), deal.price(), protocol)?
                .owed_to(deal.peer.clone(), Some(deal.key.payee));
            bill.amount = amount;
            for range in ranges.iter() {
                deal.billed.insert(range);
            }
            self.dirty.deals.insert(*agreement);
            if bill.is_free() {
                // Of what was given for nothing there is nothing to settle.
                continue;
            }
            let owed = Owed {
                bill,
                agreement: *agreement,
                sequence: deal.next_bill,
                made: now,
                settled: None,
                receipt: None,
                accept: deal.accept.clone(),
            };
            deal.next_bill += 1;
            self.open.insert(id, owed);
            self.dirty.bills.insert(id);
        }
        Ok(())
    }

    /// Makes a bill for bytes that are to come; nothing if the deal is gone.
    ///
    /// # Errors
    /// [`AmountOverflow`].
    pub(super) fn make_bill_in_advance(
        &mut self,
        agreement: B256,
        bytes: u64,
        now: u64,
    ) -> Result<Option<BillId>, AmountOverflow> {
        let Some(deal) = self.deals.get_mut(&agreement) else {
            return Ok(None);
        };
        let id = BillId::derive(agreement, deal.next_bill);
        let (cid, protocol) = (deal.key.cid, deal.protocol.clone());
        let mut bill = Bill::in_advance(id, cid, bytes, deal.price(), protocol)?
            .owed_to(deal.peer.clone(), Some(deal.key.payee));
        bill.amount = deal.cost(bytes)?;
        let owed = Owed {
            bill,
            agreement,
            sequence: deal.next_bill,
            made: now,
            settled: None,
            receipt: None,
            accept: deal.accept.clone(),
        };
        deal.next_bill += 1;
        deal.prepaid = deal.prepaid.saturating_add(bytes);
        self.open.insert(id, owed);
        self.dirty.bills.insert(id);
        self.dirty.deals.insert(agreement);
        Ok(Some(id))
    }

    /// Bills that are not settled.
    pub(super) fn unsettled(&self, cid: Option<Cid>, payee: Option<Address>) -> Vec<Bill> {
        self.open
            .values()
            .filter(|owed| owed.settled.is_none())
            .map(|owed| &owed.bill)
            .filter(|bill| cid.is_none_or(|cid| cid == bill.cid))
            .filter(|bill| payee.is_none_or(|payee| Some(payee) == bill.payee))
            .cloned()
            .collect()
    }

    /// What is verified and on no bill of a wallet's, in wei.
    pub(super) fn unbilled(&self, payee: Address) -> U256 {
        self.deals
            .values()
            .filter(|deal| deal.key.payee == payee)
            .filter_map(|deal| deal.cost(deal.unbilled().len()).ok())
            .fold(U256::ZERO, U256::saturating_add)
    }

    /// A bill is settled. False if it is none of ours, or has its receipt.
    pub(super) fn settled(&mut self, bill: BillId, transaction: B256) -> bool {
        let Some(owed) = self.open.get_mut(&bill) else {
            return false;
        };
        if owed.settled != Some(transaction) {
            owed.settled = Some(transaction);
            self.dirty.bills.insert(bill);
        }
        true
    }

    /// The seeder's receipt for a bill has come.
    pub(super) fn received(&mut self, bill: BillId, receipt: bytes::Bytes) {
        if let Some(owed) = self.open.get_mut(&bill) {
            owed.receipt = Some(receipt);
            self.dirty.bills.insert(bill);
        }
    }

    /// Notice of a settled bill of a wallet's for which there is no receipt.
    pub(super) fn to_notify(&self, payee: Address) -> Option<Notice> {
        let open = self.open.values();
        let open = open.filter(|owed| owed.bill.payee == Some(payee));
        // In the order in which they were made.
        let notices = open.filter_map(Owed::notice);
        notices.min_by_key(|notice| (notice.agreement, notice.sequence))
    }

    /// Whether anything of a file is on books that are not closed.
    pub(super) fn remembers(&self, cid: Cid) -> bool {
        self.by_cid.contains_key(&cid)
    }

    /// What is verified of a file.
    pub(super) fn verified_of(&self, cid: Cid) -> RangeSet {
        let of_file = self.by_cid.get(&cid).into_iter().flatten();
        let deals = of_file.filter_map(|agreement| self.deals.get(agreement));
        let mut all = RangeSet::new();
        for deal in deals {
            deal.verified.iter().for_each(|range| {
                all.insert(range);
            });
        }
        all
    }

    /// What was verified of a file counts no more: it can be bought again.
    pub(super) fn forget(&mut self, cid: Cid) {
        for agreement in self.by_cid.remove(&cid).unwrap_or_default() {
            if let Some(deal) = self.deals.get_mut(&agreement) {
                (deal.ended, deal.closed) = (true, true);
                self.dirty.deals.insert(agreement);
                if self.current.get(&deal.key) == Some(&agreement) {
                    self.current.remove(&deal.key);
                }
            }
        }
    }

    /// Forgets deals that are long over.
    pub(super) fn sweep(&mut self, now: u64) {
        let open: HashSet<B256> = self.open.values().map(|owed| owed.agreement).collect();
        let mut over: Vec<_> = self
            .deals
            .iter()
            .filter(|(agreement, deal)| {
                let settled = deal.unbilled().is_empty() && !open.contains(*agreement);
                let unused = deal.closed || (deal.verified.is_empty() && deal.prepaid == 0);
                settled && deal.valid_until < now && (unused || self.is_old(deal, now))
            })
            .map(|(agreement, deal)| (deal.valid_until, *agreement))
            .collect();
        over.sort_unstable();
        for (_, agreement) in over {
            let Some(deal) = self.deals.remove(&agreement) else {
                continue;
            };
            if self.current.get(&deal.key) == Some(&agreement) {
                self.current.remove(&deal.key);
            }
            if let Some(its) = self.by_cid.get_mut(&deal.key.cid) {
                its.remove(&agreement);
                if its.is_empty() {
                    self.by_cid.remove(&deal.key.cid);
                }
            }
            self.dirty.deals.remove(&agreement);
            self.dirty.gone.insert(agreement);
            if deal.policy.may_use_channel() {
                self.ended.push((agreement, deal.about()));
            }
        }
    }

    /// Agreements that were forgotten since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<(B256, About)> {
        std::mem::take(&mut self.ended)
    }

    fn is_old(&self, deal: &Deal, now: u64) -> bool {
        deal.valid_until.saturating_add(REMEMBER_SECONDS) < now || self.deals.len() >= MAX_DEALS
    }

    /// What has to be written now. Followed by [`Books::written`] or [`Books::put_back`]; until
    /// then it counts as dirty. Bills that are done leave memory with the step that writes them.
    pub(super) fn take_dirty(&mut self) -> Dirty {
        self.unwritten = 0;
        self.writing += 1;
        std::mem::take(&mut self.dirty)
    }

    /// It was not written after all.
    pub(super) fn put_back(&mut self, dirty: Dirty) {
        self.writing = self.writing.saturating_sub(1);
        self.dirty.deals.extend(dirty.deals);
        self.dirty.gone.extend(dirty.gone);
        self.dirty.bills.extend(dirty.bills);
    }

    /// It was written, with these limits of counters.
    pub(super) fn written(&mut self, dirty: &Dirty, reserved: &[(B256, u64)]) {
        self.writing = self.writing.saturating_sub(1);
        for (agreement, reserved) in reserved {
            if let Some(deal) = self.deals.get_mut(agreement) {
                deal.reserved = deal.reserved.max(*reserved);
            }
        }
        for bill in &dirty.bills {
            let done = |owed: &Owed| owed.settled.is_some() && owed.receipt.is_some();
            if self.open.get(bill).is_some_and(done) && !self.dirty.bills.contains(bill) {
                self.open.remove(bill);
            }
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        let Dirty { deals, gone, bills } = &self.dirty;
        self.writing > 0 || !(deals.is_empty() && gone.is_empty() && bills.is_empty())
    }

    /// How many bytes to pay for in advance, so that `needed` more are served: as many as
    /// are usual, but not more than the file has left. `None` if the wallet would then have
    /// been paid for more than `most` that it has not delivered.
    pub(super) fn prepay_bytes(
        &self,
        agreement: B256,
        needed: u64,
        usual: u64,
        size: Option<u64>,
        most: u64,
    ) -> Option<u64> {
        let deal = self.deals.get(&agreement)?;
        // What is paid for already is on its way, or will be.
        let had = deal.verified.len().max(deal.prepaid);
        let left = size.map_or(u64::MAX, |size| size.saturating_sub(had));
        let bytes = usual.max(deal.prepay_bytes).min(left).max(needed);
        let of_payee = self
            .deals
            .values()
            .filter(|it| it.key.payee == deal.key.payee);
        let undelivered = of_payee.fold(0u64, |sum, it| sum.saturating_add(it.undelivered()));
        (undelivered.saturating_add(bytes) <= most).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_has_taken_is_not_on_disk_before_it_is_written() {
        let mut books = Books::default();
        books.touch(B256::ZERO);
        let taken = books.take_dirty();
        assert!(books.is_dirty(), "whoever needs it on disk has to wait");
        books.put_back(taken);
        assert!(books.is_dirty());
        let taken = books.take_dirty();
        assert!(taken.deals.contains(&B256::ZERO));
        books.written(&taken, &[]);
        assert!(!books.is_dirty());
    }
}
