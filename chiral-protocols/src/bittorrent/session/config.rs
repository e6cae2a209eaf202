//! What a session is begun with.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::Bitmap;

use crate::bittorrent::extension::Greeting;
use crate::bittorrent::wire::{Geometry, Reserved};

/// Times of a session.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A keep-alive is sent after as long without anything else.
    pub keep_alive: Duration,
    /// The connection is closed after as long without anything received.
    pub silence: Duration,
    /// It is closed after as long without anything useful, if neither side is interested.
    pub useless: Duration,
    /// The peer counts as one that does not answer after as long without a block.
    pub snub: Duration,
    /// Least time between two messages of peer exchange, sent and received.
    pub pex: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(100),
            silence: Duration::from_secs(180),
            useless: Duration::from_secs(600),
            snub: Duration::from_secs(60),
            pex: Duration::from_secs(60),
        }
    }
}

/// What this side of a session is.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The torrent: SHA-1 of its info dictionary, or the first 20 bytes of its SHA-256.
    pub info_hash: [u8; 20],
    /// Our peer id.
    pub peer_id: [u8; 20],
    /// What we can.
    pub reserved: Reserved,
    /// How the torrent is cut, if it is known.
    pub geometry: Option<Geometry>,
    /// Pieces that we have.
    pub have: Bitmap,
    /// The info dictionary, if it is known.
    pub metadata: Option<Bytes>,
    /// The torrent is private (BEP 27): no peer exchange.
    pub private: bool,
    /// Where we listen.
    pub port: Option<u16>,
    /// The UDP port of our node of the DHT, for peers that have one.
    pub dht_port: Option<u16>,
    /// What we call ourselves.
    pub client: String,
    /// Where the peer comes from.
    pub remote: Option<IpAddr>,
    /// What we say of ourselves to Chiral nodes.
    pub greeting: Option<Greeting>,
    /// Times.
    pub timing: Timing,
}

impl SessionConfig {
    /// For a torrent of which nothing is known yet.
    pub fn new(info_hash: [u8; 20], peer_id: [u8; 20]) -> Self {
        Self {
            info_hash,
            peer_id,
            reserved: Reserved::OURS,
            geometry: None,
            have: Bitmap::new(0),
            metadata: None,
            private: false,
            port: None,
            dht_port: None,
            client: concat!("Chiral ", env!("CARGO_PKG_VERSION")).to_owned(),
            remote: None,
            greeting: None,
            timing: Timing::default(),
        }
    }

    /// The torrent is cut like this, and these are the pieces that we have.
    #[must_use]
    pub fn with_torrent(mut self, geometry: Geometry, have: Bitmap) -> Self {
        self.geometry = Some(geometry);
        self.have = have;
        self
    }
}
