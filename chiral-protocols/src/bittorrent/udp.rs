//! [`UdpPort`]: one UDP port for the DHT, uTP and UDP trackers, as public clients have it.
//!
//! What arrives is told apart by its first byte: a bencoded dictionary is the DHT's, a first
//! byte of a type and the version 1 is uTP's, the rest is left to trackers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Datagrams that wait for each user of the port. What is beyond is lost, as datagrams are.
pub const QUEUE: usize = 512;
/// What the system should hold for us: connections of uTP send as fast as they can.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Longest datagram that is taken: any.
const MAX_DATAGRAM: usize = 65_536;

/// Who uses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The mainline DHT.
    Dht,
    /// uTP.
    Utp,
    /// UDP trackers.
    Tracker,
}

/// A datagram that has arrived: from where, and what.
pub type Datagram = (SocketAddr, Bytes);

/// Whom a datagram is for.
#[must_use]
pub fn classify(datagram: &[u8]) -> Option<Use> {
    match *datagram.first()? {
        b'd' => Some(Use::Dht),
        // Type and version, in four bits each (BEP 29).
        first if first & 0x0f == 1 && first >> 4 <= 4 => Some(Use::Utp),
        // The action, in four bytes of which the first three are zero (BEP 15).
        0 => Some(Use::Tracker),
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Users([Option<mpsc::Sender<Datagram>>; 3]);

#[derive(Debug)]
struct Open {
    socket: UdpSocket,
    /// The same one, for sending at once: the runtime's own refuses until it has heard from the
    /// system for the first time.
    direct: std::net::UdpSocket,
}

#[derive(Debug)]
struct Inner {
    v4: Option<Open>,
    v6: Option<Open>,
    users: Mutex<Users>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// A UDP port, of IPv4, IPv6 or both. Clones are the same port. To be ended by
/// [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct UdpPort {
    inner: Arc<Inner>,
    /// Ends reading with the last clone.
    _last: Arc<DropGuard>,
}

impl UdpPort {
    /// Opens the port. `addresses` may name one address of each family; port 0 means any, the
    /// same for both if it is free. Has to be called in a runtime.
    ///
    /// # Errors
    ///
    /// No address, two of a family, or one that cannot be bound.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let (mut v4, mut v6) = (None, None);
        let mut port = 0;
        for address in addresses {
            let mut address = *address;
            if address.port() == 0 {
                address.set_port(port);
            }
            let socket = match open(address) {
                Err(_) if port != 0 && address.port() == port => {
                    address.set_port(0);
                    open(address)?
                }
                bound => bound?,
            };
            port = socket.socket.local_addr()?.port();
            let place = if address.is_ipv4() { &mut v4 } else { &mut v6 };
            if place.replace(socket).is_some() {
                return Err(io::Error::other("two addresses of one family"));
            }
        }
        if v4.is_none() && v6.is_none() {
            return Err(io::Error::other("no address to listen on"));
        }
        let closed = CancellationToken::new();
        let inner = Arc::new(Inner {
            v4,
            v6,
            users: Mutex::default(),
            closed: closed.clone(),
            tasks: TaskTracker::new(),
        });
        let port = Self {
            inner,
            _last: Arc::new(closed.drop_guard()),
        };
        for v4 in [true, false] {
            if port.socket(v4).is_some() {
                let inner = port.inner.clone();
                port.inner.tasks.spawn(read(inner, v4));
            }
        }
        port.inner.tasks.close();
        Ok(port)
    }

    /// The address of the port, of a family.
    #[must_use]
    pub fn local_addr(&self, v4: bool) -> Option<SocketAddr> {
        self.socket(v4)?.socket.local_addr().ok()
    }

    /// Becomes the one that gets datagrams of a kind; who got them before gets none any more.
    #[must_use]
    pub fn subscribe(&self, what: Use) -> mpsc::Receiver<Datagram> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.users().0[what as usize] = Some(sender);
        receiver
    }

    /// Sends a datagram, if the system takes it at once: else it is lost, as datagrams are.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        let socket = self.socket(to.is_ipv4());
        match socket.map(|open| open.direct.send_to(datagram, to)) {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                tracing::debug!(%to, %error, "not sent");
                false
            }
            None => false,
        }
    }

    /// Sends a datagram when the system takes it.
    ///
    /// # Errors
    ///
    /// It cannot be sent there.
    ///
    /// # Cancel safety
    ///
    /// If dropped it was not sent.
    pub async fn send_to(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket(to.is_ipv4());
        let socket = socket.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        socket.socket.send_to(datagram, to).await.map(|_| ())
    }

    /// Whether the port has been closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    /// Ends reading. The port is free once all clones are dropped.
    pub async fn shutdown(&self) {
        self.inner.closed.cancel();
        *self.users() = Users::default();
        self.inner.tasks.wait().await;
    }

    fn socket(&self, v4: bool) -> Option<&Open> {
        let socket = if v4 { &self.inner.v4 } else { &self.inner.v6 };
        socket.as_ref()
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Users> {
        self.inner
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a socket of one family alone.
fn open(address: SocketAddr) -> io::Result<Open> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // Else it would take the port from the one for IPv4.
        socket.set_only_v6(true)?;
    }
    // A system that gives less is none the worse.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let direct: std::net::UdpSocket = socket.into();
    let socket = UdpSocket::from_std(direct.try_clone()?)?;
    Ok(Open { socket, direct })
}

