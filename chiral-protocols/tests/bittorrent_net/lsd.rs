//! Local discovery, within this machine.

use std::net::{Ipv4Addr, SocketAddr};

use chiral_protocols::bittorrent::lsd::{Found, LocalDiscovery, LsdConfig, group};
use tokio::net::UdpSocket;

use crate::{NEAR, soon};

#[tokio::test]
async fn two_peers_of_one_machine_hear_of_each_other() {
    let config = |port| {
        let mut config = LsdConfig::new(port);
        config.interface = Ipv4Addr::LOCALHOST;
        config.addresses = NEAR;
        // Another group port: a client that runs here is left alone.
        config.group = SocketAddr::new(group(true).ip(), 16771);
        config
    };
    let mut one = LocalDiscovery::start(config(1111)).await.unwrap();
    let mut other = LocalDiscovery::start(config(2222)).await.unwrap();
    let near = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Somebody talks nonsense.
    let noise = UdpSocket::bind(near(0)).await.unwrap();
    noise
        .send_to(b"BT-SEARCH * HTTP/1.1\r\n\r\n", near(16771))
        .await
        .unwrap();
    one.add([1; 20]).await;
    let found = soon(other.next()).await.unwrap();
    let expected = Found {
        info_hash: [1; 20],
        peer: near(1111),
    };
    assert_eq!(found, expected);
    other.add([2; 20]).await;
    // Its own announcement, which it hears too, is not news.
    let found = soon(one.next()).await.unwrap();
    assert_eq!((found.info_hash, found.peer), ([2; 20], near(2222)));
    soon(one.shutdown()).await;
    soon(other.shutdown()).await;
}
