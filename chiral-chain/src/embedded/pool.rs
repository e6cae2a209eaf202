//! Transactions that wait to be mined.

mod candidates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};

pub(super) use candidates::Work;

use super::state::Basic;
use super::validate::{Checked, refused};
use crate::client::{ChainError, RefusalKind};

/// A replacement must offer this much more of both prices, in percent (as geth asks).
const PRICE_BUMP_PERCENT: u128 = 10;

/// Hashes of accepted transactions that are remembered for those who ask what is new.
const RECENT: usize = 4_096;

/// What the pool holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolLimits {
    /// Transactions of one sender. Also how far a nonce may be ahead of the account's.
    pub per_sender: usize,
    /// Transactions of all.
    pub total: usize,
    /// Encoded bytes of all.
    pub bytes: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            per_sender: 1_024,
            total: 8_192,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// A transaction in the pool.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(crate) checked: Checked,
    pub(crate) hash: B256,
    /// Position in the order of arrival.
    arrival: u64,
}

impl Pooled {
    fn sender(&self) -> Address {
        self.checked.transaction.signer()
    }

    /// The most wei that it pays per gas.
    fn price(&self) -> u128 {
        self.checked.transaction.max_fee_per_gas()
    }

    /// The most wei that it pays the miner per gas.
    fn tip(&self) -> u128 {
        let transaction = &self.checked.transaction;
        transaction
            .max_priority_fee_per_gas()
            .unwrap_or_else(|| transaction.max_fee_per_gas())
    }

    /// What the miner gets per gas at this base fee; none if it does not pay that.
    fn tip_at(&self, base_fee: u64) -> Option<u128> {
        let left = self.price().checked_sub(u128::from(base_fee))?;
        Some(left.min(self.tip()))
    }
}

/// By sender and nonce. Nothing in it is durable.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    limits: PoolLimits,
    senders: HashMap<Address, BTreeMap<u64, Arc<Pooled>>>,
    hashes: HashMap<B256, Arc<Pooled>>,
    bytes: usize,
    /// How many arrived so far.
    arrivals: u64,
    /// The last ones, by arrival.
    recent: VecDeque<(u64, B256)>,
}

impl Pool {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Takes a transaction in, or says why not. `account` is its sender's, after the head.
    pub(super) fn insert(&mut self, checked: Checked, account: Basic) -> Result<B256, ChainError> {
        let hash = *checked.transaction.tx_hash();
        let nonce = checked.transaction.nonce();
        if self.hashes.contains_key(&hash) {
            return Err(refused(RefusalKind::AlreadyKnown, "already known"));
        }
        if account.code_hash != KECCAK256_EMPTY {
            return Err(refused(RefusalKind::Other, "sender not an eoa"));
        }
        if nonce < account.nonce {
            let next = account.nonce;
            let reason = format!("nonce too low: next nonce {next}, tx nonce {nonce}");
            return Err(refused(RefusalKind::NonceTooLow, reason));
        }
        if nonce - account.nonce >= self.limits.per_sender as u64 {
            let next = account.nonce;
            let reason = format!("nonce too high: next nonce {next}, tx nonce {nonce}");
            return Err(refused(RefusalKind::Other, reason));
        }
        let pooled = Pooled {
            checked,
            hash,
            arrival: self.arrivals,
        };
        let queue = self.senders.get(&pooled.sender());
        let replaced = queue.and_then(|queue| queue.get(&nonce)).cloned();
        if let Some(old) = &replaced
            && !(outbids(pooled.price(), old.price()) && outbids(pooled.tip(), old.tip()))
        {
            let reason = "replacement transaction underpriced";
            return Err(refused(RefusalKind::Underpriced, reason));
        }
        let others = queue
            .into_iter()
            .flatten()
            .filter(|(other, _)| **other != nonce);
        let spoken_for = others
            .map(|(_, other)| other.checked.cost)
            .fold(U256::ZERO, U256::saturating_add);
        let cost = spoken_for.saturating_add(pooled.checked.cost);
        if cost > account.balance {
            let reason = format!(
                "insufficient funds for gas * price + value: balance {}, tx cost {}, \
                 all that wait {cost}",
                account.balance, pooled.checked.cost
            );
            return Err(refused(RefusalKind::Funds, reason));
        }
        match replaced {
            Some(old) => self.remove(old.hash),
            None => self.make_room(&pooled)?,
        }
        self.arrivals += 1;
        self.recent.push_back((pooled.arrival, hash));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let pooled = Arc::new(pooled);
        self.bytes += pooled.checked.size;
        self.senders
            .entry(pooled.sender())
            .or_default()
            .insert(nonce, pooled.clone());
        self.hashes.insert(hash, pooled);
        Ok(hash)
    }

