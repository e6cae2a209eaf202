//! Servers that lie, against the client, over raw sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ByteRange, ChunkSource, ContentProtocol, Delivery, Endpoint, PeerOffer, Protocol, TransferError,
};
use chiral_protocols::http::{AddressPolicy, HttpConfig};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{client_with, content, soon};

/// What a rogue does after its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Stay,
    Close,
    Repeat(&'static [u8]),
    Silence,
}

/// A server whose answer to the text of a request is whatever it is told.
pub(crate) async fn rogue(
    answer: impl Fn(&str) -> (Vec<u8>, Then) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap_or(0) > 0 {
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let (bytes, then) = answer(std::str::from_utf8(&request).unwrap());
                    request.clear();
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    match then {
                        Then::Stay => {}
                        Then::Close => return,
                        Then::Silence => tokio::time::sleep(Duration::from_secs(60)).await,
                        Then::Repeat(more) => while stream.write_all(more).await.is_ok() {},
                    }
                }
            });
        }
    });
    address
}

pub(crate) fn mirror_at(address: SocketAddr) -> PeerOffer {
    let endpoint = Endpoint::new(format!("http://{address}/file")).unwrap();
    PeerOffer::new(Protocol::Http, endpoint).as_mirror()
}

fn impatient() -> HttpConfig {
    let short = Duration::from_millis(400);
    HttpConfig::default().with_timeouts(short, short, short)
}

const SIZE: u64 = 1000;
const ASKED: ByteRange = ByteRange {
    start: 100,
    end: 200,
};

/// Fetches [`ASKED`] from a mirror that is honest until it is asked for bytes.
async fn fetch_from(
    answer: impl Fn() -> (Vec<u8>, Then) + Send + Sync + 'static,
) -> Vec<Result<Delivery, TransferError>> {
    let address = rogue(move |request| {
        if request.starts_with("HEAD") {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nAccept-Ranges: bytes\r\n\r\n"
            );
            return (head.into_bytes(), Then::Stay);
        }
        assert!(
            request.contains("\r\nrange: bytes=100-199\r\n"),
            "{request}"
        );
        assert!(
            request.contains("\r\naccept-encoding: identity\r\n"),
            "{request}"
        );
        answer()
    })
    .await;
    let client = client_with(impatient()).await;
    let target = identification(b"whatever");
    let source = soon(client.connect(&mirror_at(address), &target))
        .await
        .unwrap();
    soon(source.fetch(ASKED).collect()).await
}

fn with(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {head}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

const HONEST: &str = "206 Partial Content\r\nContent-Range: bytes 100-199/1000";

#[tokio::test]
async fn an_honest_answer_is_taken_in_either_framing() {
    for head in [
        format!("{HONEST}\r\nContent-Length: 100"),
        HONEST.to_owned(),
    ] {
        let got = fetch_from(move || (with(&head, &[7; 100]), Then::Close)).await;
        let bytes: Vec<u8> = got.into_iter().flat_map(|d| d.unwrap().bytes).collect();
        assert_eq!(bytes, [7; 100]);
    }
}

#[tokio::test]
async fn answers_that_break_the_protocol_deliver_nothing() {
    let many = format!("{HONEST}\r\n{}", "X: y\r\n".repeat(100_000).trim_end());
    let long = format!("{HONEST}\r\nX: {}", "a".repeat(1 << 20));
    for (head, body) in [
        ("200 OK\r\nContent-Length: 1000", 1000),
        ("200 OK\r\nContent-Length: 100", 100),
        ("206 Partial Content\r\nContent-Length: 100", 100),
        (
            "206 Partial Content\r\nContent-Range: bytes 0-99/1000\r\nContent-Length: 100",
            100,
        ),
        (
            "206 Partial Content\r\nContent-Range: bytes 100-199/1001\r\nContent-Length: 100",
            100,
        ),
        (
            "206 Partial Content\r\nContent-Range: bytes 100-199/150\r\nContent-Length: 100",
            100,
        ),
        (
            "206 Partial Content\r\nContent-Range: bytes 100-198/1000\r\nContent-Length: 99",
            99,
        ),
        (
            "206 Partial Content\r\nContent-Range: bytes 100-200/1000\r\nContent-Length: 101",
            101,
        ),
        (
            "206 Partial Content\r\nContent-Range: chars 100-199/1000\r\nContent-Length: 100",
            100,
        ),
        (&format!("{HONEST}\r\nContent-Length: 101"), 101),
        (&format!("{HONEST}\r\nContent-Length: 99"), 99),
        (
            &format!("{HONEST}\r\nContent-Length: 100\r\nContent-Encoding: gzip"),
            100,
        ),
        (
            &format!("{HONEST}\r\nContent-Length: 100\r\nContent-Encoding: br"),
            100,
        ),
        (&format!("{HONEST}\r\n{HONEST}"), 100),
        (
            &format!("{HONEST}\r\nContent-Length: 100\r\nContent-Length: 101"),
            100,
        ),
        ("204 No Content", 0),
        ("999 What", 0),
        (&many, 100),
        (&long, 100),
    ] {
        let answer = with(head, &vec![7; body]);
        let got = fetch_from(move || (answer.clone(), Then::Close)).await;
        let short: String = head.chars().take(120).collect();
        assert_eq!(got.len(), 1, "{short}: {got:?}");
        let error = got[0].as_ref().unwrap_err();
        let blamed = matches!(
            error,
            TransferError::Protocol { .. } | TransferError::Connection { .. }
        );
        assert!(blamed, "{short}: {error:?}");
    }
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..],
        b"",
        b"HTTP/1.1",
        &[0; 5000],
    ] {
        let got = fetch_from(move || (answer.to_vec(), Then::Close)).await;
        assert!(matches!(got[..], [Err(_)]), "{got:?}");
    }
}

