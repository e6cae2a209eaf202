//! Looking for logs.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bloom, BloomInput, Log};

use super::super::block::StoredBlock;
use super::Engine;
use crate::client::ChainError;

/// Blocks that one question for logs looks at.
pub const MAX_LOG_BLOCKS: u64 = 10_000;

/// Logs that are answered at once.
pub const MAX_LOGS: usize = 10_000;

/// JSON-RPC's code for more than is answered (EIP-1474).
const LIMIT_EXCEEDED: i64 = -32_005;

/// Which logs are looked for. In a list, any will do; an empty one is no condition.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQuery {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) addresses: Vec<Address>,
    pub(crate) topics: Vec<Vec<B256>>,
}

/// A log, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct FoundLog {
    pub(crate) block: Arc<StoredBlock>,
    /// Position of its transaction in the block.
    pub(crate) transaction: usize,
    /// Position among the logs of the block.
    pub(crate) index: u64,
    pub(crate) log: Log,
}

impl LogQuery {
    /// Whether a block with this bloom can have such a log.
    fn may_be_in(&self, bloom: &Bloom) -> bool {
        let has = |input: BloomInput<'_>| bloom.contains_input(input);
        (self.addresses.is_empty()
            || self
                .addresses
                .iter()
                .any(|address| has(BloomInput::Raw(address.as_slice()))))
            && self.topics.iter().all(|any| {
                any.is_empty()
                    || any
                        .iter()
                        .any(|topic| has(BloomInput::Raw(topic.as_slice())))
            })
    }

    /// Whether this is such a log.
    fn matches(&self, log: &Log) -> bool {
        let topics = log.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.iter().enumerate().all(|(position, any)| {
                any.is_empty()
                    || topics
                        .get(position)
                        .is_some_and(|topic| any.contains(topic))
            })
            && topics.len()
                >= self
                    .topics
                    .iter()
                    .rposition(|any| !any.is_empty())
                    .map_or(0, |i| i + 1)
    }
}

impl Engine {
    /// Logs in order; the end of the range is the head if it is beyond.
    pub(crate) fn logs(&self, query: &LogQuery) -> Result<Vec<FoundLog>, ChainError> {
        let limit = |message: String| ChainError::Rpc {
            code: LIMIT_EXCEEDED,
            message,
        };
        let to = query.to.min(self.head().header.number);
        if to.saturating_sub(query.from) >= MAX_LOG_BLOCKS {
            return Err(limit(format!("query exceeds {MAX_LOG_BLOCKS} blocks")));
        }
        let mut found = Vec::new();
        for number in query.from..=to {
            let Some(header) = self.header_at(number)? else {
                break;
            };
            if header.logs_bloom.is_zero() || !query.may_be_in(&header.logs_bloom) {
                continue;
            }
            let Some(block) = self.block_at(number)? else {
                break;
            };
            found.extend(block_logs(&block).filter(|found| query.matches(&found.log)));
            if found.len() > MAX_LOGS {
                return Err(limit(format!(
                    "query returned more than {MAX_LOGS} results"
                )));
            }
        }
        Ok(found)
    }
}

/// All logs of a block.
pub(crate) fn block_logs(block: &Arc<StoredBlock>) -> impl Iterator<Item = FoundLog> + '_ {
    let logs = block
        .receipts
        .iter()
        .enumerate()
        .flat_map(|(transaction, receipt)| {
            receipt.logs().iter().map(move |log| (transaction, log))
        });
    (0u64..)
        .zip(logs)
        .map(|(index, (transaction, log))| FoundLog {
            block: block.clone(),
            transaction,
            index,
            log: log.clone(),
        })
}
