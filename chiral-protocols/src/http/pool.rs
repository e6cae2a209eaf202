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

use super::client::{Link, LinkError, Shared};
use super::config::HttpConfig;
use super::connect::{Origin, Transport, Way, connection, protocol};
use super::headers::PAYMENT;
use super::tls::Towards;

/// First of all bytes as they are: a payment gate's terms come as such to who says so.
const ACCEPTED: &str = "application/octet-stream, */*;q=0.9";

/// Connections to one server, and the means to make more: idle ones over HTTP/1.1, or one
/// over HTTP/2 that all requests share.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Endpoint,
    pub(super) config: Arc<HttpConfig>,
    pub(super) origin: Origin,
    pub(super) closed: CancellationToken,
    transport: Arc<Transport>,
    kept: Mutex<Kept>,
    /// What TLS is spoken with, and whether HTTP/1.1 was agreed on. Held while a connection is
    /// made over which others may go too.
    tls: tokio::sync::Mutex<Option<(Towards, bool)>>,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Link>,
    shared: Option<Shared>,
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
        transport: Arc<Transport>,
        origin: Origin,
        closed: CancellationToken,
    ) -> Self {
        Self {
            name,
            config: transport.config.clone(),
            origin,
            closed,
            transport,
            kept: Mutex::default(),
            tls: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request over an idle connection or a new one, and waits for the head of the
    /// answer. A kept connection that the server closed meanwhile is replaced; so a message
    /// may arrive twice, as it may whenever an answer is lost. A credential is shown once
    /// only: then no kept connection is left, and whoever asked makes a new one.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Link, Response<Incoming>), TransferError> {
        let work = async {
            let mut broken = 0;
            loop {
                let mut link = match self.take().await {
                    Some(link) => link,
                    None => self.open().await?,
                };
                let was_used = link.is_used();
                let request = self.request(ask, link.is_http2())?;
                match link.send(request, &self.config).await {
                    Ok(answer) => return Ok((link, answer)),
                    // Others may have used a shared one since it was made: once is enough.
                    Err(LinkError::Broken(error))
                        if was_used && !error.is_parse() && !(link.is_http2() && broken > 0) =>
                    {
                        tracing::debug!(source = %self.name, %error, "kept connection was gone");
                        broken += 1;
                        *self.kept() = Kept::default();
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

    /// Makes a connection. Over TLS one at a time, until it is known to be HTTP/1.1: of HTTP/2
    /// there shall be one only.
    async fn open(&self) -> Result<Link, TransferError> {
        let (origin, name, transport) = (&self.origin, &self.name, &self.transport);
        if !origin.url.secure {
            return Link::open(origin, name, transport, None, &self.closed).await;
        }
        let mut tls = self.tls.lock().await;
        if let Some(link) = self.take().await {
            return Ok(link);
        }
        let (towards, http1) = match &*tls {
            Some(known) => known.clone(),
            None => (
                transport.tls.towards(origin.trust.clone(), name).await?,
                false,
            ),
        };
        if http1 {
            drop(tls);
            return Link::open(origin, name, transport, Some(&towards), &self.closed).await;
        }
        let link = Link::open(origin, name, transport, Some(&towards), &self.closed).await?;
        self.kept().shared = link.shared();
        *tls = Some((towards, !link.is_http2()));
        Ok(link)
    }

    fn request(&self, ask: &Ask, http2: bool) -> Result<Request<Full<Bytes>>, TransferError> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        let invalid = |_| protocol(&self.name, "a url that cannot be sent");
        let (url, mut proxy) = (&self.origin.url, None);
        if let Way::Proxy(via) = &self.origin.way {
            proxy = Some(via).filter(|via| via.forwards());
        }
        *request.uri_mut() = if http2 || proxy.is_some() {
            let text = format!("{}{}{}", url.scheme(), url.authority, ask.path);
            text.parse()
                .map_err(|_| protocol(&self.name, "a url that cannot be sent"))?
        } else {
            ask.path.clone().into()
        };
        let headers = request.headers_mut();
        if !http2 {
            let host = HeaderValue::try_from(url.authority.as_str());
            headers.insert(header::HOST, host.map_err(invalid)?);
        }
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization()) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
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

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self) -> Option<Link> {
        loop {
            let mut link = {
                let mut kept = self.kept();
                kept.shared = kept.shared.take().filter(Shared::is_open);
                match &kept.shared {
                    Some(shared) => return Some(shared.link()),
                    None => kept.idle.pop()?,
                }
            };
            if link.is_ready().await {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put_back(&self, link: Link) {
        // A shared one is kept all along.
        if link.is_http2() {
            return;
        }
        let mut kept = self.kept();
        if !self.closed.is_cancelled() && kept.idle.len() < self.config.max_requests_per_source {
            kept.idle.push(link);
        }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        *self.kept() = Kept::default();
    }
}
