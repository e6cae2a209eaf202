//! What wallets owe, how much more each may, and what all strangers together may.

use std::collections::HashMap;

use alloy_primitives::{Address, U256};

use super::config::CreditRules;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// Wallets that never paid anything of which something is remembered, at most. They are free to
/// make; what one more would draw is refused until the next day.
const MAX_STRANGERS: usize = 65_536;

/// One wallet's standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Verified payments, in wei.
    pub(super) paid: U256,
    /// Debts that were given up, in wei.
    pub(super) defaulted: U256,
    /// What it owes now beyond what it ever paid.
    pub(super) unbacked: U256,
    /// How much of that was lent on `day`.
    pub(super) drawn: U256,
    pub(super) day: u64,
}

/// All wallets.
#[derive(Debug, Default)]
pub(super) struct Credit {
    wallets: HashMap<Address, Standing>,
    /// How many of them never paid anything.
    strangers: usize,
    day: u64,
    drawn: U256,
}

impl Credit {
    /// Takes up a standing from disk.
    pub(super) fn restore(&mut self, wallet: Address, standing: Standing, now: u64) {
        self.turn(now);
        if standing.day == self.day {
            self.drawn = self.drawn.saturating_add(standing.drawn);
        }
        self.put(wallet, standing);
    }

    fn put(&mut self, wallet: Address, standing: Standing) {
        let before = self.wallets.insert(wallet, standing);
        self.strangers -= usize::from(before.is_some_and(|before| before.paid.is_zero()));
        self.strangers += usize::from(standing.paid.is_zero());
    }

    pub(super) fn standing(&self, wallet: Address) -> Standing {
        self.wallets.get(&wallet).copied().unwrap_or_default()
    }

    /// Wei that all wallets without history drew today.
    pub(super) fn drawn_today(&mut self, now: u64) -> U256 {
        self.turn(now);
        self.drawn
    }

    /// How much a wallet may owe; `least` is the cost of the fewest bytes a line is for.
    pub(super) fn line(&self, rules: &CreditRules, wallet: Address, least: U256) -> U256 {
        let standing = self.standing(wallet);
        let earned = rules.initial.max(least).saturating_add(standing.paid);
        earned
            .min(rules.most.max(least))
            .saturating_sub(standing.defaulted)
    }

    /// Notes that a wallet now owes `exposure`. False, and nothing noted, if that draws more
    /// from the strangers' budget than is left.
    pub(super) fn owe(
        &mut self,
        rules: &CreditRules,
        wallet: Address,
        exposure: U256,
        now: u64,
    ) -> bool {
        self.turn(now);
        let mut standing = self.standing(wallet);
        if standing.day != self.day {
            (standing.day, standing.drawn) = (self.day, U256::ZERO);
        }
        let unbacked = exposure.saturating_sub(standing.paid);
        if unbacked > standing.unbacked {
            let more = unbacked - standing.unbacked;
            let drawn = self.drawn.saturating_add(more);
            let is_new = !self.wallets.contains_key(&wallet);
            if drawn > rules.strangers || (is_new && self.strangers >= MAX_STRANGERS) {
                return false;
            }
            self.drawn = drawn;
            standing.drawn = standing.drawn.saturating_add(more);
        } else {
            // Given back, as far as it was lent today.
            let less = (standing.unbacked - unbacked).min(standing.drawn);
            standing.drawn -= less;
            self.drawn = self.drawn.saturating_sub(less);
        }
        standing.unbacked = unbacked;
        self.put(wallet, standing);
        true
    }

    /// A payment was verified.
    pub(super) fn paid(&mut self, wallet: Address, amount: U256) {
        let mut standing = self.standing(wallet);
        standing.paid = standing.paid.saturating_add(amount);
        self.put(wallet, standing);
    }

    /// A debt is given up.
    pub(super) fn defaulted(&mut self, wallet: Address, amount: U256) {
        let mut standing = self.standing(wallet);
        standing.defaulted = standing.defaulted.saturating_add(amount);
        self.put(wallet, standing);
    }

    /// A wallet of which nothing needs to be remembered is forgotten.
    pub(super) fn forget_if_empty(&mut self, wallet: Address) -> bool {
        let standing = self.standing(wallet);
        let empty = standing.paid.is_zero()
            && standing.defaulted.is_zero()
            && standing.unbacked.is_zero()
            && standing.drawn.is_zero();
        let gone = empty && self.wallets.remove(&wallet).is_some();
        self.strangers -= usize::from(gone);
        gone
    }

