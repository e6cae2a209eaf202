//! uTP (BEP 29): streams over UDP that give way to everybody else's traffic.
//!
//! [`UtpSocket`] makes and takes connections on a [`UdpPort`](crate::bittorrent::udp::UdpPort),
//! which the DHT shares; [`UtpStream`] is one, for [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite). The [`Connection`] itself is a state machine without
//! socket and clock: LEDBAT, selective acknowledgements, retransmission.
//!
//! Why not a library: librqbit-utp 0.7 has no LEDBAT but CUBIC, which does not give way, queues
//! without limits between its tasks, and a socket of its own.

mod connection;
mod ledbat;
pub mod packet;
mod receive;
mod rtt;
mod send;
mod socket;
mod stream;

pub use connection::{Connection, Ended};
pub use socket::{UtpConfig, UtpSocket};
pub use stream::UtpStream;

/// Bytes of data in a packet. With the headers of uTP, UDP and IPv6 1,448 bytes, which fits
/// through nearly every network; it is not found out whether more would.
pub const PAYLOAD: usize = 1380;
/// Bytes that a connection receives ahead of its reader.
pub const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes that a writer may be ahead of what is sent.
pub const SEND_BUFFER: usize = 256 << 10;
