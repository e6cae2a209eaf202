//! Settings of an embedded chain.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::Address;

use super::pool::PoolLimits;

/// When a block is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sealing {
    /// As soon as a transaction can be mined.
    #[default]
    OnDemand,
    /// When [`EmbeddedChain::seal`](super::EmbeddedChain::seal) is called.
    Manual,
}

/// Settings of an embedded chain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// Where blocks and state are kept. Without it they are in memory, and gone at the end.
    pub data_dir: Option<PathBuf>,
    /// When a block is made.
    pub sealing: Sealing,
    /// Who gets rewards and tips.
    pub coinbase: Address,
    /// How far on-demand blocks may be dated ahead of the clock. Blocks have whole seconds, each
    /// later than the one before, so a chain that never dated ahead would make one block a second.
    /// When the lead is used up, the next block waits for the clock: from then on there is one
    /// block a second until there is a pause. Other nodes take no block that is more than 15
    /// seconds ahead (geth's `allowedFutureBlockTime`), which is the default.
    pub max_clock_lead: Duration,
    /// What the pool holds at most.
    pub pool: PoolLimits,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            sealing: Sealing::default(),
            coinbase: Address::ZERO,
            max_clock_lead: Duration::from_secs(15),
            pool: PoolLimits::default(),
        }
    }
}

impl EmbeddedConfig {
    /// Keeps blocks and state in this directory, which one process can use at a time.
    #[must_use]
    pub fn with_data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// When a block is made.
    #[must_use]
    pub fn with_sealing(mut self, sealing: Sealing) -> Self {
        self.sealing = sealing;
        self
    }

    /// Who gets rewards and tips.
    #[must_use]
    pub fn with_coinbase(mut self, coinbase: Address) -> Self {
        self.coinbase = coinbase;
        self
    }

    /// How far on-demand blocks may be dated ahead of the clock.
    #[must_use]
    pub fn with_max_clock_lead(mut self, lead: Duration) -> Self {
        self.max_clock_lead = lead;
        self
    }

    /// What the pool holds at most.
    #[must_use]
    pub fn with_pool(mut self, pool: PoolLimits) -> Self {
        self.pool = pool;
        self
    }
}
