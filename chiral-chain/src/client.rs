//! [`ChainClient`]: a view of the chain, and a way to send transactions to it.

use std::fmt;
use std::pin::Pin;

use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

/// Why the chain could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No node of the chain can be reached.
    #[error("the chain's node cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node did not answer in time.
    #[error("the chain's node did not answer in time")]
    Timeout,
    /// The node answered something that is not an answer, or over its limit.
    #[error("the chain's node broke the protocol: {reason}")]
    Protocol {
        /// What is wrong.
        reason: &'static str,
    },
    /// The node refused a transaction.
    #[error("transaction refused: {reason}")]
    Refused {
        /// Which kind of refusal, as far as it can be told.
        kind: RefusalKind,
        /// The node's words.
        reason: String,
    },
    /// Execution of a call ended in a revert.
    #[error("execution reverted")]
    Reverted {
        /// What the contract returned.
        output: Bytes,
    },
    /// The node answered an error of another kind.
    #[error("the chain's node answers error {code}: {message}")]
    Rpc {
        /// JSON-RPC code.
        code: i64,
        /// The node's words.
        message: String,
    },
    /// A node of another chain than was expected.
    #[error("the node is of chain {found}, not {expected}")]
    WrongChain {
        /// Chain id that was expected.
        expected: u64,
        /// Chain id of the node.
        found: u64,
    },
    /// The store under an embedded chain failed.
    #[error("the chain's store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has been shut down.
    #[error("the chain client is shut down")]
    Closed,
}

/// Why a node refused a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// It has this very transaction already.
    AlreadyKnown,
    /// The nonce has been used by a mined transaction.
    NonceTooLow,
    /// It does not pay enough: less than the node takes at all, or not enough more than another
    /// one with this nonce, which waits.
    Underpriced,
    /// The balance does not cover value and gas.
    Funds,
    /// Anything else.
    Other,
}

impl ChainError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout)
    }
}

/// Which state or block is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockId {
    /// The newest block.
    Latest,
    /// The newest block and what waits to be mined.
    Pending,
    /// By its number.
    Number(u64),
    /// By its hash.
    Hash(B256),
}

/// A block, by what identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Number.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its number and hash.
    pub id: BlockRef,
    /// Hash of the one before it.
    pub parent: B256,
    /// Seconds since 1970 (UTC), as its miner says.
    pub timestamp: u64,
    /// Wei per gas that is burnt; none before London.
    pub base_fee: Option<u128>,
    /// Gas limit.
    pub gas_limit: u64,
    /// Its transactions, in order.
    pub transactions: Vec<TransactionInfo>,
}

/// A transaction that a node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionInfo {
    /// Its hash.
    pub hash: B256,
    /// Who sent it (recovered from its signature by the node).
    pub from: Address,
    /// To whom; none for one that makes a contract.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// Nonce.
    pub nonce: u64,
    /// Calldata.
    pub input: Bytes,
    /// Chain id that the signature covers, if it does.
    pub chain_id: Option<u64>,
    /// The block that it is in; none while it waits.
    pub block: Option<BlockRef>,
}

/// What became of a transaction that is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionReceipt {
    /// The transaction.
    pub transaction: B256,
    /// The block.
    pub block: BlockRef,
    /// Whether it was executed without a revert.
    pub succeeded: bool,
    /// Gas used by it alone.
    pub gas_used: u64,
    /// Wei per gas that it paid.
    pub effective_gas_price: u128,
    /// The contract that it made, if it made one.
    pub contract: Option<Address>,
    /// What contracts logged in it.
    pub logs: Vec<LogEntry>,
}

/// Something that a contract logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The contract.
    pub address: Address,
    /// Topics, at most four.
    pub topics: Vec<B256>,
    /// Data.
    pub data: Bytes,
    /// The transaction.
    pub transaction: B256,
    /// The block.
    pub block: BlockRef,
    /// Position among the logs of the block.
    pub index: u64,
}

/// Which logs are asked for: both ends of the range are included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// First block.
    pub from_block: u64,
    /// Last block.
    pub to_block: u64,
    /// Of this contract only.
    pub address: Option<Address>,
    /// By position, the topic that must be there; any where there is none.
    pub topics: Vec<Option<B256>>,
}

/// A call that is executed without being sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRequest {
    /// Who would send it.
    pub from: Address,
    /// To whom; none makes a contract.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// Calldata.
    pub input: Bytes,
    /// Gas limit; the node's own without one.
    pub gas: Option<u64>,
}

/// What a transaction should offer per gas now, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeQuote {
    /// Base fee of the next block; none before London.
    pub base_fee: Option<u128>,
    /// Tip that gets a transaction mined soon.
    pub priority_fee: u128,
    /// Gas price for a legacy transaction.
    pub gas_price: u128,
}

/// The chain's new heads, each as it becomes the best. After a reorganisation the next head
/// may have a number that was there before, with another hash. A subscriber that is too slow
/// misses all but the newest.
pub type HeadStream = Pin<Box<dyn Stream<Item = BlockRef> + Send>>;

/// A view of one chain, and a way to send transactions to it.
///
/// Answers of a remote node are a stranger's word: nothing but signatures made here proves
/// them.
///
/// # Cancel safety
/// Every future may be dropped. A transaction whose sending was dropped may have been sent.
#[async_trait]
pub trait ChainClient: Send + Sync + fmt::Debug + 'static {
    /// The chain's id (EIP-155).
    async fn chain_id(&self) -> Result<u64, ChainError>;

    /// Hash of block 0.
    async fn genesis_hash(&self) -> Result<B256, ChainError>;

    /// The best block.
    async fn head(&self) -> Result<BlockRef, ChainError>;

    /// A block with its transactions; `None` if there is no such block on the best chain.
    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError>;

    /// A wallet's balance in wei.
    async fn balance(&self, wallet: Address, at: BlockId) -> Result<U256, ChainError>;

    /// The next nonce of a wallet.
    async fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError>;

    /// A contract's code; empty for any other account.
    async fn code(&self, contract: Address) -> Result<Bytes, ChainError>;

    /// What to offer per gas now.
    async fn fees(&self) -> Result<FeeQuote, ChainError>;

    /// The gas that a call would use.
    async fn estimate_gas(&self, call: CallRequest) -> Result<u64, ChainError>;

    /// Executes a call on the newest state without sending it.
    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError>;

    /// Sends a signed transaction (EIP-2718 bytes) and answers its hash.
    ///
    /// # Errors
    /// [`ChainError::Refused`], by kind.
    async fn send_raw_transaction(&self, raw: Bytes) -> Result<B256, ChainError>;

    /// A transaction that is mined or waits; `None` if the node does not know it.
    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError>;

    /// What became of a transaction; `None` while it is in no block of the best chain.
    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError>;

    /// Logs in a range of blocks.
    async fn logs(&self, filter: LogFilter) -> Result<Vec<LogEntry>, ChainError>;

    /// New heads from now on.
    async fn heads(&self) -> Result<HeadStream, ChainError>;

    /// Ends what runs in the background; idempotent.
    async fn shutdown(&self) -> Result<(), ChainError>;
}
