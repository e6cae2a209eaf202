//! Content codings: text gets shorter, and nothing that is hashed, counted or paid changes.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::ImportRequest;
use chiral_core::chunk_store::ImportSource;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Admission, ByteRange, ChunkStore, Cid, ContentProtocol, GateError, PaymentGate, SeedRequest,
    ServeRequest, Tariff, TransferRegistry,
};
use chiral_protocols::http::HttpProtocol;
use chiral_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{OpenGate, RawAnswer, ask, loopback, raw, soon};

fn text(lines: usize) -> Bytes {
    let lines: Vec<_> = (0..lines)
        .map(|i| format!("{i} bottles of beer\n"))
        .collect();
    lines.concat().into()
}

/// A server of these files, by name; their paths.
async fn serving(
    gate: Arc<dyn PaymentGate>,
    files: &[(&str, Bytes)],
) -> (HttpProtocol, SocketAddr, Vec<String>) {
    let store = Arc::new(MemoryStore::new(1 << 30));
    let registry = TransferRegistry::new();
    let node = HttpProtocol::bind(loopback(), store.clone(), registry, gate)
        .await
        .unwrap();
    let mut paths = Vec::new();
    for (name, bytes) in files {
        let mut request = ImportRequest::new(ImportSource::Bytes(bytes.clone()));
        request.name = Some((*name).to_owned());
        let cid = store.import(request).await.unwrap().header.cid;
        let seed = SeedRequest::new(SeedContent::Stored(cid));
        node.start_seeding(seed).await.unwrap();
        paths.push(format!("/file/{cid}"));
    }
    let address = node.local_addr().unwrap();
    (node, address, paths)
}

/// Takes the chunked transfer coding off.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let length = std::str::from_utf8(&body[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        body = &body[end + 2..];
        if length == 0 {
            assert_eq!(body, b"\r\n");
            return out;
        }
        out.extend_from_slice(&body[..length]);
        body = body[length..].strip_prefix(b"\r\n").unwrap();
    }
}

