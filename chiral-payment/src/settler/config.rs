//! [`SettlerConfig`].

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};

use super::split::PeerHeads;

/// How a [`ChainSettler`](super::ChainSettler) pays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SettlerConfig {
    /// The chain's id; nothing is signed for another.
    pub chain_id: u64,
    /// Hash of the chain's first block. Chains may share an id: the devnet has that of the
    /// real network. Nothing is signed or sent while the node shows another.
    pub genesis: B256,
    /// Where `BatchPay` is; without it every bill has a transaction of its own.
    pub batch_contract: Option<Address>,
    /// Blocks, its own included, after which a payment counts as settled (1: as soon as it is
    /// in a block). What this is worth depends on the chain: on a small one, whoever mines
    /// faster than all others together rewrites any number of blocks. At least 1.
    pub confirmations: u64,
    /// Blocks, its own included, after which a payment that failed (reverted, or its nonce
    /// taken by another transaction of the wallet) is made anew. Until then a reorganisation
    /// may still have it succeed, and the new one would be the second. Never sooner than
    /// `confirmations`.
    pub failed_after: u64,
    /// Blocks for which a settled payment is watched: if a reorganisation takes it out of its
    /// block within them, the same bytes are sent again. At least `confirmations`.
    pub watched_blocks: u64,
    /// How long the first bill waits for others to share a transaction. Calls of contracts, which
    /// share none, do not wait.
    pub gather: Duration,
    /// Bills that come to less than so many wei wait for more, but none longer than the time
    /// (whole seconds, counted from when it was handed in, over restarts), and not if somebody
    /// waits for one of them ([`expedite`](chiral_core::PaymentSettler::expedite)). Zero wei: no
    /// bill waits longer than [`gather`](SettlerConfig::gather).
    pub aggregate: (U256, Duration),
    /// What other nodes say of the chain. Payments are held while most of them have another
    /// one.
    pub peer_heads: Option<PeerHeads>,
    /// Age of the newest block beyond which the chain counts as stalled and payments are held.
    /// Not for chains that make blocks on demand only.
    pub stale_after: Option<Duration>,
    /// How often the chain is asked when it says nothing by itself.
    pub poll: Duration,
    /// Longest pause between two attempts to reach a chain that is away.
    pub max_backoff: Duration,
    /// Most wei that are paid per gas. While the chain wants more, bills wait.
    pub max_gas_price: u128,
    /// EIP-1559 transactions instead of EIP-155 ones.
    pub dynamic_fees: bool,
    /// How long a bill rests whose payment was reverted, or is refused; twice as long with each
    /// time, up to 256 times. Whole seconds.
    pub retry_after: Duration,
    /// How long a transaction waits before it is signed again with a higher fee, if the chain
    /// wants more by then.
    pub replace_after: Duration,
}

impl SettlerConfig {
    /// Payments on the chain with this id and first block; the rest as it is by default.
    pub fn new(chain_id: u64, genesis: B256) -> Self {
        Self {
            chain_id,
            genesis,
            batch_contract: None,
            confirmations: 1,
            failed_after: 12,
            watched_blocks: 32,
            gather: Duration::from_millis(250),
            aggregate: (U256::ZERO, Duration::ZERO),
            peer_heads: None,
            stale_after: None,
            poll: Duration::from_secs(2),
            max_backoff: Duration::from_secs(30),
            max_gas_price: 500_000_000_000,
            dynamic_fees: false,
            retry_after: Duration::from_secs(15),
            replace_after: Duration::from_secs(180),
        }
    }

    /// How deep a failure has to be for its bills to be paid anew.
    pub(super) fn failed_depth(&self) -> u64 {
        self.failed_after.max(self.confirmations)
    }

    /// Pays several bills in one transaction, through this contract.
    #[must_use]
    pub fn with_batch_contract(mut self, contract: Address) -> Self {
        self.batch_contract = Some(contract);
        self
    }

    /// See [`SettlerConfig::confirmations`].
    #[must_use]
    pub fn with_confirmations(mut self, blocks: u64) -> Self {
        self.confirmations = blocks;
        self
    }

    /// See [`SettlerConfig::failed_after`].
    #[must_use]
    pub fn with_failed_after(mut self, blocks: u64) -> Self {
        self.failed_after = blocks;
        self
    }

    /// See [`SettlerConfig::watched_blocks`].
    #[must_use]
    pub fn with_watched_blocks(mut self, blocks: u64) -> Self {
        self.watched_blocks = blocks;
        self
    }

    /// See [`SettlerConfig::gather`].
    #[must_use]
    pub fn with_gather(mut self, time: Duration) -> Self {
        self.gather = time;
        self
    }

    /// See [`SettlerConfig::aggregate`].
    #[must_use]
    pub fn with_aggregate(mut self, wei: U256, deadline: Duration) -> Self {
        self.aggregate = (wei, deadline);
        self
    }

    /// See [`SettlerConfig::peer_heads`].
    #[must_use]
    pub fn with_peer_heads(mut self, heads: PeerHeads) -> Self {
        self.peer_heads = Some(heads);
        self
    }

    /// See [`SettlerConfig::stale_after`].
    #[must_use]
    pub fn with_stale_after(mut self, age: Duration) -> Self {
        self.stale_after = Some(age);
        self
    }

    /// See [`SettlerConfig::poll`].
    #[must_use]
    pub fn with_poll(mut self, time: Duration) -> Self {
        self.poll = time;
        self
    }

    /// See [`SettlerConfig::max_backoff`].
    #[must_use]
    pub fn with_max_backoff(mut self, time: Duration) -> Self {
        self.max_backoff = time;
        self
    }

    /// See [`SettlerConfig::max_gas_price`].
    #[must_use]
    pub fn with_max_gas_price(mut self, wei: u128) -> Self {
        self.max_gas_price = wei;
        self
    }

    /// See [`SettlerConfig::dynamic_fees`].
    #[must_use]
    pub fn with_dynamic_fees(mut self, dynamic: bool) -> Self {
        self.dynamic_fees = dynamic;
        self
    }

    /// See [`SettlerConfig::retry_after`].
    #[must_use]
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// See [`SettlerConfig::replace_after`].
    #[must_use]
    pub fn with_replace_after(mut self, time: Duration) -> Self {
        self.replace_after = time;
        self
    }
}
