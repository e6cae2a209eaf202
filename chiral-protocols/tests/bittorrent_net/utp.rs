//! Streams over uTP.

use std::io::ErrorKind;
use std::net::SocketAddr;

use chiral_protocols::bittorrent::dht::{MainlineDht, NodeConfig};
use chiral_protocols::bittorrent::udp::UdpPort;
use chiral_protocols::bittorrent::utp::{UtpConfig, UtpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{NEAR, port, soon};

fn socket() -> (UtpSocket, SocketAddr, UdpPort) {
    let (port, at) = port();
    let mut config = UtpConfig::default();
    config.addresses = NEAR;
    (UtpSocket::start(config, &port).unwrap(), at, port)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 253) as u8).collect()
}

#[tokio::test]
async fn megabytes_go_both_ways() {
    let ((one, _, _p1), (other, at, _p2)) = (socket(), socket());
    let serve = tokio::spawn(async move {
        let mut stream = other.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        stream.shutdown().await.unwrap();
        (got.len(), other)
    });
    let mut stream = soon(one.connect(at)).await.unwrap();
    assert_eq!(stream.peer_addr(), at);
    let data = pattern(5_000_000);
    soon(stream.write_all(&data)).await.unwrap();
    soon(stream.shutdown()).await.unwrap();
    let mut back = Vec::new();
    soon(stream.read_to_end(&mut back)).await.unwrap();
    assert!(back == data, "{} bytes of {}", back.len(), data.len());
    let (served, other) = soon(serve).await.unwrap();
    assert_eq!(served, data.len());
    drop(stream);
    soon(one.shutdown()).await;
    soon(other.shutdown()).await;
    assert_eq!((one.connections(), other.connections()), (0, 0));
}

#[tokio::test]
async fn many_connections_share_a_port_with_the_dht() {
    let ((one, _, p1), (other, at, p2)) = (socket(), socket());
    let mut config = NodeConfig::default();
    config.addresses = NEAR;
    let _first = MainlineDht::start(config.clone(), &p2).unwrap();
    config.bootstrap = vec![at];
    let dht = MainlineDht::start(config, &p1).unwrap();
    let serve = tokio::spawn(async move {
        for _ in 0..16 {
            let stream = other.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
        other
    });
    let mut clients = Vec::new();
    for n in 0..16 {
        let one = one.clone();
        clients.push(tokio::spawn(async move {
            let stream = one.connect(at).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            let data = pattern(20_000 + n);
            let sent = data.clone();
            let write = async move {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let read = async { reader.read_to_end(&mut got).await.unwrap() };
            tokio::join!(write, read);
            assert!(got == data);
        }));
    }
    for client in clients {
        soon(client).await.unwrap();
    }
    let _other = soon(serve).await.unwrap();
    let mut status = dht.status();
    soon(status.wait_for(|status| status.nodes == 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_may_not_be_dialled_is_not() {
    let (port, _) = port();
    let strict = UtpSocket::start(UtpConfig::default(), &port).unwrap();
    for at in ["127.0.0.1:1", "10.0.0.1:1", "8.8.8.8:0"] {
        let refused = strict.connect(at.parse().unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{at}");
    }
}

#[tokio::test]
async fn who_has_no_utp_resets_or_is_given_up() {
    let ((one, _, _p1), (other, at, p2)) = (socket(), socket());
    let mut stream = soon(one.connect(at)).await.unwrap();
    let theirs = soon(other.accept()).await.unwrap();
    soon(other.shutdown()).await;
    drop((theirs, other));
    // The same port, but nobody remembers.
    let mut config = UtpConfig::default();
    config.addresses = NEAR;
    let _anew = UtpSocket::start(config, &p2).unwrap();
    let failed = soon(async {
        loop {
            if let Err(error) = stream.write_all(&[1; 100]).await {
                return error.kind();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let kind = failed.await;
    let ends = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    assert!(ends.contains(&kind), "{kind:?}");
}

#[tokio::test]
async fn one_address_has_its_share_of_connections() {
    let (port, at) = port();
    let mut config = UtpConfig::default();
    config.addresses = NEAR;
    config.max_per_ip = 3;
    let served = UtpSocket::start(config, &port).unwrap();
    let (one, _, _p1) = socket();
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(soon(one.connect(at)).await.unwrap());
    }
    let fourth = tokio::time::timeout(std::time::Duration::from_millis(700), one.connect(at));
    assert!(fourth.await.is_err());
    assert_eq!(served.connections(), 3);
}
