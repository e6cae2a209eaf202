//! What the settler asks the chain.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use chiral_chain::{
    BlockId, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, Fees, LogFilter,
    Transaction, TransactionReceipt,
};
use chiral_core::BillId;

use super::config::SettlerConfig;
use super::flight::Sighting;
use super::problem::Problem;
use super::record::{BillRecord, Flight};
use super::split::Verdict;
use crate::contracts::batch_pay::{self, BatchPayment};

/// Blocks that are looked into at once for who took a nonce.
const MAX_SCANNED_BLOCKS: usize = 1024;

/// Gas beyond what its calldata costs that a plain transfer may use: for payees with code.
const MAX_TRANSFER_GAS: u64 = 100_000;

/// Gas beyond that for a call of a contract.
const MAX_CALL_GAS: u64 = 500_000;

/// Gas for a batch beyond what its calldata costs, and for each leg: a new word of nonces, a
/// payee whose code fails at its limit, a new credit, and the log.
const BATCH_GAS: (u64, u64) = (80_000, 110_000);

/// The chain, as one wallet sees it.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) chain: Arc<dyn ChainClient>,
    pub(super) wallet: Address,
    pub(super) config: SettlerConfig,
}

/// What stops a payment: the chain itself, or something that is said of single bills.
#[derive(Debug)]
pub(super) enum Obstacle {
    Chain(ChainError),
    Problem(Problem),
}

impl From<ChainError> for Obstacle {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

impl Ledger {
    /// Whether the node is of the chain that is meant.
    pub(super) async fn check_identity(&self) -> Result<(), Obstacle> {
        let found = self.chain.chain_id().await?;
        if found != self.config.chain_id {
            return Err(Obstacle::Problem(Problem::WrongChain { found }));
        }
        let found = self.chain.genesis_hash().await?;
        if found != self.config.genesis {
            return Err(Obstacle::Problem(Problem::WrongGenesis { found }));
        }
        Ok(())
    }

    /// Whether money may be sent to the batch contract: there is one, with the code that is
    /// known here.
    pub(super) async fn has_batch_contract(&self) -> Result<bool, Obstacle> {
        let Some(contract) = self.config.batch_contract else {
            return Ok(false);
        };
        Ok(self.chain.code(contract).await? == batch_pay::runtime_code())
    }

    /// Whether a payment may be made now: most nodes that were heard see the same chain, and it
    /// goes on.
    pub(super) async fn check_whole(&self, head: BlockRef, now: u64) -> Result<(), Obstacle> {
        if let Some(heads) = &self.config.peer_heads {
            let verdict = heads.judge(&*self.chain, head, now).await?;
            let Verdict { with, against, .. } = verdict;
            if verdict.is_split() {
                return Err(Obstacle::Problem(Problem::Split { with, against }));
            }
            if verdict.is_behind() {
                return Err(Obstacle::Problem(Problem::Stale));
            }
        }
        if let Some(age) = self.config.stale_after {
            let block = self.chain.block(BlockId::Hash(head.hash)).await?;
            let made = block.map_or(0, |block| block.timestamp);
            if made.saturating_add(age.as_secs()) < now {
                return Err(Obstacle::Problem(Problem::Stale));
            }
        }
        Ok(())
    }

    /// Whether the contract has ever paid this bill, as this wallet owed it.
    pub(super) async fn has_paid(
        &self,
        contract: Address,
        bill: BillId,
        record: &BillRecord,
        head: BlockRef,
    ) -> Result<bool, ChainError> {
        let filter = LogFilter {
            from_block: 0,
            to_block: head.number,
            address: Some(contract),
            topics: vec![
                Some(batch_pay::PAYMENT_TOPIC),
                Some(self.wallet.into_word()),
                Some(record.payee.into_word()),
                Some(bill.0),
            ],
        };
        let logs = self.chain.logs(filter).await?;
        let paid = logs
            .iter()
            .filter_map(|log| BatchPayment::from_log(log, contract));
        let mut amounts = paid.map(|paid| U256::from(paid.amount));
        Ok(amounts.any(|amount| amount == record.amount))
    }

