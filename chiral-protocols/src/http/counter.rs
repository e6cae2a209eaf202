//! `POST /payment`: messages from clients' agents to the payment gate, unread.

use std::time::Duration;

use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{GateError, PaymentGate};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::content_length;
use super::routes::{Answer, octets, options, text};

/// Messages that are with the gate at once, all connections together.
const MAX_AT_ONCE: usize = 64;

/// Seconds after which a client may try again.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// Where messages are handed in.
#[derive(Debug)]
pub(super) struct Counter {
    slots: Semaphore,
    /// Time for a message to come whole.
    patience: Duration,
}

impl Counter {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            slots: Semaphore::new(MAX_AT_ONCE),
            patience,
        }
    }

    /// Answers a request to `/payment`.
    pub(super) async fn answer<B>(
        &self,
        gate: &dyn PaymentGate,
        method: &Method,
        headers: &HeaderMap,
        body: B,
    ) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match *method {
            Method::POST => {}
            Method::OPTIONS => return options(METHODS),
            _ => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "POST or OPTIONS only");
                answer.headers_mut().insert(header::ALLOW, METHODS);
                // Whatever body it has is not read.
                return hang_up(answer);
            }
        }
        if let Err(refusal) = head(headers) {
            return *refusal;
        }
        let limited = Limited::new(body, MAX_PAYMENT_MESSAGE);
        let message = match timeout(self.patience, limited.collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(_)) => return hang_up(text(StatusCode::BAD_REQUEST, "the message broke off")),
            Err(_) => return hang_up(text(StatusCode::REQUEST_TIMEOUT, "the message is late")),
        };
        let Ok(_slot) = self.slots.try_acquire() else {
            return later("too many messages at once");
        };
        match gate.message(message).await {
            Ok(answer) => {
                let mut answer = octets(answer);
                let headers = answer.headers_mut();
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answer
            }
            Err(error) => refusal(&error),
        }
    }
}

/// Whether a message may come behind this head. Its length must be told: what one server
/// takes for the end of a body, another may read on.
fn head(headers: &HeaderMap) -> Result<(), Box<Answer>> {
    let refuse = |status, message: &str| Err(Box::new(hang_up(text(status, message))));
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return refuse(StatusCode::LENGTH_REQUIRED, "a Content-Length is needed");
    }
    let length = match content_length(headers) {
        Ok(Some(length)) => length,
        Ok(None) => return refuse(StatusCode::LENGTH_REQUIRED, "a Content-Length is needed"),
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "a malformed Content-Length"),
    };
    if length > MAX_PAYMENT_MESSAGE as u64 {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "at most 16384 bytes");
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "content codings are not taken";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    // With any other type a stranger's page could post from a browser without being asked
    // whether it may.
    let octets = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"application/octet-stream")
    };
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    if !types.next().is_some_and(octets) || types.next().is_some() {
        let message = "application/octet-stream only";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    Ok(())
}

/// What to answer for a gate that refused.
pub(super) fn refusal(error: &GateError) -> Answer {
    match error {
        GateError::Message { .. } => text(StatusCode::BAD_REQUEST, &error.to_string()),
        GateError::Closed => later("payments are not taken now"),
        // What failed inside is for the log, not for strangers.
        GateError::Journal(_) | GateError::Wallet(_) => {
            tracing::error!(%error, "payment gate failed");
            later("payments are not taken now")
        }
        error if error.is_retryable() => later(&error.to_string()),
        error => text(StatusCode::FORBIDDEN, &error.to_string()),
    }
}

fn later(message: &str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, message);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER);
    answer
}

/// With the rest of a body unread, the connection cannot go on.
pub(super) fn hang_up(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
