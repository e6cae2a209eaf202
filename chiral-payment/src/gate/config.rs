//! [`GateConfig`]: what a seeder asks for, and how much it risks.

use std::time::Duration;

use alloy_primitives::U256;
use chiral_core::Price;

use super::allowance::FreeAllowance;
use crate::channel::ChannelTerms;
use crate::clock::Clock;
use crate::messages::{Concessions, Policy};

/// What a seeder asks for, and how much it risks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GateConfig {
    /// Price of files for which none was set.
    pub price: Price,
    /// The lowest price that a buyer who asks for another than the announced one gets, for
    /// files for which none was set. Without one there is no bargaining.
    pub floor: Option<Price>,
    /// Lower prices from some bytes of a file on. What one wallet has for nothing is in
    /// [`GateConfig::allowance`], not here.
    pub discounts: Concessions,
    /// What is given away of files that have a price.
    pub allowance: FreeAllowance,
    /// When is paid.
    pub policy: Policy,
    /// How much is lent under [`Policy::PayAfter`].
    pub credit: CreditRules,
    /// How long a quote holds. Longer than announcements live, or no buyer accepts it.
    pub quote_lifetime: Duration,
    /// Fewest bytes that are paid for at once under [`Policy::PayFirst`].
    pub prepay_bytes: u64,
    /// Windows, batches and channels under the policies that have them. The contract is filled
    /// in at the start.
    pub channel: ChannelTerms,
    /// Blocks, the payment's own included, that make it firm. What they are worth depends on
    /// the chain: on a small one, a few blocks are cheap to undo.
    pub confirmations: u32,
    /// How long acknowledged bytes may stay unpaid before their buyer gets no more credit.
    pub payment_deadline: Duration,
    /// How often counts of what was served become durable. A kill loses at most this much of
    /// them, in the buyer's favour.
    pub flush_interval: Duration,
    /// Agreements in all, and per wallet, that are not yet settled or expired.
    pub max_agreements: (usize, usize),
    /// What time it is.
    pub clock: Clock,
}

/// How much is lent, and to whom.
///
/// A wallet's line is `initial` plus what it has paid so far, at most `most`; nothing while
/// it is overdue. What it owes beyond what it has paid so far draws on `strangers`, which
/// all wallets share: wallets are free to make, so this, and not the line, is what a day can
/// cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditRules {
    /// Line of a wallet that has never paid, in wei.
    pub initial: U256,
    /// The line is never shorter than the cost of this many bytes, so that one request fits
    /// whatever the price.
    pub least_bytes: u64,
    /// Longest line, in wei.
    pub most: U256,
    /// What wallets without history may owe together for what was served within one day
    /// (UTC), in wei.
    pub strangers: U256,
    /// Bytes served and not acknowledged, beyond which nothing more is served.
    pub unacknowledged: u64,
    /// Of what was served under an agreement, the part that is written off when the rest is
    /// paid (broken transfers, duplicates at the end), in 1/1000.
    pub waste_permille: u16,
}

impl Default for CreditRules {
    /// 0.05 CHI, but at least 32 MiB; at most 10 CHI; strangers 1 CHI a day; 64 MiB
    /// unacknowledged; 50 ‰ waste.
    fn default() -> Self {
        let chi = U256::from(chiral_core::money::WEI_PER_CHI);
        Self {
            initial: chi / U256::from(20),
            least_bytes: 32 << 20,
            most: chi * U256::from(10),
            strangers: chi,
            unacknowledged: 64 << 20,
            waste_permille: 50,
        }
    }
}

impl Default for GateConfig {
    /// Free, pay after, quotes of two hours, one confirmation, an hour to pay.
    fn default() -> Self {
        Self {
            price: Price::FREE,
            floor: None,
            discounts: Concessions::default(),
            allowance: FreeAllowance::default(),
            policy: Policy::PayAfter,
            credit: CreditRules::default(),
            quote_lifetime: Duration::from_secs(2 * 3600),
            prepay_bytes: 4 << 20,
            channel: ChannelTerms::default(),
            confirmations: 1,
            payment_deadline: Duration::from_secs(3600),
            flush_interval: Duration::from_secs(1),
            max_agreements: (65_536, 64),
            clock: Clock::system(),
        }
    }
}
