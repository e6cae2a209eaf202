//! Making blocks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use alloy_consensus::{Header, Transaction};
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::B256;
use revm::context_interface::result::EVMError;

use super::super::block::StoredBlock;
use super::super::difficulty;
use super::super::execute::BlockBuilder;
use super::super::pool::Work;
use super::super::store::StoreError;
use super::{Engine, RECENT_BLOCKS, failed, lock, read::unavailable};
use crate::client::ChainError;

/// Gas of the smallest transaction: so many of one sender fit into a block at most.
const LEAST_GAS: u64 = 21_000;

/// What the sealing task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) enum Next {
    /// Wait for a transaction.
    Idle,
    /// Make a block with this time, in seconds since 1970.
    Now(u64),
    /// Ask again after this time.
    After(Duration),
}

impl Engine {
    /// Base fee of the block after this one.
    pub(crate) fn next_base_fee(&self, parent: &Header) -> Option<u64> {
        let base_fee = parent.base_fee_per_gas?;
        let params = BaseFeeParams::ethereum();
        Some(calc_next_block_base_fee(
            parent.gas_used,
            parent.gas_limit,
            base_fee,
            params,
        ))
    }

    /// What is to be done, `since_1970` being the time.
    pub(in crate::embedded) fn next(&self, since_1970: Duration) -> Next {
        if self.stopped.load(Ordering::Acquire) {
            return Next::Idle;
        }
        let parent = self.head();
        let base_fee = self.next_base_fee(&parent.header).unwrap_or_default();
        let work = self
            .pool()
            .work(base_fee, |sender| self.account_now(sender).nonce);
        let lead = match work {
            Work::None => return Next::Idle,
            Work::Ready => self.config.max_clock_lead,
            // Empty blocks let the base fee fall until the transaction pays it; nobody
            // waits for one of them.
            Work::PricedOut => Duration::ZERO,
        };
        let timestamp = since_1970
            .as_secs()
            .max(parent.header.timestamp.saturating_add(1));
        let earliest = Duration::from_secs(timestamp).saturating_sub(lead);
        match earliest.checked_sub(since_1970) {
            None | Some(Duration::ZERO) => Next::Now(timestamp),
            Some(wait) => Next::After(wait),
        }
    }

    /// Makes a block of what can be mined now, durable before anybody sees it.
    pub(in crate::embedded) fn seal(&self, seconds: u64) -> Result<Arc<StoredBlock>, ChainError> {
        let mut roots = lock(&self.sealer);
        if self.stopped.load(Ordering::Acquire) {
            return Err(failed(StoreError::Stopped));
        }
        let parent = self.head();
        let header = self.header_above(&parent, seconds);
        let base_fee = header.base_fee_per_gas.unwrap_or_default();
        let (number, gas_limit) = (header.number, header.gas_limit);
        let view = self.view(parent.header.number);
        let mut builder = BlockBuilder::new(self.spec.rules, self.spec.chain_id, header, view);
        let count = usize::try_from(gas_limit / LEAST_GAS).unwrap_or(usize::MAX);
        let mut candidates = self
            .pool()
            .candidates(base_fee, count, |sender| self.account_now(sender).nonce);
        let mut senders = Vec::new();
        while builder.room() >= LEAST_GAS
            && let Some(pooled) = candidates.pop()
        {
            let transaction = pooled.checked.transaction.clone();
            if transaction.gas_limit() > builder.room() {
                continue;
            }
            let sender = transaction.signer();
            match builder.push(transaction) {
                Ok(()) => {
                    senders.push(sender);
                    candidates.accepted(sender);
                }
                Err(EVMError::Transaction(error)) => {
                    tracing::debug!(hash = %pooled.hash, %error, "a transaction became invalid");
                    self.pool().remove(pooled.hash);
                }
                Err(EVMError::Database(error)) => return Err(unavailable(error)),
                Err(error) => {
                    tracing::error!(hash = %pooled.hash, ?error, "a transaction cannot be executed");
                    self.pool().remove(pooled.hash);
                }
            }
        }
        let executed = builder
            .finish(self.spec.block_reward)
            .map_err(unavailable)?;
        let mut header = executed.header;
        header.state_root = roots.apply(&executed.changes);
        let total = parent.total_difficulty.saturating_add(header.difficulty);
        let block = StoredBlock::new(header, total, executed.transactions, executed.receipts);
        let block = Arc::new(block);
        if let Err(error) = self.store.commit(&block, &executed.changes) {
            // The tries are ahead of the state now, and the file may be too.
            self.stopped.store(true, Ordering::Release);
            tracing::error!(%error, number, "a block could not be written: the chain stops");
            return Err(failed(error));
        }
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(number, block.hash, &executed.changes);
        self.publish(block.clone());
        // Only now: at every moment a transaction is in the pool or in a block that is seen.
        let mut pool = self.pool();
        for sender in senders {
            pool.forget_below(sender, self.account_now(sender).nonce);
        }
        drop(pool);
        Ok(block)
    }

    /// The next header, as far as it is known before execution. There is no proof of work:
    /// mix hash and nonce are zero.
    fn header_above(&self, parent: &StoredBlock, timestamp: u64) -> Header {
        Header {
            parent_hash: parent.hash,
            beneficiary: self.config.coinbase,
            difficulty: difficulty::next(&parent.header, timestamp),
            number: parent.header.number + 1,
            gas_limit: parent.header.gas_limit,
            timestamp: timestamp.max(parent.header.timestamp.saturating_add(1)),
            base_fee_per_gas: self.next_base_fee(&parent.header),
            mix_hash: B256::ZERO,
            ..Header::default()
        }
    }

    fn publish(&self, block: Arc<StoredBlock>) {
        let id = block.id();
        tracing::debug!(
            number = id.number,
            hash = %id.hash,
            transactions = block.transactions.len(),
            "a block"
        );
        let mut recent = lock(&self.recent);
        recent.push_back(block.clone());
        if recent.len() > RECENT_BLOCKS {
            recent.pop_front();
        }
        drop(recent);
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = block;
        if let Some(heads) = &*lock(&self.heads) {
            heads.send_replace(id);
        }
    }
}
