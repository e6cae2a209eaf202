//! [`Books`]: who was promised what, who was given what, and who may have more. No clock, no
//! disk, no ledger: time and facts are passed in.

use std::collections::{HashMap, HashSet};

use alloy_primitives::{Address, B256, U256};
use chiral_core::{BillId, ByteRange, Cid, Protocol};

use super::account::{Account, AckFault, Terms};
use super::allowance::{FreeAllowance, Gifts};
use super::config::CreditRules;
use super::credit::Credit;
use crate::channel::past::About;
use crate::messages::{Ack, Policy};

/// Seconds after which a debt is given up: thirty days.
const WRITE_OFF_SECONDS: u64 = 30 * 86_400;

/// Seconds for which an agreement keeps its place without a request.
const FIRST_REQUEST_SECONDS: u64 = 60;

/// The same where the first request comes behind a payment.
const FIRST_PAYMENT_SECONDS: u64 = 15 * 60;

/// What a seeder knows of its buyers.
#[derive(Debug)]
pub(super) struct Books {
    rules: Rules,
    pub(super) accounts: HashMap<B256, Account>,
    by_wallet: HashMap<Address, HashSet<B256>>,
    pub(super) credit: Credit,
    pub(super) gifts: Gifts,
    /// What is not on disk as it is here.
    dirty: Dirty,
    /// Agreements that were dropped, for whoever else keeps books of them.
    ended: Vec<(B256, About)>,
    /// Steps that have taken what was dirty and are not known to be on disk.
    writing: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) credit: CreditRules,
    pub(super) allowance: FreeAllowance,
    pub(super) max_agreements: (usize, usize),
    /// Seconds.
    pub(super) payment_deadline: u64,
}

/// What has to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    pub(super) accounts: HashSet<B256>,
    pub(super) wallets: HashSet<Address>,
    /// Accounts that are settled and over.
    pub(super) gone: HashSet<B256>,
    pub(super) gifts: HashSet<B256>,
    /// Files with terms of their own, or with none any more.
    pub(super) files: HashSet<Cid>,
}

/// Why there is no agreement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAccount {
    /// There are too many.
    Full,
    /// What would be free was given under another one.
    GiftGone,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Serve,
    /// No such agreement, or it has expired.
    Ended,
    /// The counter was used before.
    Replayed,
    /// Settle so much (zero: acknowledge), or pay for so many bytes, first.
    Due {
        amount: U256,
        prepay_bytes: u64,
    },
    /// Nothing is owed yet, but too much is on its way.
    Busy,
    /// This can never be served on credit.
    TooLarge,
    /// No more is lent to wallets without history today.
    Strangers,
}

