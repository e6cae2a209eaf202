//! [`Discovery`]: what a node has to find peers with, for all of its torrents. What is done for
//! one torrent is in [`torrent`].

mod local;
pub(super) mod torrent;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::local::Command;
use super::config::{BitTorrentConfig, BitTorrentError};
use super::node::Node;
use crate::bittorrent::dht::{MainlineDht, NodeConfig};
use crate::bittorrent::lsd::{LocalDiscovery, LsdConfig};
use crate::bittorrent::tracker::{TrackerClient, TrackerConfig};
use crate::bittorrent::udp::{UdpPort, anywhere};
use crate::bittorrent::utp::{UtpConfig, UtpSocket};
use crate::http::AddressPolicy;

/// How often a port is looked for that is free for TCP and for UDP.
const BIND_TRIES: usize = 16;

/// Time in which the name of a node of the DHT is to be found.
const LOOKUP: Duration = Duration::from_secs(20);

/// Most nodes to enter the DHT by.
const MAX_BOOTSTRAP: usize = 32;

/// Commands that wait for local discovery.
const COMMANDS: usize = 256;

/// Where a node listens, over TCP and UDP.
pub(in crate::bittorrent) struct Ports {
    pub(in crate::bittorrent) tcp: Option<TcpListener>,
    udp: Option<UdpPort>,
}

impl Ports {
    /// Where TCP connections are taken.
    pub(in crate::bittorrent) fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Listens as the configuration says: over UDP on the same port as over TCP if anything
    /// needs it.
    pub(in crate::bittorrent) async fn open(
        config: &BitTorrentConfig,
    ) -> Result<Self, BitTorrentError> {
        let shared = config.utp || config.dht.is_some();
        let Some(address) = config.listen else {
            // Answers of trackers come to it.
            let udp = UdpPort::bind(&anywhere(0)).or_else(|_| UdpPort::bind(&anywhere(0)[..1]));
            return match udp {
                Err(source) if shared => Err(failed("UDP", source)),
                udp => Ok(Self {
                    tcp: None,
                    udp: udp.ok(),
                }),
            };
        };
        let listen = |source| BitTorrentError::Listen { address, source };
        for tries in 1.. {
            let tcp = TcpListener::bind(address).await.map_err(listen)?;
            let mut at = tcp.local_addr().map_err(listen)?;
            if !shared {
                at.set_port(0);
            }
            match bind_udp(at) {
                Ok(udp) => {
                    return Ok(Self {
                        tcp: Some(tcp),
                        udp: Some(udp),
                    });
                }
                Err(_) if !shared => {
                    return Ok(Self {
                        tcp: Some(tcp),
                        udp: None,
                    });
                }
                // Another program has that one over UDP.
                Err(_) if address.port() == 0 && tries < BIND_TRIES => {}
                Err(source) => return Err(listen(source)),
            }
        }
        Err(BitTorrentError::Random)
    }
}

fn bind_udp(at: SocketAddr) -> io::Result<UdpPort> {
    match at.ip() {
        // A TCP socket there takes both families.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            UdpPort::bind(&anywhere(at.port())).or_else(|_| UdpPort::bind(&[at]))
        }
        _ => UdpPort::bind(&[at]),
    }
}

fn failed(what: &'static str, source: io::Error) -> BitTorrentError {
    BitTorrentError::Discovery { what, source }
}

/// What finds peers.
#[derive(Debug)]
pub(in crate::bittorrent) struct Discovery {
    port: Option<UdpPort>,
    pub(super) utp: Option<UtpSocket>,
    pub(in crate::bittorrent) dht: Option<MainlineDht>,
    trackers: TrackerClient,
    /// Trackers of the node, for all torrents.
    common: Vec<String>,
    addresses: AddressPolicy,
    /// Where our peer listens, as others are told.
    announced: Option<u16>,
    local: Option<mpsc::Sender<Command>>,
}