    /// What the chain shows of a transaction. The order of the questions matters: whoever is
    /// told that a nonce is used, and only then that no variant is in a block, may have been
    /// told so at two different times; so the block is named that shows by whom.
    pub(super) async fn sight(
        &self,
        flight: &Flight,
        head: BlockRef,
    ) -> Result<Sighting, ChainError> {
        if let Some((variant, receipt)) = self.receipt(flight).await? {
            let depth = (head.number + 1).saturating_sub(receipt.block.number);
            return Ok(Sighting::Mined {
                variant,
                block: receipt.block,
                succeeded: receipt.succeeded,
                depth: depth.max(1),
            });
        }
        let latest = self.chain.nonce(self.wallet, BlockId::Latest).await?;
        if latest <= flight.nonce {
            return Ok(Sighting::Absent { next: latest });
        }
        let Some(deep) = (head.number + 1).checked_sub(self.config.failed_depth()) else {
            return Ok(Sighting::Unclear);
        };
        let Some(by) = self.taker(flight, deep).await? else {
            return Ok(Sighting::Unclear);
        };
        let ours = flight.variants.iter().any(|variant| variant.hash == by);
        // Once more, behind the answer that another one has the nonce.
        if ours || self.receipt(flight).await?.is_some() {
            return Ok(Sighting::Unclear);
        }
        Ok(Sighting::Taken { by })
    }

    async fn receipt(
        &self,
        flight: &Flight,
    ) -> Result<Option<(usize, TransactionReceipt)>, ChainError> {
        for (index, variant) in flight.variants.iter().enumerate().rev() {
            if let Some(receipt) = self.chain.receipt(variant.hash).await?
                && receipt.transaction == variant.hash
            {
                return Ok(Some((index, receipt)));
            }
        }
        Ok(None)
    }

    /// Which transaction has the nonce of `flight` on the best chain, not above block `deep`.
    async fn taker(&self, flight: &Flight, deep: u64) -> Result<Option<B256>, ChainError> {
        match self.search(flight, deep).await {
            // Many nodes have forgotten the state of older blocks, but not the blocks.
            Err(error) if !is_away(&error) => self.scan(flight, deep).await,
            found => found,
        }
    }

    /// Searches by the nonces that the wallet had.
    async fn search(&self, flight: &Flight, deep: u64) -> Result<Option<B256>, ChainError> {
        let used = async |number| {
            let nonce = self.chain.nonce(self.wallet, BlockId::Number(number)).await;
            nonce.map(|nonce| nonce > flight.nonce)
        };
        if !used(deep).await? {
            return Ok(None);
        }
        // The first block after which it is used lies in (low, high].
        let (mut low, mut high) = (flight.signed_at_block.min(deep), deep);
        if used(low).await? {
            (low, high) = (0, low);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match used(middle).await? {
                true => high = middle,
                false => low = middle,
            }
        }
        self.taker_in(flight, high).await
    }

