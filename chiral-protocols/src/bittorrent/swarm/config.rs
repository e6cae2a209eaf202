//! [`BitTorrentConfig`]: where to listen and how much to put up with.

use std::net::SocketAddr;
use std::time::Duration;

use chiral_core::Address;

use super::ChokerConfig;
use crate::bittorrent::mse::Encryption;
use crate::limits::Uploads;

/// Settings of [`BitTorrentProtocol`](crate::bittorrent::protocol::BitTorrentProtocol).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BitTorrentConfig {
    /// Where to listen; `None` for a node that only dials.
    pub listen: Option<SocketAddr>,
    /// Where others reach it, for a node behind a port mapping. Without it the address listened
    /// on is announced, unless that is the unspecified one.
    pub public_address: Option<SocketAddr>,
    /// Most connections at once, of all torrents.
    pub max_connections: usize,
    /// Most connections at once with one address.
    pub max_connections_per_ip: usize,
    /// Most connections at once whose handshake is not over, in each direction.
    pub max_half_open: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for the handshake.
    pub handshake_timeout: Duration,
    /// How long a connection that was made for a download is waited for until the peer has said
    /// what it has, and unchoked us.
    pub introduction: Duration,
    /// Whether connections are encrypted.
    pub encryption: Encryption,
    /// Who is unchoked.
    pub choker: ChokerConfig,
    /// Limits on what is served. A node puts its own here.
    pub uploads: Uploads,
    /// Whether peers that others tell of are dialled (BEP 11).
    pub peer_exchange: bool,
    /// Where this node is paid, for Chiral nodes.
    pub wallet: Option<Address>,
}

impl Default for BitTorrentConfig {
    fn default() -> Self {
        Self {
            listen: None,
            public_address: None,
            max_connections: 500,
            max_connections_per_ip: 8,
            max_half_open: 32,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            introduction: Duration::from_secs(1),
            encryption: Encryption::default(),
            choker: ChokerConfig::default(),
            uploads: Uploads::default(),
            peer_exchange: true,
            wallet: None,
        }
    }
}

impl BitTorrentConfig {
    /// Listens at this address.
    #[must_use]
    pub fn with_listen(mut self, listen: SocketAddr) -> Self {
        self.listen = Some(listen);
        self
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BitTorrentError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random,
    /// An info dictionary that is none.
    #[error("not an info dictionary of a torrent")]
    Info,
}
