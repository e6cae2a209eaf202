//! Requests, batches and answers of JSON-RPC 2.0.

use serde_json::{Value, json};

use super::Api;
use super::error::{INVALID_REQUEST, PARSE_ERROR, RpcError};
use super::params::Params;

/// Bytes of a method's name at most.
const MAX_METHOD: usize = 64;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    /// None if no answer is wanted.
    pub(super) id: Option<Value>,
    /// What is called with what; an error if that cannot be told.
    pub(super) called: Result<(String, Params), RpcError>,
}

/// A request.
#[derive(Debug)]
pub(super) enum Request {
    Single(Call),
    Batch(Vec<Call>),
}

/// Reads a request. No input makes it panic, and nesting is bounded by the parser (128).
pub(super) fn parse(body: &[u8], max_batch: usize) -> Result<Request, RpcError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| RpcError::new(PARSE_ERROR, format!("parse error: {error}")))?;
    match value {
        Value::Array(calls) if calls.is_empty() => {
            Err(RpcError::new(INVALID_REQUEST, "empty batch"))
        }
        Value::Array(calls) if calls.len() > max_batch => Err(RpcError::new(
            INVALID_REQUEST,
            format!("batch of more than {max_batch} calls"),
        )),
        Value::Array(calls) => Ok(Request::Batch(calls.into_iter().map(call).collect())),
        single => Ok(Request::Single(call(single))),
    }
}

fn call(value: Value) -> Call {
    let invalid =
        |reason: &str| RpcError::new(INVALID_REQUEST, format!("invalid request: {reason}"));
    let Value::Object(mut fields) = value else {
        return Call {
            id: Some(Value::Null),
            called: Err(invalid("not an object")),
        };
    };
    let id = match fields.remove("id") {
        id @ (None | Some(Value::Null | Value::String(_) | Value::Number(_))) => id,
        Some(_) => {
            let called = Err(invalid("an id is a string, a number or null"));
            return Call {
                id: Some(Value::Null),
                called,
            };
        }
    };
    let called = match (fields.remove("jsonrpc"), fields.remove("method")) {
        (Some(Value::String(version)), _) if version != "2.0" => {
            Err(invalid("the version must be 2.0"))
        }
        (None | Some(Value::String(_)), Some(Value::String(method)))
            if method.len() <= MAX_METHOD =>
        {
            Params::new(fields.remove("params")).map(|params| (method, params))
        }
        _ => Err(invalid("no method")),
    };
    // A request that cannot be read is answered even without an id.
    let id = if called.is_err() {
        Some(id.unwrap_or(Value::Null))
    } else {
        id
    };
    Call { id, called }
}

impl Api {
    /// Answers a body; none if no answer is wanted.
    pub(super) async fn answer(&self, body: &[u8]) -> Option<Vec<u8>> {
        let answer = match parse(body, self.config.max_batch) {
            Err(error) => Some(failed(Value::Null, &error)),
            Ok(Request::Single(call)) => self.answer_call(call).await,
            Ok(Request::Batch(calls)) => {
                // One after the other: a batch of transactions is sent in its order.
                let mut answers = Vec::new();
                for call in calls {
                    answers.extend(self.answer_call(call).await);
                }
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
        };
        answer.map(|answer| answer.to_string().into_bytes())
    }

    async fn answer_call(&self, call: Call) -> Option<Value> {
        let result = match call.called {
            Ok((method, params)) => self.call(&method, params).await,
            Err(error) => Err(error),
        };
        let id = call.id?;
        Some(match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => failed(id, &error),
        })
    }
}

fn failed(id: Value, error: &RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(2\\.0|eth_call|0x[0-9a-f]{0,70}|\\PC{0,8})".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("(jsonrpc|id|method|params|\\PC{0,4})", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes, 3);
        }

        #[test]
        fn no_json_makes_it_panic(value in arbitrary_json()) {
            match parse(value.to_string().as_bytes(), 3) {
                Ok(Request::Batch(calls)) => prop_assert!(calls.len() <= 3),
                Ok(Request::Single(call)) => prop_assert!(call.called.is_ok() || call.id.is_some()),
                Err(error) => prop_assert_eq!(error.code, INVALID_REQUEST),
            }
        }
    }

    #[test]
    fn a_deep_nest_is_a_parse_error() {
        for depth in [200, 1_000_000] {
            let error = parse("[".repeat(depth).as_bytes(), 3).unwrap_err();
            assert_eq!(error.code, PARSE_ERROR);
        }
    }
}