    /// Looks into the blocks, from the newest down to where it was signed.
    async fn scan(&self, flight: &Flight, deep: u64) -> Result<Option<B256>, ChainError> {
        let blocks = (flight.signed_at_block..=deep).rev();
        for number in blocks.take(MAX_SCANNED_BLOCKS) {
            if let Some(hash) = self.taker_in(flight, number).await? {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    async fn taker_in(&self, flight: &Flight, number: u64) -> Result<Option<B256>, ChainError> {
        let block = self.chain.block(BlockId::Number(number)).await?;
        let taker = block.and_then(|block| {
            let mut transactions = block.transactions.into_iter();
            transactions.find(|tx| tx.from == self.wallet && tx.nonce == flight.nonce)
        });
        Ok(taker.map(|tx| tx.hash))
    }

    /// What to pay per gas now.
    pub(super) async fn fees(&self) -> Result<Fees, Obstacle> {
        let quote = self.chain.fees().await?;
        let over = Problem::FeesOverLimit {
            wanted: quote.gas_price,
        };
        fees(&quote, &self.config).ok_or(Obstacle::Problem(over))
    }

    /// Gas for a plain transfer, or for a call of a contract.
    pub(super) async fn transfer_gas(
        &self,
        transaction: &Transaction,
        is_call: bool,
    ) -> Result<u64, Obstacle> {
        let least = transaction.intrinsic_gas();
        match self.estimate(transaction).await {
            Ok(estimate) if estimate <= least => Ok(least),
            Ok(estimate) => {
                let most = match is_call {
                    true => least.saturating_add(MAX_CALL_GAS),
                    false => least.saturating_add(MAX_TRANSFER_GAS),
                };
                // Contracts want more to be left for receivers than is used.
                let ample = match is_call {
                    true => with_margin(estimate).saturating_add(3 * batch_pay::LEG_GAS),
                    false => with_margin(estimate),
                };
                Ok(ample.min(most))
            }
            Err(ChainError::Reverted { .. }) => Err(Obstacle::Problem(Problem::PayeeRefuses)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gas for a batch.
    pub(super) async fn batch_gas(
        &self,
        transaction: &Transaction,
        legs: usize,
    ) -> Result<u64, Obstacle> {
        let estimate = self.estimate(transaction).await?;
        let (base, each) = BATCH_GAS;
        let most = transaction.intrinsic_gas() + base + each * legs as u64;
        // Some nodes answer what is used; the contract wants more to be left for the payees.
        let ample = with_margin(estimate).saturating_add(2 * batch_pay::LEG_GAS);
        Ok(ample.min(most))
    }

    async fn estimate(&self, transaction: &Transaction) -> Result<u64, ChainError> {
        let call = CallRequest {
            from: self.wallet,
            to: transaction.to,
            value: transaction.value,
            input: transaction.input.clone(),
            gas: None,
        };
        self.chain.estimate_gas(call).await
    }

    /// The wallet's next nonce and its balance.
    pub(super) async fn account(&self) -> Result<(u64, U256), ChainError> {
        let nonce = self.chain.nonce(self.wallet, BlockId::Latest).await?;
        let balance = self.chain.balance(self.wallet, BlockId::Latest).await?;
        Ok((nonce, balance))
    }
}

fn is_away(error: &ChainError) -> bool {
    error.is_retryable() || matches!(error, ChainError::Closed)
}

fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 4)
}

/// What to pay per gas: what the node says, enough for a base fee that rises for a block or
/// two, and never over the limit; `None` if the limit is under the base fee.
pub(super) fn fees(quote: &FeeQuote, config: &SettlerConfig) -> Option<Fees> {
    let base = quote.base_fee.unwrap_or(0);
    let room = base.saturating_add(base / 4);
    let wanted = room.saturating_add(quote.priority_fee).max(quote.gas_price);
    let price = wanted.min(config.max_gas_price);
    if price < base || (quote.base_fee.is_none() && price < wanted) {
        return None;
    }
    Some(match config.dynamic_fees {
        false => Fees::Legacy { gas_price: price },
        true => Fees::Dynamic {
            max_fee_per_gas: price,
            max_priority_fee_per_gas: quote.priority_fee.min(price),
        },
    })
}

/// Fees of a variant that replaces one with `old`: an eighth more (nodes ask for a tenth), and
/// not less than `wanted`; `None` if the chain does not want more than `old`, or the limit is
/// reached.
pub(super) fn higher(old: Fees, wanted: Fees, config: &SettlerConfig) -> Option<Fees> {
    if wanted.max_per_gas() <= old.max_per_gas() {
        return None;
    }
    let more = |old: u128, wanted: u128| old.saturating_add(old / 8 + 1).max(wanted);
    let fees = match (old, wanted) {
        (
            Fees::Dynamic {
                max_fee_per_gas: max,
                max_priority_fee_per_gas: tip,
            },
            Fees::Dynamic {
                max_fee_per_gas: wanted_max,
                max_priority_fee_per_gas: wanted_tip,
            },
        ) => Fees::Dynamic {
            max_fee_per_gas: more(max, wanted_max),
            max_priority_fee_per_gas: more(tip, wanted_tip),
        },
        _ => Fees::Legacy {
            gas_price: more(old.max_per_gas(), wanted.max_per_gas()),
        },
    };
    (fees.max_per_gas() <= config.max_gas_price).then_some(fees)
}

#[cfg(test)]
mod tests;
