//! Trackers over UDP (BEP 15, 41) and HTTP (BEP 3, 7, 23, 24, 31, 48), and whom to ask when
//! (BEP 12).
//!
//! [`TrackerClient`] asks one tracker one question. [`Announcer`] keeps a torrent announced:
//! by tiers, with the events and in the intervals that trackers wish, within limits.

mod announcer;
mod client;
pub mod http;
mod schedule;
mod tiers;
pub mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use announcer::{Announcer, AnnouncerConfig, Progress, Update};
pub use client::{TrackerClient, TrackerConfig};
pub use schedule::{BACKOFF, MAX_INTERVAL, MIN_INTERVAL, USUAL_INTERVAL};
pub use tiers::{MAX_TRACKERS, MAX_URL, Tiers};

/// Most peers that are taken from one answer.
pub const MAX_PEERS: usize = 1000;
/// Longest text of a tracker that is kept, in characters.
pub const MAX_TEXT: usize = 256;
/// Most torrents in one scrape.
pub const MAX_SCRAPE: usize = 70;

/// What has become of a transfer, for the tracker to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// Nothing new.
    #[default]
    None,
    /// It has begun.
    Started,
    /// It is complete, and was not when it began.
    Completed,
    /// It has ended.
    Stopped,
}

/// What a tracker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// Who we are in its swarm.
    pub peer_id: [u8; 20],
    /// Where we listen.
    pub port: u16,
    /// Bytes sent since it began.
    pub uploaded: u64,
    /// Bytes received since it began.
    pub downloaded: u64,
    /// Bytes that are missing.
    pub left: u64,
    /// What has become of it.
    pub event: AnnounceEvent,
    /// How many peers are wanted; `None` for as many as the tracker likes.
    pub num_want: Option<u32>,
    /// By which a tracker knows us again when our address changes.
    pub key: u32,
    /// What the tracker gave as its `tracker id` (HTTP only).
    pub tracker_id: Option<Vec<u8>>,
}

/// What a tracker answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceAnswer {
    /// How long to wait before the next announcement.
    pub interval: Duration,
    /// How long to wait at least.
    pub min_interval: Option<Duration>,
    /// Peers, at most [`MAX_PEERS`]; ourselves perhaps among them.
    pub peers: Vec<SocketAddr>,
    /// Peers that have all of it.
    pub seeders: Option<u32>,
    /// Peers that have not.
    pub leechers: Option<u32>,
    /// To be given back to this tracker.
    pub tracker_id: Option<Vec<u8>>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// Something that the user should read.
    pub warning: Option<String>,
}

/// What a tracker knows of a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// Peers that have all of it.
    pub seeders: u32,
    /// How often it was completed.
    pub completed: u32,
    /// Peers that have not all of it.
    pub leechers: u32,
}

/// When to ask a tracker again that has refused (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It does not say.
    Unsaid,
    /// After so long.
    After(Duration),
    /// Not with this torrent.
    Never,
}

/// Why a tracker gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// It is not a URL of a tracker that can be asked.
    #[error("not a tracker that can be asked: {reason}")]
    Url {
        /// Why.
        reason: &'static str,
    },
    /// Its address may not be dialled.
    #[error("its address may not be dialled")]
    Address,
    /// It could not be reached.
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// What it answered is not an answer.
    #[error("a malformed answer: {0}")]
    Malformed(&'static str),
    /// Its web server says no.
    #[error("answered with status {0}")]
    Status(u16),
    /// It refuses, in its own words.
    #[error("refused: {reason}")]
    Refused {
        /// Its words, at most [`MAX_TEXT`] characters.
        reason: String,
        /// When to ask again.
        retry: Retry,
    },
    /// The client has been shut down.
    #[error("the tracker client has been shut down")]
    Closed,
}

impl TrackerError {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Address | Self::Closed => false,
            Self::Refused { retry, .. } => *retry != Retry::Never,
            _ => true,
        }
    }
}

/// A text of a tracker, made harmless.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_TEXT)]);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_TEXT).collect()
}
