//! [`PayeeChannel`]: what the payee holds. No clock, no key, no disk: whoever holds it writes
//! it down before anything is served for what it took.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};

use super::payer::MAX_SHARES;
use super::voucher::{LockedVoucher, Proven, Share, Voucher};
use crate::contracts::ChannelState;

/// Why a payment was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakeFault {
    /// The channel is over, or about to be.
    #[error("the channel is about to end")]
    NotOpen,
    /// Of another channel, or for something else than it is said to be.
    #[error("the voucher is for something else")]
    Other,
    /// More than the channel has.
    #[error("the voucher is over the deposit")]
    OverDeposit,
    /// Less than what it is said to pay, beside what was paid before.
    #[error("the voucher does not cover what it is for")]
    Uncovered,
    /// Another lock is open, or its payment has not come.
    #[error("the lock before is not paid")]
    Locked,
    /// The lock ends too soon to be claimed on the chain.
    #[error("the lock expires too soon")]
    Expiry,
    /// Too many agreements.
    #[error("the channel has too many agreements")]
    Full,
}

/// A locked voucher, and the key that makes it good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// What the payer signed.
    pub voucher: Proven<LockedVoucher>,
    /// What it brings its agreement to.
    pub share: Share,
    /// The key, which the payer has been or may be told.
    pub key: B256,
}

/// What to do on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Claim this voucher, and end the channel if so.
    Voucher(Proven<Voucher>, bool),
    /// Claim this lock with its key.
    Lock(HeldLock),
}

/// When is claimed without need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// So many wei are claimed at any time.
    pub at_least: u128,
    /// A lock whose payment does not come is claimed so many seconds before it expires.
    pub lock_margin: u64,
}

/// A channel as its payee keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayeeChannel {
    pub(super) id: B256,
    pub(super) payer: Address,
    pub(super) challenge: u32,
    /// As far as the chain shows it deep enough.
    pub(super) deposit: u128,
    pub(super) claimed: u128,
    pub(super) best: Option<Proven<Voucher>>,
    pub(super) shares: BTreeMap<B256, Share>,
    /// What was paid under agreements that are over.
    pub(super) folded: u128,
    pub(super) lock: Option<HeldLock>,
    /// What the payee agreed to end with.
    pub(super) leaving: Option<u128>,
    pub(super) closing: bool,
    pub(super) over: bool,
    /// Claims that were asked for, so that each has a number of its own.
    pub(super) calls: u32,
}

impl PayeeChannel {
    /// One that the chain shows.
    pub fn new(id: B256, state: &ChannelState) -> Self {
        Self {
            id,
            payer: state.payer,
            challenge: state.challenge,
            deposit: state.deposit,
            claimed: state.claimed,
            best: None,
            shares: BTreeMap::new(),
            folded: 0,
            lock: None,
            leaving: None,
            closing: state.closes_at != 0,
            over: state.is_over(),
            calls: 0,
        }
    }

    /// Its id.
    pub fn id(&self) -> B256 {
        self.id
    }

    /// Who pays.
    pub fn payer(&self) -> Address {
        self.payer
    }

    /// Wei deposited.
    pub fn deposit(&self) -> u128 {
        self.deposit
    }

    /// Wei that were paid in all, as vouchers say, or as the chain shows of a claimed lock.
    pub fn paid(&self) -> u128 {
        let said = self.best.map_or(0, |best| best.body().cumulative);
        said.max(self.claimed)
    }

    /// Wei that the chain shows as claimed.
    pub fn claimed(&self) -> u128 {
        self.claimed
    }

