//! [`Pool`]: the connections of one source.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response};
use tokio_util::sync::CancellationToken;

use super::client::{Link, LinkError};
use super::config::HttpConfig;
use super::connect::{Origin, connection, protocol};
use super::headers::PAYMENT;

/// First of all bytes as they are: a payment gate's terms come as such to who says so.
const ACCEPTED: &str = "application/octet-stream, */*;q=0.9";

/// Idle connections to one server, and the means to make more.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Endpoint,
    pub(super) config: Arc<HttpConfig>,
    pub(super) origin: Origin,
    pub(super) closed: CancellationToken,
    idle: Mutex<Vec<Link>>,
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) range: Option<String>,
    /// What to show the payment gate.
    pub(super) credential: Option<HeaderValue>,
    /// What to send.
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn get(path: PathAndQuery) -> Self {
        Self {
            method: Method::GET,
            path,
            range: None,
            credential: None,
            body: Bytes::new(),
        }
    }

    pub(super) fn post(path: PathAndQuery, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }
}

impl Pool {
    pub(super) fn new(
        name: Endpoint,
        config: Arc<HttpConfig>,
        origin: Origin,
        closed: CancellationToken,
    ) -> Self {
        Self {
            name,
            config,
            origin,
            closed,
            idle: Mutex::default(),
        }
    }

    /// Sends a request over an idle connection or a new one, and waits for the head of the
    /// answer. A kept connection that the server closed meanwhile is replaced; so a message
    /// may arrive twice, as it may whenever an answer is lost. A credential is shown once
    /// only: then no kept connection is left, and whoever asked makes a new one.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Link, Response<Incoming>), TransferError> {
        let work = async {
            loop {
                let mut link = match self.take().await {
                    Some(link) => link,
                    None => Link::open(&self.origin, &self.name, &self.config).await?,
                };
                let was_used = link.is_used();
                match link
                    .send(self.request(ask)?, self.config.answer_timeout)
                    .await
                {
                    Ok(answer) => return Ok((link, answer)),
                    Err(LinkError::Broken(error)) if was_used && !error.is_parse() => {
                        tracing::debug!(source = %self.name, %error, "kept connection was gone");
                        self.idle().clear();
                        if ask.credential.is_some() {
                            return Err(connection(&self.name, error));
                        }
                    }
                    Err(error) => return Err(error.into_transfer(&self.name)),
                }
            }
        };
        self.closed
            .run_until_cancelled(work)
            .await
            .unwrap_or(Err(TransferError::Closed))
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, TransferError> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.path.clone().into();
        let headers = request.headers_mut();
        let invalid = |_| protocol(&self.name, "a url that cannot be sent");
        let host = HeaderValue::try_from(self.origin.url.authority.as_str());
        headers.insert(header::HOST, host.map_err(invalid)?);
        let agent = concat!("chiral/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPTED));
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if ask.method == Method::POST {
            let octets = HeaderValue::from_static("application/octet-stream");
            headers.insert(header::CONTENT_TYPE, octets);
            // Also of an empty one, which would be sent without.
            let length = HeaderValue::from(ask.body.len());
            headers.insert(header::CONTENT_LENGTH, length);
        }
        if let Some(range) = &ask.range {
            headers.insert(
                header::RANGE,
                HeaderValue::try_from(range).map_err(invalid)?,
            );
        }
        if let Some(credential) = &ask.credential {
            headers.insert(PAYMENT, credential.clone());
        }
        Ok(request)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.idle().pop()?;
            if link.is_ready().await {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put_back(&self, link: Link) {
        let mut idle = self.idle();
        if !self.closed.is_cancelled() && idle.len() < self.config.max_requests_per_source {
            idle.push(link);
        }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        self.idle().clear();
    }
}