/// Runs a program that others wrote over bytes.
fn filter(program: &str, arguments: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[tokio::test]
async fn text_is_encoded_for_those_who_ask() {
    let bytes = text(50_000);
    let (node, address, paths) = serving(Arc::new(OpenGate), &[("a.txt", bytes.clone())]).await;
    let path = &paths[0];
    let tag = format!("\"{}\"", path.strip_prefix("/file/").unwrap());
    let plain = ask(address, "GET", path, "").await;
    assert!(plain.body == bytes);
    assert_eq!(plain.header("etag"), Some(&*tag));
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let digest = plain.header("repr-digest").unwrap();
    for coding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {coding}\r\n");
        let answer = ask(address, "GET", path, &accept).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        // Neither length, strong tag nor digest are those of the bytes that come.
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("etag"), Some(&*format!("W/{tag}")));
        assert_eq!(answer.header("repr-digest"), None);
        assert_eq!(answer.header("unencoded-digest"), Some(digest));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let encoded = unchunked(&answer.body);
        assert!(
            encoded.len() * 3 < bytes.len(),
            "{coding}: {}",
            encoded.len()
        );
        if coding == "gzip" {
            assert!(filter("gzip", &["-dc"], encoded) == bytes);
        }
        let head = ask(address, "HEAD", path, &accept).await;
        assert_eq!(head.header("content-encoding"), Some(coding));
        assert_eq!(head.header("content-length"), None);
        assert!(head.body.is_empty());
        // The tag that it got is good for asking whether anything changed.
        let again = format!("{accept}If-None-Match: W/{tag}\r\n");
        let answer = ask(address, "GET", path, &again).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_counts_in_the_files_own_bytes_is_never_encoded() {
    let bytes = text(50_000);
    let small = text(10);
    let noise = crate::support::content(100_000);
    let files = [
        ("a.txt", bytes.clone()),
        ("b.txt", small),
        ("c.zip", noise.clone()),
        ("d", noise.slice(1..)),
        ("big.txt", Bytes::from(vec![b'x'; (64 << 20) + 1])),
    ];
    let (node, address, paths) = serving(Arc::new(OpenGate), &files).await;
    let tag = format!("\"{}\"", paths[0].strip_prefix("/file/").unwrap());
    for (path, headers) in [
        (paths[0].clone(), "Range: bytes=0-9\r\n".to_owned()),
        (paths[0].clone(), "Range: bytes=0-9,20-29\r\n".to_owned()),
        (paths[0].clone(), "Range: bytes=x\r\n".to_owned()),
        (
            paths[0].clone(),
            format!("Range: bytes=0-9\r\nIf-Range: {tag}\r\n"),
        ),
        (paths[0].clone(), format!("If-Match: {tag}\r\n")),
        (
            paths[0].clone(),
            "Want-Repr-Digest: sha-256=1\r\n".to_owned(),
        ),
        (paths[0].clone(), "Chiral-Payment: cGFpZA==\r\n".to_owned()),
        (format!("{}/chunk/0", paths[0]), String::new()),
        (format!("{}/manifest", paths[0]), String::new()),
        (format!("{}/manifest/0", paths[0]), String::new()),
        (format!("{}/coverage", paths[0]), String::new()),
        (paths[1].clone(), String::new()),
        (paths[2].clone(), String::new()),
        (paths[3].clone(), String::new()),
        (paths[4].clone(), String::new()),
    ] {
        let headers = format!("Accept-Encoding: gzip, br, zstd\r\n{headers}");
        let answer = ask(address, "GET", &path, &headers).await;
        assert!(matches!(answer.status, 200 | 206), "{path} {headers}");
        assert_eq!(answer.header("content-encoding"), None, "{path} {headers}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(&*length), "{path}");
        if answer.header("etag").is_some() {
            assert!(!answer.header("etag").unwrap().starts_with("W/"));
        }
    }
    // At the end of an answer of HTTP/1.0 is the end of the connection, or a break.
    let request = format!("GET {} HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", paths[0]);
    let answer = RawAnswer::parse(&raw(address, request.as_bytes()).await);
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer.body == bytes);
    // A digest that is not wanted does not come.
    let unwanted = "Want-Repr-Digest: sha-256=0\r\n";
    let answer = ask(address, "GET", &paths[0], unwanted).await;
    assert_eq!(answer.header("repr-digest"), None);
    node.shutdown().await.unwrap();
}

/// Gives everything away, for a price, and remembers what was sent.
#[derive(Debug)]
struct Priced {
    price: &'static str,
    told: Mutex<Vec<ByteRange>>,
}

#[async_trait]
impl PaymentGate for Priced {
    async fn admit(&self, _: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _: &ServeRequest, sent: ByteRange) {
        self.told.lock().unwrap().push(sent);
    }

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }

    fn tariff(&self, _: Cid) -> Tariff {
        Tariff {
            price: self.price.parse().unwrap(),
            wallet: None,
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_as_they_are_in_the_file() {
    let bytes = text(50_000);
    for (price, encoded) in [("0.001", false), ("0", true)] {
        let told = Mutex::default();
        let gate = Arc::new(Priced { price, told });
        let (node, address, paths) = serving(gate.clone(), &[("a.txt", bytes.clone())]).await;
        let answer = ask(address, "GET", &paths[0], "Accept-Encoding: gzip\r\n").await;
        assert_eq!(answer.header("content-encoding").is_some(), encoded);
        node.shutdown().await.unwrap();
        let told = gate.told.lock().unwrap().clone();
        assert_eq!(told, [ByteRange::new(0, bytes.len() as u64)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_encoders_and_the_rest_is_sent_as_it_is() {
    let bytes = Bytes::from(
        (0..16u32 << 20)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8 + b'a')
            .collect::<Vec<_>>(),
    );
    let (node, address, paths) = serving(Arc::new(OpenGate), &[("a.txt", bytes.clone())]).await;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n",
        paths[0]
    );
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        slow.push((head.contains("content-encoding: gzip"), stream));
    }
    let encoded = slow.iter().filter(|(encoded, _)| *encoded).count();
    assert_eq!(encoded, 16);
    // Those who leave make room; others get all of it meanwhile.
    let answer = ask(address, "GET", &paths[0], "").await;
    assert!(answer.body == bytes);
    drop(slow);
    let again = async {
        loop {
            let answer = ask(address, "GET", &paths[0], "Accept-Encoding: gzip\r\n").await;
            if answer.header("content-encoding").is_some() {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = soon(again).await;
    assert!(filter("gzip", &["-dc"], unchunked(&answer.body)) == bytes);
    node.shutdown().await.unwrap();
}
