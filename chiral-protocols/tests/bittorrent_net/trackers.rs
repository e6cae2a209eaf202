//! Trackers that keep to the rules: what they are told of a transfer.

use std::net::SocketAddr;

use chiral_protocols::bittorrent::tracker::{
    Announcer, AnnouncerConfig, Progress, Tiers, TrackerClient, TrackerConfig, TrackerError, Update,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::{NEAR, any, port, soon};

pub(crate) fn client() -> TrackerClient {
    let (port, _) = port();
    let mut config = TrackerConfig::default();
    config.addresses = NEAR;
    TrackerClient::new(config, Some(&port)).unwrap()
}

/// An HTTP server that answers every request the same, and tells the paths.
pub(crate) async fn http(answer: Vec<u8>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(any()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (told, paths) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            told.send(path.to_owned()).await.unwrap();
            let _ = stream.write_all(&answer).await;
        }
    });
    (at, paths)
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn announced(progress: Progress, trackers: &[String], client: &TrackerClient) -> Announcer {
    let id = *b"-CH0001-abcdefghijkl";
    let config = AnnouncerConfig::new([0xab; 20], id, 6881, Tiers::each(trackers));
    Announcer::start(client, config, progress)
}

#[tokio::test]
async fn a_transfer_is_told_from_its_start_to_its_end() {
    let body = b"d8:intervali1800e12:min intervali1e5:peers18:\x7f\0\0\x01\x1a\xe1\x0a\0\0\x01\x1a\xe1\x7f\0\0\x01\0\0\
                 10:tracker id3:a/be";
    let (at, mut paths) = http(ok(body)).await;
    let client = client();
    let progress = Progress {
        uploaded: 0,
        downloaded: 0,
        left: 100,
    };
    let mut announcer = announced(progress, &[format!("http://{at}/announce?key=x")], &client);
    let path = soon(paths.recv()).await.unwrap();
    assert!(
        path.starts_with("/announce?key=x&info_hash=%AB%AB"),
        "{path}"
    );
    assert!(
        path.contains("&port=6881&uploaded=0&downloaded=0&left=100&"),
        "{path}"
    );
    assert!(path.ends_with("&numwant=80&event=started"), "{path}");
    let update = soon(announcer.next()).await.unwrap();
    // Neither the router nor port 0.
    assert_eq!(update.peers(), ["127.0.0.1:6881".parse().unwrap()]);
    announcer.progress(Progress {
        uploaded: 7,
        downloaded: 100,
        left: 0,
    });
    announcer.completed();
    let path = soon(paths.recv()).await.unwrap();
    assert!(
        path.contains("&uploaded=7&downloaded=100&left=0&"),
        "{path}"
    );
    assert!(path.ends_with("&event=completed&trackerid=a%2Fb"), "{path}");
    soon(announcer.stop()).await;
    let path = soon(paths.recv()).await.unwrap();
    assert!(path.contains("&numwant=0&event=stopped"), "{path}");
    soon(client.shutdown()).await;
}

/// A UDP tracker with one peer.
async fn udp() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let socket = UdpSocket::bind(any()).await.unwrap();
    let at = socket.local_addr().unwrap();
    let (told, announced) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = buffer[8..16].to_vec();
            match buffer[11] {
                0 => answer.extend_from_slice(b"connects"),
                1 => {
                    assert_eq!(&buffer[..8], b"connects");
                    answer.extend_from_slice(&[0, 0, 7, 8, 0, 0, 0, 1, 0, 0, 0, 2]);
                    answer.extend_from_slice(&[127, 0, 0, 1, 0, 80]);
                    told.send(buffer[..len].to_vec()).await.unwrap();
                }
                _ => answer.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (at, announced)
}

#[tokio::test]
async fn a_udp_tracker_is_asked_when_the_first_fails() {
    let (at, mut announced_to) = udp().await;
    let gone = {
        let listener = TcpListener::bind(any()).await.unwrap();
        listener.local_addr().unwrap()
    };
    let client = client();
    let trackers = [
        format!("http://{gone}/announce"),
        format!("udp://{at}/announce"),
    ];
    let progress = Progress {
        left: 5,
        ..Progress::default()
    };
    let mut announcer = announced(progress, &trackers, &client);
    let failed = soon(announcer.next()).await.unwrap();
    assert!(
        matches!(&failed, Update::Failed { tracker, error: TrackerError::Unreachable(_) } if *tracker == trackers[0]),
        "{failed:?}"
    );
    let Some(Update::Answered { tracker, answer }) = soon(announcer.next()).await else {
        panic!()
    };
    assert_eq!(tracker, trackers[1]);
    assert_eq!(answer.peers, ["127.0.0.1:80".parse().unwrap()]);
    assert_eq!((answer.seeders, answer.leechers), (Some(2), Some(1)));
    let sent = soon(announced_to.recv()).await.unwrap();
    assert_eq!(
        (&sent[16..36], &sent[80..84]),
        (&[0xab; 20][..], &[0, 0, 0, 2][..])
    );
    assert!(sent.ends_with(b"\x02\x09/announce"));
    let scraped = soon(client.scrape(&trackers[1], &[[0xab; 20]]))
        .await
        .unwrap();
    assert_eq!(
        (
            scraped[0].seeders,
            scraped[0].completed,
            scraped[0].leechers
        ),
        (1, 2, 3)
    );
    soon(announcer.stop()).await;
    let sent = soon(announced_to.recv()).await.unwrap();
    assert_eq!(sent[80..84], [0, 0, 0, 3]);
}
