//! Parameters of a call.

use alloy_eips::{BlockId as WireBlockId, BlockNumberOrTag};
use alloy_primitives::U256;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::RpcError;
use crate::client::BlockId;

/// No method has more.
const MAX_PARAMS: usize = 8;

/// The parameters, by position.
#[derive(Debug)]
pub(super) struct Params(Vec<Value>);

impl Params {
    /// Takes what a request has under `params`.
    pub(super) fn new(params: Option<Value>) -> Result<Self, RpcError> {
        match params {
            None | Some(Value::Null) => Ok(Self(Vec::new())),
            Some(Value::Array(params)) if params.len() <= MAX_PARAMS => Ok(Self(params)),
            Some(Value::Array(_)) => Err(RpcError::params(format!(
                "more than {MAX_PARAMS} parameters"
            ))),
            Some(_) => Err(RpcError::params("parameters must be in a list")),
        }
    }

    /// The parameter at a position; null is as none.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        index: usize,
    ) -> Result<Option<T>, RpcError> {
        match self.0.get_mut(index).map(Value::take) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| RpcError::params(format!("invalid argument {index}: {error}"))),
        }
    }

    /// The parameter at a position.
    pub(super) fn required<T: DeserializeOwned>(&mut self, index: usize) -> Result<T, RpcError> {
        self.optional(index)?
            .ok_or_else(|| RpcError::params(format!("missing value for required argument {index}")))
    }

    /// A number that fits 64 bits.
    pub(super) fn number(&mut self, index: usize) -> Result<u64, RpcError> {
        let number: U256 = self.required(index)?;
        u64::try_from(number)
            .map_err(|_| RpcError::params(format!("invalid argument {index}: over 64 bits")))
    }

    /// Which block is meant; the newest if nothing is said.
    pub(super) fn block(&mut self, index: usize) -> Result<BlockId, RpcError> {
        Ok(self.optional(index)?.map_or(BlockId::Latest, from_id))
    }

    /// Which block is meant.
    pub(super) fn required_block(&mut self, index: usize) -> Result<BlockId, RpcError> {
        self.required(index).map(from_id)
    }
}

fn from_id(id: WireBlockId) -> BlockId {
    match id {
        WireBlockId::Hash(hash) => BlockId::Hash(hash.block_hash),
        WireBlockId::Number(tag) => from_tag(tag),
    }
}

/// The block that a tag means. No block of this chain is ever taken back, so that the newest one
/// is safe and final, too.
pub(super) fn from_tag(tag: BlockNumberOrTag) -> BlockId {
    match tag {
        BlockNumberOrTag::Number(number) => BlockId::Number(number),
        BlockNumberOrTag::Earliest => BlockId::Number(0),
        BlockNumberOrTag::Pending => BlockId::Pending,
        BlockNumberOrTag::Latest | BlockNumberOrTag::Safe | BlockNumberOrTag::Finalized => {
            BlockId::Latest
        }
    }
}
