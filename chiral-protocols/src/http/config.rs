//! [`HttpConfig`]: where to listen and how much to put up with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::{Endpoint, PeerOffer, PeerSigner};

use super::address::{AddressPolicy, Reach};
use super::proxy::ProxySettings;
use super::tls::{ClientTls, ServerTls, Signer};
use crate::limits::Uploads;

/// Longest redirect chain that a mirror may send us through.
pub(super) const MAX_REDIRECTS: usize = 3;

/// Bytes of file data in buffers, all connections of the server together, unless there are
/// so many that each gets [`MIN_READ`] only.
pub(super) const SEND_BUFFERS: usize = 32 << 20;

/// Least and most bytes that the server reads from the store at a time: a chunk at most, as
/// what was just read is then still in the processor's cache when it is sent.
pub(super) const MIN_READ: usize = 64 << 10;
/// See [`MIN_READ`].
pub(super) const MAX_READ: usize = 256 << 10;

/// Settings of [`HttpProtocol`](super::HttpProtocol), for both roles.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where to serve; `None` for a client that serves nobody.
    pub listen: Option<SocketAddr>,
    /// Base URL to announce, for a server behind a name, a proxy or a port mapping. Without
    /// it the address listened on is announced, unless that is the unspecified one.
    pub public_url: Option<Endpoint>,
    /// What to show those who speak TLS; `None` for clear HTTP only. Clear HTTP is served
    /// beside it, on the same port.
    pub tls: Option<ServerTls>,
    /// The identity that the server's own certificate is bound to.
    pub signer: Option<Signer>,
    /// Most connections served at once; more wait to be accepted.
    pub max_connections: usize,
    /// Most connections served at once to one IPv4 address or IPv6 /64; more are closed.
    pub max_connections_per_ip: usize,
    /// Most requests served at once on one connection over HTTP/2.
    pub max_streams: u32,
    /// Time for a handshake of TLS.
    pub handshake_timeout: Duration,
    /// Time from the server's readiness for a request to the end of the request's headers;
    /// hence also how long a kept connection may stay idle.
    pub header_timeout: Duration,
    /// Period over which a client that reads slower than the server sends is judged by
    /// `min_send_bytes_per_second`; also the longest time in which it may read nothing.
    pub write_timeout: Duration,
    /// Average rate that such a client must keep up.
    pub min_send_bytes_per_second: u64,
    /// Most bytes in a request's, or an answer's, headers.
    pub max_header_bytes: usize,
    /// Most headers in a request or an answer.
    pub max_headers: usize,
    /// How long requests under way may go on after the start of a shutdown.
    pub drain_timeout: Duration,
    /// Limits on what is served. A node puts its own here.
    pub uploads: Uploads,
    /// Time to resolve a name, and time to connect to an address.
    pub connect_timeout: Duration,
    /// Time from a request, or from the end of the answer before its own, to the head of its
    /// answer.
    pub answer_timeout: Duration,
    /// Time in which at least something of an answer's body must come.
    pub idle_timeout: Duration,
    /// Requests for ranges under way at once to one source: over HTTP/1.1 on
    /// `max_connections_per_source` connections, one behind the other where they are more than
    /// those; over HTTP/2 all on one. No more than those connections to a source that is paid, or
    /// behind a proxy that reads requests.
    pub max_requests_per_source: usize,
    /// Connections that ranges are asked over at once, of one source over HTTP/1.1.
    pub max_connections_per_source: usize,
    /// Which addresses are dialled at all.
    pub addresses: AddressPolicy,
    /// Which of them are dialled for offers that strangers announced, which are those with a
    /// peer or a time until which they hold; offers that the user named have neither. Without
    /// a setting, all.
    pub announced: AddressPolicy,
    /// Which of them are dialled for offers that are [hearsay](PeerOffer::hearsay), as web seeds
    /// of torrents are. A node of BitTorrent's swarms has the policy of these here.
    pub hearsay: AddressPolicy,
    /// Whom to believe that a host is who it says, for URLs that do not say whom to expect.
    pub trust: ClientTls,
    /// The proxies to go through.
    pub proxies: ProxySettings,
    /// Time for one agreement with a seeder's payment gate, payments that it asks for
    /// included.
    pub payment_timeout: Duration,
    /// Agreements with a seeder in a row after which it delivers nothing and asks for
    /// payment again; then it is refused.
    pub payment_attempts: u32,
    /// Whether the server lists what it serves, with prices and rates, to whoever opens `/`
    /// or `/index.json`.
    pub page: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: None,
            public_url: None,
            tls: None,
            signer: None,
            max_connections: 512,
            max_connections_per_ip: 128,
            max_streams: 32,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            min_send_bytes_per_second: 1024,
            max_header_bytes: 48 << 10,
            max_headers: 100,
            drain_timeout: Duration::from_secs(5),
            uploads: Uploads::new(),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(20),
            max_requests_per_source: 8,
            max_connections_per_source: 4,
            addresses: AddressPolicy::Any,
            announced: AddressPolicy::Any,
            hearsay: AddressPolicy::GlobalOnly,
            trust: ClientTls::default(),
            proxies: ProxySettings::default(),
            payment_timeout: Duration::from_secs(600),
            payment_attempts: 12,
            page: false,
        }
    }
}

impl HttpConfig {
    /// A client and a server on this address.
    pub fn listening(address: SocketAddr) -> Self {
        Self::default().with_listen(address)
    }

    /// Serves on this address; port 0 takes any free one.
    #[must_use]
    pub fn with_listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Announces this base URL.
    #[must_use]
    pub fn with_public_url(mut self, url: Endpoint) -> Self {
        self.public_url = Some(url);
        self
    }

