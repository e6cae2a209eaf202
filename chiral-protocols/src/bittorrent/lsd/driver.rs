//! [`LocalDiscovery`]: announces and listens, in a task of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{LsdMessage, LsdState, MAX_MESSAGE, group};
use crate::bittorrent::compact::dialable;
use crate::bittorrent::random::Random;
use crate::http::AddressPolicy;

const COMMANDS: usize = 64;
/// Peers that wait to be read. What is beyond is lost.
const FOUND: usize = 64;

/// Settings of [`LocalDiscovery`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LsdConfig {
    /// Where our peer listens.
    pub port: u16,
    /// The interface to use, by its IPv4 address; the unspecified one leaves it to the system.
    pub interface: Ipv4Addr,
    /// Whose announcements are taken. Default: of private networks only, as others are not
    /// next to us.
    pub addresses: AddressPolicy,
    /// Where to announce; for tests among one machine's processes.
    pub group: SocketAddr,
}

impl LsdConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            port,
            interface: Ipv4Addr::UNSPECIFIED,
            addresses: AddressPolicy::GlobalAnd {
                private: true,
                loopback: false,
            },
            group: group(true),
        }
    }
}

/// A peer in the same network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// The peer.
    pub peer: SocketAddr,
}

/// A socket on a port that other clients on this machine have too.
fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

enum Command {
    Add([u8; 20]),
    Remove([u8; 20]),
}

/// Announces torrents in the network, over IPv4, and hears of others. To be ended by
/// [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct LocalDiscovery {
    commands: mpsc::Sender<Command>,
    found: mpsc::Receiver<Found>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl LocalDiscovery {
    /// Joins the group.
    ///
    /// # Errors
    ///
    /// The port of the group is not free, the interface has no multicast, or the system has no
    /// random numbers.
    pub async fn start(config: LsdConfig) -> io::Result<Self> {
        let group = config.group;
        let listens = open(group.port())?;
        if let std::net::IpAddr::V4(ip) = group.ip()
            && ip.is_multicast()
        {
            listens.join_multicast_v4(ip, config.interface)?;
        }
        let sends = UdpSocket::bind((config.interface, 0)).await?;
        sends.set_multicast_loop_v4(true)?;
        if !config.interface.is_unspecified() {
            SockRef::from(&sends).set_multicast_if_v4(&config.interface)?;
        }
        let cookie = Random::from_system()?.u32();
        let (commands, mailbox) = mpsc::channel(COMMANDS);
        let (told, found) = mpsc::channel(FOUND);
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let runner = Runner {
            config,
            cookie: format!("{cookie:08x}"),
            state: LsdState::default(),
            listens,
            sends,
            mailbox,
            told,
        };
        tasks.spawn(closed.clone().run_until_cancelled_owned(runner.run()));
        tasks.close();
        Ok(Self {
            commands,
            found,
            closed,
            tasks,
        })
    }

    /// Announces a torrent from now on. Never a private one (BEP 27).
    pub async fn add(&self, info_hash: [u8; 20]) {
        // Whoever has shut down announces nothing.
        let _ = self.commands.send(Command::Add(info_hash)).await;
    }

    /// Announces it no more.
    pub async fn remove(&self, info_hash: [u8; 20]) {
        let _ = self.commands.send(Command::Remove(info_hash)).await;
    }

    /// The next peer, of any torrent, ours or not; `None` once shut down.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if dropped.
    pub async fn next(&mut self) -> Option<Found> {
        self.found.recv().await
    }

    /// Leaves the group.
    pub async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for LocalDiscovery {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

struct Runner {
    config: LsdConfig,
    cookie: String,
    state: LsdState,
    listens: UdpSocket,
    sends: UdpSocket,
    mailbox: mpsc::Receiver<Command>,
    told: mpsc::Sender<Found>,
}

impl Runner {
    async fn run(mut self) {
        let mut buffer = [0; MAX_MESSAGE + 1];
        loop {
            let now = Instant::now();
            let due = self.state.poll_timeout(now.into_std());
            let wake = async {
                match due {
                    Some(due) => sleep_until(Instant::from_std(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(Command::Add(torrent)) => drop(self.state.add(torrent)),
                    Some(Command::Remove(torrent)) => self.state.remove(&torrent),
                    None => return,
                },
                received = self.listens.recv_from(&mut buffer) => match received {
                    Ok((len, from)) => self.hear(from, &buffer[..len]),
                    Err(error) => tracing::debug!(%error, "not received"),
                },
                () = wake => self.announce().await,
            }
        }
    }

    async fn announce(&mut self) {
        let torrents = self.state.due(Instant::now().into_std());
        if torrents.is_empty() {
            return;
        }
        let message = LsdMessage {
            port: self.config.port,
            torrents,
            cookie: Some(self.cookie.clone()),
        };
        let datagram = message.encode(true);
        if let Err(error) = self.sends.send_to(&datagram, self.config.group).await {
            tracing::debug!(%error, "not announced");
        }
    }

    fn hear(&mut self, from: SocketAddr, datagram: &[u8]) {
        if !self.state.admits(from.ip(), Instant::now().into_std()) {
            return;
        }
        let message = match LsdMessage::decode(datagram) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%from, %error, "not an announcement");
                return;
            }
        };
        let peer = SocketAddr::new(from.ip(), message.port);
        let ours = message.cookie.as_deref() == Some(&self.cookie);
        if ours || !dialable(peer, self.config.addresses) {
            return;
        }
        for info_hash in message.torrents {
            // Whoever does not keep up loses some.
            let _ = self.told.try_send(Found { info_hash, peer });
        }
    }
}
