//! [`Pricing`]: what bytes cost under one agreement, as a rising function of how many there are.
//!
//! Integers only: wei times bytes are added up exactly, and a bill is rounded up once.

use alloy_primitives::U256;
use chiral_core::Price;
use chiral_core::money::MIB;

use super::{Malformed, sol};

/// Discounts of one quote, at most.
pub const MAX_DISCOUNTS: usize = 16;

/// From this byte of an agreement on, another price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Discount {
    /// Bytes of the agreement that come before, the free ones included.
    pub from_bytes: u64,
    /// The price from there on.
    pub price: Price,
}

/// What a seeder takes off its price. Only ever to the buyer's advantage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Concessions {
    free_bytes: u64,
    discounts: Vec<Discount>,
}

/// The concessions are none: see [`Concessions::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {MAX_DISCOUNTS} discounts, each later and at a lower price than the one before")]
pub struct NoConcession;

impl Concessions {
    /// The first bytes for nothing, and lower prices from some bytes on: at most
    /// [`MAX_DISCOUNTS`], each beginning later than the one before (the first: not at the
    /// beginning), and cheaper, but not free.
    ///
    /// # Errors
    /// [`NoConcession`].
    pub fn new(free_bytes: u64, discounts: Vec<Discount>) -> Result<Self, NoConcession> {
        let rising = |pair: &[Discount]| {
            pair[0].from_bytes < pair[1].from_bytes && pair[0].price > pair[1].price
        };
        let ordered = discounts.windows(2).all(rising)
            && discounts
                .first()
                .is_none_or(|discount| discount.from_bytes > 0)
            && discounts.last().is_none_or(|last| !last.price.is_free());
        match ordered && discounts.len() <= MAX_DISCOUNTS {
            true => Ok(Self {
                free_bytes,
                discounts,
            }),
            false => Err(NoConcession),
        }
    }

    /// So many bytes at the beginning cost nothing.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// The discounts, rising.
    pub fn discounts(&self) -> &[Discount] {
        &self.discounts
    }

    /// The same, with other bytes for nothing.
    #[must_use]
    pub fn with_free_bytes(mut self, bytes: u64) -> Self {
        self.free_bytes = bytes;
        self
    }

    /// Without the discounts that are none at this price.
    #[must_use]
    pub fn below(mut self, price: Price) -> Self {
        self.discounts.retain(|discount| discount.price < price);
        self
    }

    pub(super) fn to_sol(&self) -> Vec<sol::Discount> {
        let discount = |discount: &Discount| sol::Discount {
            fromBytes: discount.from_bytes,
            pricePerMib: discount.price.wei_per_mib(),
        };
        self.discounts.iter().map(discount).collect()
    }

    pub(super) fn from_sol(free: u64, discounts: Vec<sol::Discount>) -> Result<Self, Malformed> {
        let discount = |discount: sol::Discount| Discount {
            from_bytes: discount.fromBytes,
            price: Price::from_wei_per_mib(discount.pricePerMib),
        };
        let discounts = discounts.into_iter().map(discount).collect();
        Self::new(free, discounts).map_err(|_| Malformed {
            reason: "discounts that are none",
        })
    }
}

/// What bytes cost under one agreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pricing {
    price: Price,
    concessions: Concessions,
}

impl Pricing {
    /// A price with what is taken off it.
    pub fn new(price: Price, concessions: Concessions) -> Self {
        Self { price, concessions }
    }

    /// The price without what is taken off.
    pub fn price(&self) -> Price {
        self.price
    }

    /// So many bytes at the beginning cost nothing.
    pub fn free_bytes(&self) -> u64 {
        self.concessions.free_bytes
    }

    /// What `bytes` cost that come after `position` others, in wei, rounded up; `None` if that
    /// is beyond all money.
    pub fn cost(&self, position: u64, bytes: u64) -> Option<U256> {
        let end = position.saturating_add(bytes);
        let exact = self
            .exact(end)?
            .checked_sub(self.exact(position.min(end))?)?;
        let mib = U256::from(MIB);
        let whole = exact / mib;
        match (exact % mib).is_zero() {
            true => Some(whole),
            false => whole.checked_add(U256::from(1)),
        }
    }

    /// The least that a bill for `bytes` can cost, wherever they come.
    pub fn least(&self, bytes: u64) -> Option<U256> {
        let discounts = self.concessions.discounts.iter();
        let cheapest = discounts.map(|discount| discount.price).min();
        let price = cheapest.map_or(self.price, |cheapest| cheapest.min(self.price));
        price.cost(bytes.saturating_sub(self.concessions.free_bytes))
    }

    /// How many bytes from the beginning so many wei pay for, the free ones included.
    pub fn covered(&self, wei: U256) -> u64 {
        let mut left = wei.saturating_mul(U256::from(MIB));
        for (start, end, price) in self.bands() {
            let (length, each) = (U256::from(end - start), price.wei_per_mib());
            if each.is_zero() {
                continue;
            }
            let bought = left / each;
            if bought < length {
                // Fewer than the band has, and so a u64.
                return start.saturating_add(bought.saturating_to());
            }
            left = left.saturating_sub(each.saturating_mul(length));
        }
        u64::MAX
    }

