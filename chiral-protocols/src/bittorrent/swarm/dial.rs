//! Making connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::greet::{self, GreetError, Greeted, Wire};
use super::handle::PeerHandle;
use super::limits::Place;
use super::node::Node;
use super::torrent::Torrent;
use crate::bittorrent::mse::{Encryption, Methods};
use crate::bittorrent::session::Session;
use crate::bittorrent::utp::UtpStream;
use crate::bittorrent::wire::Handshake;

/// How often, and for how long, a download waits for a connection that another one has.
const KNOWN_WAITS: u32 = 12;
const KNOWN_WAIT: Duration = Duration::from_millis(250);
/// Who does not answer over TCP for so long is called over uTP too.
const UTP_AFTER: Duration = Duration::from_secs(1);

/// What a connection goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Utp,
}

/// A connection that we made.
enum Called {
    Tcp(Greeted<TcpStream>),
    Utp(Greeted<UtpStream>),
}

/// Whom a new connection is with.
pub(in crate::bittorrent) struct Arrival {
    pub(in crate::bittorrent) address: SocketAddr,
    pub(in crate::bittorrent) incoming: bool,
    /// It goes over uTP.
    pub(in crate::bittorrent) utp: bool,
    /// A source is made of it.
    pub(in crate::bittorrent) claim: bool,
    pub(in crate::bittorrent) place: Place,
}

