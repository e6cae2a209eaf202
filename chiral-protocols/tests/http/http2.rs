//! The server over HTTP/2 in clear, with honest clients and with others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chiral_core::{ContentProtocol, FileIdentification};
use chiral_protocols::http::HttpProtocol;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, receive, request, settings,
};
use crate::support::{ask, content, loopback, path_of, seeder, seeder_with, soon};

type Sender = SendRequest<Full<Bytes>>;

async fn speak(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = soon(shake).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> hyper::http::request::Builder {
    Request::get(format!("http://x{path}"))
}

fn nothing() -> Full<Bytes> {
    Full::default()
}

#[tokio::test]
async fn files_and_ranges_come_over_one_connection_in_clear() {
    let bytes = content(2_000_000);
    let (node, _, target) = seeder(&bytes).await;
    let (path, sender) = (path_of(&target), speak(node.local_addr().unwrap()).await);
    let fetch = async |range: std::ops::Range<usize>| {
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        let request = get(&path).header("range", header).body(nothing()).unwrap();
        let answer = soon(sender.clone().send_request(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.version(), Version::HTTP_2);
        let got = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(got, bytes.slice(range));
    };
    join_all((0..20).map(|i| fetch(i * 90_000..i * 90_000 + 150_000))).await;
    let whole = get(&path).body(nothing()).unwrap();
    let answer = soon(sender.clone().send_request(whole)).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "2000000");
    let got = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(got, bytes);
    let head = Request::head(format!("http://x{path}"));
    let answer = sender.clone().send_request(head.body(nothing()).unwrap());
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "2000000");
    let got = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    assert!(got.is_empty());
    soon(node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_refused() {
    let (node, _, target) = seeder(&content(10)).await;
    let sender = speak(node.local_addr().unwrap()).await;
    let with = async |count: usize, length: usize| {
        let mut request = get(&path_of(&target));
        for i in 0..count {
            request = request.header(format!("x-{i}"), "a".repeat(length));
        }
        let answer = sender
            .clone()
            .send_request(request.body(nothing()).unwrap());
        soon(answer).await.map(|answer| answer.status())
    };
    assert_eq!(with(50, 100).await.unwrap(), StatusCode::OK);
    let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    assert_eq!(with(101, 1).await.unwrap(), too_large);
    // Over the limit of bytes too; whoever knows the setting does not even send it.
    assert!(
        with(1, 60_000)
            .await
            .map_or(true, |status| status == too_large)
    );
    assert_eq!(with(1, 1).await.unwrap(), StatusCode::OK);
}

/// A connection on which nothing was said but the preface and these settings.
async fn raw(node: &HttpProtocol, list: &[(u16, u32)]) -> TcpStream {
    let mut stream = TcpStream::connect(node.local_addr().unwrap())
        .await
        .unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&settings(list)).await.unwrap();
    stream
}

/// Reads to the end; answers how many bytes of data came, and the last GOAWAY's reason.
async fn rest(stream: &mut TcpStream) -> (usize, Option<u32>) {
    let (mut data, mut reason) = (0, None);
    while let Some(got) = soon(receive(stream)).await {
        match got.kind {
            DATA => data += got.payload.len(),
            GOAWAY => reason = Some(u32::from_be_bytes(got.payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
    (data, reason)
}

#[tokio::test]
async fn what_is_allowed_is_said_first() {
    let config = loopback().with_session_limits(3, Duration::from_secs(1));
    let (node, _, _) = seeder_with(config, &content(10), None).await;
    let mut stream = raw(&node, &[]).await;
    let got = soon(receive(&mut stream)).await.unwrap();
    assert_eq!((got.kind, got.flags, got.stream), (SETTINGS, 0, 0));
    let said: Vec<(u16, u32)> = got
        .payload
        .chunks(6)
        .map(|s| {
            let id = u16::from_be_bytes([s[0], s[1]]);
            (id, u32::from_be_bytes([s[2], s[3], s[4], s[5]]))
        })
        .collect();
    assert!(said.contains(&(3, 3)), "streams at once: {said:?}");
    assert!(said.contains(&(6, 48 << 10)), "bytes of headers: {said:?}");
}

#[tokio::test]
async fn who_asks_nothing_is_sent_away() {
    let config = loopback().with_header_timeout(Duration::from_millis(200));
    let (node, _, target) = seeder_with(config, &content(10), None).await;
    let mut silent = raw(&node, &[]).await;
    assert_eq!(rest(&mut silent).await, (0, Some(0)));
    // Also behind a request that was answered, and in the middle of headers.
    let mut once = raw(&node, &[]).await;
    let request = request(1, "GET", &path_of(&target));
    once.write_all(&request).await.unwrap();
    assert_eq!(rest(&mut once).await, (10, Some(0)));
    let mut half = raw(&node, &[]).await;
    let begun = frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET")]));
    half.write_all(&begun).await.unwrap();
    rest(&mut half).await;
    // Half of a preface is no better.
    let mut stream = TcpStream::connect(node.local_addr().unwrap())
        .await
        .unwrap();
    stream.write_all(&PREFACE[..10]).await.unwrap();
    assert_eq!(rest(&mut stream).await, (0, None));
}

const INITIAL_WINDOW: u16 = 4;

fn credit(bytes: u32) -> Vec<u8> {
    let both = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()));
    both.concat()
}

#[tokio::test]
async fn who_gives_no_credit_is_cut_off_and_who_gives_little_is_not() {
    let config = loopback()
        .with_min_send_rate(10_000, Duration::from_secs(1))
        .with_header_timeout(Duration::from_millis(300));
    let bytes = content(100_000);
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let request = request(1, "GET", &path_of(&target));
    for window in [0, 1, 2000] {
        let begun = Instant::now();
        let mut stream = raw(&node, &[(INITIAL_WINDOW, window)]).await;
        stream.write_all(&request).await.unwrap();
        let (data, _) = rest(&mut stream).await;
        assert_eq!(data, window as usize);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    // Twice the least rate and a half, to the last byte.
    let mut stream = raw(&node, &[(INITIAL_WINDOW, 0)]).await;
    stream.write_all(&request).await.unwrap();
    let mut data = 0;
    let mut credits = tokio::time::interval(Duration::from_millis(100));
    while data < bytes.len() {
        tokio::select! {
            _ = credits.tick() => stream.write_all(&credit(2500)).await.unwrap(),
            got = receive(&mut stream) => {
                let got = got.unwrap_or_else(|| panic!("cut off after {data} bytes"));
                if got.kind == DATA {
                    assert_eq!(got.payload, bytes[data..data + got.payload.len()]);
                    data += got.payload.len();
                }
            }
        }
    }
}

#[tokio::test]
async fn floods_end_their_connection_and_no_other() {
    let (node, _, target) = seeder(&content(300_000)).await;
    let address = node.local_addr().unwrap();
    let path = path_of(&target);
    let resets: Vec<u8> = (0..5000)
        .flat_map(|i| {
            let stream = 2 * i + 1;
            let cancel = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
            [request(stream, "GET", &path), cancel].concat()
        })
        .collect();
    let begin = frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET")]));
    let more = frame(CONTINUATION, 0, 1, &block(&[("x", "y")]));
    let continuations = [begin, more.repeat(100_000)].concat();
    let streams: Vec<u8> = (0..5000)
        .flat_map(|i| request(2 * i + 1, "GET", &path))
        .collect();
    let malformed: Vec<u8> = (0..5000)
        .flat_map(|i| {
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                2 * i + 1,
                &block(&[("X", "y")]),
            )
        })
        .collect();
    for (what, flood) in [
        ("resets", resets),
        ("continuations", continuations),
        ("streams", streams),
        ("malformed requests", malformed),
        (
            "a frame over its limit",
            frame(DATA, 0, 1, &vec![0; 1 << 20]),
        ),
        ("data on no stream", frame(DATA, 0, 0, &[0; 10])),
        (
            "a broken header block",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 30]),
        ),
        (
            "a window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()),
        ),
    ] {
        let mut stream = raw(&node, &[]).await;
        let (mut reader, mut writer) = stream.split();
        // The server may have enough before all is sent.
        let send = async { writer.write_all(&flood).await.is_ok() };
        let mut reason = None;
        let read = async {
            while let Some(got) = receive(&mut reader).await {
                if got.kind == GOAWAY {
                    reason = Some(got.payload[7]);
                    break;
                }
            }
        };
        soon(async { tokio::join!(read, send) }).await;
        // Refused streams are no fault, until they are many.
        assert!(
            reason.is_some_and(|reason| reason != 0),
            "{what}: {reason:?}"
        );
        let answer = ask(address, "GET", &path, "Range: bytes=0-9\r\n").await;
        assert_eq!(answer.status, 206, "{what}");
    }
    // Pings and settings are answered one at a time, and cost nothing.
    let mut stream = raw(&node, &[]).await;
    let (mut reader, mut writer) = stream.split();
    let pings = [frame(PING, 0, 0, &[7; 8]), settings(&[])]
        .concat()
        .repeat(20_000);
    let send = async { writer.write_all(&pings).await.unwrap() };
    let read = async {
        let mut pongs = 0;
        while pongs < 20_000 {
            let got = receive(&mut reader).await.unwrap();
            pongs += u32::from(got.kind == PING);
        }
    };
    soon(async { tokio::join!(read, send) }).await;
    soon(node.shutdown()).await.unwrap();
}

async fn big() -> (HttpProtocol, FileIdentification, Bytes) {
    let bytes = content(8 << 20);
    let (node, _, target) = seeder(&bytes).await;
    (node, target, bytes)
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_takes_no_more() {
    let (node, target, bytes) = big().await;
    let mut sender = speak(node.local_addr().unwrap()).await;
    let request = || get(&path_of(&target)).body(nothing()).unwrap();
    let answer = soon(sender.send_request(request())).await.unwrap();
    let mut body = answer.into_body();
    let first = soon(body.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    let ending = async {
        let begun = Instant::now();
        node.shutdown().await.unwrap();
        begun.elapsed()
    };
    let reading = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.collect().await.unwrap().to_bytes()
    };
    let (took, tail) = soon(async { tokio::join!(ending, reading) }).await;
    assert_eq!([&first[..], &tail].concat(), bytes);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(soon(sender.send_request(request())).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_who_does_not_read() {
    let config = loopback().with_drain_timeout(Duration::from_millis(200));
    let (node, _, target) = seeder_with(config, &content(1 << 20), None).await;
    let mut stream = raw(&node, &[(INITIAL_WINDOW, 1)]).await;
    let request = request(1, "GET", &path_of(&target));
    stream.write_all(&request).await.unwrap();
    while soon(receive(&mut stream)).await.unwrap().kind != DATA {}
    let begun = Instant::now();
    soon(node.shutdown()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}
