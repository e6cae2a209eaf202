//! [`ChainClient`] for an [`EmbeddedChain`].

use alloy_consensus::{Header, Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use super::EmbeddedChain;
use super::block::StoredBlock;
use super::engine::{Engine, Found, FoundLog, LogQuery, block_logs, unavailable};
use crate::client::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, TransactionInfo, TransactionReceipt,
};

/// Tip that is advised, in wei per gas: blocks are rarely full, so it hardly matters.
const ADVISED_TIP: u128 = 1_000_000_000;

#[async_trait]
impl ChainClient for EmbeddedChain {
    async fn chain_id(&self) -> Result<u64, ChainError> {
        Ok(self.engine()?.spec.chain_id)
    }

    async fn genesis_hash(&self) -> Result<B256, ChainError> {
        Ok(self.engine()?.genesis)
    }

    async fn head(&self) -> Result<BlockRef, ChainError> {
        Ok(self.engine()?.head().id())
    }

    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError> {
        self.run(move |engine| Ok(engine.find_block(block)?.map(|block| block_info(&block))))
            .await
    }

    async fn balance(&self, wallet: Address, at: BlockId) -> Result<U256, ChainError> {
        self.run(move |engine| {
            let number = engine.state_number(at)?;
            Ok(engine
                .view(number)
                .basic(wallet)
                .map_err(unavailable)?
                .balance)
        })
        .await
    }

    async fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError> {
        self.run(move |engine| engine.nonce(wallet, at)).await
    }

    async fn code(&self, contract: Address) -> Result<Bytes, ChainError> {
        self.run(move |engine| {
            let number = engine.state_number(BlockId::Latest)?;
            Ok(engine.view(number).code(contract).map_err(unavailable)?.0)
        })
        .await
    }

    async fn fees(&self) -> Result<FeeQuote, ChainError> {
        let engine = self.engine()?;
        Ok(engine.fees(&engine.head().header))
    }

    async fn estimate_gas(&self, call: CallRequest) -> Result<u64, ChainError> {
        self.run(move |engine| engine.estimate(&call, &engine.head().header))
            .await
    }

    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError> {
        self.run(move |engine| engine.call(&call, &engine.head().header))
            .await
    }

    async fn send_raw_transaction(&self, raw: Bytes) -> Result<B256, ChainError> {
        self.run(move |engine| engine.send(&raw)).await
    }

    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError> {
        self.run(move |engine| {
            Ok(engine.find_transaction(hash)?.map(|found| match found {
                Found::Waiting(pooled) => {
                    let transaction = &pooled.checked.transaction;
                    transaction_info(transaction, transaction.signer(), None)
                }
                Found::Mined(block, index) => mined_info(&block, index),
            }))
        })
        .await
    }

    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        self.run(move |engine| match engine.find_transaction(hash)? {
            Some(Found::Mined(block, index)) => Ok(Some(receipt(&block, index))),
            Some(Found::Waiting(_)) | None => Ok(None),
        })
        .await
    }

    async fn logs(&self, filter: LogFilter) -> Result<Vec<LogEntry>, ChainError> {
        let query = LogQuery {
            from: filter.from_block,
            to: filter.to_block,
            addresses: filter.address.into_iter().collect(),
            topics: filter
                .topics
                .into_iter()
                .map(|topic| topic.into_iter().collect())
                .collect(),
        };
        self.run(move |engine| Ok(engine.logs(&query)?.into_iter().map(log_entry).collect()))
            .await
    }

    async fn heads(&self) -> Result<HeadStream, ChainError> {
        let heads = self.engine()?.subscribe().ok_or(ChainError::Closed)?;
        Ok(Box::pin(stream::unfold(heads, |mut heads| async move {
            heads.changed().await.ok()?;
            let head = *heads.borrow_and_update();
            Some((head, heads))
        })))
    }

    async fn shutdown(&self) -> Result<(), ChainError> {
        self.close().await;
        Ok(())
    }
}

impl Engine {
    /// What a transaction should offer in the block after this one.
    pub(crate) fn fees(&self, head: &Header) -> FeeQuote {
        let base_fee = self.next_base_fee(head).map(u128::from);
        // A block may be full before a legacy transaction gets its turn.
        let room = base_fee.map_or(0, |base_fee| base_fee + base_fee.div_ceil(8));
        FeeQuote {
            base_fee,
            priority_fee: ADVISED_TIP,
            gas_price: room + ADVISED_TIP,
        }
    }
}

fn block_info(block: &StoredBlock) -> BlockInfo {
    BlockInfo {
        id: block.id(),
        parent: block.header.parent_hash,
        timestamp: block.header.timestamp,
        base_fee: block.header.base_fee_per_gas.map(u128::from),
        gas_limit: block.header.gas_limit,
        transactions: (0..block.transactions.len())
            .map(|i| mined_info(block, i))
            .collect(),
    }
}

fn mined_info(block: &StoredBlock, index: usize) -> TransactionInfo {
    transaction_info(
        &block.transactions[index],
        block.senders[index],
        Some(block.id()),
    )
}

fn transaction_info(
    transaction: &TxEnvelope,
    from: Address,
    block: Option<BlockRef>,
) -> TransactionInfo {
    TransactionInfo {
        hash: *transaction.tx_hash(),
        from,
        to: transaction.to(),
        value: transaction.value(),
        nonce: transaction.nonce(),
        input: transaction.input().0.clone(),
        chain_id: transaction.chain_id(),
        block,
    }
}

fn receipt(block: &std::sync::Arc<StoredBlock>, index: usize) -> TransactionReceipt {
    let transaction = &block.transactions[index];
    let logs = block_logs(block).filter(|found| found.transaction == index);
    TransactionReceipt {
        transaction: *transaction.tx_hash(),
        block: block.id(),
        succeeded: block.receipts[index].status(),
        gas_used: block.gas_used(index),
        effective_gas_price: transaction.effective_gas_price(block.header.base_fee_per_gas),
        contract: block.created(index),
        logs: logs.map(log_entry).collect(),
    }
}

fn log_entry(found: FoundLog) -> LogEntry {
    LogEntry {
        address: found.log.address,
        topics: found.log.topics().to_vec(),
        data: found.log.data.data.0.clone(),
        transaction: *found.block.transactions[found.transaction].tx_hash(),
        block: found.block.id(),
        index: found.index,
    }
}
