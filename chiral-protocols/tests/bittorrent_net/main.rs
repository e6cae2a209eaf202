//! Finding peers and uTP over real sockets, on loopback.
#![cfg(feature = "bittorrent")]
// The helpers are tests too, which the lint cannot know.
#![allow(clippy::unwrap_used)]

mod dht;
mod hostile_trackers;
mod lsd;
mod trackers;
mod utp;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chiral_protocols::bittorrent::udp::UdpPort;
use chiral_protocols::http::AddressPolicy;

/// This machine and the public internet.
pub(crate) const NEAR: AddressPolicy = AddressPolicy::GlobalAnd {
    private: false,
    loopback: true,
};

pub(crate) fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn port() -> (UdpPort, SocketAddr) {
    let port = UdpPort::bind(&[any()]).unwrap();
    let at = port.local_addr(true).unwrap();
    (port, at)
}

/// Waits, but not for ever.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("it takes too long")
}
