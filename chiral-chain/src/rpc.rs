//! [`RpcChain`]: any Ethereum node, over JSON-RPC on HTTP.

mod config;
mod envelope;
mod heads;
mod transport;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::{Address, B256, U64, U128, U256, hex, keccak256};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join3;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, TransactionInfo, TransactionReceipt,
};
use envelope::{Failure, METHOD_NOT_FOUND, Request, RpcError, protocol};
use transport::Transport;
use wire::{
    WireBlock, WireFeeHead, WireFeeHistory, WireHead, WireLog, WireReceipt, WireTransaction,
    block_param, call_param, filter_param, is_asked_for, quantity,
};

pub use config::{RpcConfig, RpcUrlError};

/// Pause before a read is tried again; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A client of a remote node: core-geth for the Chiral network, anvil or reth in development.
///
/// What the node answers is its word. Answers are bounded, checked for being about what was
/// asked, and never a reason to panic. May be used by many tasks at once. Nothing runs in the
/// background but idle connections.
pub struct RpcChain {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    /// The node's chain id, and whether it may be relied on: after the node was unreachable
    /// another one may have taken its place.
    chain_id: AtomicU64,
    verified: AtomicBool,
    next_id: AtomicU64,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] RpcUrlError),
    /// The node did not answer, or is of another chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl ConnectError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url(error) => error.is_retryable(),
            Self::Chain(error) => error.is_retryable(),
        }
    }
}

impl RpcChain {
    /// A client of the node at `url` (`http://host:port/path`), which need not be reachable
    /// yet: its chain id is checked before the first answer is believed.
    ///
    /// # Errors
    /// [`RpcUrlError`].
    pub fn new(url: &str, config: RpcConfig) -> Result<Self, RpcUrlError> {
        let uri = config::parse_url(url)?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport: Transport::new(uri, config),
                chain_id: AtomicU64::new(0),
                verified: AtomicBool::new(false),
                next_id: AtomicU64::new(1),
            }),
        })
    }

    /// A client of the node at `url`, which answers and is of the expected chain.
    ///
    /// # Errors
    /// [`ConnectError::Url`]; [`ConnectError::Chain`] with [`ChainError::WrongChain`] or why
    /// the node cannot be asked.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub async fn connect(url: &str, config: RpcConfig) -> Result<Self, ConnectError> {
        let chain = Self::new(url, config)?;
        chain.inner.verify().await?;
        Ok(chain)
    }
}

impl fmt::Debug for RpcChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcChain")
            .field("node", &self.inner.transport.authority())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Asks the node for its chain id, unless that was done.
    async fn verify(&self) -> Result<u64, ChainError> {
        if self.verified.load(Ordering::Acquire) {
            return Ok(self.chain_id.load(Ordering::Acquire));
        }
        let found = self.retried("eth_chainId", json!([])).await;
        let found: U64 = some(found.map_err(read_error)?)?;
        let found = found.to();
        if let Some(expected) = self.transport.config().expected_chain_id
            && found != expected
        {
            return Err(ChainError::WrongChain { expected, found });
        }
        self.chain_id.store(found, Ordering::Release);
        self.verified.store(true, Ordering::Release);
        Ok(found)
    }

    /// One request and its answer; `None` if that is null.
    async fn once<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Option<T>, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request::new(id, method, params).encode();
        let result = match self.transport.post(request).await {
            Ok(answer) => envelope::decode(&answer, id),
            Err(error) => Err(error.into()),
        };
        if let Err(Failure::Chain(error)) = &result
            && error.is_retryable()
        {
            self.verified.store(false, Ordering::Release);
        }
        result
    }

    /// The same, again if the node cannot be reached: for what changes nothing.
    async fn retried<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Option<T>, Failure> {
        let mut left = self.transport.config().read_retries;
        let mut pause = RETRY_PAUSE;
        loop {
            match self.once(method, params.clone()).await {
                Err(Failure::Chain(ChainError::Unreachable(_))) if left > 0 => {}
                result => return result,
            }
            left -= 1;
            let wait = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            self.transport.until_closed(wait).await?;
            pause = pause.saturating_mul(2);
        }
    }

    /// A read whose answer may be null, from a node that is of the right chain.
    async fn maybe<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Option<T>, Failure> {
        self.verify().await?;
        self.retried(method, params).await
    }

    /// A read whose answer is not null.
    async fn read<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, ChainError> {
        some(self.maybe(method, params).await.map_err(read_error)?)
    }

    async fn head(&self) -> Result<BlockRef, ChainError> {
        let params = json!(["latest", false]);
        let head: WireHead = self.read("eth_getBlockByNumber", params).await?;
        Ok(head.into())
    }

    async fn base_fee(&self) -> Result<Option<u128>, ChainError> {
        let params = json!(["latest", false]);
        let head: WireFeeHead = self.read("eth_getBlockByNumber", params).await?;
        if head.base_fee_per_gas.is_none() {
            return Ok(None);
        }
        // Nodes know their own rule for the next one; rollups have others than Ethereum.
        let params = json!(["0x1", "latest", []]);
        let history: WireFeeHistory = self.read("eth_feeHistory", params).await?;
        let next = history.base_fee_per_gas.last();
        let next = next.ok_or_else(|| protocol("a fee history without fees"))?;
        Ok(Some(next.to()))
    }

    /// `None` where the node has no word for it.
    async fn tip(&self) -> Result<Option<u128>, ChainError> {
        match self.maybe("eth_maxPriorityFeePerGas", json!([])).await {
            Ok(tip) => some::<U128>(tip).map(|tip| Some(tip.to())),
            Err(Failure::Answered(error)) if error.code() == METHOD_NOT_FOUND => Ok(None),
            Err(failure) => Err(read_error(failure)),
        }
    }
}

