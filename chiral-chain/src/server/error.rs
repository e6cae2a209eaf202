//! Errors as JSON-RPC has them (JSON-RPC 2.0 §5.1, EIP-1474), in the words that geth uses and
//! tools look for.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{Panic, Revert, SolError};
use serde_json::{Value, json};

use crate::client::ChainError;

pub(super) const PARSE_ERROR: i64 = -32_700;
pub(super) const INVALID_REQUEST: i64 = -32_600;
pub(super) const METHOD_NOT_FOUND: i64 = -32_601;
pub(super) const INVALID_PARAMS: i64 = -32_602;
pub(super) const INTERNAL_ERROR: i64 = -32_603;
pub(super) const SERVER_ERROR: i64 = -32_000;
/// A revert, as geth numbers it.
const REVERTED: i64 = 3;

/// An error that is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.data {
            None => json!({ "code": self.code, "message": self.message }),
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
        }
    }
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Refused { reason, .. } => Self::new(SERVER_ERROR, reason),
            ChainError::Rpc { code, message } => Self::new(code, message),
            ChainError::Reverted { output } => Self {
                code: REVERTED,
                message: revert_message(&output),
                data: Some(json!(Bytes::from(output))),
            },
            ChainError::Closed => Self::new(SERVER_ERROR, "the node is shutting down"),
            error => {
                tracing::error!(%error, "a request could not be answered");
                Self::new(INTERNAL_ERROR, error.to_string())
            }
        }
    }
}

/// What a contract says of its revert, if it says it as Solidity does.
fn revert_message(output: &[u8]) -> String {
    if let Ok(revert) = Revert::abi_decode_validate(output) {
        return format!("execution reverted: {}", revert.reason);
    }
    if let Ok(panic) = Panic::abi_decode_validate(output)
        && let Ok(code) = u64::try_from(panic.code)
    {
        return format!("execution reverted: panic code {:#04x}", U256::from(code));
    }
    "execution reverted".to_owned()
}
