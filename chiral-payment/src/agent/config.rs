//! [`AgentConfig`]: what a buyer agrees to.

use std::time::Duration;

use chiral_core::Price;

use crate::clock::Clock;
use crate::messages::Policy;

/// What a buyer agrees to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// Highest price; without one, whatever was announced. What a download may cost is
    /// whoever starts it to say, by the offers that it takes.
    pub max_price: Option<Price>,
    /// What is offered, once, to a seeder that asks for more. Without it, [`max_price`] is
    /// offered to one that asks for more than that.
    ///
    /// [`max_price`]: AgentConfig::max_price
    pub bid: Option<Price>,
    /// When it may be asked to pay.
    pub policies: Vec<Policy>,
    /// Bytes paid for at once under [`Policy::PayFirst`], unless the seeder wants more.
    pub prepay_bytes: u64,
    /// Most bytes that a seeder may want to be paid for at once in advance.
    pub max_prepay_bytes: u64,
    /// Wei that are put into a channel at once.
    pub channel_deposit: u128,
    /// Most wei in one channel. They come back, less what was paid; if the seeder is gone, after
    /// the challenge period.
    pub max_channel_deposit: u128,
    /// Longest challenge period, in seconds: so long a deposit may be locked.
    pub max_challenge: u32,
    /// Bytes verified before they are acknowledged without being asked.
    pub ack_bytes: u64,
    /// Verified bytes, and time, after which they become durable. A kill forgets at most
    /// this much, which is then never billed.
    pub flush: (u64, Duration),
    /// How far ahead a quote's end may lie.
    pub max_quote_ahead: Duration,
    /// How long a settlement may take while a seeder waits for it.
    pub settle_patience: Duration,
    /// How long to wait for bytes to be verified when a seeder wants to be paid for them.
    pub verify_patience: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl Default for AgentConfig {
    /// Any announced price, no counter-offer, every policy, 4 MiB (at most 64) in advance,
    /// 0.05 CHI (at most 1) in a channel, for at most a week; acknowledged every 8 MiB, on disk
    /// every 8 MiB or half a second.
    fn default() -> Self {
        Self {
            max_price: None,
            bid: None,
            policies: vec![
                Policy::PayAfter,
                Policy::PayFirst,
                Policy::Incremental,
                Policy::Channel,
                Policy::LockedVoucher,
            ],
            prepay_bytes: 4 << 20,
            max_prepay_bytes: 64 << 20,
            channel_deposit: chiral_core::money::WEI_PER_CHI / 20,
            max_channel_deposit: chiral_core::money::WEI_PER_CHI,
            max_challenge: 7 * 86_400,
            ack_bytes: 8 << 20,
            flush: (8 << 20, Duration::from_millis(500)),
            max_quote_ahead: Duration::from_secs(7 * 86_400),
            settle_patience: Duration::from_secs(120),
            verify_patience: Duration::from_secs(3),
            clock: Clock::system(),
        }
    }
}
