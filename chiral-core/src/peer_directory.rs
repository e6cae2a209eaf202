//! [`PeerDirectory`]: who seeds what.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{FileIdentification, ManifestHeader, PeerOffer, Protocol};

/// Limit on the offers that a directory answers for one file.
pub const MAX_OFFERS: usize = 128;

/// Why a directory could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// No other node of the network can be reached.
    #[error("the directory has no connection to its network")]
    Unreachable,
    /// Not enough nodes answered in time.
    #[error("the directory did not answer in time")]
    Timeout,
    /// An announcement that does not fit: more endpoints than allowed, or none.
    #[error("announcement refused: {reason}")]
    Refused {
        /// What is wrong.
        reason: &'static str,
    },
    /// The directory has been shut down.
    #[error("directory is shut down")]
    Closed,
}

impl DirectoryError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout)
    }
}

/// What a node says that it seeds: one offer for each protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announcement {
    /// Identity and hints of the file.
    pub header: ManifestHeader,
    /// How it can be had from this node.
    pub offers: Vec<PeerOffer>,
    /// How long it holds unless repeated.
    pub lifetime: Duration,
}

impl Announcement {
    /// Holds for an hour.
    pub fn new(header: ManifestHeader, offers: Vec<PeerOffer>) -> Self {
        Self {
            header,
            offers,
            lifetime: Duration::from_secs(3600),
        }
    }
}

/// What is asked of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderQuery {
    /// The file; an alias or a root works where it was announced.
    pub target: FileIdentification,
    /// Only offers over these protocols; all, if there are none.
    pub protocols: Vec<Protocol>,
}

impl ProviderQuery {
    /// Everybody who seeds this.
    pub fn new(target: FileIdentification) -> Self {
        Self {
            target,
            protocols: Vec::new(),
        }
    }
}

/// Who seeds what. Nothing that it answers is proven, except that an announcement was made
/// by the peer that it names.
///
/// - One node's announcements never change or remove another's.
/// - Announcing again replaces one's own earlier announcement of the same file.
/// - At most [`MAX_OFFERS`] offers are answered for a file.
#[async_trait]
pub trait PeerDirectory: Send + Sync + fmt::Debug + 'static {
    /// Announces, or announces anew, that this node seeds a file.
    async fn announce(&self, announcement: Announcement) -> Result<(), DirectoryError>;

    /// Withdraws this node's announcement; true if there was one.
    async fn withdraw(&self, target: &FileIdentification) -> Result<bool, DirectoryError>;

    /// Who seeds a file. Nobody is an empty answer, not an error.
    async fn providers(&self, query: ProviderQuery) -> Result<Vec<PeerOffer>, DirectoryError>;

    /// Withdraws everything that can be withdrawn in time and stops; idempotent.
    async fn shutdown(&self) -> Result<(), DirectoryError>;
}