impl Discovery {
    /// Starts what the configuration says, on these ports; what is found in the local network is
    /// to be taken up by [`Self::listen`].
    pub(in crate::bittorrent) async fn start(
        config: &BitTorrentConfig,
        ports: &Ports,
    ) -> Result<(Self, Option<Local>), BitTorrentError> {
        let udp = ports.udp.as_ref();
        let local = ports.local_addr();
        let public = config.public_address.map(|address| address.port());
        let tracker_config = TrackerConfig {
            addresses: config.addresses,
            ..TrackerConfig::default()
        };
        let trackers = TrackerClient::new(tracker_config, udp);
        let utp = udp.filter(|_| config.utp).map(|port| {
            let utp = UtpConfig {
                // Whom to dial is decided before; who comes is welcome as over TCP.
                addresses: AddressPolicy::Any,
                max_connections: config.max_connections,
                max_per_ip: config.max_connections_per_ip,
            };
            UtpSocket::start(utp, port)
        });
        let (dht, names) = match (&config.dht, udp) {
            (Some(bootstrap), Some(port)) => {
                let (dht, names) = start_dht(config, bootstrap, port)?;
                (Some(dht), names)
            }
            _ => (None, Vec::new()),
        };
        if let Some(dht) = &dht
            && !names.is_empty()
        {
            tokio::spawn(look_up(dht.clone(), names));
        }
        let mut taken = None;
        let mut sender = None;
        if let Some(address) = local.filter(|_| config.lsd) {
            let discovery = LocalDiscovery::start(lsd_config(config, address)).await;
            let discovery = discovery.map_err(|source| failed("local discovery", source))?;
            let (commands, mailbox) = mpsc::channel(COMMANDS);
            sender = Some(commands);
            taken = Some(Local { discovery, mailbox });
        }
        let discovery = Self {
            port: udp.cloned(),
            utp: utp.transpose().map_err(|source| failed("uTP", source))?,
            dht,
            trackers: trackers.map_err(|source| failed("the tracker client", source))?,
            common: config.trackers.clone(),
            addresses: config.addresses,
            announced: public.or(local.map(|address| address.port())),
            local: sender,
        };
        Ok((discovery, taken))
    }

    /// What takes connections over uTP, if anything does.
    pub(in crate::bittorrent) fn utp(&self) -> Option<UtpSocket> {
        self.utp.clone()
    }

    /// The UDP port of the DHT and uTP.
    pub(in crate::bittorrent) fn udp_port(&self) -> Option<u16> {
        let port = self.port.as_ref()?;
        let address = port.local_addr(true).or_else(|| port.local_addr(false));
        Some(address?.port())
    }

    /// Ends all of it.
    pub(in crate::bittorrent) async fn shutdown(&self) {
        if let Some(utp) = &self.utp {
            utp.shutdown().await;
        }
        if let Some(dht) = &self.dht {
            dht.shutdown().await;
        }
        self.trackers.shutdown().await;
        if let Some(port) = &self.port {
            port.shutdown().await;
        }
    }
}

/// Local discovery and what it is told.
pub(in crate::bittorrent) struct Local {
    discovery: LocalDiscovery,
    mailbox: mpsc::Receiver<Command>,
}

impl Local {
    /// Hands what is found to the torrents of a node.
    pub(in crate::bittorrent) fn listen(self, node: &Arc<Node>) {
        let listening = local::run(self.discovery, self.mailbox, node.clone());
        node.tasks.spawn(listening);
    }
}

fn lsd_config(config: &BitTorrentConfig, listen: SocketAddr) -> LsdConfig {
    let mut lsd = LsdConfig::new(listen.port());
    lsd.group = config.lsd_group;
    if let IpAddr::V4(ip) = listen.ip()
        && ip != Ipv4Addr::UNSPECIFIED
    {
        lsd.interface = ip;
        if ip.is_loopback() {
            lsd.addresses = AddressPolicy::Any;
        }
    }
    lsd
}

/// Starts the DHT; the names of nodes that are to be looked up come with it.
fn start_dht(
    config: &BitTorrentConfig,
    bootstrap: &[String],
    port: &UdpPort,
) -> Result<(MainlineDht, Vec<String>), BitTorrentError> {
    let mut node = NodeConfig {
        addresses: config.addresses,
        saved: config.dht_saved.clone(),
        ..NodeConfig::default()
    };
    let mut names = Vec::new();
    for place in bootstrap.iter().take(MAX_BOOTSTRAP) {
        match place.parse() {
            Ok(address) => node.bootstrap.push(address),
            Err(_) => names.push(place.clone()),
        }
    }
    let dht = MainlineDht::start(node, port);
    let dht = dht.map_err(|error| failed("the DHT", io::Error::other(error)))?;
    Ok((dht, names))
}

/// Looks names up and tells the DHT of whom they stand for.
async fn look_up(dht: MainlineDht, names: Vec<String>) {
    for name in names {
        match timeout(LOOKUP, lookup_host(&name)).await {
            Ok(Ok(found)) => found.take(8).for_each(|address| dht.meet(address)),
            Ok(Err(error)) => tracing::debug!(name, %error, "no node of the DHT"),
            Err(_) => tracing::debug!(name, "no node of the DHT: not found in time"),
        }
    }
}
