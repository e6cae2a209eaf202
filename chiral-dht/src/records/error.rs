//! [`RecordError`].

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// No key of this directory.
    #[error("not a record key of this directory")]
    Key,
    /// A record or a part of it over its limit.
    #[error("{what} of {found} is over the limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size or number.
        found: usize,
        /// How much is taken.
        limit: usize,
    },
    /// The bytes do not have the form that their format asks for.
    #[error("malformed record: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// No envelope, another key than Ed25519, or a signature that does not hold.
    #[error("the envelope is not signed by the peer that it names")]
    Signature,
    /// Signed for another key, or by another peer, than it is put under.
    #[error("the record belongs under another key or to another peer")]
    Foreign,
    /// It held once.
    #[error("the record expired at {expires_at}, now is {now}")]
    Expired {
        /// Seconds since 1970 (UTC).
        expires_at: u64,
        /// Seconds since 1970 (UTC).
        now: u64,
    },
    /// Made, or to hold, too far in the future.
    #[error("the record's {what} is too far in the future")]
    Future {
        /// Which of its times.
        what: &'static str,
    },
    /// Everything in it is older than what is held.
    #[error("the record is older than what is held already")]
    Stale,
    /// No signature of the wallet that it names.
    #[error("the wallet has not signed that it is paid for this peer")]
    Wallet,
    /// No room for it.
    #[error("no room for more {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
    },
    /// An announcement of this node that cannot be published.
    #[error("announcement refused: {reason}")]
    Refused {
        /// What is wrong.
        reason: &'static str,
    },
}

impl RecordError {
    /// Whether the same record may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Future { .. } | Self::Full { .. })
    }
}
