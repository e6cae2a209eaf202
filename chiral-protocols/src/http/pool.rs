//! [`Pool`]: the connections of one source.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::client::{Inbound, Link, LinkError, One, Opened, Shared};
use super::config::HttpConfig;
use super::connect::{Origin, Transport, Way, connection, protocol};
use super::headers::PAYMENT;
use super::piped::{Counted, Habits, Lost};
use super::tls::Towards;

/// Idle connections that are kept beside those that count.
const MAX_SPARE: usize = 2;

/// First of all bytes as they are: a payment gate's terms come as such to who says so.
const ACCEPTED: &str = "application/octet-stream, */*;q=0.9";

/// Connections to one server, and the means to make more: some over HTTP/1.1, or one over
/// HTTP/2 that all requests share.
///
/// Over HTTP/1.1 requests for ranges are pipelined (RFC 9112 §9.3.2): when there are as many
/// connections as there may be, they are sent behind others, over the connection that has the
/// fewest; of those only that have answered before and stayed open, to a server only that has
/// not lost any in that way, and through no proxy that reads them. Everything else has a
/// connection for itself meanwhile: what is small, what is posted, and what shows a credential,
/// as the server may count what it sends although we have left.
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
    habits: Arc<Habits>,
    /// What TLS is spoken with, and whether HTTP/1.1 was agreed on. Held while a connection is
    /// made over which others may go too.
    tls: tokio::sync::Mutex<Option<(Towards, bool)>>,
}

#[derive(Debug, Default)]
struct Kept {
    ones: Vec<One>,
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

    /// Whether it may be sent before the answers to others have come.
    fn may_be_behind(&self) -> bool {
        self.range.is_some() && self.credential.is_none()
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
            permits: Arc::new(Semaphore::new(transport.config.at_once().1)),
            habits: Arc::default(),
            transport,
            kept: Mutex::default(),
            tls: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request over a kept connection or a new one, and waits for the head of the
    /// answer. A kept connection that the server closed meanwhile is replaced; so a message
    /// may arrive twice, as it may whenever an answer is lost. A credential is shown once
    /// only: then no idle connection is left, and whoever asked makes a new one.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Link, Response<Inbound>), TransferError> {
        let work = async {
            let mut broken = 0;
            loop {
                let mut link = self.link(ask).await?;
                let was_used = link.is_used();
                let request = self.request(ask, link.is_http2())?;
                let answer = link.send(request, &self.config).await;
                let behind = link.was_behind();
                let error = match answer {
                    // Of two requests at once it made one that it does not understand.
                    Ok(answer) if behind && answer.status() == StatusCode::BAD_REQUEST => {
                        self.habits.came_to_grief();
                        continue;
                    }
                    Ok(answer) => return Ok((link, answer)),
                    Err(error) => error,
                };
                tracing::debug!(source = %self.name, %error, "no answer");
                if matches!(error, LinkError::One(Lost::Overtaken)) {
                    continue;
                }
                if behind {
                    self.habits.came_to_grief();
                    continue;
                }
                // Others may have used a shared one since it was made: once is enough.
                let again = was_used && error.is_end() && !(link.is_http2() && broken > 0);
                if !again {
                    return Err(error.into_transfer(&self.name));
                }
                broken += 1;
                self.forget_idle();
                if ask.credential.is_some() {
                    return Err(connection(&self.name, error));
                }
            }
        };
        self.closed
            .run_until_cancelled(work)
            .await
            .unwrap_or(Err(TransferError::Closed))
    }

    /// A place for a request. What may be behind others waits for one, everything else gets a
    /// connection more.
    async fn link(&self, ask: &Ask) -> Result<Link, TransferError> {
        loop {
            let room = self.habits.room.notified();
            if let Some(link) = self.take(ask) {
                return Ok(link);
            }
            let permit = match self.permits.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if !ask.may_be_behind() => None,
                Err(_) => {
                    room.await;
                    continue;
                }
            };
            let counted = Counted::new(permit, self.habits.clone());
            return self.open(counted, ask).await;
        }
    }

    /// Makes a connection. Over TLS one at a time, until it is known to be HTTP/1.1: of HTTP/2
    /// there shall be one only.
    async fn open(&self, counted: Counted, ask: &Ask) -> Result<Link, TransferError> {
        if !self.origin.url.secure {
            return self.connect(counted, None, ask).await;
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
            return self.connect(counted, Some(&towards), ask).await;
        }
        let link = self.connect(counted, Some(&towards), ask).await?;
        *tls = Some((towards, !link.is_http2()));
        Ok(link)
    }

    async fn connect(
        &self,
        counted: Counted,
        tls: Option<&Towards>,
        ask: &Ask,
    ) -> Result<Link, TransferError> {
        let (origin, name, transport) = (&self.origin, &self.name, &self.transport);
        let opened = Opened::connect(origin, name, transport, tls, &self.closed, counted).await?;
        let mut kept = self.kept();
        let keeps = !self.closed.is_cancelled();
        match opened {
            Opened::One(one) => {
                // Nobody else has it yet.
                let claim = one.piped.claim(!ask.may_be_behind());
                let link = claim.map(|claim| one.link(claim));
                kept.ones.extend(keeps.then_some(one));
                link.ok_or_else(|| connection(name, Lost::Overtaken))
            }
            Opened::Two(shared) => {
                let link = shared.link();
                kept.shared = keeps.then_some(shared);
                Ok(link)
            }
        }
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
        let mut spare = 0;
        kept.ones.retain(|one| {
            let is_spare = !one.piped.counts() && one.piped.load() == 0;
            spare += usize::from(is_spare);
            one.piped.is_ready() && !(is_spare && spare > MAX_SPARE)
        });
        // What may be behind others goes over those only that count, the rest rather over spare
        // ones.
        let alone = !ask.may_be_behind();
        let (mut counting, others): (Vec<&One>, Vec<&One>) =
            kept.ones.iter().partition(|one| one.piped.counts());
        let fit = others
            .into_iter()
            .filter(|_| alone)
            .chain(counting.iter().copied());
        let mut idle = fit.filter_map(|one| Some(one.link(one.piped.claim(alone)?)));
        if let Some(link) = idle.next() {
            return Some(link);
        }
        // Rather than behind another over a connection that is there, over a new one.
        if alone || !self.pipelines() || self.permits.available_permits() > 0 {
            return None;
        }
        let (requests, connections) = self.config.at_once();
        let depth = requests.div_ceil(connections);
        counting.sort_by_key(|one| one.piped.load());
        let mut places = counting.into_iter();
        places.find_map(|one| Some(one.link(one.piped.claim_behind(depth)?)))
    }

    /// Whether requests may be sent behind others: not through a proxy that reads them, which
    /// may bear one at a time only.
    fn pipelines(&self) -> bool {
        !self.is_read() && !self.habits.one_by_one.load(Ordering::Relaxed)
    }

    /// Whether a proxy reads the requests.
    fn is_read(&self) -> bool {
        matches!(&self.origin.way, Way::Proxy(proxy) if proxy.forwards())
    }

    /// How many ranges may be asked for at once, of a source that is paid or not.
    pub(super) fn max_ranges(&self, paid: bool) -> usize {
        let (requests, connections) = self.config.at_once();
        if paid || self.is_read() {
            connections
        } else {
            requests
        }
    }

    /// The server has closed a connection: most likely others too.
    fn forget_idle(&self) {
        let mut kept = self.kept();
        kept.shared = None;
        kept.ones.retain(|one| one.piped.load() > 0);
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        *self.kept() = Kept::default();
    }
}
