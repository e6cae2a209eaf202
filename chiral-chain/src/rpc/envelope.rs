//! JSON-RPC 2.0: requests, answers, and what an error means.

use alloy_primitives::hex;
use bytes::Bytes;
use hyper::StatusCode;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::transport::Answer;
use crate::{ChainError, RefusalKind};

/// Characters of a node's words that are kept.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// JSON-RPC: there is no such method.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

#[derive(Serialize)]
pub(super) struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: Value,
}

impl<'a> Request<'a> {
    pub(super) fn new(id: u64, method: &'a str, params: Value) -> Self {
        Self {
            jsonrpc: "2.0",
            id,
            method,
            params,
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("texts, numbers and maps with texts as keys are JSON")
            .into()
    }
}

#[derive(Deserialize)]
struct Response<T> {
    id: Option<u64>,
    /// Absent, or there and possibly null.
    #[serde(default = "Option::default", deserialize_with = "present")]
    #[serde(bound(deserialize = "T: DeserializeOwned"))]
    result: Option<Option<T>>,
    error: Option<RpcError>,
}

/// What a node says instead of a result.
#[derive(Deserialize)]
pub(super) struct RpcError {
    code: i64,
    #[serde(default)]
    message: String,
    data: Option<Value>,
}

/// Why there is no result.
pub(super) enum Failure {
    /// The node says so.
    Answered(RpcError),
    /// Anything else.
    Chain(ChainError),
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads the answer to the request `id`; `None` where the result is null.
pub(super) fn decode<T: DeserializeOwned>(answer: &Answer, id: u64) -> Result<Option<T>, Failure> {
    let response: Response<T> = match serde_json::from_slice(&answer.body) {
        Ok(response) => response,
        Err(_) => return Err(not_json_rpc(answer.status).into()),
    };
    if let Some(error) = response.error {
        // Where a request could not even be read, an error has no id.
        return match response.id {
            Some(found) if found != id => Err(protocol("an answer to another request").into()),
            _ => Err(Failure::Answered(error)),
        };
    }
    if response.id != Some(id) {
        return Err(protocol("an answer to another request").into());
    }
    let result = response.result;
    Ok(result.ok_or_else(|| protocol("an answer with neither result nor error"))?)
}

fn not_json_rpc(status: StatusCode) -> ChainError {
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return ChainError::Unreachable(Box::new(HttpStatusError { status }));
    }
    match status {
        StatusCode::OK => protocol("an answer of another form"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => protocol("access is denied"),
        StatusCode::NOT_FOUND => protocol("there is no JSON-RPC at this path"),
        _ => protocol("an HTTP status that is no answer"),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("HTTP status {status}")]
struct HttpStatusError {
    status: StatusCode,
}

pub(super) fn protocol(reason: &'static str) -> ChainError {
    ChainError::Protocol { reason }
}

impl RpcError {
    pub(super) fn code(&self) -> i64 {
        self.code
    }

    /// The error of a read.
    pub(super) fn into_chain_error(self) -> ChainError {
        ChainError::Rpc {
            code: self.code,
            message: shortened(self.message),
        }
    }

    /// The error of a call that was executed.
    pub(super) fn into_call_error(self) -> ChainError {
        let output = self.data.as_ref().and_then(Value::as_str);
        let output = output.and_then(|data| hex::decode(data).ok());
        // Code 3 is geth's, and by now everybody's; older nodes have the words alone.
        if self.code == 3 || self.message.to_ascii_lowercase().contains("revert") {
            let output = output.unwrap_or_default().into();
            return ChainError::Reverted { output };
        }
        self.into_chain_error()
    }

    /// The error of sending a transaction.
    pub(super) fn into_refusal(self) -> ChainError {
        let kind = refusal_kind(&self.message);
        match kind {
            // That the server has no such method or cannot answer now says nothing of the
            // transaction; these codes do (EIP-1474, and geth's for all that its pool says).
            RefusalKind::Other if !matches!(self.code, -32_000 | -32_003 | -32_602 | 3) => {
                self.into_chain_error()
            }
            kind => ChainError::Refused {
                kind,
                reason: shortened(self.message),
            },
        }
    }
}

/// What geth (and core-geth, reth, anvil), besu and nethermind say, in this order of words.
fn refusal_kind(message: &str) -> RefusalKind {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let known = ["already known", "already imported", "alreadyknown"];
    // "unknown transaction type" ends alike.
    if says(&known) || message.starts_with("known transaction") {
        RefusalKind::AlreadyKnown
    } else if says(&["nonce too low", "nonce is too low", "oldnonce"]) {
        RefusalKind::NonceTooLow
    } else if says(&[
        "underpriced",
        "replacementnotallowed",
        "replacement not allowed",
    ]) {
        RefusalKind::Underpriced
    } else if says(&[
        "insufficient funds",
        "insufficientfunds",
        "upfront cost exceeds",
    ]) {
        RefusalKind::Funds
    } else {
        RefusalKind::Other
    }
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn decoded(status: u16, body: &str) -> Result<Option<u32>, String> {
        decode::<u32>(&answer(status, body), 7).map_err(|failure| match failure {
            Failure::Answered(error) => error.into_chain_error().to_string(),
            Failure::Chain(error) => format!("{error:?}"),
        })
    }

    #[test]
    fn results_nulls_and_errors_are_told_apart() {
        assert_eq!(decoded(200, r#"{"id":7,"result":5}"#), Ok(Some(5)));
        assert_eq!(decoded(200, r#"{"id":7,"result":null}"#), Ok(None));
        assert_eq!(
            decoded(200, r#"{"id":7,"result":5,"error":null}"#),
            Ok(Some(5))
        );
        let error = decoded(
            400,
            r#"{"id":null,"error":{"code":-32700,"message":"what"}}"#,
        );
        assert!(error.unwrap_err().contains("-32700: what"));
        for (bad, says) in [
            (r#"{"id":7}"#, "neither"),
            (r#"{"id":8,"result":5}"#, "another request"),
            (r#"{"result":5}"#, "another request"),
            (
                r#"{"id":8,"error":{"code":1,"message":""}}"#,
                "another request",
            ),
            (r#"{"id":7,"result":"5"}"#, "another form"),
            (r#"[{"id":7,"result":5}]"#, "another form"),
            ("<html>", "another form"),
            ("", "another form"),
        ] {
            let error = decoded(200, bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn an_overloaded_server_may_be_asked_again_and_a_wrong_one_not() {
        for (status, retryable) in [
            (429, true),
            (502, true),
            (503, true),
            (404, false),
            (301, false),
        ] {
            let Err(Failure::Chain(error)) = decode::<u32>(&answer(status, "sorry"), 7) else {
                panic!("{status} is no answer");
            };
            assert_eq!(error.is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn refusals_have_their_kind_whoever_words_them() {
        use RefusalKind::{AlreadyKnown, Funds, NonceTooLow, Other, Underpriced};
        for (code, message, expected) in [
            (-32_000, "already known", AlreadyKnown),
            (-32_003, "transaction already imported", AlreadyKnown),
            (-32_000, "Known transaction", AlreadyKnown),
            (
                -32_000,
                "nonce too low: next nonce 5, tx nonce 4",
                NonceTooLow,
            ),
            (-32_003, "nonce too low", NonceTooLow),
            (-32_000, "replacement transaction underpriced", Underpriced),
            (
                -32_000,
                "transaction underpriced: tip needed 1, tip permitted 0",
                Underpriced,
            ),
            (
                -32_000,
                "insufficient funds for gas * price + value: balance 0, tx cost 1",
                Funds,
            ),
            (-32_003, "Insufficient funds for gas * price + value", Funds),
            (-32_004, "Upfront cost exceeds account balance", Funds),
            (-32_000, "intrinsic gas too low", Other),
            (-32_000, "unknown transaction type", Other),
            (-32_602, "Failed to decode signed transaction", Other),
        ] {
            let error = RpcError {
                code,
                message: message.to_owned(),
                data: None,
            };
            match error.into_refusal() {
                ChainError::Refused { kind, reason } => {
                    assert_eq!((kind, reason.as_str()), (expected, message));
                }
                other => panic!("{message}: {other:?}"),
            }
        }
        for code in [METHOD_NOT_FOUND, -32_005, -32_603] {
            let error = RpcError {
                code,
                message: "x".repeat(5_000),
                data: None,
            };
            match error.into_refusal() {
                ChainError::Rpc { message, .. } => assert_eq!(message.len(), MAX_MESSAGE_CHARS),
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_revert_has_its_output() {
        let error = |code, message: &str, data| RpcError {
            code,
            message: message.to_owned(),
            data,
        };
        let reverted = |error: RpcError| match error.into_call_error() {
            ChainError::Reverted { output } => Some(output.to_vec()),
            _ => None,
        };
        let data = Some(Value::from("0x0102"));
        assert_eq!(
            reverted(error(3, "execution reverted", data)),
            Some(vec![1, 2])
        );
        assert_eq!(
            reverted(error(-32_000, "execution reverted", None)),
            Some(vec![])
        );
        assert_eq!(reverted(error(-32_000, "out of gas", None)), None);
    }
}
