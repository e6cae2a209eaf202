//! How connections are kept, filled and ended, as foreign clients of all ages do it.

use std::time::{Duration, Instant};

use chiral_core::ContentProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{RawAnswer, ask, content, loopback, path_of, raw, seeder, seeder_with, soon};

/// Reads one answer with a `Content-Length` off a connection that stays.
async fn one(stream: &mut TcpStream) -> RawAnswer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(soon(stream.read_u8()).await.unwrap());
    }
    let mut answer = RawAnswer::parse(&bytes);
    let length = answer.header("content-length").unwrap().parse().unwrap();
    answer.body = vec![0; length];
    soon(stream.read_exact(&mut answer.body)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_connection_is_kept_until_somebody_says_otherwise() {
    let bytes = content(1000);
    let (node, _, target) = seeder(&bytes).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (path, status) in [(&*path, 200), ("/none", 404), (&*path, 200)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.status, status);
    }
    let last = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(last.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(RawAnswer::parse(&rest).body == bytes);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn http_1_0_is_spoken() {
    let bytes = content(1000);
    let (node, _, target) = seeder(&bytes).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    // It knows no Host, and its connections end unless it asks.
    let answer = raw(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
    let answer = RawAnswer::parse(&answer);
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("1000"))
    );
    assert!(answer.body == bytes);
    let ranged = format!("GET {path} HTTP/1.0\r\nRange: bytes=-5\r\n\r\n");
    let answer = RawAnswer::parse(&raw(address, ranged.as_bytes()).await);
    assert_eq!((answer.status, &answer.body[..]), (206, &bytes[995..]));
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        let request = format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(one(&mut stream).await.body == bytes);
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let bytes = content(1000);
    let config = loopback().with_header_timeout(Duration::from_millis(400));
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let idle = Instant::now();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "nothing was asked");
    assert!(idle.elapsed() < Duration::from_secs(5));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_million_headers_are_refused_before_they_are_held() {
    let bytes = content(1000);
    let (node, _, target) = seeder(&bytes).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begin = format!("GET {path} HTTP/1.1\r\nHost: x\r\n");
    stream.write_all(begin.as_bytes()).await.unwrap();
    let thousand = "A: b\r\n".repeat(1000);
    let mut taken = 0;
    for _ in 0..1000 {
        if soon(stream.write_all(thousand.as_bytes())).await.is_err() {
            break;
        }
        taken += thousand.len();
    }
    // What the sockets hold goes out; the server stopped reading long before the end.
    assert!(taken < 1_000_000 * 6, "{taken} bytes were taken");
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    if !answer.is_empty() {
        assert_eq!(RawAnswer::parse(&answer).status, 431);
    }
    assert_eq!(ask(address, "GET", &path, "").await.status, 200);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_who_asks_on_and_reads_nothing_holds_little() {
    let bytes = content(1 << 20);
    let config = loopback().with_min_send_rate(1 << 20, Duration::from_millis(500));
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    // 100,000 requests for 100 GB in all: read as they are answered, and not answered.
    let all = async {
        for _ in 0..100_000 {
            if stream.write_all(request.as_bytes()).await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(soon(all).await, "the connection is ended");
    assert_eq!(ask(address, "GET", &path, "").await.status, 200);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_lets_an_answer_end_and_takes_no_new_request() {
    let bytes = content(16 << 20);
    let (node, _, target) = seeder(&bytes).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let first = soon(stream.read_u8()).await.unwrap();
    let node = std::sync::Arc::new(node);
    let ending = tokio::spawn({
        let node = node.clone();
        async move { node.shutdown().await }
    });
    assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap_or(0), 0);
    let mut answer = vec![first];
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = RawAnswer::parse(&answer);
    assert!(answer.body == bytes, "one answer, and all of it");
    soon(ending).await.unwrap().unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port is free"
    );
}