async fn read(inner: Arc<Inner>, v4: bool) {
    let socket = if v4 { &inner.v4 } else { &inner.v6 };
    let Some(Open { socket, .. }) = socket else {
        return;
    };
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let arrived = inner
            .closed
            .run_until_cancelled(socket.recv_from(&mut buffer));
        let Some(arrived) = arrived.await else {
            return;
        };
        let (len, from) = match arrived {
            Ok(arrived) => arrived,
            Err(error) => {
                // Of a datagram that we sent, and that nobody took.
                tracing::debug!(%error, "not received");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Some(what) = classify(&buffer[..len]) else {
            continue;
        };
        let user = {
            let users = inner.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.0[what as usize].clone()
        };
        if let Some(user) = user {
            // Whoever does not keep up loses some.
            let _ = user.try_send((from, Bytes::copy_from_slice(&buffer[..len])));
        }
    }
}

/// Every address of this machine, for both families.
#[must_use]
pub fn anywhere(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_told_apart() {
        for (first, expected) in [
            (b'd', Some(Use::Dht)),
            (0x01, Some(Use::Utp)),
            (0x41, Some(Use::Utp)),
            (0x51, None),
            (0x42, None),
            (0x00, Some(Use::Tracker)),
            (0xff, None),
        ] {
            assert_eq!(classify(&[first, 0]), expected, "{first}");
        }
        assert_eq!(classify(&[]), None);
    }

    #[tokio::test]
    async fn the_first_datagram_goes_out_at_once() {
        let near = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = UdpPort::bind(&[near]).unwrap();
        let mut dht = port.subscribe(Use::Dht);
        let other = UdpPort::bind(&[near]).unwrap();
        assert!(other.send(port.local_addr(true).unwrap(), b"de"));
        assert_eq!(&dht.recv().await.unwrap().1[..], b"de");
    }

    #[tokio::test]
    async fn each_gets_its_own_and_a_full_queue_blocks_nobody() {
        let near = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = UdpPort::bind(&[near(0)]).unwrap();
        let at = port.local_addr(true).unwrap();
        let _full = port.subscribe(Use::Utp);
        let mut dht = port.subscribe(Use::Dht);
        let other = UdpPort::bind(&[near(0)]).unwrap();
        for _ in 0..QUEUE + 10 {
            other.send_to(at, &[0x01, 2]).await.unwrap();
        }
        // Some may be lost on the way, as all were sent at once.
        let sender = other.clone();
        let sending = tokio::spawn(async move {
            while sender.send_to(at, b"de").await.is_ok() && !sender.is_closed() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        let (from, bytes) = dht.recv().await.unwrap();
        assert_eq!(
            (Some(from), &bytes[..]),
            (other.local_addr(true), &b"de"[..])
        );
        other.shutdown().await;
        sending.await.unwrap();
        port.shutdown().await;
        while dht.recv().await.is_some() {}
        drop(port);
        UdpPort::bind(&[at]).unwrap();
    }
}