fn some<T>(result: Option<T>) -> Result<T, ChainError> {
    result.ok_or_else(|| protocol("null where there is an answer"))
}

fn failed(failure: Failure, answered: impl FnOnce(RpcError) -> ChainError) -> ChainError {
    match failure {
        Failure::Answered(error) => answered(error),
        Failure::Chain(error) => error,
    }
}

fn read_error(failure: Failure) -> ChainError {
    failed(failure, RpcError::into_chain_error)
}

fn call_error(failure: Failure) -> ChainError {
    failed(failure, RpcError::into_call_error)
}

#[async_trait]
impl ChainClient for RpcChain {
    async fn chain_id(&self) -> Result<u64, ChainError> {
        self.inner.verify().await
    }

    async fn genesis_hash(&self) -> Result<B256, ChainError> {
        let params = json!([quantity(0), false]);
        let block: WireHead = self.inner.read("eth_getBlockByNumber", params).await?;
        Ok(BlockRef::from(block).hash)
    }

    async fn head(&self) -> Result<BlockRef, ChainError> {
        self.inner.head().await
    }

    /// A pending block's hash is zero where the node gives none.
    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError> {
        let found = match block {
            BlockId::Hash(hash) => {
                let params = json!([hash, true]);
                self.inner.maybe("eth_getBlockByHash", params).await
            }
            _ => {
                let params = json!([block_param(block), true]);
                self.inner.maybe("eth_getBlockByNumber", params).await
            }
        };
        let found: Option<WireBlock> = found.map_err(read_error)?;
        found.map(|found| found.into_info(block)).transpose()
    }

    async fn balance(&self, wallet: Address, at: BlockId) -> Result<U256, ChainError> {
        let params = json!([wallet, block_param(at)]);
        self.inner.read("eth_getBalance", params).await
    }

    async fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError> {
        let params = json!([wallet, block_param(at)]);
        let nonce: U64 = self.inner.read("eth_getTransactionCount", params).await?;
        Ok(nonce.to())
    }

    async fn code(&self, contract: Address) -> Result<Bytes, ChainError> {
        let params = json!([contract, "latest"]);
        let code: alloy_primitives::Bytes = self.inner.read("eth_getCode", params).await?;
        Ok(code.0)
    }

    async fn fees(&self) -> Result<FeeQuote, ChainError> {
        let price = self.inner.read::<U128>("eth_gasPrice", json!([]));
        let all = try_join3(price, self.inner.base_fee(), self.inner.tip());
        let (gas_price, base_fee, tip) = all.await?;
        let gas_price: u128 = gas_price.to();
        let priority_fee = match (base_fee, tip) {
            // All of the price is the miner's.
            (None, _) => gas_price,
            (Some(_), Some(tip)) => tip,
            (Some(base_fee), None) => gas_price.saturating_sub(base_fee),
        };
        Ok(FeeQuote {
            base_fee,
            priority_fee,
            gas_price,
        })
    }

    async fn estimate_gas(&self, call: CallRequest) -> Result<u64, ChainError> {
        let params = json!([call_param(&call), "latest"]);
        let gas = self.inner.maybe("eth_estimateGas", params).await;
        let gas: U64 = some(gas.map_err(call_error)?)?;
        Ok(gas.to())
    }

    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError> {
        let params = json!([call_param(&call), "latest"]);
        let output = self.inner.maybe("eth_call", params).await;
        let output: alloy_primitives::Bytes = some(output.map_err(call_error)?)?;
        Ok(output.0)
    }

    /// Sent once: after [`ChainError::Timeout`] or [`ChainError::Unreachable`] the node may
    /// have it or not. To send the same bytes again is harmless.
    async fn send_raw_transaction(&self, raw: Bytes) -> Result<B256, ChainError> {
        self.inner.verify().await?;
        let expected = keccak256(&raw);
        let params = json!([hex::encode_prefixed(&raw)]);
        let hash = self.inner.once("eth_sendRawTransaction", params).await;
        let hash = hash.map_err(|failure| failed(failure, RpcError::into_refusal))?;
        if some::<B256>(hash)? != expected {
            return Err(protocol("the hash of another transaction"));
        }
        Ok(expected)
    }

    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError> {
        let params = json!([hash]);
        let found = self.inner.maybe("eth_getTransactionByHash", params).await;
        let found: Option<WireTransaction> = found.map_err(read_error)?;
        if found.as_ref().is_some_and(|found| found.hash != hash) {
            return Err(protocol("another transaction than was asked for"));
        }
        Ok(found.map(Into::into))
    }

    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        let params = json!([hash]);
        let found = self.inner.maybe("eth_getTransactionReceipt", params).await;
        let found: Option<WireReceipt> = found.map_err(read_error)?;
        found.map(|found| found.into_receipt(hash)).transpose()
    }

    async fn logs(&self, filter: LogFilter) -> Result<Vec<LogEntry>, ChainError> {
        let params = json!([filter_param(&filter)]);
        let logs: Vec<WireLog> = self.inner.read("eth_getLogs", params).await?;
        let logs: Vec<LogEntry> = logs
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?;
        if !logs.iter().all(|log| is_asked_for(log, &filter)) {
            return Err(protocol("a log that was not asked for"));
        }
        Ok(logs)
    }

    async fn heads(&self) -> Result<HeadStream, ChainError> {
        let known = self.inner.head().await?;
        Ok(heads::after(self.inner.clone(), known))
    }

    async fn shutdown(&self) -> Result<(), ChainError> {
        self.inner.transport.close();
        Ok(())
    }
}
