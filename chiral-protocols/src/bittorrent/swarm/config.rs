//! [`BitTorrentConfig`]: where to listen, where peers are found, and how much to put up with.

use std::net::SocketAddr;
use std::time::Duration;

use chiral_core::Address;

use super::ChokerConfig;
use crate::bittorrent::lsd;
use crate::bittorrent::metainfo::Version;
use crate::bittorrent::mse::Encryption;
use crate::http::AddressPolicy;
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
    /// Most connections at once with one address, of all torrents: two nodes that share many torrents
    /// have a connection for each.
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
    /// Trackers (`http`, `https` or `udp` URLs) that torrents are announced to beside their own
    /// ones; private torrents are not. A torrent's own are
    /// [told](crate::bittorrent::protocol::BitTorrentProtocol::add_trackers) one by one.
    pub trackers: Vec<String>,
    /// Whether there is a node of the mainline DHT (BEP 5): nodes to enter it by, each
    /// `host:port`; none are needed if [`dht_saved`](Self::dht_saved) knows some.
    pub dht: Option<Vec<String>>,
    /// What [`save_dht`](crate::bittorrent::protocol::BitTorrentProtocol::save_dht) gave in an
    /// earlier run.
    pub dht_saved: Option<Vec<u8>>,
    /// Whether torrents are announced in the local network, and peers found there (BEP 14).
    pub lsd: bool,
    /// Where they are announced.
    pub lsd_group: SocketAddr,
    /// Whether peers are met over uTP (BEP 29), too: those who come over it, on the same port as
    /// over TCP, and those who cannot be reached over TCP.
    pub utp: bool,
    /// Whom trackers and the DHT may have us dial, and which trackers, nodes and web seeds are
    /// asked at all. Default: addresses of the public internet. Peers of the local network are found by
    /// local discovery whatever this says.
    pub addresses: AddressPolicy,
    /// What the torrent of a share is. Default: hybrid, for clients of both versions, whose
    /// BEP 52 tree is computed when a file is imported, beside its identity. Another version is
    /// another torrent, with peers of its own: version 1 alone gives the info-hash that makers of
    /// such torrents give. A file keeps the torrent that it had in earlier runs.
    pub share_version: Version,
    /// Where this node is paid, for Chiral nodes.
    pub wallet: Option<Address>,
}

impl Default for BitTorrentConfig {
    fn default() -> Self {
        Self {
            listen: None,
            public_address: None,
            max_connections: 500,
            max_connections_per_ip: 125,
            max_half_open: 32,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            introduction: Duration::from_secs(1),
            encryption: Encryption::default(),
            choker: ChokerConfig::default(),
            uploads: Uploads::default(),
            peer_exchange: true,
            trackers: Vec::new(),
            dht: None,
            dht_saved: None,
            lsd: false,
            lsd_group: lsd::group(true),
            utp: false,
            addresses: AddressPolicy::GlobalOnly,
            share_version: Version::Hybrid,
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

    /// Announces torrents to these trackers.
    #[must_use]
    pub fn with_trackers(mut self, trackers: impl IntoIterator<Item = String>) -> Self {
        self.trackers = trackers.into_iter().collect();
        self
    }

    /// Joins the mainline DHT by these nodes, each `host:port`.
    #[must_use]
    pub fn with_dht(mut self, bootstrap: impl IntoIterator<Item = String>) -> Self {
        self.dht = Some(bootstrap.into_iter().collect());
        self
    }

    /// Finds peers in the local network, or does not.
    #[must_use]
    pub fn with_lsd(mut self, lsd: bool) -> Self {
        self.lsd = lsd;
        self
    }

    /// Speaks uTP, or does not.
    #[must_use]
    pub fn with_utp(mut self, utp: bool) -> Self {
        self.utp = utp;
        self
    }

    /// Shares files as torrents of this version.
    #[must_use]
    pub fn with_share_version(mut self, version: Version) -> Self {
        self.share_version = version;
        self
    }

    /// Deals with these addresses alone.
    #[must_use]
    pub fn with_addresses(mut self, addresses: AddressPolicy) -> Self {
        self.addresses = addresses;
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
    /// What finds peers does not start.
    #[error("{what} does not start")]
    Discovery {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An info dictionary that is none.
    #[error("not an info dictionary of a torrent")]
    Info,
}
