//! `POST /payment` in the hands of people who mean harm, over raw sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chiral_core::{ContentProtocol, TransferRegistry};
use chiral_protocols::http::{HttpConfig, HttpProtocol};
use chiral_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{RawAnswer, ask, content, loopback, raw, soon};
use crate::till::Till;

const OCTETS: &str = "Content-Type: application/octet-stream\r\n";

async fn victim(config: HttpConfig) -> (HttpProtocol, SocketAddr) {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let gate = Arc::new(Till::default());
    let node = HttpProtocol::bind(config, store, TransferRegistry::new(), gate)
        .await
        .unwrap();
    let address = node.local_addr().unwrap();
    (node, address)
}

/// Posts a body under these headers (each line ending in CRLF).
async fn post(address: SocketAddr, headers: &str, body: &[u8]) -> RawAnswer {
    let head = format!("POST /payment HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    RawAnswer::parse(&raw(address, &[head.as_bytes(), body].concat()).await)
}

async fn still_answers(address: SocketAddr) {
    let headers = format!("{OCTETS}Content-Length: 5\r\n");
    let answer = post(address, &headers, b"hello").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"yes"[..]));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_message_is_told_in_full_and_by_its_length() {
    let (node, address) = victim(loopback()).await;
    still_answers(address).await;
    for (headers, body, status) in [
        ("", "hello", 411),
        ("Content-Length: 5\r\n", "hello", 415),
        (
            "Content-Type: text/plain\r\nContent-Length: 5\r\n",
            "hello",
            415,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n",
            "hello",
            415,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n",
            "hello",
            415,
        ),
        (
            "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            411,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Length: 16385\r\n",
            "hello",
            413,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Length: 9223372036854775807\r\n",
            "hello",
            413,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Length: 0\r\n",
            "",
            400,
        ),
        (
            "Content-Type: application/octet-stream\r\nContent-Length: 5\r\n",
            "HELLO",
            400,
        ),
    ] {
        let answer = post(address, headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{headers}");
    }
    for headers in [
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: \r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let answer = post(address, &format!("{OCTETS}{headers}"), b"hello").await;
        assert!(
            (400..=431).contains(&answer.status),
            "{headers}: {}",
            answer.status
        );
    }
    still_answers(address).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_longest_message_is_taken_and_one_more_byte_is_not() {
    let (node, address) = victim(loopback()).await;
    for (length, status) in [(16_384, 400), (16_385, 413), (1 << 20, 413)] {
        let headers = format!("{OCTETS}Content-Length: {length}\r\n");
        let body = content(length);
        // With so much unread the answer may be lost with the connection.
        let head =
            format!("POST /payment HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        let got = raw(address, &[head.as_bytes(), &body].concat()).await;
        if length <= 16_384 || !got.is_empty() {
            assert_eq!(RawAnswer::parse(&got).status, status, "{length}");
        }
    }
    still_answers(address).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_message_that_drips_is_cut_off() {
    let config = loopback().with_header_timeout(Duration::from_millis(300));
    let (node, address) = victim(config).await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("POST /payment HTTP/1.1\r\nHost: x\r\n{OCTETS}Content-Length: 16384\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    still_answers(address).await;
    for mut stream in slow {
        let drip = async {
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(drip).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    still_answers(address).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_request_hides_in_a_message() {
    let (node, address) = victim(loopback()).await;
    let hidden = b"GET /payment HTTP/1.1\r\nHost: x\r\n\r\n";
    for (headers, answers) in [
        // The rest of the connection is another request, as it says.
        ("Content-Length: 5\r\n".to_owned(), 2),
        // It is part of the message.
        (format!("Content-Length: {}\r\n", 5 + hidden.len()), 1),
        // Nobody knows what it is.
        ("Transfer-Encoding: chunked\r\n".to_owned(), 1),
        (String::new(), 1),
        ("Content-Length: 99999\r\n".to_owned(), 1),
    ] {
        let head = format!("POST /payment HTTP/1.1\r\nHost: x\r\n{OCTETS}{headers}\r\nhello");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = [head.as_bytes(), hidden].concat();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        soon(stream.read_to_end(&mut got)).await.unwrap_or_default();
        let found = got.windows(9).filter(|w| w == b"HTTP/1.1 ").count();
        assert!(found <= answers, "{headers}: {found} answers");
    }
    still_answers(address).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn other_methods_and_places_take_no_messages() {
    let (node, address) = victim(loopback()).await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
        let answer = ask(address, method, "/payment", "").await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    }
    let answer = ask(address, "OPTIONS", "/payment", "").await;
    assert_eq!(answer.status, 204);
    let allowed = answer.header("access-control-allow-methods");
    assert_eq!(allowed, Some("POST, OPTIONS"));
    for path in ["/payment/", "/payments", "//payment", "/Payment", "/file/x"] {
        let headers = format!("{OCTETS}Content-Length: 0\r\n");
        let answer = ask(address, "POST", path, &headers).await;
        assert!(matches!(answer.status, 404 | 405), "{path}");
        let headers = format!("{OCTETS}Content-Length: 5\r\n");
        assert_eq!(ask(address, "POST", path, &headers).await.status, 400);
    }
    node.shutdown().await.unwrap();
}
