//! [`Pool`]: the connections of one source.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::client::{Inbound, Link, LinkError, One, Opened, Shared};
use super::config::HttpConfig;
use super::connect::{Origin, Transport, Way, connection, protocol};
use super::headers::PAYMENT;
use super::piped::Lost;
use super::tls::Towards;

/// First of all bytes as they are: a payment gate's terms come as such to who says so.
const ACCEPTED: &str = "application/octet-stream, */*;q=0.9";

/// Connections to one server, and the means to make more: some over HTTP/1.1, or one over
/// HTTP/2 that all requests share.
///
/// Over HTTP/1.1 requests for ranges are pipelined (RFC 9112 §9.3.2): when there are as many
/// connections as there may be, they are sent behind others, over the connection that has the
/// fewest; of those only that have answered before and stayed open, and no more to a server that
/// once left such a request without an answer. Everything else gets a connection for itself.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Endpoint,
    pub(super) config: Arc<HttpConfig>,
    pub(super) origin: Origin,
    pub(super) closed: CancellationToken,
    transport: Arc<Transport>,
    kept: Mutex<Kept>,
    /// For each connection over HTTP/1.1 that ranges may be asked over.
    permits: Arc<Semaphore>,
    /// Told when a request may find a place that did not before.
    room: Arc<Notify>,
    /// What TLS is spoken with, and whether HTTP/1.1 was agreed on. Held while a connection is
    /// made over which others may go too.
    tls: tokio::sync::Mutex<Option<(Towards, bool)>>,
}

#[derive(Debug, Default)]
struct Kept {
    ones: Vec<One>,
    shared: Option<Shared>,
    /// Whether the server has left a request behind others without an answer.
    one_by_one: bool,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It went over a connection that ended before its turn, with a credential that is not
    /// to be shown twice.
    Overtaken,
    Failed(TransferError),
}

