//! Looking at blocks, transactions and accounts.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256};

use super::super::block::StoredBlock;
use super::super::pool::Pooled;
use super::super::state::StateError;
use super::{Engine, failed, lock};
use crate::client::{BlockId, ChainError};

/// JSON-RPC's code for what the node cannot answer.
const SERVER_ERROR: i64 = -32_000;

/// A state that cannot be asked, as callers see it.
pub(crate) fn unavailable(error: StateError) -> ChainError {
    ChainError::Rpc {
        code: SERVER_ERROR,
        message: error.to_string(),
    }
}

/// Where a transaction is.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// In the pool.
    Waiting(Arc<Pooled>),
    /// In a block, at this position.
    Mined(Arc<StoredBlock>, usize),
}

impl Engine {
    /// A block by its number.
    pub(crate) fn block_at(&self, number: u64) -> Result<Option<Arc<StoredBlock>>, ChainError> {
        let found = |block: &&Arc<StoredBlock>| block.header.number == number;
        if let Some(block) = lock(&self.recent).iter().find(found) {
            return Ok(Some(block.clone()));
        }
        // The store has a block a moment before it is the head.
        if number > self.head().header.number {
            return Ok(None);
        }
        Ok(self.store.block(number).map_err(failed)?.map(Arc::new))
    }

    /// A header by its number.
    pub(super) fn header_at(&self, number: u64) -> Result<Option<Header>, ChainError> {
        let found = |block: &&Arc<StoredBlock>| block.header.number == number;
        if let Some(block) = lock(&self.recent).iter().find(found) {
            return Ok(Some(block.header.clone()));
        }
        self.store.header(number).map_err(failed)
    }

    /// A block. What is pending is answered as the newest block.
    pub(crate) fn find_block(&self, id: BlockId) -> Result<Option<Arc<StoredBlock>>, ChainError> {
        match id {
            BlockId::Latest | BlockId::Pending => Ok(Some(self.head())),
            BlockId::Number(number) => self.block_at(number),
            BlockId::Hash(hash) => {
                let found = |block: &&Arc<StoredBlock>| block.hash == hash;
                if let Some(block) = lock(&self.recent).iter().find(found) {
                    return Ok(Some(block.clone()));
                }
                match self.store.number(hash).map_err(failed)? {
                    None => Ok(None),
                    Some(number) => self.block_at(number),
                }
            }
        }
    }

    /// The number of a block whose state is asked for.
    pub(crate) fn state_number(&self, id: BlockId) -> Result<u64, ChainError> {
        let unknown = || ChainError::Rpc {
            code: SERVER_ERROR,
            message: "header not found".to_owned(),
        };
        let head = self.head();
        match id {
            BlockId::Latest | BlockId::Pending => Ok(head.header.number),
            BlockId::Number(number) if number <= head.header.number => Ok(number),
            BlockId::Number(_) => Err(unknown()),
            BlockId::Hash(hash) if hash == head.hash => Ok(head.header.number),
            BlockId::Hash(hash) => {
                let number = self.store.number(hash).map_err(failed)?;
                number
                    .filter(|number| *number <= head.header.number)
                    .ok_or_else(unknown)
            }
        }
    }

    /// The next nonce of a wallet, after what waits if that is asked for.
    pub(crate) fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError> {
        if at == BlockId::Pending {
            let pool = self.pool();
            let account = self.account_now(wallet);
            return Ok(pool.next_nonce(wallet, account.nonce));
        }
        let number = self.state_number(at)?;
        Ok(self.view(number).basic(wallet).map_err(unavailable)?.nonce)
    }

    /// A transaction, wherever it is.
    pub(crate) fn find_transaction(&self, hash: B256) -> Result<Option<Found>, ChainError> {
        if let Some(mined) = self.find_mined(hash)? {
            return Ok(Some(mined));
        }
        if let Some(pooled) = self.pool().get(hash) {
            return Ok(Some(Found::Waiting(pooled)));
        }
        // The pool forgets it after its block is there: it may have been mined in between.
        self.find_mined(hash)
    }

    fn find_mined(&self, hash: B256) -> Result<Option<Found>, ChainError> {
        let Some((number, index)) = self.store.transaction(hash).map_err(failed)? else {
            return Ok(None);
        };
        let block = self.block_at(number)?;
        Ok(block.map(|block| Found::Mined(block, index)))
    }
}
