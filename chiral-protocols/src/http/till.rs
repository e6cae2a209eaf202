//! Messages to a seeder's payment gate, over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{Endpoint, TransferError};
use hyper::StatusCode;
use hyper::http::uri::PathAndQuery;

use super::answer::{self, Fault};
use super::client::collect;
use super::connect::refused;
use super::pool::{Ask, Pool};
use crate::payer::Carrier;

/// Most bytes of a refusal's words, and how many of them are kept.
const MAX_WORDS: usize = 1024;
const KEPT_WORDS: usize = 200;

/// Where messages to the gate go.
#[derive(Debug)]
pub(super) struct Till {
    pub(super) pool: Arc<Pool>,
    pub(super) path: PathAndQuery,
}

#[async_trait]
impl Carrier for Till {
    fn name(&self) -> &Endpoint {
        &self.pool.name
    }

    async fn carry(&self, message: Bytes) -> Result<Bytes, TransferError> {
        post(&self.pool, self.path.clone(), message).await
    }
}

/// Takes a message to the gate, and brings its answer.
pub(super) async fn post(
    pool: &Pool,
    path: PathAndQuery,
    message: Bytes,
) -> Result<Bytes, TransferError> {
    let name = &pool.name;
    if message.len() > MAX_PAYMENT_MESSAGE {
        return Err(refused(name, "our message is over the limit", false));
    }
    let (mut link, answer) = pool.ask(&Ask::post(path, message)).await?;
    let (head, body) = answer.into_parts();
    let wait = pool.config.answer_timeout;
    let fault = match answer::whole(head.status, &head.headers) {
        Ok(_) => {
            let answer = collect(&mut link, body, MAX_PAYMENT_MESSAGE, wait, name).await?;
            return Ok(answer);
        }
        Err(fault) => fault,
    };
    let words = match fault {
        Fault::Status(_) => collect(&mut link, body, MAX_WORDS, wait, name).await.ok(),
        Fault::Protocol(_) => None,
    };
    Err(match (fault.into_transfer(name), words) {
        (TransferError::Refused { retryable, .. }, Some(words)) => {
            refused(name, told_why(head.status, &words, name), retryable)
        }
        (error, _) => error,
    })
}

/// What a seeder says of its refusal, made fit for a log.
fn told_why(status: StatusCode, words: &[u8], name: &Endpoint) -> String {
    let text = String::from_utf8_lossy(words);
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(KEPT_WORDS)
        .collect();
    tracing::debug!(source = %name, %status, reason = clean, "payment message refused");
    if clean.is_empty() {
        status.to_string()
    } else {
        clean
    }
}
