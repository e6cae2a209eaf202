//! Limits and times of the private protocol.

use std::time::Duration;

use crate::limits::Uploads;

/// Most sealed chunks that are fetched ahead.
pub const MAX_AHEAD: usize = 64;

/// Limits and times.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PrivateConfig {
    /// Whether files are served; otherwise it only fetches.
    pub serve: bool,
    /// Sessions that others have with this node at once.
    pub max_sessions: usize,
    /// The same, of one peer.
    pub max_sessions_per_peer: usize,
    /// Requests for bytes under way at once in a session.
    pub max_requests: usize,
    /// Sealed chunks that are fetched ahead of their keys, 1 to [`MAX_AHEAD`]; fewer if the
    /// seeder's window is smaller. A buyer that goes away costs the seeder the upload of so
    /// many; a seeder that seals garbage costs the buyer the price of one, however many.
    pub sealed_ahead: usize,
    /// How long a seeder may take to answer anything but a payment.
    pub answer_timeout: Duration,
    /// How long nothing may come of a request that is being served.
    pub idle_timeout: Duration,
    /// How long a session may stay without a request.
    pub session_timeout: Duration,
    /// Time for one agreement on payment, which may include a payment.
    pub payment_timeout: Duration,
    /// Agreements in a row, without a delivery, after which a seeder is given up.
    pub payment_attempts: u32,
    /// Limits on what is sent, shared with other protocols.
    pub uploads: Uploads,
}

impl Default for PrivateConfig {
    fn default() -> Self {
        Self {
            serve: true,
            max_sessions: 256,
            max_sessions_per_peer: 16,
            max_requests: 8,
            sealed_ahead: 8,
            answer_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            session_timeout: Duration::from_secs(300),
            payment_timeout: Duration::from_secs(600),
            payment_attempts: 5,
            uploads: Uploads::new(),
        }
    }
}

impl PrivateConfig {
    /// For a node that only fetches.
    #[must_use]
    pub fn fetch_only(mut self) -> Self {
        self.serve = false;
        self
    }

    /// Shares limits on what is sent.
    #[must_use]
    pub fn with_uploads(mut self, uploads: Uploads) -> Self {
        self.uploads = uploads;
        self
    }
}
