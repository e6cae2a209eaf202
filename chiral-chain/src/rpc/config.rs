//! Settings and addresses of a remote node.

use std::time::Duration;

use hyper::Uri;

/// Settings of an [`RpcChain`](super::RpcChain).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcConfig {
    /// Chain id that the node must have, asked before anything else and again whenever it was
    /// unreachable; any if there is none.
    pub expected_chain_id: Option<u64>,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Time for one request, with its connection and its answer.
    pub request_timeout: Duration,
    /// Longest answer, in bytes. One that is longer is an error, and is not read to its end.
    pub max_response_bytes: usize,
    /// How often the node is asked for its head by each subscriber of heads.
    pub poll_interval: Duration,
    /// How often a read is tried again when the node cannot be reached. Transactions are
    /// never sent twice by themselves.
    pub read_retries: u32,
    /// Requests at a time; more wait.
    pub max_concurrent_requests: usize,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            expected_chain_id: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            max_response_bytes: 16 << 20,
            poll_interval: Duration::from_secs(1),
            read_retries: 2,
            max_concurrent_requests: 32,
        }
    }
}

impl RpcConfig {
    /// Sets [`expected_chain_id`](Self::expected_chain_id).
    #[must_use]
    pub fn with_expected_chain_id(mut self, chain_id: u64) -> Self {
        self.expected_chain_id = Some(chain_id);
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`request_timeout`](Self::request_timeout).
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets [`max_response_bytes`](Self::max_response_bytes).
    #[must_use]
    pub fn with_max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Sets [`poll_interval`](Self::poll_interval).
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets [`read_retries`](Self::read_retries).
    #[must_use]
    pub fn with_read_retries(mut self, retries: u32) -> Self {
        self.read_retries = retries;
        self
    }

    /// Sets [`max_concurrent_requests`](Self::max_concurrent_requests), at least 1.
    #[must_use]
    pub fn with_max_concurrent_requests(mut self, requests: usize) -> Self {
        self.max_concurrent_requests = requests.max(1);
        self
    }
}

/// The text is no address of a node. It is not repeated: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcUrlError {
    /// No URL with a host.
    #[error("a chain's node has an address like http://127.0.0.1:8545")]
    Invalid,
    /// TLS is asked for.
    #[error("https:// is not supported yet: use http:// to a node of your own machine or network")]
    Tls,
    /// A name and a password are in it.
    #[error("a user name or password in the chain's address is not supported")]
    Credentials,
}

impl RpcUrlError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

pub(super) fn parse_url(url: &str) -> Result<Uri, RpcUrlError> {
    let uri: Uri = url.parse().map_err(|_| RpcUrlError::Invalid)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(RpcUrlError::Tls),
        _ => return Err(RpcUrlError::Invalid),
    }
    let authority = uri.authority().ok_or(RpcUrlError::Invalid)?;
    if authority.as_str().contains('@') {
        return Err(RpcUrlError::Credentials);
    }
    if authority.host().is_empty() {
        return Err(RpcUrlError::Invalid);
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http_and_nothing_else() {
        for good in [
            "http://127.0.0.1:8545",
            "http://[::1]:8545/",
            "http://node/v1/key?x=1",
        ] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8545",
            "/",
            "ws://node",
            "http://",
            "ftp://node/",
            "node",
        ] {
            assert_eq!(parse_url(bad), Err(RpcUrlError::Invalid), "{bad}");
        }
        assert_eq!(parse_url("https://node"), Err(RpcUrlError::Tls));
        let with_password = parse_url("http://me:secret@node");
        assert_eq!(with_password, Err(RpcUrlError::Credentials));
    }
}