impl From<TransferError> for Unanswered {
    fn from(error: TransferError) -> Self {
        Self::Failed(error)
    }
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
            permits: Arc::new(Semaphore::new(
                transport.config.max_connections_per_source.max(1),
            )),
            room: Arc::default(),
            transport,
            kept: Mutex::default(),
            tls: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request for something small, and waits for the head of the answer.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Link, Response<Inbound>), TransferError> {
        self.ask_for(ask).await.map_err(|error| match error {
            Unanswered::Overtaken => connection(&self.name, Lost::Overtaken),
            Unanswered::Failed(error) => error,
        })
    }

    /// Sends a request over a kept connection or a new one, and waits for the head of the
    /// answer. A kept connection that the server closed meanwhile is replaced; so a message
    /// may arrive twice, as it may whenever an answer is lost. A credential is shown once
    /// only: then no idle connection is left, and whoever asked makes a new one.
    pub(super) async fn ask_for(&self, ask: &Ask) -> Result<(Link, Response<Inbound>), Unanswered> {
        let work = async {
            let mut broken = 0;
            loop {
                let mut link = self.link(ask).await?;
                let was_used = link.is_used();
                let request = self.request(ask, link.is_http2())?;
                let error = match link.send(request, &self.config).await {
                    Ok(answer) => return Ok((link, answer)),
                    Err(error) => error,
                };
                tracing::debug!(source = %self.name, %error, "no answer");
                if matches!(error, LinkError::One(Lost::Overtaken)) {
                    if ask.credential.is_some() {
                        return Err(Unanswered::Overtaken);
                    }
                    continue;
                }
                // Others may have used a shared one since it was made: once is enough.
                let again = was_used && error.is_end() && !(link.is_http2() && broken > 0);
                if !again {
                    return Err(error.into_transfer(&self.name).into());
                }
                broken += 1;
                self.forget_idle(link.was_behind());
                if ask.credential.is_some() {
                    return Err(connection(&self.name, error).into());
                }
            }
        };
        self.closed
            .run_until_cancelled(work)
            .await
            .unwrap_or(Err(TransferError::Closed.into()))
    }

    /// A place for a request. A range waits for one, everything else gets a connection more.
    async fn link(&self, ask: &Ask) -> Result<Link, TransferError> {
        loop {
            let room = self.room.notified();
            if let Some(link) = self.take(ask) {
                return Ok(link);
            }
            match self.permits.clone().try_acquire_owned() {
                Ok(permit) => return self.open(Some(permit)).await,
                Err(_) if ask.range.is_none() => return self.open(None).await,
                Err(_) => room.await,
            }
        }
    }

    /// Makes a connection. Over TLS one at a time, until it is known to be HTTP/1.1: of HTTP/2
    /// there shall be one only.
    async fn open(&self, permit: Option<OwnedSemaphorePermit>) -> Result<Link, TransferError> {
        // Also if it comes to nothing, somebody else may try.
        let _told = Told(&self.room);
        if !self.origin.url.secure {
            return self.connect(permit, None).await;
        }
        let mut tls = self.tls.lock().await;
        if let Some(shared) = self.shared() {
            return Ok(shared.link());
        }
        let (towards, http1) = match &*tls {
            Some(known) => known.clone(),
            None => {
                let trust = self.origin.trust.clone();
                let towards = self.transport.tls.towards(trust, &self.name).await?;
                (towards, false)
            }
        };
        if http1 {
            drop(tls);
            return self.connect(permit, Some(&towards)).await;
        }
        let link = self.connect(permit, Some(&towards)).await?;
        *tls = Some((towards, !link.is_http2()));
        Ok(link)
    }

    async fn connect(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        tls: Option<&Towards>,
    ) -> Result<Link, TransferError> {
        let (origin, name, transport) = (&self.origin, &self.name, &self.transport);
        let count = (permit, &self.room);
        let opened = Opened::connect(origin, name, transport, tls, &self.closed, count).await?;
        let (link, mut kept) = (opened.link(), self.kept());
        if !self.closed.is_cancelled() {
            match opened {
                Opened::One(one) => kept.ones.push(one),
                Opened::Two(shared) => kept.shared = Some(shared),
            }
        }
        Ok(link)
    }

    fn request(&self, ask: &Ask, http2: bool) -> Result<Request<Bytes>, TransferError> {
        let mut request = Request::new(ask.body.clone());
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

    fn shared(&self) -> Option<Shared> {
        let mut kept = self.kept();
        kept.shared = kept.shared.take().filter(Shared::is_open);
        kept.shared.clone()
    }

    /// A place on a connection that is there.
    fn take(&self, ask: &Ask) -> Option<Link> {
        if let Some(shared) = self.shared() {
            return Some(shared.link());
        }
        let mut kept = self.kept();
        kept.ones.retain(|one| one.piped.is_ready());
        // Ranges go over those only that count.
        let fits = |one: &&One| ask.range.is_none() || one.piped.counts();
        let idle = |one: &&One| one.piped.load() == 0;
        if let Some(one) = kept.ones.iter().filter(fits).find(idle) {
            return Some(one.link());
        }
        let piped = ask.range.is_some() && !kept.one_by_one && !self.is_forwarded();
        if !piped || self.permits.available_permits() > 0 {
            return None;
        }
        let config = &self.config;
        let connections = config.max_connections_per_source.max(1);
        let depth = config.max_requests_per_source.div_ceil(connections);
        let answered = kept
            .ones
            .iter()
            .filter(fits)
            .filter(|one| one.piped.has_answered());
        let (load, one) = answered
            .map(|one| (one.piped.load(), one))
            .min_by_key(|(load, _)| *load)?;
        (load < depth).then(|| one.link())
    }

    /// Whether a proxy reads the requests, which may take them one by one only.
    fn is_forwarded(&self) -> bool {
        matches!(&self.origin.way, Way::Proxy(proxy) if proxy.forwards())
    }

    /// The server has closed a connection: most likely others too. `behind`: it was one with a
    /// request behind others, which some servers forget.
    fn forget_idle(&self, behind: bool) {
        let mut kept = self.kept();
        kept.shared = None;
        kept.ones.retain(|one| one.piped.load() > 0);
        kept.one_by_one |= behind;
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        *self.kept() = Kept::default();
    }
}

/// Tells those who wait for room when it goes.
struct Told<'a>(&'a Notify);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}
