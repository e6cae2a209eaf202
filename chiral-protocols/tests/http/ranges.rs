//! Several ranges in one answer, and what the gate hears of them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Admission, ByteRange, ContentProtocol, GateError, PaymentGate, SeedRequest, ServeRequest,
    TransferRegistry,
};
use chiral_protocols::http::HttpProtocol;
use chiral_storage::MemoryStore;

use crate::support::{RawAnswer, ask, content, loopback, path_of, seeder_with};

const SIZE: usize = 600_000;

/// The parts of a `multipart/byteranges` answer: `Content-Range` and bytes of each.
fn parts(answer: &RawAnswer) -> Vec<(String, Vec<u8>)> {
    let kind = answer.header("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    loop {
        rest = rest.strip_prefix(delimiter.as_bytes()).unwrap();
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap();
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        let (kind, range) = head.split_once("\r\n").unwrap();
        assert_eq!(kind, "Content-Type: application/octet-stream");
        let range = range.strip_prefix("Content-Range: bytes ").unwrap();
        let (first, tail) = range.split_once('-').unwrap();
        let (last, total) = tail.split_once('/').unwrap();
        assert_eq!(total, SIZE.to_string());
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        let body = &rest[end + 4..];
        parts.push((range.to_owned(), body[..length].to_vec()));
        rest = &body[length..];
    }
}

#[tokio::test]
async fn several_ranges_come_in_one_answer() {
    let bytes = content(SIZE);
    let (node, _, target) = seeder_with(loopback(), &bytes, Some("x.bin")).await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    for (asked, expected) in [
        ("0-0,2-3", vec![(0, 1), (2, 4)]),
        ("500000-599999, 0-9, -1000000", vec![(0, SIZE)]),
        ("500000-,0-9", vec![(500_000, SIZE), (0, 10)]),
        (
            "262143-262144,0-0,-1",
            vec![(262_143, 262_145), (0, 1), (SIZE - 1, SIZE)],
        ),
        ("0-9,700000-800000,20-29", vec![(0, 10), (20, 30)]),
        ("0-9,5-14,100-109", vec![(0, 15), (100, 110)]),
    ] {
        let range = format!("Range: bytes={asked}\r\n");
        let answer = ask(address, "GET", &path, &range).await;
        assert_eq!(answer.status, 206, "{asked}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(&*length), "{asked}");
        if let &[(first, end)] = &expected[..] {
            let range = format!("bytes {first}-{}/{SIZE}", end - 1);
            assert_eq!(answer.header("content-range"), Some(&*range));
            assert!(answer.body == bytes[first..end], "{asked}");
            continue;
        }
        assert_eq!(answer.header("content-range"), None);
        let got = parts(&answer);
        assert_eq!(got.len(), expected.len(), "{asked}");
        for ((range, part), (first, end)) in got.iter().zip(expected) {
            assert_eq!(*range, format!("{first}-{}/{SIZE}", end - 1), "{asked}");
            assert!(part[..] == bytes[first..end], "{asked}");
        }
    }
    let none = ask(address, "GET", &path, "Range: bytes=700000-,-0\r\n").await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, Some("bytes */600000"))
    );
    let head = ask(address, "HEAD", &path, "Range: bytes=0-0,9-9\r\n").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("600000"))
    );
    // Under another tag the ranges would be of another file.
    let other = "Range: bytes=0-0,9-9\r\nIf-Range: \"x\"\r\n";
    let answer = ask(address, "GET", &path, other).await;
    assert_eq!((answer.status, answer.body.len()), (200, SIZE));
    // Within a chunk ranges count from its beginning.
    let chunk = format!("{path}/chunk/1");
    let answer = ask(address, "GET", &chunk, "Range: bytes=0-1,5-6\r\n").await;
    assert_eq!(answer.status, 206);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("Content-Range: bytes 5-6/262144"), "{text}");
    node.shutdown().await.unwrap();
}

/// Admits ranges that begin before a limit, and remembers what it was told.
#[derive(Debug, Default)]
struct Books {
    limit: u64,
    told: Mutex<Vec<(ByteRange, ByteRange)>>,
}

#[async_trait]
impl PaymentGate for Books {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        Ok(if request.range.start < self.limit {
            Admission::Granted
        } else {
            Admission::PaymentRequired(Bytes::from_static(b"terms"))
        })
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        self.told.lock().unwrap().push((request.range, sent));
    }

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }
}

#[tokio::test]
async fn each_range_is_admitted_and_counted() {
    let bytes = content(SIZE);
    let gate = Arc::new(Books {
        limit: 1000,
        ..Books::default()
    });
    let store = Arc::new(MemoryStore::new(1 << 30));
    let node = HttpProtocol::bind(loopback(), store, TransferRegistry::new(), gate.clone())
        .await
        .unwrap();
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    node.start_seeding(request).await.unwrap();
    let address = node.local_addr().unwrap();
    let path = path_of(&identification(&bytes));
    let range = |a, b| ByteRange::new(a, b);

    let answer = ask(address, "GET", &path, "Range: bytes=10-19,500-504\r\n").await;
    assert_eq!((answer.status, parts(&answer).len()), (206, 2));
    // If one is refused all are, and of those before it nothing was sent.
    let answer = ask(address, "GET", &path, "Range: bytes=20-29,5000-5001\r\n").await;
    assert_eq!((answer.status, &answer.body[..]), (402, &b"terms"[..]));
    // A word to the gate is about one range.
    let credential = "Chiral-Payment: cGFpZA==\r\nRange: bytes=0-0,2-2\r\n";
    assert_eq!(ask(address, "GET", &path, credential).await.status, 400);
    // Who does not know what to do with the offer is told what to do.
    for accept in ["text/html,*/*;q=0.8", "*/*", "text/plain"] {
        let headers = format!("Accept: {accept}\r\nRange: bytes=5000-\r\n");
        let answer = ask(address, "GET", &path, &headers).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 402);
        assert!(
            text.contains("next: pay") && text.contains("chiral get 'chiral:"),
            "{text}"
        );
        assert!(text.contains("--peer http://x/ "), "{text}");
    }
    for accept in [
        "application/octet-stream",
        "application/octet-stream, */*",
        "image/*",
    ] {
        let headers = format!("Accept: {accept}\r\nRange: bytes=5000-\r\n");
        let answer = ask(address, "GET", &path, &headers).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (402, &b"terms"[..]),
            "{accept}"
        );
    }

    node.shutdown().await.unwrap();
    let mut told = gate.told.lock().unwrap().clone();
    told.sort_by_key(|(asked, _)| asked.start);
    let expected = [
        (range(10, 20), range(10, 20)),
        (range(20, 30), range(20, 20)),
        (range(500, 505), range(500, 505)),
    ];
    assert_eq!(told, expected);
}