    /// Serves TLS too.
    #[must_use]
    pub fn with_tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Binds the server's own certificate to an identity.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn PeerSigner>) -> Self {
        self.signer = Some(Signer(signer));
        self
    }

    /// Sets whom to believe that a host is who it says.
    #[must_use]
    pub fn with_trust(mut self, trust: ClientTls) -> Self {
        self.trust = trust;
        self
    }

    /// Goes through proxies.
    #[must_use]
    pub fn with_proxies(mut self, proxies: ProxySettings) -> Self {
        self.proxies = proxies;
        self
    }

    /// Limits requests at once on a connection over HTTP/2, and the time for a handshake of
    /// TLS.
    #[must_use]
    pub fn with_session_limits(mut self, streams: u32, handshake: Duration) -> Self {
        self.max_streams = streams.max(1);
        self.handshake_timeout = handshake;
        self
    }

    /// Limits connections served, in all and to one address.
    #[must_use]
    pub fn with_max_connections(mut self, all: usize, per_ip: usize) -> Self {
        self.max_connections = all.max(1);
        self.max_connections_per_ip = per_ip.max(1);
        self
    }

    /// Sets the time for a request's headers.
    #[must_use]
    pub fn with_header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets how slowly a client may read.
    #[must_use]
    pub fn with_min_send_rate(mut self, bytes_per_second: u64, over: Duration) -> Self {
        self.min_send_bytes_per_second = bytes_per_second;
        self.write_timeout = over;
        self
    }

    /// Limits the headers of a request or an answer; at least 8 KiB.
    #[must_use]
    pub fn with_max_headers(mut self, bytes: usize, count: usize) -> Self {
        self.max_header_bytes = bytes.max(8 << 10);
        self.max_headers = count;
        self
    }

    /// Sets how long a shutdown lets requests go on.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Puts what is served under these limits.
    #[must_use]
    pub fn with_uploads(mut self, uploads: Uploads) -> Self {
        self.uploads = uploads;
        self
    }

    /// Sets the client's patience: to connect, for an answer, and between parts of its body.
    #[must_use]
    pub fn with_timeouts(mut self, connect: Duration, answer: Duration, idle: Duration) -> Self {
        self.connect_timeout = connect;
        self.answer_timeout = answer;
        self.idle_timeout = idle;
        self
    }

    /// Sets the number of requests under way at once to one source.
    #[must_use]
    pub fn with_max_requests_per_source(mut self, requests: usize) -> Self {
        self.max_requests_per_source = requests.max(1);
        self
    }

    /// Sets the number of connections that ranges are asked over at once, of one source over
    /// HTTP/1.1.
    #[must_use]
    pub fn with_max_connections_per_source(mut self, connections: usize) -> Self {
        self.max_connections_per_source = connections.max(1);
        self
    }

    /// Requests and connections at once, at least one of each and no more of the latter.
    pub(super) fn at_once(&self) -> (usize, usize) {
        let requests = self.max_requests_per_source.max(1);
        (requests, self.max_connections_per_source.clamp(1, requests))
    }

    /// Sets which addresses are dialled at all.
    #[must_use]
    pub fn with_addresses(mut self, addresses: AddressPolicy) -> Self {
        self.addresses = addresses;
        self
    }

    /// Sets which addresses are dialled for offers that strangers announced.
    #[must_use]
    pub fn with_announced(mut self, addresses: AddressPolicy) -> Self {
        self.announced = addresses;
        self
    }

    /// Sets the time for one agreement with a payment gate, and how many may lead to
    /// nothing.
    #[must_use]
    pub fn with_payment(mut self, timeout: Duration, attempts: u32) -> Self {
        self.payment_timeout = timeout;
        self.payment_attempts = attempts.max(1);
        self
    }

    /// Sets which addresses are dialled for offers that are [hearsay](PeerOffer::hearsay).
    #[must_use]
    pub fn with_hearsay(mut self, addresses: AddressPolicy) -> Self {
        self.hearsay = addresses;
        self
    }

    /// Lists what is served to whoever opens `/` or `/index.json`.
    #[must_use]
    pub fn with_page(mut self, page: bool) -> Self {
        self.page = page;
        self
    }

    /// Where an offer may lead.
    pub(super) fn reach(&self, offer: &PeerOffer) -> Reach {
        let announced = offer.peer.is_some() || offer.valid_until.is_some();
        let strangers = match announced {
            _ if offer.hearsay => Some(self.hearsay),
            true => Some(self.announced),
            false => None,
        };
        Reach {
            all: self.addresses,
            announced: strangers,
        }
    }
}

/// Why the protocol could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The URL to announce is none.
    #[error("the public url {url} is no http or https url without user and query")]
    PublicUrl {
        /// What was given.
        url: Endpoint,
    },
    /// A certificate, key or root that cannot be used.
    #[error("TLS cannot be set up: {reason}")]
    Tls {
        /// Why.
        reason: String,
    },
    /// A proxy that cannot be used. Its text may hold a password, and is not repeated.
    #[error(
        "a proxy is http://[user:password@]host[:port] or socks5://[user:password@]host[:port]"
    )]
    Proxy,
    /// This build cannot do it.
    #[error("{what} needs the feature `{feature}`")]
    Unsupported {
        /// What was set.
        what: &'static str,
        /// What is not built in.
        feature: &'static str,
    },
}

impl HttpError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Listen { source, .. }
            if source.kind() == std::io::ErrorKind::AddrInUse)
    }
}
