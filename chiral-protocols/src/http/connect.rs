//! From a URL to a connected socket, by way of the address policy and the proxies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use chiral_core::{Endpoint, PeerId, TransferError};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::address::{Reach, Scope, may_follow, scope};
use super::config::HttpConfig;
use super::proxy::{Proxies, Proxy, ProxyError};
use super::tls::{Connector, Trust};
use super::url::{Expect, Url, UrlError};

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// What all connections are made with.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) config: Arc<HttpConfig>,
    pub(super) proxies: Proxies,
    pub(super) tls: Connector,
    /// What runs behind connections of HTTP/2.
    pub(super) tasks: TaskTracker,
}

/// A server: its URL, whom to expect there, and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) url: Url,
    pub(super) trust: Trust,
    pub(super) way: Way,
}

/// The way to a server.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// To the addresses that its name had when they were checked. No name is resolved again
    /// later, so that none can come to mean another address.
    Direct(Vec<SocketAddr>),
    Proxy(Proxy),
}

/// How to name a source in errors.
pub(super) fn connection(
    name: &Endpoint,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> TransferError {
    TransferError::Connection {
        source_name: name.to_string(),
        source: source.into(),
    }
}

pub(super) fn protocol(name: &Endpoint, reason: &'static str) -> TransferError {
    TransferError::Protocol {
        source_name: name.to_string(),
        reason,
    }
}

pub(super) fn refused(
    name: &Endpoint,
    reason: impl Into<String>,
    retryable: bool,
) -> TransferError {
    TransferError::Refused {
        source_name: name.to_string(),
        reason: reason.into(),
        retryable,
    }
}

pub(super) fn timed_out(name: &Endpoint) -> TransferError {
    TransferError::Timeout {
        source_name: name.to_string(),
    }
}

/// What to tell of a URL that cannot be used.
pub(super) fn bad_url(name: &Endpoint, error: UrlError) -> TransferError {
    refused(name, error.to_string(), false)
}

impl Origin {
    /// Finds the way to the server of a URL, if it may be gone.
    pub(super) async fn resolve(
        url: Url,
        peer: Option<&PeerId>,
        name: &Endpoint,
        reach: Reach,
        transport: &Transport,
    ) -> Result<Self, TransferError> {
        let trust = trust(&url, peer).ok_or_else(|| {
            let reason = "its url names another peer than its announcement";
            refused(name, reason, false)
        })?;
        let way = Way::find(&url, name, reach, None, transport).await?;
        Ok(Self { url, trust, way })
    }

    /// Where a redirect from this server leads, if it may lead there. `from` is how far the
    /// address reaches that sent it.
    pub(super) async fn redirect(
        &self,
        location: &str,
        from: Scope,
        name: &Endpoint,
        reach: Reach,
        transport: &Transport,
    ) -> Result<Self, TransferError> {
        let url = self
            .url
            .join(location)
            .map_err(|error| bad_url(name, error))?;
        // Whoever asked for TLS would rather be told than fetch in the open.
        if self.url.secure && !url.secure {
            return Err(refused(name, "redirects from https to http", false));
        }
        if url.server() == self.url.server() {
            return Ok(Self {
                url,
                ..self.clone()
            });
        }
        let way = Way::find(&url, name, reach, Some(from), transport).await?;
        let trust = Trust::Host;
        Ok(Self { url, trust, way })
    }

    /// How far a server reaches behind a proxy, where we do not see its address: one with a
    /// name is taken for a public one.
    pub(super) fn presumed_scope(&self) -> Scope {
        literal(&self.url).map_or(Scope::Global, scope)
    }

    /// A connection to the server, or to the proxy that forwards requests to it.
    pub(super) async fn dial(
        &self,
        name: &Endpoint,
        config: &HttpConfig,
    ) -> Result<TcpStream, TransferError> {
        let addresses = match &self.way {
            Way::Direct(addresses) => addresses,
            Way::Proxy(proxy) => {
                // Behind a proxy, an answer takes as long as it takes.
                let connected = proxy.connect(&self.url, config.answer_timeout).await;
                return connected.map_err(|error| match error {
                    ProxyError::Timeout => timed_out(name),
                    ProxyError::Failed(error) => connection(name, error),
                });
            }
        };
        let (mut last, wait) = (timed_out(name), config.connect_timeout);
        for address in addresses {
            let stream = match timeout(wait, TcpStream::connect(address)).await {
                Err(_) => {
                    last = timed_out(name);
                    continue;
                }
                Ok(stream) => stream.and_then(without_delay),
            };
            match stream {
                Ok(stream) => return Ok(stream),
                Err(error) => last = connection(name, error),
            }
        }
        Err(last)
    }
}

impl Way {
    async fn find(
        url: &Url,
        name: &Endpoint,
        reach: Reach,
        from: Option<Scope>,
        transport: &Transport,
    ) -> Result<Self, TransferError> {
        let allowed = |ip| reach.allows(ip) && from.is_none_or(|from| may_follow(from, ip));
        let not_there = || refused(name, "its address may not be dialled", false);
        if let Some(proxy) = transport.proxies.of(url) {
            return match literal(url) {
                Some(ip) if allowed(ip) => Ok(Self::Proxy(proxy)),
                // The user may mean the proxy's own neighbourhood, nobody else.
                None if reach.is_any() && (from.is_none() || !is_local_name(&url.host)) => {
                    Ok(Self::Proxy(proxy))
                }
                _ => Err(not_there()),
            };
        }
        let wait = transport.config.connect_timeout;
        let found: Vec<SocketAddr> =
            match timeout(wait, lookup_host((url.host.as_str(), url.port))).await {
                Err(_) => return Err(timed_out(name)),
                Ok(Err(error)) => return Err(connection(name, error)),
                Ok(Ok(found)) => found.collect(),
            };
        let addresses: Vec<_> = found
            .into_iter()
            .filter(|at| allowed(at.ip()))
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(not_there());
        }
        Ok(Self::Direct(addresses))
    }
}

