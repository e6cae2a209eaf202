//! [`Gifts`]: what wallets may have for nothing, and have had.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, keccak256};
use chiral_core::Cid;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// Wallets (or wallets with a file) of which it is remembered what they were given, at most.
/// Beyond, those that were given nothing today are forgotten; what they may have again is
/// within the budget of the day.
const MAX_GIFTS: usize = 65_536;

/// What a seeder gives away of files that have a price.
///
/// Wallets are free to make, so `per_day`, and not the share of one, is what a day costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeAllowance {
    /// To whom.
    pub share: FreeShare,
    /// Bytes that are given away to all wallets together within one day (UTC).
    pub per_day: u64,
}

/// How much one wallet may have for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeShare {
    /// Nothing.
    #[default]
    None,
    /// So many bytes in all.
    PerWallet(u64),
    /// So many bytes of each file.
    PerFile(u64),
}

impl Default for FreeAllowance {
    /// Nothing to anybody; once there is a share, 1 GiB a day.
    fn default() -> Self {
        Self {
            share: FreeShare::None,
            per_day: 1 << 30,
        }
    }
}

impl FreeAllowance {
    fn limit(&self) -> u64 {
        match self.share {
            FreeShare::None => 0,
            FreeShare::PerWallet(bytes) | FreeShare::PerFile(bytes) => bytes,
        }
    }

    /// Under what it is remembered.
    fn key(&self, wallet: Address, cid: Cid) -> B256 {
        match self.share {
            FreeShare::PerFile(_) => keccak256([wallet.as_slice(), cid.as_bytes()].concat()),
            _ => wallet.into_word(),
        }
    }
}

/// What was given under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gift {
    /// Bytes ever.
    pub(super) given: u64,
    /// Of which on `day`.
    pub(super) today: u64,
    pub(super) day: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Gifts {
    all: HashMap<B256, Gift>,
    day: u64,
    today: u64,
    /// What is not on disk as it is here.
    pub(super) dirty: Vec<B256>,
}

impl Gifts {
    /// Takes up a gift from disk.
    pub(super) fn restore(&mut self, key: B256, gift: Gift, now: u64) {
        self.turn(now);
        if gift.day == self.day {
            self.today = self.today.saturating_add(gift.today);
        }
        self.all.insert(key, gift);
    }

    pub(super) fn get(&self, key: B256) -> Option<Gift> {
        self.all.get(&key).copied()
    }

    /// How much a wallet may have of a file for nothing now.
    pub(super) fn left(
        &mut self,
        rules: &FreeAllowance,
        wallet: Address,
        cid: Cid,
        now: u64,
    ) -> u64 {
        self.turn(now);
        let given = self.all.get(&rules.key(wallet, cid));
        let given = given.map_or(0, |gift| gift.given);
        let today = rules.per_day.saturating_sub(self.today);
        rules.limit().saturating_sub(given).min(today)
    }

    /// Sets a gift aside. False, and nothing is noted, if there is not that much left.
    pub(super) fn give(
        &mut self,
        rules: &FreeAllowance,
        wallet: Address,
        cid: Cid,
        bytes: u64,
        now: u64,
    ) -> bool {
        if bytes == 0 {
            return true;
        }
        if bytes > self.left(rules, wallet, cid, now) {
            return false;
        }
        let key = rules.key(wallet, cid);
        if self.all.len() >= MAX_GIFTS && !self.all.contains_key(&key) {
            let day = self.day;
            let gone = self.all.extract_if(|_, gift| gift.day != day);
            self.dirty.extend(gone.map(|(key, _)| key));
            if self.all.len() >= MAX_GIFTS {
                return false;
            }
        }
        let gift = self.all.entry(key).or_default();
        if gift.day != self.day {
            (gift.day, gift.today) = (self.day, 0);
        }
        gift.given = gift.given.saturating_add(bytes);
        gift.today = gift.today.saturating_add(bytes);
        self.today = self.today.saturating_add(bytes);
        self.dirty.push(key);
        true
    }

    /// Part of a gift was not taken.
    pub(super) fn take_back(
        &mut self,
        rules: &FreeAllowance,
        wallet: Address,
        cid: Cid,
        bytes: u64,
        now: u64,
    ) {
        self.turn(now);
        let key = rules.key(wallet, cid);
        let Some(gift) = self.all.get_mut(&key).filter(|_| bytes > 0) else {
            return;
        };
        gift.given = gift.given.saturating_sub(bytes);
        if gift.day == self.day {
            let less = bytes.min(gift.today);
            gift.today -= less;
            self.today = self.today.saturating_sub(less);
        }
        self.dirty.push(key);
    }

    fn turn(&mut self, now: u64) {
        let today = now / DAY;
        if today != self.day {
            (self.day, self.today) = (today, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(share: FreeShare) -> FreeAllowance {
        FreeAllowance {
            share,
            per_day: 250,
        }
    }

    #[test]
    fn a_share_is_given_once_and_all_of_them_within_the_day() {
        let (mut gifts, rules) = (Gifts::default(), rules(FreeShare::PerWallet(100)));
        let wallet = Address::repeat_byte;
        let file = |n| Cid::from_bytes([n; 32]);
        assert!(gifts.give(&rules, wallet(1), file(1), 60, 0));
        assert_eq!(gifts.left(&rules, wallet(1), file(2), 0), 40);
        assert!(!gifts.give(&rules, wallet(1), file(2), 41, 0));
        assert!(gifts.give(&rules, wallet(2), file(1), 100, 0));
        // 90 of the day's 250 are left.
        assert_eq!(gifts.left(&rules, wallet(3), file(1), 0), 90);
        gifts.take_back(&rules, wallet(2), file(1), 30, 0);
        assert_eq!(gifts.left(&rules, wallet(3), file(1), 0), 100);
        assert_eq!(gifts.left(&rules, wallet(2), file(1), 0), 30);
        assert_eq!(gifts.left(&rules, wallet(1), file(1), DAY), 40);
    }

    #[test]
    fn a_share_of_each_file_is_of_each_file() {
        let (mut gifts, rules) = (Gifts::default(), rules(FreeShare::PerFile(100)));
        let wallet = Address::repeat_byte(1);
        let file = |n| Cid::from_bytes([n; 32]);
        assert!(gifts.give(&rules, wallet, file(1), 100, 0));
        assert_eq!(gifts.left(&rules, wallet, file(1), 0), 0);
        assert_eq!(gifts.left(&rules, wallet, file(2), 0), 100);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut gifts = Gifts::default();
        let rules = FreeAllowance {
            share: FreeShare::PerWallet(1),
            per_day: u64::MAX,
        };
        let wallet = |i: u64| Address::left_padding_from(&i.to_be_bytes());
        let cid = Cid::from_bytes([1; 32]);
        for i in 0..MAX_GIFTS as u64 {
            assert!(gifts.give(&rules, wallet(i), cid, 1, 0));
        }
        assert!(!gifts.give(&rules, wallet(1 << 40), cid, 1, 0));
        assert!(gifts.give(&rules, wallet(1 << 40), cid, 1, DAY));
        assert_eq!(gifts.all.len(), 1);
    }
}