/// Why nobody is at the other end.
#[derive(Debug, thiserror::Error)]
pub(in crate::bittorrent) enum DialError {
    #[error("there are too many connections")]
    Limit,
    #[error("the name does not resolve")]
    Name(#[source] std::io::Error),
    #[error("not connected in time")]
    Timeout,
    #[error("not connected")]
    Connect(#[source] std::io::Error),
    #[error(transparent)]
    Greet(#[from] greet::GreetError),
    #[error("there is a connection with it already")]
    Known,
    #[error("what it gave was wrong")]
    Banned,
    #[error("shut down")]
    Closed,
}

impl DialError {
    /// Whether there is nothing to be had there, and so no use in another try.
    pub(in crate::bittorrent) fn is_useless(&self) -> bool {
        matches!(
            self,
            Self::Known | Self::Banned | Self::Greet(GreetError::Myself)
        )
    }
}

/// Whether an address that a stranger at `from` told of is dialled: nobody on the Internet has
/// us dial into our own network, or this machine.
pub(in crate::bittorrent) fn may_dial(from: IpAddr, to: SocketAddr) -> bool {
    let (from, ip) = (from.to_canonical(), to.ip().to_canonical());
    let reach = |ip: IpAddr| match ip {
        _ if ip.is_loopback() => 0,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => 1,
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => 1,
        _ => 2,
    };
    let shared = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.is_broadcast());
    let nobody = ip.is_unspecified() || ip.is_multicast() || shared || to.port() == 0;
    !nobody && reach(ip) >= reach(from)
}

impl Node {
    /// Connects to a peer of a torrent, by name or address; claimed for a source.
    pub(in crate::bittorrent) async fn dial_place(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        place: &str,
        is_announced: bool,
    ) -> Result<Arc<PeerHandle>, DialError> {
        let limit = self.shared.config.connect_timeout;
        let found = timeout(limit, lookup_host(place)).await;
        let found = found
            .map_err(|_| DialError::Timeout)?
            .map_err(DialError::Name)?;
        let mut last = DialError::Name(std::io::ErrorKind::NotFound.into());
        for address in found.take(4) {
            // Whom strangers announce is dialled only where the settings let.
            if is_announced && !self.shared.config.addresses.allows(address.ip()) {
                continue;
            }
            // One that an earlier download had may be about to be given up.
            let mut waits = 0;
            loop {
                match self.dial(torrent, address, true).await {
                    Ok(handle) => return Ok(handle),
                    Err(DialError::Known) if waits < KNOWN_WAITS => {
                        waits += 1;
                        tokio::time::sleep(KNOWN_WAIT).await;
                    }
                    Err(error) => {
                        last = error;
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Connects to a peer of a torrent.
    pub(in crate::bittorrent) async fn dial(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        address: SocketAddr,
        claim: bool,
    ) -> Result<Arc<PeerHandle>, DialError> {
        let place = self.limits.take(address.ip()).ok_or(DialError::Limit)?;
        let permit = self
            .dialling
            .acquire()
            .await
            .map_err(|_| DialError::Closed)?;
        let called = self.reach(torrent, address).await?;
        drop(permit);
        self.take_in(torrent, called, address, claim, place)
    }

    /// Connects to a peer that has been told to do the same, over uTP: routers let datagrams in
    /// from where some went out.
    pub(super) async fn meet(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        address: SocketAddr,
    ) -> Result<Arc<PeerHandle>, DialError> {
        let place = self.limits.take(address.ip()).ok_or(DialError::Limit)?;
        // Whom to call is another's word: it does not wait for room.
        let permit = self.dialling.try_acquire().map_err(|_| DialError::Limit)?;
        let called = self.over(torrent, address, Transport::Utp).await?;
        drop(permit);
        self.take_in(torrent, called, address, false, place)
    }

    fn take_in(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        called: Called,
        address: SocketAddr,
        claim: bool,
        place: Place,
    ) -> Result<Arc<PeerHandle>, DialError> {
        let (utp, peer_id) = match &called {
            Called::Tcp(greeted) => (false, greeted.theirs.peer_id),
            Called::Utp(greeted) => (true, greeted.theirs.peer_id),
        };
        if claim {
            // Whoever downloads remembers by himself whom he does not want.
            torrent.lift_ban(address.ip(), peer_id);
        } else if torrent.is_banned(address.ip(), peer_id) {
            return Err(DialError::Banned);
        }
        let new = Arrival {
            address,
            incoming: false,
            utp,
            claim,
            place,
        };
        let adopted = match called {
            Called::Tcp(greeted) => self.adopt(torrent, greeted, new),
            Called::Utp(greeted) => self.adopt(torrent, greeted, new),
        };
        match adopted {
            Err(other) if claim && other.claim() => Ok(other),
            adopted => adopted.map_err(|_| DialError::Known),
        }
    }

    /// Calls over TCP; who cannot be reached by that is called over uTP too.
    async fn reach(&self, torrent: &Torrent, address: SocketAddr) -> Result<Called, DialError> {
        let tcp = self.over(torrent, address, Transport::Tcp);
        if self.discovery.utp.is_none() {
            return tcp.await;
        }
        let utp = async {
            tokio::time::sleep(UTP_AFTER).await;
            self.over(torrent, address, Transport::Utp).await
        };
        tokio::pin!(tcp, utp);
        tokio::select! {
            biased;
            called = &mut tcp => match called {
                // Some take nobody over TCP, and close without a word.
                Err(DialError::Connect(_) | DialError::Greet(GreetError::Io(_))) => {
                    self.over(torrent, address, Transport::Utp).await
                }
                Err(DialError::Timeout) => utp.await,
                called => called,
            },
            called = &mut utp => match called {
                Ok(called) => Ok(called),
                Err(_) => tcp.await,
            },
        }
    }

    /// Calls over one transport, encrypted as the configuration says.
    async fn over(
        &self,
        torrent: &Torrent,
        address: SocketAddr,
        transport: Transport,
    ) -> Result<Called, DialError> {
        let encryption = self.shared.config.encryption;
        let methods = Some(Methods::of(encryption));
        match encryption {
            Encryption::Off => self.call(torrent, address, transport, None).await,
            Encryption::Require => self.call(torrent, address, transport, methods).await,
            // Those who do not know it close the connection, and are called anew in the clear.
            Encryption::Prefer => match self.call(torrent, address, transport, methods).await {
                Err(
                    DialError::Greet(GreetError::Io(_) | GreetError::Mse(_)) | DialError::Timeout,
                ) => self.call(torrent, address, transport, None).await,
                called => called,
            },
        }
    }

    async fn call(
        &self,
        torrent: &Torrent,
        address: SocketAddr,
        transport: Transport,
        methods: Option<Methods>,
    ) -> Result<Called, DialError> {
        let config = &self.shared.config;
        let ours = self.handshake(torrent.info_hash);
        let connect = config.connect_timeout;
        match (transport, &self.discovery.utp) {
            (Transport::Utp, Some(utp)) => {
                let stream = timeout(connect, utp.connect(address)).await;
                let stream = stream.map_err(|_| DialError::Timeout)?;
                let stream = stream.map_err(DialError::Connect)?;
                Ok(Called::Utp(self.greet(stream, ours, methods).await?))
            }
            _ => {
                let stream = timeout(connect, TcpStream::connect(address)).await;
                let stream = stream.map_err(|_| DialError::Timeout)?;
                let stream = stream.map_err(DialError::Connect)?;
                // Without it the first block comes some 45 ms later.
                stream.set_nodelay(true).map_err(DialError::Connect)?;
                Ok(Called::Tcp(self.greet(stream, ours, methods).await?))
            }
        }
    }

    async fn greet<S: Wire>(
        &self,
        stream: S,
        ours: Handshake,
        methods: Option<Methods>,
    ) -> Result<Greeted<S>, DialError> {
        let limit = self.shared.config.handshake_timeout;
        let greeted = timeout(limit, greet::call(stream, ours, methods)).await;
        Ok(greeted.map_err(|_| DialError::Timeout)??)
    }

    /// Takes a connection that has been greeted into the torrent's swarm.
    ///
    /// # Errors
    /// Another one with the same peer, which goes before it.
    pub(in crate::bittorrent) fn adopt<S: Wire>(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        greeted: Greeted<S>,
        new: Arrival,
    ) -> Result<Arc<PeerHandle>, Arc<PeerHandle>> {
        let Greeted {
            stream,
            theirs,
            rest,
            ciphers,
        } = greeted;
        let Arrival {
            address,
            incoming,
            utp,
            claim,
            place,
        } = new;
        let handle = PeerHandle::new(torrent.next_key(), address, incoming, utp, theirs.peer_id);
        if claim {
            handle.claim();
        }
        let handle = Arc::new(handle);
        torrent.join(handle.clone(), &self.shared.peer_id.0)?;
        let started = Instant::now();
        let config = self.session_config(torrent, address);
        let mut session = Session::new(config, theirs, started.elapsed());
        session.input().extend_from_slice(&rest);
        let shared = self.shared.clone();
        let mut connection = Connection::new(
            stream,
            session,
            started,
            handle.clone(),
            torrent.clone(),
            shared,
        );
        connection.ciphers = ciphers;
        torrent.upkeep.notify_one();
        let dht = self.discovery.dht.clone();
        connection.dht = dht;
        self.tasks.spawn(async move {
            let ended = connection.run().await;
            tracing::debug!(peer = %address, reason = %ended, "connection ended");
            drop(place);
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_us_dial_into_our_own_network_from_outside() {
        let may = |from: &str, to: &str| may_dial(from.parse().unwrap(), to.parse().unwrap());
        assert!(may("8.8.8.8", "9.9.9.9:6881") && may("127.0.0.1", "127.0.0.1:6881"));
        assert!(may("192.168.1.2", "192.168.1.3:6881") && may("127.0.0.1", "9.9.9.9:1"));
        for (from, to) in [
            ("8.8.8.8", "127.0.0.1:6881"),
            ("8.8.8.8", "10.0.0.1:6881"),
            ("8.8.8.8", "169.254.169.254:80"),
            ("8.8.8.8", "[::1]:6881"),
            ("8.8.8.8", "[::ffff:127.0.0.1]:6881"),
            ("8.8.8.8", "[fe80::1]:6881"),
            ("192.168.1.2", "127.0.0.1:6881"),
            ("8.8.8.8", "9.9.9.9:0"),
            ("8.8.8.8", "0.0.0.0:1"),
            ("8.8.8.8", "224.0.0.1:1"),
            ("127.0.0.1", "255.255.255.255:1"),
        ] {
            assert!(!may(from, to), "{from} {to}");
        }
    }
}
