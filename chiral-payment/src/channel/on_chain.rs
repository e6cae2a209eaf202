//! What channels ask of the chain, and have sent to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::{BlockId, CallRequest, ChainClient, ChainError, LogFilter};
use chiral_core::{BillId, PaymentSettler, SettleError, SettlementStatus};

use super::cipher::key_hash;
use crate::ChainSettler;
use crate::contracts::{ChannelState, channels};

/// Has calls of contracts executed from the node's wallet, each once.
#[async_trait]
pub trait CallSender: Send + Sync + fmt::Debug + 'static {
    /// Takes a call, durably; the same id again is the same call.
    ///
    /// # Errors
    /// [`SettleError`].
    async fn send(
        &self,
        id: B256,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Result<SettlementStatus, SettleError>;

    /// How far a call is.
    ///
    /// # Errors
    /// [`SettleError`].
    async fn status(&self, id: B256) -> Result<Option<SettlementStatus>, SettleError>;

    /// A call that would fail need not be tried again: what it was for has happened, or cannot
    /// any more.
    ///
    /// # Errors
    /// [`SettleError`].
    async fn withdraw(&self, id: B256) -> Result<(), SettleError>;
}

#[async_trait]
impl CallSender for ChainSettler {
    async fn send(
        &self,
        id: B256,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Result<SettlementStatus, SettleError> {
        self.call(BillId(id), to, value, input).await
    }

    async fn status(&self, id: B256) -> Result<Option<SettlementStatus>, SettleError> {
        PaymentSettler::status(self, BillId(id)).await
    }

    async fn withdraw(&self, id: B256) -> Result<(), SettleError> {
        self.withdraw_call(BillId(id)).await
    }
}

/// One chain's `Channels` contract.
#[derive(Clone, Debug)]
pub(super) struct Contract {
    pub(super) client: Arc<dyn ChainClient>,
    pub(super) address: Address,
}

/// How a channel stands, and when that was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) state: ChannelState,
    /// Number of the newest block.
    pub(super) head: u64,
    /// Its time, in seconds since 1970.
    pub(super) time: u64,
}

impl Contract {
    /// Whether it has the code that is known here.
    pub(super) async fn is_known(&self) -> Result<bool, ChainError> {
        Ok(self.client.code(self.address).await? == channels::runtime_code())
    }

    /// How a channel stands.
    pub(super) async fn look(&self, id: B256) -> Result<Sight, ChainError> {
        // The block first: what is seen is not older than the time that it is said to have.
        let (head, time) = self.now().await?;
        let call = CallRequest {
            to: Some(self.address),
            input: channels::look(id),
            ..CallRequest::default()
        };
        let answer = self.client.call(call).await?;
        let state = ChannelState::read(&answer).ok_or(ChainError::Protocol {
            reason: "no channels where they should be",
        })?;
        Ok(Sight { state, head, time })
    }

    /// The key with this hash, if a lock of the channel was claimed with it up to this block.
    pub(super) async fn key(
        &self,
        id: B256,
        hash: B256,
        head: u64,
    ) -> Result<Option<B256>, ChainError> {
        let filter = LogFilter {
            from_block: 0,
            to_block: head,
            address: Some(self.address),
            topics: vec![Some(channels::UNLOCKED_TOPIC), Some(id), Some(hash)],
        };
        let logs = self.client.logs(filter).await?;
        let mut shown = logs
            .iter()
            .filter_map(|log| channels::unlocked(log, self.address));
        // Whatever a node answers, a key is one by its hash.
        let its = |shown: &(B256, B256, B256)| shown.0 == id && key_hash(&shown.2) == hash;
        Ok(shown.find(its).map(|(_, _, key)| key))
    }

    /// Number and time of the newest block.
    pub(super) async fn now(&self) -> Result<(u64, u64), ChainError> {
        let head = self.client.head().await?.number;
        let block = self.client.block(BlockId::Number(head)).await?;
        let block = block.ok_or(ChainError::Protocol {
            reason: "the newest block is not there",
        })?;
        Ok((head, block.timestamp))
    }
}

/// Pauses between looks at the chain while something is waited for, the first and the longest.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(5);
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