    /// What pays for which agreement; of those that are not over.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.values()
    }

    /// With what this side agreed to end it, if it did.
    pub fn left_with(&self) -> Option<u128> {
        self.leaving
    }

    /// Wei that could be claimed now, with the lock if its key is out.
    pub fn claimable(&self) -> u128 {
        let locked = self.lock.map_or(0, |lock| lock.voucher.body().cumulative);
        let most = self.paid().max(locked).min(self.deposit);
        most.saturating_sub(self.claimed)
    }

    /// The lock whose payment has not come.
    pub fn lock(&self) -> Option<&HeldLock> {
        self.lock.as_ref()
    }

    /// Whether it can be paid from.
    pub fn is_open(&self) -> bool {
        !self.closing && !self.over && self.leaving.is_none()
    }

    /// Whether the chain shows that it is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What is paid under an agreement.
    pub fn share(&self, agreement: B256) -> Share {
        let known = self.shares.get(&agreement).copied();
        known.unwrap_or(Share {
            agreement,
            bytes: 0,
            amount: 0,
        })
    }

    /// What all agreements cost, the open lock's part included.
    fn sum(&self) -> u128 {
        let shares = self.shares.values().map(|share| share.amount);
        let locked = self.lock.map_or(0, |lock| {
            let before = self.share(lock.share.agreement).amount;
            lock.share.amount.saturating_sub(before)
        });
        shares.fold(self.folded.saturating_add(locked), u128::saturating_add)
    }

    fn has_room(&self, agreement: B256) -> bool {
        self.shares.len() < MAX_SHARES || self.shares.contains_key(&agreement)
    }

    /// Takes a payment that brings an agreement to `share`. Vouchers may come in any order, and
    /// again: the highest counts. True if anything is new.
    ///
    /// # Errors
    /// [`TakeFault`]; then nothing is taken.
    pub fn take(&mut self, share: Share, voucher: Proven<Voucher>) -> Result<bool, TakeFault> {
        let said = voucher.body();
        if said.channel != self.id || said.context != share.context() {
            return Err(TakeFault::Other);
        }
        if !self.is_open() {
            return Err(TakeFault::NotOpen);
        }
        if said.cumulative > self.deposit {
            return Err(TakeFault::OverDeposit);
        }
        let before = self.share(share.agreement);
        let higher = said.cumulative > self.paid();
        if share.bytes <= before.bytes {
            if higher {
                self.best = Some(voucher);
            }
            return Ok(higher);
        }
        if !self.has_room(share.agreement) {
            return Err(TakeFault::Full);
        }
        let redeems = self.lock.is_some_and(|lock| {
            lock.share.agreement == share.agreement
                && share.bytes >= lock.share.bytes
                && said.cumulative >= lock.voucher.body().cumulative
        });
        let lock = if redeems { self.lock.take() } else { None };
        let others = self.sum().saturating_sub(before.amount);
        let covered = others.saturating_add(share.amount) <= self.paid().max(said.cumulative);
        if !covered || share.amount < before.amount {
            self.lock = lock.or(self.lock);
            return Err(TakeFault::Uncovered);
        }
        if higher {
            self.best = Some(voucher);
        }
        self.shares.insert(share.agreement, share);
        Ok(true)
    }

    /// Takes a locked payment, after which `key` may be told. The same again is taken again.
    ///
    /// # Errors
    /// [`TakeFault`]; then the key must not be told.
    pub fn take_lock(
        &mut self,
        share: Share,
        voucher: Proven<LockedVoucher>,
        key: B256,
        earliest: u64,
    ) -> Result<bool, TakeFault> {
        let said = voucher.body();
        if said.channel != self.id
            || said.context != share.context()
            || said.key_hash != super::cipher::key_hash(&key)
        {
            return Err(TakeFault::Other);
        }
        if !self.is_open() {
            return Err(TakeFault::NotOpen);
        }
        if let Some(lock) = &self.lock {
            let same = lock.share == share && lock.voucher.body() == said;
            return match same {
                true => Ok(false),
                false => Err(TakeFault::Locked),
            };
        }
        let before = self.share(share.agreement);
        if said.cumulative > self.deposit {
            return Err(TakeFault::OverDeposit);
        }
        if said.expiry < earliest {
            return Err(TakeFault::Expiry);
        }
        if !self.has_room(share.agreement) {
            return Err(TakeFault::Full);
        }
        let price = share.amount.checked_sub(before.amount);
        let price = price.filter(|_| share.bytes > before.bytes);
        let needed = price.and_then(|price| self.sum().max(self.paid()).checked_add(price));
        if needed.is_none_or(|needed| needed > said.cumulative) {
            return Err(TakeFault::Uncovered);
        }
        self.lock = Some(HeldLock {
            voucher,
            share,
            key,
        });
        Ok(true)
    }

    /// An agreement is over: what was paid under it is not looked at again. Answers that.
    pub fn fold(&mut self, agreement: B256) -> Option<Share> {
        let locked = self.lock.map(|lock| lock.share.agreement);
        if locked == Some(agreement) {
            return None;
        }
        let share = self.shares.remove(&agreement)?;
        self.folded = self.folded.saturating_add(share.amount);
        Some(share)
    }

    /// Agrees to end it with what was paid so far: nothing more is taken. `None` while a lock
    /// is open, of which nobody knows yet who is right.
    pub fn leave(&mut self) -> Option<u128> {
        if self.lock.is_some() || self.over {
            return None;
        }
        let paid = self.paid().max(self.claimed);
        Some(*self.leaving.get_or_insert(paid))
    }

    /// What the chain shows, deep enough; a deposit only grows.
    pub fn seen(&mut self, state: &ChannelState) -> bool {
        let before = (self.deposit, self.claimed, self.closing, self.over);
        if state.is_over() {
            self.over = true;
            self.lock = None;
        } else {
            self.deposit = self.deposit.max(state.deposit);
            self.claimed = self.claimed.max(state.claimed);
            self.closing = state.closes_at != 0;
            // A claimed lock is a payment.
            let claimed = |lock: &HeldLock| self.claimed >= lock.voucher.body().cumulative;
            if let Some(lock) = self.lock.filter(claimed) {
                self.shares.insert(lock.share.agreement, lock.share);
                self.lock = None;
            }
        }
        before != (self.deposit, self.claimed, self.closing, self.over)
    }

    /// What has to be claimed, as the chain stands at this time of its own.
    pub fn due(&self, state: &ChannelState, time: u64, rules: &ClaimRules) -> Option<Claim> {
        if self.over || state.is_over() {
            return None;
        }
        let more = |cumulative: u128| cumulative.min(state.deposit) > state.claimed;
        if let Some(lock) = self.lock {
            let said = lock.voucher.body();
            let late = time.saturating_add(rules.lock_margin) >= said.expiry;
            let good = time < said.expiry && more(said.cumulative);
            if good && (late || state.is_closing()) {
                return Some(Claim::Lock(lock));
            }
        }
        let best = self.best.filter(|best| more(best.body().cumulative))?;
        let open = best.body().cumulative.min(state.deposit) - state.claimed;
        // While a lock is good the channel is not ended from here.
        let locked = self
            .lock
            .is_some_and(|lock| time < lock.voucher.body().expiry);
        match state.is_closing() {
            true => Some(Claim::Voucher(best, !locked)),
            false if open >= rules.at_least => Some(Claim::Voucher(best, false)),
            false => None,
        }
    }

    /// The lock can no longer be claimed: the chain's time is past it. True if there was one.
    pub fn expire(&mut self, time: u64) -> bool {
        let late = |lock: &HeldLock| time >= lock.voucher.body().expiry;
        let gone = self.lock.as_ref().is_some_and(late);
        if gone {
            self.lock = None;
        }
        gone
    }
}