/// Whom to expect at a URL that is announced by `peer`, if it is by anybody. `None` if the
/// URL contradicts that.
fn trust(url: &Url, peer: Option<&PeerId>) -> Option<Trust> {
    match (&url.expected, peer) {
        (Some(Expect::Peer(marked)), Some(peer)) if marked != peer => None,
        (Some(Expect::Peer(peer)), _) => Some(Trust::Peer(peer.clone())),
        (Some(Expect::Fingerprint(hash)), _) => Some(Trust::Fingerprint(*hash)),
        (None, Some(peer)) => Some(Trust::PeerOrHost(peer.clone())),
        (None, None) => Some(Trust::Host),
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host.parse().ok()
}

/// Names that a proxy would take for itself, or for an address in a disguise of its own: as
/// URLs are read by browsers, a host whose last part is a number is an address.
fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or("");
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    last == "localhost" || number
}

fn without_delay(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_or_the_announcement_says_whom_to_expect() {
        let (a, b) = (
            PeerId::from_bytes(&[1, 2]).unwrap(),
            PeerId::from_bytes(&[1, 3]).unwrap(),
        );
        let url = |text: &str| Url::parse(text).unwrap();
        let plain = url("https://h/");
        assert_eq!(trust(&plain, None), Some(Trust::Host));
        assert_eq!(trust(&plain, Some(&a)), Some(Trust::PeerOrHost(a.clone())));
        let marked = url(&format!("https://h/#peer={a}"));
        for peer in [None, Some(&a)] {
            assert_eq!(trust(&marked, peer), Some(Trust::Peer(a.clone())));
        }
        assert_eq!(trust(&marked, Some(&b)), None);
        let print = url(&format!("https://h/#sha256={}", "00".repeat(32)));
        assert_eq!(trust(&print, Some(&a)), Some(Trust::Fingerprint([0; 32])));
    }

    #[test]
    fn a_proxy_is_not_asked_for_itself() {
        for (host, local) in [
            ("localhost", true),
            ("a.LOCALHOST.", true),
            ("127.1", true),
            ("2130706433", true),
            ("0x7f.1", true),
            ("0x7f000001", true),
            ("", true),
            ("a.example", false),
            ("1.example", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_local_name(host), local, "{host}");
        }
    }
}