    /// Gives up what offers least, if the pool is full and this one offers more.
    fn make_room(&mut self, new: &Pooled) -> Result<(), ChainError> {
        let full = |pool: &Self| {
            pool.hashes.len() >= pool.limits.total
                || pool.bytes.saturating_add(new.checked.size) > pool.limits.bytes
        };
        while full(self) {
            // Only the last of a sender: the others would wait for it.
            let last = self
                .senders
                .values()
                .filter_map(|queue| queue.values().next_back());
            let least =
                last.min_by_key(|pooled| (pooled.price(), std::cmp::Reverse(pooled.arrival)));
            match least {
                Some(least) if least.price() < new.price() => self.remove(least.hash),
                _ => return Err(refused(RefusalKind::Underpriced, "txpool is full")),
            }
        }
        Ok(())
    }

    /// Takes a transaction out.
    pub(super) fn remove(&mut self, hash: B256) {
        let Some(pooled) = self.hashes.remove(&hash) else {
            return;
        };
        self.bytes -= pooled.checked.size;
        let sender = pooled.sender();
        if let Some(queue) = self.senders.get_mut(&sender) {
            queue.remove(&pooled.checked.transaction.nonce());
            if queue.is_empty() {
                self.senders.remove(&sender);
            }
        }
    }

    /// Takes out what a sender's account, whose next nonce this is, cannot send any more.
    pub(super) fn forget_below(&mut self, sender: Address, nonce: u64) {
        let Some(queue) = self.senders.get(&sender) else {
            return;
        };
        let gone: Vec<B256> = queue
            .range(..nonce)
            .map(|(_, pooled)| pooled.hash)
            .collect();
        for hash in gone {
            self.remove(hash);
        }
    }

    /// A transaction that waits.
    pub(crate) fn get(&self, hash: B256) -> Option<Arc<Pooled>> {
        self.hashes.get(&hash).cloned()
    }

    /// The next nonce of a sender after all that wait without a gap.
    pub(crate) fn next_nonce(&self, sender: Address, account_nonce: u64) -> u64 {
        let queue = self.senders.get(&sender);
        let waiting = queue
            .into_iter()
            .flat_map(|queue| queue.range(account_nonce..));
        let mut next = account_nonce;
        for (nonce, _) in waiting {
            if *nonce != next {
                break;
            }
            next += 1;
        }
        next
    }

    /// How many wait for nothing but a block, and how many for a nonce before them.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn counts(&self, mut nonce_of: impl FnMut(Address) -> u64) -> (usize, usize) {
        let mut ready = 0;
        for sender in self.senders.keys() {
            let nonce = nonce_of(*sender);
            ready += self.next_nonce(*sender, nonce).saturating_sub(nonce) as usize;
        }
        (ready, self.hashes.len().saturating_sub(ready))
    }

    /// Hashes that arrived from position `since` on, and the position after them. What is
    /// older than the last 4,096 is left out.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn arrived(&self, since: u64) -> (Vec<B256>, u64) {
        let new = self.recent.iter().filter(|(arrival, _)| *arrival >= since);
        (new.map(|(_, hash)| *hash).collect(), self.arrivals)
    }
}

/// Whether a price is enough above an old one.
fn outbids(new: u128, old: u128) -> bool {
    let bump = (old / 100).saturating_mul(PRICE_BUMP_PERCENT)
        + (old % 100 * PRICE_BUMP_PERCENT).div_ceil(100);
    new > old && new >= old.saturating_add(bump)
}
