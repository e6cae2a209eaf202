//! Settings of a JSON-RPC server.

use std::net::SocketAddr;
use std::time::Duration;

/// Settings of a JSON-RPC server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Bytes of a request at most. A batch is one request.
    pub max_body_bytes: usize,
    /// Calls in a batch at most.
    pub max_batch: usize,
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// Requests that are in memory at once; more wait.
    pub max_requests: usize,
    /// Filters (`eth_newFilter` and its kin) at once.
    pub max_filters: usize,
    /// How long a filter is kept that nobody asks.
    pub filter_lifetime: Duration,
    /// How long a connection may take to send a head, or be idle.
    pub header_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may read nothing of an answer.
    pub write_timeout: Duration,
    /// How long requests under way have at the end.
    pub drain_timeout: Duration,
    /// Names that may stand in `Host`, besides `localhost` and IP addresses.
    pub allowed_hosts: Vec<String>,
    /// Whether it may listen on an address that others can reach. Nothing protects it there:
    /// whoever reaches it can read everything and send transactions of their own.
    pub allow_remote: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 1024 * 1024,
            max_batch: 100,
            max_connections: 128,
            max_requests: 32,
            max_filters: 256,
            filter_lifetime: Duration::from_secs(300),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            allowed_hosts: Vec::new(),
            allow_remote: false,
        }
    }
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Others could reach the address, which the configuration does not allow.
    #[error("{address} is not of this machine alone")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ServerError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Listen { .. })
    }
}
