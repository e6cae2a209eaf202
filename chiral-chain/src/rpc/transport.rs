//! One HTTP POST and its answer, both bounded.
//!
//! On hyper-util's pooled client and not on `alloy-provider`: the hyper feature of
//! `alloy-transport-http` pulls OpenSSL, a library of the system, and its reqwest feature
//! over a hundred crates more. What is needed is this file.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::config::RpcConfig;
use crate::ChainError;

/// Connections that are kept open without a request.
const MAX_IDLE_CONNECTIONS: usize = 8;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

pub(super) struct Transport {
    /// `None` once it is closed: the idle connections go with it.
    client: RwLock<Option<HttpClient>>,
    uri: Uri,
    permits: Semaphore,
    closed: watch::Sender<bool>,
    config: RpcConfig,
}

impl Transport {
    pub(super) fn new(uri: Uri, config: RpcConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect_timeout));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(connector);
        Self {
            client: RwLock::new(Some(client)),
            uri,
            permits: Semaphore::new(config.max_concurrent_requests.clamp(1, 1 << 16)),
            closed: watch::Sender::new(false),
            config,
        }
    }

    pub(super) fn config(&self) -> &RpcConfig {
        &self.config
    }

    /// Where it goes, without path and query: they may hold an access key.
    pub(super) fn authority(&self) -> &str {
        self.uri
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// Posts JSON.
    pub(super) async fn post(&self, body: Bytes) -> Result<Answer, ChainError> {
        let work = timeout(self.config.request_timeout, self.exchange(body));
        self.until_closed(async { work.await.unwrap_or(Err(ChainError::Timeout)) })
            .await
    }

    /// Runs `work` until it is done or this is closed.
    pub(super) async fn until_closed<T>(
        &self,
        work: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            // The sender lives in `self`: waiting fails never.
            _ = closed.wait_for(|closed| *closed) => Err(ChainError::Closed),
            result = work => result,
        }
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        *client = None;
    }

    async fn exchange(&self, body: Bytes) -> Result<Answer, ChainError> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| ChainError::Closed)?;
        let client = {
            let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
            client.clone().ok_or(ChainError::Closed)?
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let response = client.request(request).await.map_err(unreachable)?;
        self.read(response).await
    }

    async fn read(&self, response: Response<hyper::body::Incoming>) -> Result<Answer, ChainError> {
        let status = response.status();
        let limit = self.config.max_response_bytes;
        // Refuses a declared length at once, and counts where none is declared.
        let body = Limited::new(response.into_body(), limit);
        let body = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ChainError::Protocol {
                    reason: "an answer longer than is allowed",
                }
            } else {
                ChainError::Unreachable(error)
            }
        })?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    }
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> ChainError {
    ChainError::Unreachable(Box::new(error))
}
