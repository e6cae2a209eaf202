//! Plain web servers as sources: such as can do less than ours, and one that nobody here
//! wrote. Without nginx its test fails; it is not skipped.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chiral_core::conformance::chunk_source::{any_source, receive};
use chiral_core::conformance::content_protocol::{fetching, identification};
use chiral_core::{ByteRange, ContentProtocol, Endpoint, PeerOffer, Protocol, TransferError};
use futures_util::StreamExt;

use crate::hostile_servers::{Then, mirror_at, rogue};
use crate::support::{client, content, soon};

#[tokio::test]
async fn one_that_ignores_ranges_is_asked_for_the_whole() {
    let bytes = content(300_000);
    let served = bytes.clone();
    let address = rogue(move |request| {
        let mut answer = format!(
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
            served.len()
        )
        .into_bytes();
        if request.starts_with("GET") {
            answer.extend_from_slice(&served);
        }
        (answer, Then::Close)
    })
    .await;
    let client = client().await;
    let target = identification(&bytes);
    let source = soon(client.connect(&mirror_at(address), &target))
        .await
        .unwrap();
    assert_eq!(source.grid().cell(), 300_000);
    let part = source.fetch(ByteRange::new(0, 10)).next().await.unwrap();
    assert!(
        matches!(part, Err(TransferError::Unsupported { .. })),
        "{part:?}"
    );
    soon(any_source(source, &bytes)).await;
}

#[tokio::test]
async fn one_that_does_not_take_head_is_asked_for_a_byte() {
    let address = rogue(|request| {
        let answer = if request.starts_with("HEAD") {
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/77\r\nContent-Length: 1\r\n\r\nx"
        };
        (answer.into(), Then::Stay)
    })
    .await;
    let client = client().await;
    let source = soon(client.connect(&mirror_at(address), &identification(b"")))
        .await
        .unwrap();
    assert_eq!((source.size(), source.grid().cell()), (Some(77), 1));
}

#[tokio::test]
async fn one_that_does_not_tell_its_size_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/*\r\n\r\nx",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/18446744073709551615\r\n\r\nx",
    ] {
        let address = rogue(move |_| (answer.into(), Then::Close)).await;
        let client = client().await;
        let error = soon(client.connect(&mirror_at(address), &identification(b"")))
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::Protocol { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_went_away_is_replaced() {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    let address = rogue(|request| {
        ANSWERS.fetch_add(1, Ordering::Relaxed);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\n\r\n";
        let body = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\
            Content-Length: 10\r\n\r\n0123456789";
        // Promised to be kept, and closed all the same.
        (
            if request.starts_with("HEAD") {
                head
            } else {
                body
            }
            .into(),
            Then::Close,
        )
    })
    .await;
    let client = client().await;
    let source = soon(client.connect(&mirror_at(address), &identification(b"")))
        .await
        .unwrap();
    let bytes = "0123456789".into();
    for _ in 0..5 {
        soon(receive(&*source, ByteRange::new(0, 10), &bytes)).await;
    }
    assert_eq!(ANSWERS.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn nginx_is_a_mirror() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let bytes = content(10_000_000);
    std::fs::write(directory.path().join("a file.bin"), &bytes).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b;\n\
         fastcgi_temp_path {root}/c; uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;\n\
         server {{ listen 127.0.0.1:{port}; root {root};\n\
         location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }} }} }}\n"
    );
    let path = directory.path().join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let mut nginx = tokio::process::Command::new("nginx")
        .env(
            "PATH",
            format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
        )
        .arg("-c")
        .arg(&path)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx must be installed");
    let up = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(up).await;

    let client = client().await;
    let got = tempfile::tempdir().unwrap();
    for path in ["a%20file.bin", "moved/a%20file.bin"] {
        let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}/{path}")).unwrap();
        let offer = PeerOffer::new(Protocol::Http, endpoint).as_mirror();
        soon(fetching(&client, &offer, &bytes, got.path())).await;
    }
    let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}/absent")).unwrap();
    let offer = PeerOffer::new(Protocol::Http, endpoint).as_mirror();
    let error = soon(client.connect(&offer, &identification(&bytes)))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Missing { .. }), "{error:?}");
    client.shutdown().await.unwrap();
    nginx.kill().await.unwrap();
}