    /// Forgets strangers that owe nothing and drew nothing today, once there are many: that they
    /// never paid their debts says no more than that they could be anybody. Answers whom.
    pub(super) fn purge(&mut self, now: u64) -> Vec<Address> {
        self.turn(now);
        if self.strangers <= MAX_STRANGERS / 2 {
            return Vec::new();
        }
        let today = self.day;
        let idle = |standing: &Standing| {
            let drew = standing.day == today && !standing.drawn.is_zero();
            standing.paid.is_zero() && standing.unbacked.is_zero() && !drew
        };
        let wallets = self.wallets.iter();
        let gone: Vec<_> = wallets
            .filter(|(_, standing)| idle(standing))
            .map(|(wallet, _)| *wallet)
            .collect();
        for wallet in &gone {
            self.wallets.remove(wallet);
        }
        self.strangers -= gone.len();
        gone
    }

    fn turn(&mut self, now: u64) {
        let today = now / DAY;
        if today != self.day {
            (self.day, self.drawn) = (today, U256::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> CreditRules {
        CreditRules {
            initial: U256::from(100),
            least_bytes: 0,
            most: U256::from(1000),
            strangers: U256::from(250),
            unacknowledged: 0,
            waste_permille: 0,
        }
    }

    fn wallet(i: u64) -> Address {
        Address::left_padding_from(&(i + 1).to_be_bytes())
    }

    #[test]
    fn lines_grow_with_payments_and_shrink_with_debts_given_up() {
        let mut credit = Credit::default();
        let line = |credit: &Credit| credit.line(&rules(), wallet(0), U256::from(5));
        assert_eq!(line(&credit), U256::from(100));
        credit.paid(wallet(0), U256::from(300));
        assert_eq!(line(&credit), U256::from(400));
        credit.paid(wallet(0), U256::MAX);
        assert_eq!(line(&credit), U256::from(1000));
        credit.defaulted(wallet(0), U256::from(999));
        assert_eq!(line(&credit), U256::from(1));
        let dear = credit.line(&rules(), wallet(1), U256::from(5000));
        assert_eq!(dear, U256::from(5000), "one request fits at any price");
    }

    #[test]
    fn what_is_paid_back_can_be_lent_again_today() {
        let mut credit = Credit::default();
        assert!(credit.owe(&rules(), wallet(0), U256::from(250), 0));
        assert!(!credit.owe(&rules(), wallet(1), U256::from(1), 0));
        assert!(credit.owe(&rules(), wallet(0), U256::ZERO, 0));
        assert!(credit.owe(&rules(), wallet(1), U256::from(250), 0));
        assert!(!credit.owe(&rules(), wallet(2), U256::from(1), DAY - 1));
        assert!(credit.owe(&rules(), wallet(2), U256::from(250), DAY));
        // Paid back today, but lent yesterday: today's budget is no larger for it.
        assert!(credit.owe(&rules(), wallet(1), U256::ZERO, DAY));
        assert!(!credit.owe(&rules(), wallet(3), U256::from(1), DAY));
    }

    #[test]
    fn strangers_that_default_are_remembered_up_to_a_limit() {
        let mut credit = Credit::default();
        let rules = CreditRules {
            strangers: U256::MAX,
            ..rules()
        };
        let (one, many) = (U256::from(1), MAX_STRANGERS as u64);
        credit.paid(wallet(many), one);
        for i in 0..many {
            assert!(credit.owe(&rules, wallet(i), one, 0));
        }
        assert!(!credit.owe(&rules, wallet(many + 1), one, 0));
        assert!(
            credit.owe(&rules, wallet(many), U256::from(5), 0),
            "it paid"
        );
        assert!(
            credit.owe(&rules, wallet(7), U256::from(2), 0),
            "it is known"
        );
        assert!(credit.purge(0).is_empty(), "they owe");
        for i in 0..many {
            credit.defaulted(wallet(i), one);
            assert!(credit.owe(&rules, wallet(i), U256::ZERO, DAY));
        }
        assert_eq!(credit.purge(DAY).len(), MAX_STRANGERS);
        assert_eq!((credit.wallets.len(), credit.strangers), (1, 0));
        assert!(credit.owe(&rules, wallet(0), one, DAY));
        assert!(credit.purge(DAY).is_empty(), "few need not be forgotten");
    }

    proptest! {
        /// Whatever wallets do, with and without paying, on one day they owe together at
        /// most the budget and what they have paid.
        #[test]
        fn the_budget_bounds_the_loss(
            steps in proptest::collection::vec((0u64..20, 0u64..400, 0u64..50), 0..200)
        ) {
            let mut credit = Credit::default();
            let mut owed = HashMap::new();
            let mut paid = U256::ZERO;
            for (who, exposure, pays) in steps {
                let (who, exposure) = (wallet(who), U256::from(exposure));
                credit.paid(who, U256::from(pays));
                paid += U256::from(pays);
                if credit.owe(&rules(), who, exposure, 5) {
                    owed.insert(who, exposure);
                }
                let all: U256 = owed.values().sum();
                prop_assert!(all <= paid + rules().strangers);
            }
        }
    }
}
