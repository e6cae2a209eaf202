//! Trackers that do not keep to the rules.

use chiral_protocols::bittorrent::tracker::{
    AnnounceRequest, TrackerClient, TrackerConfig, TrackerError,
};
use tokio::net::UdpSocket;

use crate::trackers::{client, http, ok};
use crate::{any, port, soon};

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: [1; 20],
        peer_id: [2; 20],
        port: 1,
        uploaded: 0,
        downloaded: 0,
        left: 0,
        event: Default::default(),
        num_want: None,
        key: 0,
        tracker_id: None,
    }
}

async fn outcome(answer: Vec<u8>) -> TrackerError {
    let (at, _paths) = http(answer).await;
    let url = format!("http://{at}/announce");
    soon(client().announce(&url, &request())).await.unwrap_err()
}

#[tokio::test]
async fn answers_over_their_limit_are_not_read() {
    let body = [&b"d5:peers3000000:"[..], &vec![1; 3_000_000], b"e"].concat();
    let error = outcome(ok(&body)).await;
    assert!(matches!(error, TrackerError::Unreachable(_)), "{error:?}");
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        + &format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(40);
    let error = outcome(endless.into_bytes()).await;
    assert!(matches!(error, TrackerError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let error = outcome(ok(b"<html>")).await;
    assert!(matches!(error, TrackerError::Malformed(_)), "{error:?}");
    let error = outcome(ok(&vec![b'l'; 100_000])).await;
    assert!(matches!(error, TrackerError::Malformed(_)), "{error:?}");
    let error = outcome(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert!(matches!(error, TrackerError::Status(503)), "{error:?}");
    let body = b"d14:failure reason2:no8:retry in5:nevere";
    let refusal = format!("HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n", body.len());
    let error = outcome([refusal.as_bytes(), body].concat()).await;
    assert!(matches!(error, TrackerError::Refused { .. }) && !error.is_retryable());
}

#[tokio::test]
async fn redirects_end_and_lead_nowhere_else() {
    let (at, mut paths) =
        http(b"HTTP/1.1 302 Go\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let url = format!("http://{at}/announce");
    let error = soon(client().announce(&url, &request())).await.unwrap_err();
    assert!(matches!(error, TrackerError::Unreachable(_)), "{error:?}");
    let mut asked = 0;
    while paths.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 4);
    let error = outcome(
        b"HTTP/1.1 302 Go\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )
    .await;
    assert!(matches!(error, TrackerError::Address), "{error:?}");
}

#[tokio::test]
async fn strangers_addresses_are_not_asked_by_default() {
    let (port, _) = port();
    let client = TrackerClient::new(TrackerConfig::default(), Some(&port)).unwrap();
    for url in [
        "http://127.0.0.1:1/announce",
        "http://192.168.1.1/announce",
        "http://[::1]:1/announce",
        "udp://127.0.0.1:1/announce",
        "udp://169.254.169.254:80",
        "udp://localhost:80",
    ] {
        let error = soon(client.announce(url, &request())).await.unwrap_err();
        assert!(matches!(error, TrackerError::Address), "{url}: {error:?}");
    }
    for url in [
        "file:///etc/passwd",
        "wss://t/announce",
        "udp://t",
        "http://user@t/announce",
    ] {
        let error = soon(client.announce(url, &request())).await.unwrap_err();
        assert!(
            matches!(error, TrackerError::Url { .. }),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_shutdown_ends_what_waits() {
    let silent = UdpSocket::bind(any()).await.unwrap();
    let url = format!("udp://{}", silent.local_addr().unwrap());
    let client = client();
    let asking = client.clone();
    let waits = tokio::spawn(async move { asking.announce(&url, &request()).await });
    silent.recv_from(&mut [0; 100]).await.unwrap();
    soon(client.shutdown()).await;
    let error = soon(waits).await.unwrap().unwrap_err();
    assert!(matches!(error, TrackerError::Closed), "{error:?}");
}
