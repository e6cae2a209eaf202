//! From a URL to a connected socket, by way of the address policy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chiral_core::{Endpoint, Protocol, TransferError};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::address::{Reach, may_follow};
use super::url::{Url, UrlError};

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A server: its URL, and the addresses that its name had when they were checked. No name
/// is resolved again later, so that none can come to mean another address.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) url: Url,
    addresses: Vec<SocketAddr>,
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
    match error {
        UrlError::Tls => TransferError::Unsupported {
            protocol: Protocol::Http,
            operation: "https: TLS is not built in yet",
        },
        error => refused(name, error.to_string(), false),
    }
}

impl Origin {
    /// Resolves the host and keeps the addresses that may be dialled.
    pub(super) async fn resolve(
        url: Url,
        name: &Endpoint,
        reach: Reach,
        wait: Duration,
    ) -> Result<Self, TransferError> {
        Self::resolve_where(url, name, wait, |ip| reach.allows(ip)).await
    }

    /// Where a redirect from this server leads, if it may lead there. `peer` is the address
    /// that sent it.
    pub(super) async fn redirect(
        &self,
        location: &str,
        peer: IpAddr,
        name: &Endpoint,
        reach: Reach,
        wait: Duration,
    ) -> Result<Self, TransferError> {
        let url = self
            .url
            .join(location)
            .map_err(|error| bad_url(name, error))?;
        if (&url.host, url.port) == (&self.url.host, self.url.port) {
            return Ok(Self {
                url,
                addresses: self.addresses.clone(),
            });
        }
        let allowed = |ip| reach.allows(ip) && may_follow(peer, ip);
        Self::resolve_where(url, name, wait, allowed).await
    }

    async fn resolve_where(
        url: Url,
        name: &Endpoint,
        wait: Duration,
        allowed: impl Fn(IpAddr) -> bool,
    ) -> Result<Self, TransferError> {
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
            return Err(refused(name, "its address may not be dialled", false));
        }
        Ok(Self { url, addresses })
    }

    /// Connects to the first address that answers.
    pub(super) async fn dial(
        &self,
        name: &Endpoint,
        wait: Duration,
    ) -> Result<TcpStream, TransferError> {
        let mut last = timed_out(name);
        for address in &self.addresses {
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

fn without_delay(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}