    /// Wei times bytes of a MiB for everything before `position`.
    fn exact(&self, position: u64) -> Option<U256> {
        let mut sum = U256::ZERO;
        for (start, end, price) in self.bands() {
            let bytes = position.min(end).saturating_sub(start);
            let part = price.wei_per_mib().checked_mul(U256::from(bytes))?;
            sum = sum.checked_add(part)?;
        }
        Some(sum)
    }

    /// Runs of bytes that have one price, in order, without gaps.
    fn bands(&self) -> impl Iterator<Item = (u64, u64, Price)> + '_ {
        let free = self.concessions.free_bytes;
        let discounts = self.concessions.discounts.iter();
        let priced = std::iter::once((0, self.price))
            .chain(discounts.map(|discount| (discount.from_bytes, discount.price)));
        let ends = self
            .concessions
            .discounts
            .iter()
            .map(|discount| discount.from_bytes)
            .chain([u64::MAX]);
        let bands = priced.zip(ends).map(move |((start, price), end)| {
            let start = start.max(free).min(end.max(free));
            (start, end.max(free), price)
        });
        std::iter::once((0, free, Price::FREE)).chain(bands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(wei: u64) -> Price {
        Price::from_wei_per_mib(U256::from(wei))
    }

    fn tiered(free: u64, tiers: &[(u64, u64)]) -> Pricing {
        let discount = |&(from_bytes, wei): &(u64, u64)| Discount {
            from_bytes,
            price: price(wei),
        };
        let tiers = tiers.iter().map(discount).collect();
        Pricing::new(price(1000), Concessions::new(free, tiers).unwrap())
    }

    #[test]
    fn a_flat_rate_is_its_price() {
        let pricing = Pricing::new(price(3), Concessions::default());
        for bytes in [0, 1, MIB, 5 * MIB + 1, u64::MAX] {
            assert_eq!(
                pricing.cost(7, bytes.min(u64::MAX - 7)),
                price(3).cost(bytes.min(u64::MAX - 7))
            );
            assert_eq!(pricing.least(bytes), price(3).cost(bytes));
        }
    }

    #[test]
    fn free_bytes_and_discounts_to_the_wei() {
        let pricing = tiered(MIB, &[(4 * MIB, 500), (8 * MIB, 100)]);
        let cost = |from: u64, to: u64| pricing.cost(from * MIB, (to - from) * MIB).unwrap();
        assert_eq!(cost(0, 1), U256::ZERO);
        assert_eq!(cost(0, 4), U256::from(3000));
        assert_eq!(cost(3, 5), U256::from(1500));
        assert_eq!(cost(0, 10), U256::from(3000 + 2000 + 200));
        assert_eq!(pricing.covered(U256::from(3000)), 4 * MIB);
        assert_eq!(pricing.covered(U256::from(3500)), 5 * MIB);
        assert_eq!(pricing.covered(U256::ZERO), MIB);
        // One byte of a MiB at 100 wei: rounded up once.
        assert_eq!(pricing.cost(9 * MIB, 1), Some(U256::from(1)));
        assert_eq!(pricing.least(3 * MIB), Some(U256::from(200)));
        // Free beyond where discounts begin.
        let pricing = tiered(6 * MIB, &[(4 * MIB, 500), (8 * MIB, 100)]);
        assert_eq!(pricing.cost(0, 9 * MIB), Some(U256::from(1100)));
    }

    #[test]
    fn what_raises_the_price_is_no_concession() {
        let discount = |from_bytes, wei| Discount {
            from_bytes,
            price: price(wei),
        };
        for bad in [
            vec![discount(0, 5)],
            vec![discount(5, 5), discount(5, 4)],
            vec![discount(5, 5), discount(6, 5)],
            vec![discount(5, 5), discount(4, 4)],
            vec![discount(5, 0)],
            (1..=17).map(|i| discount(i, 100 - i)).collect(),
        ] {
            assert_eq!(Concessions::new(0, bad), Err(NoConcession));
        }
    }

    proptest! {
        /// However a delivery is cut into bills, each costs at most a wei more than its part,
        /// and what was paid covers exactly what it was for, or the bytes of that one wei.
        #[test]
        fn bills_add_up(
            free in 0u64..1 << 22,
            tiers in proptest::collection::btree_set(1u64..1 << 24, 0..4),
            parts in proptest::collection::vec(0u64..1 << 23, 1..8),
        ) {
            let tiers: Vec<_> = tiers.into_iter().zip([900_000_000, 500_000_000, 20_000_000, 7_000_000]).collect();
            let pricing = Pricing::new(price(1_000_000_000), tiered(free, &[]).concessions);
            let pricing = match tiers.is_empty() {
                true => pricing,
                false => Pricing::new(price(1_000_000_000), Concessions::new(free, tiers.iter().map(|&(from_bytes, wei)| Discount { from_bytes, price: price(wei) }).collect()).unwrap()),
            };
            let (mut position, mut paid) = (0, U256::ZERO);
            for part in &parts {
                paid += pricing.cost(position, *part).unwrap();
                position += part;
                prop_assert!(pricing.covered(paid) >= position.max(free) || pricing.cost(0, position) == Some(U256::ZERO));
            }
            let whole = pricing.cost(0, position).unwrap();
            prop_assert!(whole <= paid && paid <= whole + U256::from(parts.len()));
            if !paid.is_zero() {
                // A wei less is not enough, but for what the bills were rounded up by.
                let short = whole - U256::from(1);
                prop_assert!(pricing.covered(short) < position);
            }
        }
    }
}
