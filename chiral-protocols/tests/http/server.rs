//! What the server answers, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use chiral_core::chunk_store::PartialRequest;
use chiral_core::conformance::chunk_source::any_source;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::manifest::ManifestHeader;
use chiral_core::{
    ChunkLayout, ChunkStore, ContentProtocol, Coverage, FileIdentification, ManifestPage, Protocol,
    SeedRequest, TransferId,
};
use chiral_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    ask, client, content, loopback, node_over, path_of, seeder, seeder_with, soon,
};

const SIZE: usize = 600_000;

async fn served() -> (
    chiral_protocols::http::HttpProtocol,
    SocketAddr,
    String,
    Bytes,
) {
    let bytes = content(SIZE);
    let (node, _, target) = seeder_with(loopback(), &bytes, Some("ä file.bin")).await;
    let address = node.local_addr().unwrap();
    (node, address, path_of(&target), bytes)
}

#[tokio::test]
async fn a_file_is_described_and_sent() {
    let (node, address, path, bytes) = served().await;
    let cid = path.rsplit('/').next().unwrap();
    for method in ["GET", "HEAD"] {
        let answer = ask(address, method, &path, "").await;
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("content-length", "600000"),
            ("accept-ranges", "bytes"),
            ("etag", &format!("\"{cid}\"")),
            ("content-type", "application/octet-stream"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("access-control-allow-origin", "*"),
            ("x-content-type-options", "nosniff"),
            (
                "content-disposition",
                "attachment; filename=\"_ file.bin\"; filename*=UTF-8''%C3%A4%20file.bin",
            ),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {name}");
        }
        assert!(
            answer
                .header("repr-digest")
                .unwrap()
                .starts_with("sha-256=:")
        );
        assert_eq!(answer.body, if method == "GET" { &bytes[..] } else { b"" });
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn ranges_are_cut_exactly() {
    let (node, address, path, bytes) = served().await;
    for (range, first, end) in [
        ("0-0", 0, 1),
        ("0-", 0, SIZE),
        ("100-199", 100, 200),
        ("-1", SIZE - 1, SIZE),
        ("-1000000", 0, SIZE),
        ("262143-262144", 262_143, 262_145),
        ("599999-99999999999999999999999", SIZE - 1, SIZE),
    ] {
        let answer = ask(address, "GET", &path, &format!("Range: bytes={range}\r\n")).await;
        assert_eq!(answer.status, 206, "{range}");
        let content_range = format!("bytes {first}-{}/{SIZE}", end - 1);
        assert_eq!(
            answer.header("content-range"),
            Some(&*content_range),
            "{range}"
        );
        assert_eq!(
            answer.header("content-length"),
            Some(&*(end - first).to_string())
        );
        assert!(answer.body == bytes[first..end], "{range}");
    }
    for range in ["600000-", "600000-600001", "-0", "99999999999999999999999-"] {
        let answer = ask(address, "GET", &path, &format!("Range: bytes={range}\r\n")).await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */600000"));
    }
    for range in [
        "bytes=2-1",
        "bytes=0-,0-,0-,0-",
        "bytes=0-0,3-2",
        "lines=1-2",
        "bytes=",
        "bytes=0x0-1",
    ] {
        let answer = ask(address, "GET", &path, &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status, answer.body.len()), (200, SIZE), "{range}");
    }
    let head = ask(address, "HEAD", &path, "Range: bytes=0-0\r\n").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("600000"))
    );
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn conditions_are_weighed() {
    let (node, address, path, _) = served().await;
    let etag = format!("\"{}\"", path.rsplit('/').next().unwrap());
    for (headers, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{etag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        (format!("If-Match: W/{etag}\r\n"), 412),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        (format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"\r\n".to_owned(), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{etag}\r\n"), 200),
        (
            "Range: bytes=0-1\r\nIf-Range: Wed, 21 Oct 2015 07:28:00 GMT\r\n".to_owned(),
            200,
        ),
        (
            format!("Range: bytes=0-1\r\nIf-None-Match: {etag}\r\n"),
            304,
        ),
        ("Range: bytes=0-1\r\nRange: bytes=0-1\r\n".to_owned(), 200),
    ] {
        let answer = ask(address, "GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{headers}");
        if status == 304 {
            assert!(answer.body.is_empty() && answer.header("etag") == Some(&*etag));
        }
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn chunks_pages_and_coverage_have_addresses() {
    let (node, address, path, bytes) = served().await;
    let layout = ChunkLayout::new(SIZE as u64).unwrap();
    let header = ask(address, "GET", &format!("{path}/manifest"), "").await;
    let header = ManifestHeader::decode(&header.body).unwrap();
    let page = ask(address, "GET", &format!("{path}/manifest/0"), "").await;
    let page = ManifestPage::decode(&page.body).unwrap();
    let page = page.verify(header.root, layout, 0).unwrap();
    for index in 0..3 {
        let range = layout.range(index);
        let expected = &bytes[range.start as usize..range.end as usize];
        let chunk = format!("{path}/chunk/{index}");
        let answer = ask(address, "GET", &chunk, "").await;
        assert_eq!((answer.status, &answer.body[..]), (200, expected));
        let (_, hash) = page.around(index).unwrap();
        assert_eq!(answer.header("etag"), Some(&*format!("\"{hash}\"")));
        let answer = ask(address, "GET", &chunk, "Range: bytes=10-19\r\n").await;
        assert_eq!((answer.status, &answer.body[..]), (206, &expected[10..20]));
        let total = format!("bytes 10-19/{}", expected.len());
        assert_eq!(answer.header("content-range"), Some(&*total));
        let answer = ask(address, "HEAD", &chunk, "").await;
        assert_eq!(
            answer.header("content-length"),
            Some(&*expected.len().to_string())
        );
    }
    let coverage = ask(address, "GET", &format!("{path}/coverage"), "").await;
    assert_eq!(coverage.body, br#"{"chunks":3,"runs":[[0,3]]}"#);
    assert_eq!(coverage.header("content-type"), Some("application/json"));
    for absent in [
        "chunk/3",
        "chunk/4294967295",
        "manifest/1",
        "manifest/4294967295",
    ] {
        assert_eq!(
            ask(address, "GET", &format!("{path}/{absent}"), "")
                .await
                .status,
            404
        );
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn only_get_head_and_options_are_allowed() {
    let (node, address, path, _) = served().await;
    for method in ["POST", "PUT", "DELETE", "TRACE", "PATCH", "BREW"] {
        let answer = ask(address, method, &path, "").await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    // A browser's question comes before what it wants to ask, found or not.
    for path in [&path, "/file/none", "*"] {
        let answer = ask(address, "OPTIONS", path, "Origin: http://a\r\n").await;
        assert_eq!(answer.status, 204);
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("GET, HEAD, OPTIONS")
        );
        for name in ["range", "if-range", "if-none-match", "want-repr-digest"] {
            let allowed = answer.header("access-control-allow-headers").unwrap();
            assert!(allowed.split(", ").any(|other| other == name), "{allowed}");
        }
    }
    for path in [&path, "/file/none"] {
        let answer = ask(address, "GET", path, "Origin: http://a\r\n").await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        for name in ["etag", "content-range", "repr-digest", "accept-ranges"] {
            let exposed = answer.header("access-control-expose-headers").unwrap();
            assert!(exposed.split(", ").any(|other| other == name), "{exposed}");
        }
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_can_be_pipelined_over_one_connection() {
    let (node, address, path, bytes) = served().await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut requests = String::new();
    for first in 0..50 {
        requests.push_str(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-{first}\r\n\r\n"
        ));
    }
    requests.push_str("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    soon(stream.read_to_end(&mut answers)).await.unwrap();
    let mut rest = &answers[..];
    for first in 0..50 {
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(rest.starts_with(b"HTTP/1.1 206"));
        assert_eq!(rest[end], bytes[first]);
        rest = &rest[end + 1..];
    }
    assert!(rest.starts_with(b"HTTP/1.1 404"));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_partial_file_the_proven_chunks_are_served() {
    let bytes = content(4 * 262_144 + 5);
    let (whole, offer, target) = seeder(&bytes).await;
    let source = whole.connect(&offer, &target).await.unwrap();
    let header = source.manifest_header().await.unwrap().unwrap();
    let layout = header.layout().unwrap();
    let page = source.manifest_page(0).await.unwrap();
    let page = page.verify(header.root, layout, 0).unwrap();

    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
    let id = TransferId::from_bytes([1; 16]);
    let request = PartialRequest::new(id, target, header.size);
    let partial = store.begin(request).await.unwrap();
    partial.store_page(&page).await.unwrap();
    partial.set_header(header.clone()).await.unwrap();
    for index in [1, 2, 4] {
        let (before, after) = page.around(index).unwrap();
        let range = layout.range(index);
        let chunk = bytes.slice(range.start as usize..range.end as usize);
        let link = chiral_core::ChunkLink::compress(layout, index, before, &chunk).unwrap();
        let proven = link.prove(after).unwrap();
        partial.write_unproven(index, chunk).await.unwrap();
        partial.prove(vec![proven]).await.unwrap();
    }

    let node = node_over(loopback(), store).await;
    let cid = header.cid;
    let request = SeedRequest::new(SeedContent::Stored(cid));
    let metadata = node.start_seeding(request).await.unwrap();
    let offer = &metadata.offers[0];
    assert_eq!(offer.protocol, Protocol::Http);
    assert!(matches!(&offer.coverage, Some(Coverage::Partial(runs)) if runs.count() == 3));
    let address = node.local_addr().unwrap();
    let path = path_of(&identification(&bytes));
    for (path, range, status) in [
        (path.clone(), "", 404),
        (path.clone(), "Range: bytes=0-0\r\n", 404),
        (path.clone(), "Range: bytes=262144-786431\r\n", 206),
        (path.clone(), "Range: bytes=262144-786432\r\n", 404),
        (path.clone(), "Range: bytes=-5\r\n", 206),
        (path.clone(), "Range: bytes=-6\r\n", 404),
        (format!("{path}/chunk/1"), "", 200),
        (format!("{path}/chunk/3"), "", 404),
        (format!("{path}/chunk/4"), "", 200),
        (format!("{path}/manifest"), "", 200),
    ] {
        assert_eq!(
            ask(address, "GET", &path, range).await.status,
            status,
            "{path} {range}"
        );
    }
    let coverage = ask(address, "GET", &format!("{path}/coverage"), "").await;
    assert_eq!(coverage.body, br#"{"chunks":5,"runs":[[1,3],[4,5]]}"#);
    let fetcher = client().await;
    let target = FileIdentification::from(cid);
    soon(any_source(
        fetcher.connect(offer, &target).await.unwrap(),
        &bytes,
    ))
    .await;
    node.shutdown().await.unwrap();
    whole.shutdown().await.unwrap();
}