#[tokio::test]
async fn refusals_say_whether_to_come_back() {
    let get = async |head: &'static str, body: usize| {
        let mut got = fetch_from(move || (with(head, &vec![b'x'; body]), Then::Close)).await;
        got.remove(0).unwrap_err()
    };
    for head in ["404 Not Found", "410 Gone", "416 Range Not Satisfiable"] {
        assert!(
            matches!(get(head, 10).await, TransferError::Missing { .. }),
            "{head}"
        );
    }
    for (head, later) in [
        ("403 Forbidden", false),
        ("451 Unavailable", false),
        ("429 Too Many Requests", true),
        ("503 Service Unavailable", true),
        ("302 Found\r\nLocation: /elsewhere", true),
    ] {
        let error = get(head, 0).await;
        assert!(
            matches!(error, TransferError::Refused { retryable, .. } if retryable == later),
            "{head}: {error:?}"
        );
    }
    let error = get("402 Payment Required\r\nContent-Length: 5", 5).await;
    assert!(matches!(&error, TransferError::PaymentRequired { offer, .. } if offer == "xxxxx"));
    let error = get("402 Payment Required\r\nContent-Length: 20000", 20_000).await;
    assert!(matches!(error, TransferError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn bodies_of_another_length_are_cut_off() {
    let head = format!("{HONEST}\r\nContent-Length: 100");
    let short = with(&head, &[7; 99]);
    let got = fetch_from(move || (short.clone(), Then::Close)).await;
    assert!(got.last().unwrap().is_err(), "{got:?}");

    let chunked = format!("{HONEST}\r\nTransfer-Encoding: chunked");
    for (body, then) in [
        (&b"65\r\n"[..], Then::Repeat(b"x")),
        (b"", Then::Repeat(b"5\r\nabcde\r\n")),
        (b"FFFFFFFFFFFFFFFF\r\n", Then::Repeat(b"x")),
        (b"FFFFFFFFFFFFFFFFFF\r\n", Then::Repeat(b"x")),
        (b"", Then::Repeat(b"5;extension\r\nabcde\r\n")),
    ] {
        let answer = with(&chunked, body);
        let got = fetch_from(move || (answer.clone(), then)).await;
        let bytes: usize = got.iter().flatten().map(|d| d.bytes.len()).sum();
        assert!(bytes <= 100, "{bytes} bytes");
        assert!(got.last().unwrap().is_err(), "{body:?}");
    }
    // What follows a complete answer is no part of it.
    let long = with(&head, &[7; 5000]);
    let got = fetch_from(move || (long.clone(), Then::Close)).await;
    let bytes: usize = got.iter().map(|d| d.as_ref().unwrap().bytes.len()).sum();
    assert_eq!(bytes, 100);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let head = format!("{HONEST}\r\nContent-Length: 100");
    for answer in [
        Vec::new(),
        b"HTTP/1.1 2".to_vec(),
        with(&head, b""),
        with(&head, &[7; 50]),
    ] {
        let got = fetch_from(move || (answer.clone(), Then::Silence)).await;
        let last = got.last().unwrap();
        assert!(
            matches!(last, Err(TransferError::Timeout { .. })),
            "{last:?}"
        );
    }
}

#[tokio::test]
async fn a_seeder_that_lies_about_itself_is_refused() {
    let bytes = content(10);
    let target = identification(&bytes);
    let other = identification(b"other");
    let header = |target| {
        let chiral_core::FileIdentification::Content { cid, root, size } = target else {
            unreachable!()
        };
        let header = chiral_core::ManifestHeader {
            size: size.unwrap(),
            cid,
            root: root.unwrap(),
            name: None,
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        header.encode().unwrap()
    };
    let good = header(target);
    let all = br#"{"chunks":1,"runs":[[0,1]]}"#.to_vec();
    let big = Then::Repeat(b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    for (manifest, coverage, then, fine) in [
        (good.clone(), all.clone(), Then::Close, true),
        (header(other), all.clone(), Then::Close, false),
        (vec![0; 400], all.clone(), Then::Close, false),
        (vec![0; 513], all.clone(), Then::Close, false),
        (Vec::new(), all.clone(), big, false),
        (good.clone(), b"{}".to_vec(), Then::Close, false),
        (
            good.clone(),
            br#"{"chunks":2,"runs":[[0,2]]}"#.to_vec(),
            Then::Close,
            false,
        ),
        (good.clone(), b"[".repeat(500_000), Then::Close, false),
        (good.clone(), vec![b' '; 600_000], Then::Close, false),
    ] {
        let address = rogue(move |request| {
            let body = if request.contains("/coverage ") {
                &coverage
            } else {
                &manifest
            };
            (with("200 OK", body), then)
        })
        .await;
        let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
        let offer = PeerOffer::new(Protocol::Http, endpoint);
        let client = client_with(impatient()).await;
        let source = soon(client.connect(&offer, &target)).await;
        assert_eq!(source.is_ok(), fine, "{source:?}");
        if let Err(error) = source {
            assert!(matches!(error, TransferError::Protocol { .. }), "{error:?}");
        }
    }
}

/// A server that redirects along a list of locations and then has the file.
async fn redirecting(locations: Vec<String>) -> SocketAddr {
    rogue(move |request| {
        let at = request.split(['/', ' ', '?']).nth(2).unwrap_or("");
        let step = at
            .strip_prefix("step")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0usize);
        let answer = match locations.get(step) {
            Some(location) => with(&format!("302 Found\r\nLocation: {location}"), b""),
            None => with(
                "200 OK\r\nContent-Length: 1000\r\nAccept-Ranges: bytes",
                b"",
            ),
        };
        (answer, Then::Close)
    })
    .await
}

async fn follow(locations: &[&str]) -> Result<Arc<dyn ChunkSource>, TransferError> {
    let address = redirecting(locations.iter().map(|&l| l.to_owned()).collect()).await;
    let client = client_with(impatient()).await;
    let target = identification(&Bytes::new());
    let source = soon(client.connect(&mirror_at(address), &target)).await;
    // The client ends with this function; the source is only looked at.
    drop(client);
    source
}

#[tokio::test]
async fn three_redirects_are_followed_and_no_more() {
    let source = follow(&["/step1", "step2", "/step3?x"]).await.unwrap();
    assert_eq!(source.size(), Some(1000));
    let error = follow(&["/step1", "/step2", "/step3", "/step4"])
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Refused { .. }), "{error:?}");
    let error = follow(&["/"]).await.unwrap_err();
    assert!(
        matches!(error, TransferError::Refused { .. }),
        "a loop: {error:?}"
    );
    // From clear to TLS is fine, but nobody is there.
    let error = follow(&["https://127.0.0.1:1/"]).await.unwrap_err();
    let expected = match cfg!(feature = "tls") {
        true => matches!(error, TransferError::Connection { .. }),
        false => matches!(error, TransferError::Unsupported { .. }),
    };
    assert!(expected, "{error:?}");
    for inward in [
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://0.0.0.0/",
        "http://[fe80::1]/",
        "http://user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
    ] {
        let error = follow(&[inward]).await.unwrap_err();
        assert!(
            matches!(error, TransferError::Refused { .. }),
            "{inward}: {error:?}"
        );
    }
}

#[tokio::test]
async fn addresses_outside_of_the_policy_are_not_dialled() {
    let address = redirecting(Vec::new()).await;
    let port = address.port();
    let client = client_with(impatient().with_addresses(AddressPolicy::GlobalOnly)).await;
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let endpoint = Endpoint::new(format!("http://{host}:{port}/")).unwrap();
        let offer = PeerOffer::new(Protocol::Http, endpoint).as_mirror();
        let error = soon(client.connect(&offer, &identification(b"")))
            .await
            .unwrap_err();
        let refused = matches!(
            error,
            TransferError::Refused { .. } | TransferError::Connection { .. }
        );
        assert!(refused, "{host}: {error:?}");
    }
    for url in ["https://127.0.0.1/", "http://a@b/"] {
        let offer = PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap()).as_mirror();
        let error = soon(client.connect(&offer, &identification(b"")))
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransferError::Refused { .. }),
            "{url}: {error:?}"
        );
    }
}
