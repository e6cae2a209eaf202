//! Peers that are none.

use std::time::Duration;

use chiral_core::ContentProtocol;
use chiral_core::conformance::content_protocol::identification;
use chiral_protocols::bittorrent::wire::{Handshake, Reserved};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Peer, content, loopback, soon};

/// Reads until the other side closes.
async fn closes(stream: &mut TcpStream) {
    let mut buffer = vec![0; 65_536];
    soon(async {
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_rules_is_closed_and_the_rest_served() {
    let mut config = loopback();
    config.handshake_timeout = Duration::from_millis(700);
    let seeder = Peer::new(config, None).await;
    let bytes = content(2_000_000);
    let (offer, info) = seeder.seed(&bytes).await;
    let handshake = |info_hash| {
        Handshake {
            reserved: Reserved::OURS,
            info_hash,
            peer_id: [7; 20],
        }
        .encode()
        .to_vec()
    };
    let after = |message: &[u8]| [&handshake(info.info_hash)[..], message].concat();
    for said in [
        // Nothing at all, for ever; and nearly nothing.
        vec![],
        vec![0x13],
        // Another protocol; a message before the handshake; a torrent that nobody has.
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        vec![0, 0, 0, 1, 2],
        handshake([9; 20]),
        vec![0xaa; 4096],
        // 4 GiB of a block, of a bitfield, of an extended message.
        after(&[0xff, 0xff, 0xff, 0xff, 7]),
        after(&[0xff, 0xff, 0xff, 0xff, 5]),
        after(&[0xff, 0xff, 0xff, 0xff, 20]),
        // A request past the end, and one too long.
        after(&[
            0, 0, 0, 13, 6, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x40, 0,
        ]),
        after(&[0, 0, 0, 13, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1]),
        // A bitfield too long, a piece past the last, an extended handshake that is none.
        after(&[0, 0, 0, 3, 5, 0xff, 0]),
        after(&[0, 0, 0, 5, 4, 0, 0, 0, 8]),
        after(&[0, 0, 0, 3, 20, 0, b'x']),
        // Keep-alives without end.
        after(&[0; 4000]),
    ] {
        let mut stream = TcpStream::connect(seeder.address()).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(&said).await;
        closes(&mut stream).await;
    }
    let fetcher = Peer::new(loopback(), None).await;
    let source = soon(fetcher.protocol.connect(&offer, &identification(&bytes)))
        .await
        .unwrap();
    let got = chiral_core::chunk_source::collect(&*source, (0..2_000_000).into(), 2_000_000);
    assert!(soon(got).await.unwrap() == bytes);
    fetcher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_address_has_no_more_than_its_share_of_connections() {
    let mut config = loopback();
    config.max_connections_per_ip = 2;
    let seeder = Peer::new(config, None).await;
    let (_, info) = seeder.seed(&content(300_000)).await;
    let greet = |id: u8| {
        let (reserved, info_hash) = (Reserved::OURS, info.info_hash);
        let bytes = Handshake {
            reserved,
            info_hash,
            peer_id: [id; 20],
        }
        .encode();
        let address = seeder.address();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = [0; 68];
            soon(stream.read_exact(&mut answer))
                .await
                .ok()
                .map(|_| stream)
        }
    };
    let first = greet(1).await.unwrap();
    let _second = greet(2).await.unwrap();
    assert!(greet(3).await.is_none());
    drop(first);
    soon(async {
        while greet(4).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    seeder.protocol.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_and_not_taken_does_not_pile_up() {
    let seeder = Peer::new(loopback(), None).await;
    let (_, info) = seeder.seed(&content(2_000_000)).await;
    let (reserved, info_hash) = (Reserved::OURS, info.info_hash);
    let mut stream = TcpStream::connect(seeder.address()).await.unwrap();
    let greeting = Handshake {
        reserved,
        info_hash,
        peer_id: [1; 20],
    }
    .encode();
    stream.write_all(&greeting).await.unwrap();
    stream.write_all(&[0, 0, 0, 1, 2]).await.unwrap();
    // Requests for the same block, without ever reading: sooner or later none is read any more.
    let request = [0, 0, 0, 13, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0].repeat(4096);
    let stuck = async {
        for _ in 0..10_000 {
            if stream.write_all(&request).await.is_err() {
                return;
            }
        }
        panic!("{} bytes of requests were read", request.len() * 10_000);
    };
    // Either it is closed, or it is not read.
    let _ = tokio::time::timeout(Duration::from_secs(3), stuck).await;
    soon(seeder.protocol.shutdown()).await.unwrap();
}