impl Books {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            accounts: HashMap::new(),
            by_wallet: HashMap::new(),
            credit: Credit::default(),
            gifts: Gifts::default(),
            dirty: Dirty::default(),
            ended: Vec::new(),
            writing: 0,
        }
    }

    /// An agreement is made, or was.
    pub(super) fn accept(
        &mut self,
        agreement: B256,
        terms: Terms,
        now: u64,
    ) -> Result<(), NoAccount> {
        if self.accounts.contains_key(&agreement) {
            return Ok(());
        }
        let (most, of_one) = self.rules.max_agreements;
        if self.accounts.len() >= most {
            self.sweep(now);
            self.drop_unused(now);
        }
        let its = self.by_wallet.get(&terms.payer).map_or(0, HashSet::len);
        if self.accounts.len() >= most || its >= of_one {
            return Err(NoAccount::Full);
        }
        let (rules, free) = (&self.rules.allowance, terms.pricing.free_bytes());
        if !self.gifts.give(rules, terms.payer, terms.cid, free, now) {
            return Err(NoAccount::GiftGone);
        }
        self.dirty.accounts.insert(agreement);
        self.restore(agreement, Account::new(terms, now));
        Ok(())
    }

    /// How much a wallet may have of a file for nothing now, for its quote.
    pub(super) fn gift(&mut self, payer: Address, cid: Cid, now: u64) -> u64 {
        self.gifts.left(&self.rules.allowance, payer, cid, now)
    }

    /// Takes up an account from disk.
    pub(super) fn restore(&mut self, agreement: B256, account: Account) {
        let its = self.by_wallet.entry(account.terms.payer).or_default();
        its.insert(agreement);
        self.accounts.insert(agreement, account);
    }

    /// Decides on a request of which the signature has been checked.
    pub(super) fn admit(
        &mut self,
        agreement: B256,
        counter: u64,
        range: ByteRange,
        protocol: &Protocol,
        now: u64,
    ) -> Verdict {
        let Some(account) = self.accounts.get_mut(&agreement) else {
            return Verdict::Ended;
        };
        if account.is_over(now) {
            return Verdict::Ended;
        }
        if !account.window.is_fresh(counter) {
            return Verdict::Replayed;
        }
        account.expire(now);
        if !account.has_room() {
            return Verdict::Busy;
        }
        let verdict = match account.terms.policy {
            Policy::PayAfter => self.lend(agreement, range, now),
            Policy::PayFirst => self.prepaid(agreement, range.len()),
            Policy::Incremental | Policy::Channel | Policy::LockedVoucher => {
                self.ahead(agreement, range, now)
            }
        };
        // A counter that was refused can be used again: nothing was served for it.
        if verdict == Verdict::Serve
            && let Some(account) = self.accounts.get_mut(&agreement)
        {
            account.window.take(counter);
            account.begin(counter, range, now);
            account.protocol = protocol.clone();
            self.touch(agreement);
        }
        verdict
    }

    fn prepaid(&self, agreement: B256, bytes: u64) -> Verdict {
        let Some(account) = self.accounts.get(&agreement) else {
            return Verdict::Ended;
        };
        let given = account.sent.saturating_add(account.bytes_in_flight());
        let missing = given
            .saturating_add(bytes)
            .saturating_sub(account.paid_bytes());
        if missing == 0 {
            return Verdict::Serve;
        }
        Verdict::Due {
            amount: account.cost(missing),
            prepay_bytes: missing,
        }
    }

    /// Serves ahead of payment, within a window of the agreement's own. What is lent draws on
    /// the wallet's line and on the strangers' budget all the same.
    fn ahead(&mut self, agreement: B256, range: ByteRange, now: u64) -> Verdict {
        let Some(account) = self.accounts.get(&agreement) else {
            return Verdict::Ended;
        };
        let window = account.ahead().map_or(0, |window| window.bytes());
        if account.unpaid_with(range) <= window {
            return match account.terms.policy {
                Policy::LockedVoucher => Verdict::Serve,
                _ => self.lend(agreement, range, now),
            };
        }
        match account.outstanding() {
            owing if owing > 0 => Verdict::Due {
                amount: account.cost(owing),
                prepay_bytes: 0,
            },
            _ if account.bytes_in_flight() > 0 => Verdict::Busy,
            _ => Verdict::TooLarge,
        }
    }

    fn lend(&mut self, agreement: B256, range: ByteRange, now: u64) -> Verdict {
        let Some(account) = self.accounts.get(&agreement) else {
            return Verdict::Ended;
        };
        let payer = account.terms.payer;
        let rules = self.rules.credit;
        if account.unacknowledged() > rules.unacknowledged {
            return Verdict::Due {
                amount: U256::ZERO,
                prepay_bytes: 0,
            };
        }
        let least = account.full_cost(rules.least_bytes);
        let line = self.credit.line(&rules, payer, least);
        let with_it = account.cost(account.unpaid_with(range));
        let more = with_it.saturating_sub(account.exposure());
        let alone = account.next_cost(range);
        let exposure = self.exposure(payer);
        let overdue = self.is_overdue(payer, now);
        let after = exposure.saturating_add(more);
        if !overdue && after <= line {
            return match self.credit.owe(&rules, payer, after, now) {
                true => Verdict::Serve,
                false => self.ask_for(payer, exposure, Verdict::Strangers),
            };
        }
        let refusal = if alone > line && !overdue {
            Verdict::TooLarge
        } else {
            Verdict::Busy
        };
        self.ask_for(payer, exposure, refusal)
    }

    /// Asks a wallet to settle what it was given; if that is nothing, the other verdict.
    fn ask_for(&self, payer: Address, exposure: U256, otherwise: Verdict) -> Verdict {
        let given = self.of(payer).any(|account| {
            !matches!(
                account.terms.policy,
                Policy::PayFirst | Policy::LockedVoucher
            ) && account.outstanding() > 0
        });
        match given {
            true => Verdict::Due {
                amount: exposure,
                prepay_bytes: 0,
            },
            false => otherwise,
        }
    }

    fn of(&self, payer: Address) -> impl Iterator<Item = &Account> {
        self.accounts_of(payer).map(|(_, account)| account)
    }

    /// The agreements of a wallet.
    pub(super) fn accounts_of(&self, payer: Address) -> impl Iterator<Item = (B256, &Account)> {
        let agreements = self.by_wallet.get(&payer).into_iter().flatten();
        agreements.filter_map(|agreement| Some((*agreement, self.accounts.get(agreement)?)))
    }

    /// What a wallet was given and has not paid, over all files.
    pub(super) fn exposure(&self, payer: Address) -> U256 {
        self.of(payer).fold(U256::ZERO, |sum, account| {
            sum.saturating_add(account.exposure())
        })
    }

    pub(super) fn is_overdue(&self, payer: Address, now: u64) -> bool {
        let deadline = self.rules.payment_deadline;
        self.of(payer)
            .any(|account| account.is_overdue(deadline, now))
    }

    /// How much a wallet may owe at a price, for its quote.
    pub(super) fn line(&self, payer: Address, least: U256) -> U256 {
        self.credit.line(&self.rules.credit, payer, least)
    }

    /// Part of an admitted request was sent, and the request is over.
    pub(super) fn served(&mut self, agreement: B256, counter: u64, sent: ByteRange, now: u64) {
        if let Some(account) = self.accounts.get_mut(&agreement)
            && account.end(counter, sent, now)
        {
            self.balance(agreement, now);
        }
    }

    pub(super) fn acknowledge(&mut self, ack: &Ack) -> Option<Result<u32, AckFault>> {
        let account = self.accounts.get_mut(&ack.agreement)?;
        let noted = account.acknowledge(ack);
        let sequence = account.ack_sequence;
        if noted == Ok(true) {
            self.touch(ack.agreement);
        }
        Some(noted.map(|_| sequence))
    }

    /// The key of a sealed range was told.
    pub(super) fn opened(&mut self, agreement: B256, range: ByteRange) {
        let account = self.accounts.get_mut(&agreement);
        if account.is_some_and(|account| account.opened(range)) {
            self.touch(agreement);
        }
    }

    /// A payment for a bill was verified, once.
    pub(super) fn pay(
        &mut self,
        agreement: B256,
        sequence: u32,
        bytes: u64,
        amount: U256,
        now: u64,
    ) {
        let waste = self.rules.credit.waste_permille;
        if let Some(account) = self.accounts.get_mut(&agreement)
            && account.pay(sequence, bytes, amount, waste)
        {
            self.credit.paid(account.terms.payer, amount);
            self.balance(agreement, now);
        }
    }

    /// Vouchers pay for so many bytes of an agreement in all.
    pub(super) fn pay_in_band(&mut self, agreement: B256, bytes: u64, now: u64) {
        let Some(account) = self.accounts.get_mut(&agreement) else {
            return;
        };
        let before = account.total_cost(account.in_band);
        if account.pay_in_band(bytes) {
            let more = account.total_cost(bytes).saturating_sub(before);
            self.credit.paid(account.terms.payer, more);
            self.balance(agreement, now);
        }
    }

    /// The same, of an earlier run: the wallet's standing has it already.
    pub(super) fn restore_in_band(&mut self, agreement: B256, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(&agreement) {
            account.pay_in_band(bytes);
        }
    }

    /// Agreements that were dropped since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<(B256, About)> {
        std::mem::take(&mut self.ended)
    }

    /// The agreement and the sequence of a bill that a wallet may have paid.
    pub(super) fn find(&self, payer: Address, bill: BillId) -> Option<(B256, u32)> {
        self.by_wallet.get(&payer)?.iter().find_map(|agreement| {
            let account = self.accounts.get(agreement)?;
            let sequence = account.bill_sequence(*agreement, bill)?;
            Some((*agreement, sequence))
        })
    }

    /// What a wallet owes has become less.
    fn balance(&mut self, agreement: B256, now: u64) {
        let Some(account) = self.accounts.get(&agreement) else {
            return;
        };
        let payer = account.terms.payer;
        let exposure = self.exposure(payer);
        self.credit.owe(&self.rules.credit, payer, exposure, now);
        self.touch(agreement);
    }

    fn touch(&mut self, agreement: B256) {
        if let Some(account) = self.accounts.get(&agreement) {
            self.dirty.wallets.insert(account.terms.payer);
            self.dirty.accounts.insert(agreement);
        }
    }

    /// Drops accounts that are over, and gives up debts that are too old.
    pub(super) fn sweep(&mut self, now: u64) {
        let deadline = self.rules.payment_deadline;
        let mut ending = Vec::new();
        let mut late = Vec::new();
        for (agreement, account) in &mut self.accounts {
            if account.expire(now) {
                late.push(*agreement);
            }
            let quiet = account.terms.valid_until.max(account.active);
            let settled = account.owed().is_zero() && quiet.saturating_add(deadline) < now;
            if settled || quiet.saturating_add(WRITE_OFF_SECONDS) < now {
                ending.push(*agreement);
            }
        }
        for agreement in late {
            self.balance(agreement, now);
        }
        for agreement in ending {
            self.remove(agreement, now);
        }
        let forgotten = self.credit.purge(now);
        self.dirty.wallets.extend(forgotten);
    }

    /// Drops accounts under which nothing was ever served, but for those whose first request,
    /// or payment, may be on its way: whoever fills the books does not put out who pays.
    fn drop_unused(&mut self, now: u64) {
        let waits = |account: &Account| {
            let patience = match account.terms.policy {
                Policy::PayAfter | Policy::Incremental => FIRST_REQUEST_SECONDS,
                Policy::PayFirst | Policy::Channel | Policy::LockedVoucher => FIRST_PAYMENT_SECONDS,
            };
            now <= account.active.saturating_add(patience)
        };
        let unused: Vec<_> = self
            .accounts
            .iter()
            .filter(|(_, account)| account.window.highest() == 0)
            .filter(|(_, account)| account.bills.is_empty() && account.in_band == 0)
            .filter(|(_, account)| !waits(account))
            .map(|(agreement, _)| *agreement)
            .collect();
        for agreement in unused {
            self.remove(agreement, now);
        }
    }

    fn remove(&mut self, agreement: B256, now: u64) {
        let Some(account) = self.accounts.remove(&agreement) else {
            return;
        };
        let (payer, cid) = (account.terms.payer, account.terms.cid);
        let unused = account
            .terms
            .pricing
            .free_bytes()
            .saturating_sub(account.sent);
        let rules = &self.rules.allowance;
        self.gifts.take_back(rules, payer, cid, unused, now);
        let lost = account.exposure();
        if !lost.is_zero() {
            self.credit.defaulted(payer, lost);
            let exposure = self.exposure(payer);
            self.credit.owe(&self.rules.credit, payer, exposure, now);
        }
        if let Some(its) = self.by_wallet.get_mut(&payer) {
            its.remove(&agreement);
            if its.is_empty() {
                self.by_wallet.remove(&payer);
                self.credit.forget_if_empty(payer);
            }
        }
        self.dirty.wallets.insert(payer);
        self.dirty.accounts.remove(&agreement);
        self.dirty.gone.insert(agreement);
        if account.terms.policy.may_use_channel() {
            let about = About {
                cid,
                peer: None,
                protocol: account.protocol,
                time: account.active,
            };
            self.ended.push((agreement, about));
        }
    }

    /// What has to be written now. Followed by [`Books::written`] or [`Books::put_back`]; until
    /// then it counts as dirty.
    pub(super) fn take_dirty(&mut self) -> Dirty {
        self.writing += 1;
        self.dirty.gifts.extend(self.gifts.dirty.drain(..));
        std::mem::take(&mut self.dirty)
    }

    /// It was written.
    pub(super) fn written(&mut self) {
        self.writing = self.writing.saturating_sub(1);
    }

    /// It was not written after all.
    pub(super) fn put_back(&mut self, dirty: Dirty) {
        self.written();
        self.dirty.accounts.extend(dirty.accounts);
        self.dirty.wallets.extend(dirty.wallets);
        self.dirty.gone.extend(dirty.gone);
        self.dirty.gifts.extend(dirty.gifts);
        self.dirty.files.extend(dirty.files);
    }

    /// A file's terms are not on disk as they are.
    pub(super) fn touch_file(&mut self, cid: Cid) {
        self.dirty.files.insert(cid);
    }

    pub(super) fn is_dirty(&self) -> bool {
        let Dirty {
            accounts,
            wallets,
            gone,
            gifts,
            files,
        } = &self.dirty;
        let clean = accounts.is_empty() && wallets.is_empty() && gone.is_empty();
        let clean = clean && files.is_empty();
        self.writing > 0 || !(clean && gifts.is_empty() && self.gifts.dirty.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Concessions, Pricing};
    use chiral_core::Price;

    fn books(agreements: usize) -> Books {
        Books::new(Rules {
            credit: CreditRules::default(),
            allowance: FreeAllowance::default(),
            max_agreements: (agreements, agreements),
            payment_deadline: 3600,
        })
    }

    fn terms(number: u8, policy: Policy) -> Terms {
        Terms {
            accept: bytes::Bytes::new(),
            cid: Cid::from_bytes([7; 32]),
            payer: Address::repeat_byte(number),
            session_key: Address::repeat_byte(number),
            pricing: Pricing::new(
                Price::from_wei_per_mib(U256::from(1)),
                Concessions::default(),
            ),
            policy,
            channel: Default::default(),
            valid_until: 1 << 40,
        }
    }

    #[test]
    fn what_a_step_has_taken_is_not_on_disk_before_it_is_written() {
        let mut books = books(2);
        let made = books.accept(B256::ZERO, terms(1, Policy::PayAfter), 0);
        assert_eq!(made, Ok(()));
        let taken = books.take_dirty();
        assert!(books.is_dirty(), "whoever needs it on disk has to wait");
        books.put_back(taken);
        let taken = books.take_dirty();
        assert!(taken.accounts.contains(&B256::ZERO));
        books.written();
        assert!(!books.is_dirty());
    }

    #[test]
    fn a_flood_of_agreements_puts_out_nobody_who_is_about_to_ask_or_to_pay() {
        let mut books = books(2);
        let agreement = B256::repeat_byte;
        let first = books.accept(agreement(1), terms(1, Policy::PayFirst), 0);
        let second = books.accept(agreement(2), terms(2, Policy::PayAfter), 0);
        assert_eq!((first, second), (Ok(()), Ok(())));
        let mut accept = |number, now| {
            let taken = books.accept(agreement(number), terms(number, Policy::PayAfter), now);
            let known = |number| books.accounts.contains_key(&agreement(number));
            (taken.is_ok(), known(1), known(2))
        };
        assert_eq!(accept(3, FIRST_REQUEST_SECONDS), (false, true, true));
        assert_eq!(accept(3, FIRST_REQUEST_SECONDS + 1), (true, true, false));
        let late = FIRST_PAYMENT_SECONDS + 1;
        assert_eq!(accept(4, late), (true, false, false));
    }
}
