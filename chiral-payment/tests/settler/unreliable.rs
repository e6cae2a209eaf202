//! A line to a chain that is late, silent, forgetful and untruthful, as a seed says.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, RefusalKind, TransactionInfo, TransactionReceipt,
};

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&self, times: u64) -> bool {
        self.below(100) < times
    }
}

/// The line. Whatever is sent is written down first.
#[derive(Debug)]
pub(crate) struct Unreliable {
    chain: Arc<dyn ChainClient>,
    dice: Option<Dice>,
    sent: Mutex<File>,
}

impl Unreliable {
    /// Without a seed it does what it should.
    pub(crate) fn over(chain: Arc<dyn ChainClient>, seed: Option<u64>, sent: File) -> Arc<Self> {
        Arc::new(Self {
            chain,
            dice: seed.map(Dice::new),
            sent: Mutex::new(sent),
        })
    }

    fn percent(&self, times: u64) -> bool {
        self.dice.as_ref().is_some_and(|dice| dice.percent(times))
    }

    /// Every question may be answered late, or not at all.
    async fn ask(&self) -> Result<&Arc<dyn ChainClient>, ChainError> {
        let Some(dice) = &self.dice else {
            return Ok(&self.chain);
        };
        match dice.below(100) {
            0..6 => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                Err(ChainError::Timeout)
            }
            6..12 => Err(ChainError::Unreachable("the line is down".into())),
            12..25 => {
                let late = Duration::from_millis(dice.below(20));
                tokio::time::sleep(late).await;
                Ok(&self.chain)
            }
            _ => Ok(&self.chain),
        }
    }
}

#[async_trait]
impl ChainClient for Unreliable {
    async fn chain_id(&self) -> Result<u64, ChainError> {
        self.ask().await?.chain_id().await
    }
    async fn genesis_hash(&self) -> Result<B256, ChainError> {
        self.ask().await?.genesis_hash().await
    }
    async fn head(&self) -> Result<BlockRef, ChainError> {
        let head = self.ask().await?.head().await?;
        if self.percent(8) && head.number > 0 {
            let before = BlockId::Number(head.number - 1);
            if let Some(block) = self.chain.block(before).await? {
                return Ok(block.id);
            }
        }
        Ok(head)
    }
    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError> {
        self.ask().await?.block(block).await
    }
    async fn balance(&self, wallet: Address, at: BlockId) -> Result<U256, ChainError> {
        self.ask().await?.balance(wallet, at).await
    }
    async fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError> {
        let nonce = self.ask().await?.nonce(wallet, at).await?;
        Ok(match self.percent(10) {
            true if self.percent(50) => nonce + 1,
            true => nonce.saturating_sub(1),
            false => nonce,
        })
    }
    async fn code(&self, contract: Address) -> Result<Bytes, ChainError> {
        self.ask().await?.code(contract).await
    }
    async fn fees(&self) -> Result<FeeQuote, ChainError> {
        let mut quote = self.ask().await?.fees().await?;
        if self.percent(10) {
            quote.gas_price *= 2;
        }
        Ok(quote)
    }
    async fn estimate_gas(&self, call: CallRequest) -> Result<u64, ChainError> {
        if self.percent(5) {
            let output = Bytes::new();
            return Err(ChainError::Reverted { output });
        }
        let gas = self.ask().await?.estimate_gas(call).await?;
        // A batch that runs out of gas is reverted on the chain.
        Ok(if self.percent(5) { 22_000 } else { gas })
    }
    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError> {
        self.ask().await?.call(call).await
    }
    async fn send_raw_transaction(&self, raw: Bytes) -> Result<B256, ChainError> {
        let chain = self.ask().await?;
        writeln!(self.sent.lock().unwrap(), "{}", hex::encode(&raw)).unwrap();
        if self.percent(10) {
            return Err(ChainError::Refused {
                kind: RefusalKind::AlreadyKnown,
                reason: "already known".to_owned(),
            });
        }
        let answer = chain.send_raw_transaction(raw).await;
        match self.percent(10) {
            true => Err(ChainError::Timeout),
            false => answer,
        }
    }
    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError> {
        self.ask().await?.transaction(hash).await
    }
    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        let receipt = self.ask().await?.receipt(hash).await?;
        Ok(receipt.filter(|_| !self.percent(8)))
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<LogEntry>, ChainError> {
        self.ask().await?.logs(filter).await
    }
    async fn heads(&self) -> Result<HeadStream, ChainError> {
        self.ask().await?.heads().await
    }
    async fn shutdown(&self) -> Result<(), ChainError> {
        self.chain.shutdown().await
    }
}
