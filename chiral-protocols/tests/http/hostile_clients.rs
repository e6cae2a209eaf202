//! Clients that mean harm, against the server, over raw sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chiral_core::ContentProtocol;
use chiral_core::SeedRequest;
use chiral_core::chunk_store::ImportMode;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_protocols::http::HttpProtocol;
use chiral_storage::{FsStore, FsStoreConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    RawAnswer, ask, content, loopback, node_over, path_of, raw, seeder, seeder_with, soon,
};

async fn victim() -> (HttpProtocol, SocketAddr, String) {
    let (node, _, target) = seeder(&content(1000)).await;
    let address = node.local_addr().unwrap();
    (node, address, path_of(&target))
}

async fn still_serves(address: SocketAddr, path: &str) {
    assert_eq!(ask(address, "GET", path, "").await.status, 200);
}

/// How many answers there are in these bytes.
fn answers(bytes: &[u8]) -> usize {
    bytes
        .windows(9)
        .filter(|window| window == b"HTTP/1.1 ")
        .count()
}

#[tokio::test]
async fn a_slow_header_is_cut_off() {
    let bytes = content(1000);
    let config = loopback().with_header_timeout(Duration::from_millis(300));
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        slow.push(stream);
    }
    still_serves(address, &path).await;
    for mut stream in slow {
        let drip = async {
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(drip).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    still_serves(address, &path).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn headers_over_the_limits_are_refused() {
    let (node, address, path) = victim().await;
    let long = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    let many = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X: y\r\n".repeat(100_000)
    );
    let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    for request in [long, many, line] {
        let answer = raw(address, request.as_bytes()).await;
        // The answer may be lost with the connection; it is never a success.
        if !answer.is_empty() {
            let status = RawAnswer::parse(&answer).status;
            assert!(matches!(status, 400 | 414 | 431), "{status}");
        }
        still_serves(address, &path).await;
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_request_cannot_be_hidden_in_another() {
    let (node, address, path) = victim().await;
    let hidden = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let length = hidden.len();
    for headers in [
        format!("Content-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Transfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding:\x0bchunked\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: 0{length}\r\n"),
        "Content-Length: 18446744073709551617\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{hidden}");
        let got = raw(address, request.as_bytes()).await;
        assert!(
            answers(&got) <= 1,
            "{headers}: {}",
            String::from_utf8_lossy(&got)
        );
        if !got.is_empty() {
            assert_eq!(RawAnswer::parse(&got).status, 400, "{headers}");
        }
    }
    still_serves(address, &path).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn bare_line_feeds_make_no_second_request() {
    let (node, address, path) = victim().await;
    for request in [
        format!("GET {path} HTTP/1.1\nHost: x\nConnection: close\n\n"),
        format!("GET {path} HTTP/1.1\r\nHost: x\nConnection: close\r\n\r\n"),
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nX: a\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n"
        ),
        format!("GET {path} HTTP/1.1\rHost: x\r\rGET / HTTP/1.1\r\n\r\n"),
    ] {
        let got = raw(address, request.as_bytes()).await;
        assert!(
            answers(&got) <= 1,
            "{request:?}: {}",
            String::from_utf8_lossy(&got)
        );
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn strange_targets_lead_nowhere() {
    let (node, address, path) = victim().await;
    let cid = path.rsplit('/').next().unwrap();
    for target in [
        "/".to_owned(),
        "*".to_owned(),
        "/etc/passwd".to_owned(),
        "/file/../../../etc/passwd".to_owned(),
        format!("/file/%2e%2e/file/{cid}"),
        format!("/file/..{path}"),
        format!("/{path}"),
        format!("{path}/"),
        format!("{path}/chunk/4294967296"),
        format!("{path}/chunk/00"),
        format!("{path}/chunk/0x0"),
        format!("{path}/chunk/-0"),
        format!("{path}/manifest/1"),
        format!("/file/{}", cid.to_uppercase()),
        format!("/file/0x{cid}"),
        format!("/file/{}", &cid[1..]),
        format!("/file/{cid}%00"),
        format!("/file/{}", "a".repeat(64)),
        "http://".to_owned(),
        "x".to_owned(),
        "/\u{ff}".to_owned(),
        "/file/\0".to_owned(),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let got = raw(address, request.as_bytes()).await;
        if !got.is_empty() {
            let status = RawAnswer::parse(&got).status;
            assert!(matches!(status, 400 | 404), "{target}: {status}");
        }
    }
    still_serves(address, &path).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_does_no_harm() {
    let (node, address, path) = victim().await;
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend_from_slice(&content(512));
    for request in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx".to_vec(),
        hello,
        content(100_000).to_vec(),
        vec![0; 100_000],
        b"\r\n".repeat(50_000),
        format!("GET {path}\r\n\r\n").into_bytes(),
        format!("GET {path} HTTP/9.9\r\n\r\n").into_bytes(),
        format!("GET {path} HTTP/1.1\r\n\r\n").into_bytes(),
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").into_bytes(),
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={}\r\n\r\n",
            "0-,".repeat(10_000)
        )
        .into_bytes(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&request).await;
        let _ = stream.shutdown().await;
        let mut got = Vec::new();
        let _ = soon(stream.read_to_end(&mut got)).await;
        if !got.is_empty() {
            // 200: many ranges at once may be ignored.
            let status = RawAnswer::parse(&got).status;
            assert!(matches!(status, 400 | 431 | 505 | 200), "{status}");
        }
    }
    still_serves(address, &path).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_who_reads_too_slowly_is_cut_off() {
    let bytes = content(64 << 20);
    let config = loopback().with_min_send_rate(1 << 20, Duration::from_millis(400));
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let mut slow = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut got = Vec::new();
    // What the sockets held comes, then the end.
    let _ = soon(slow.read_to_end(&mut got)).await;
    assert!(got.len() < bytes.len(), "{} bytes came", got.len());
    // One that reads as fast as it can gets everything under the same rule.
    let answer = ask(address, "GET", &path, "").await;
    assert!(answer.body == bytes);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let bytes = content(1000);
    let config = loopback().with_max_connections(10, 3);
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let address = node.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    // Accepted in order: this one is over the limit, and closed.
    let mut over = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon(over.read(&mut [0; 1])).await.unwrap_or(0), 0);
    drop(held.pop());
    let path = path_of(&target);
    let freed = async {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        while raw(address, request.as_bytes()).await.is_empty() {}
    };
    soon(freed).await;
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn over_the_limit_of_all_connections_new_ones_wait() {
    let bytes = content(1000);
    let config = loopback().with_max_connections(2, 10);
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let held = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let waiting = tokio::spawn(async move { ask(address, "GET", &path, "").await.status });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(soon(waiting).await.unwrap(), 200);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path().join("store"), FsStoreConfig::default());
    let node = node_over(loopback(), std::sync::Arc::new(store.await.unwrap())).await;
    let bytes = content(64 << 20);
    let path = directory.path().join("file");
    std::fs::write(&path, &bytes).unwrap();
    let seed = SeedContent::Path(path.clone(), ImportMode::InPlace);
    node.start_seeding(SeedRequest::new(seed)).await.unwrap();
    let address = node.local_addr().unwrap();
    let url = path_of(&identification(&bytes));

    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 1000];
    soon(stream.read_exact(&mut first)).await.unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.len() + 1000 < bytes.len(), "nothing is padded");
    let answer = ask(address, "GET", &url, "").await;
    assert_eq!(answer.status, 410);
    node.shutdown().await.unwrap();
}
