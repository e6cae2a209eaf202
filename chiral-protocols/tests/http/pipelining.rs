//! Requests sent behind others over one connection (RFC 9112 §9.3.2), against servers that are
//! told step by step what to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{ByteRange, ChunkSource, ContentProtocol, TransferError};
use chiral_protocols::http::HttpConfig;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::hostile_servers::mirror_at;
use crate::support::{client_with, content, seeder, soon};

const SIZE: u64 = 1000;
const A: ByteRange = ByteRange::new(0, 100);
const B: ByteRange = ByteRange::new(100, 200);
const C: ByteRange = ByteRange::new(200, 300);

fn file(range: ByteRange) -> Vec<u8> {
    (range.start..range.end).map(|i| (i * 7) as u8).collect()
}

/// The server's end of a connection.
struct Peer(TcpStream);

impl Peer {
    /// The next one. The server's answer to `HEAD` comes over the first.
    async fn accept(listener: &TcpListener) -> Self {
        Self(soon(listener.accept()).await.unwrap().0)
    }

    /// The next request's text; `None` at the end.
    async fn request(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.0.read_u8().await.ok()?);
        }
        Some(String::from_utf8(text).unwrap())
    }

    /// Whether no request comes for a while, or no more at all.
    async fn is_idle(&mut self) -> bool {
        let wait = Duration::from_millis(300);
        matches!(
            tokio::time::timeout(wait, self.request()).await,
            Err(_) | Ok(None)
        )
    }

    async fn expect(&mut self, range: ByteRange) {
        let text = soon(self.request()).await.unwrap();
        let line = format!("\r\nrange: bytes={}-{}\r\n", range.start, range.end - 1);
        assert!(text.contains(&line), "{text}");
    }

    async fn describe(&mut self) {
        assert!(soon(self.request()).await.unwrap().starts_with("HEAD"));
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nAccept-Ranges: bytes\r\n\r\n");
        self.send(head.as_bytes()).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn send_head(&mut self, range: ByteRange) {
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{SIZE}\r\n\
             Content-Length: {}\r\n\r\n",
            range.start,
            range.end - 1,
            range.len()
        );
        self.send(head.as_bytes()).await;
    }

    async fn answer(&mut self, range: ByteRange) {
        self.send_head(range).await;
        self.send(&file(range)).await;
    }
}

/// What a source delivers of a range.
fn fetch(source: &dyn ChunkSource, range: ByteRange) -> Fetched {
    let mut deliveries = source.fetch(range);
    tokio::spawn(async move {
        let mut got = Vec::new();
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery?;
            assert_eq!(delivery.offset, range.start + got.len() as u64);
            got.extend_from_slice(&delivery.bytes);
        }
        Ok(got)
    })
}

/// One connection and two requests at once.
fn narrow() -> HttpConfig {
    let (connect, answer) = (Duration::from_secs(10), Duration::from_secs(2));
    HttpConfig::default()
        .with_timeouts(connect, answer, connect)
        .with_max_connections_per_source(1)
        .with_max_requests_per_source(2)
}

/// A source, the listener of its server, and the first connection.
async fn connected() -> (Arc<dyn ChunkSource>, TcpListener, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = client_with(narrow()).await;
    let (offer, target) = (mirror_at(address), identification(b"whatever"));
    let described = async {
        let mut peer = Peer::accept(&listener).await;
        peer.describe().await;
        peer
    };
    let (source, peer) = tokio::join!(soon(client.connect(&offer, &target)), described);
    (source.unwrap(), listener, peer)
}

type Fetched = JoinHandle<Result<Vec<u8>, TransferError>>;

/// Asks for two ranges, of which the server has both before it has answered any.
async fn two_at_once(source: &dyn ChunkSource, peer: &mut Peer) -> [Fetched; 2] {
    let a = fetch(source, A);
    peer.expect(A).await;
    let b = fetch(source, B);
    peer.expect(B).await;
    [a, b]
}

/// The server, which has just been asked for the second range again, is asked for nothing more
/// before it has answered.
async fn is_asked_one_by_one(source: &dyn ChunkSource, mut peer: Peer, b: Fetched) {
    let c = fetch(source, C);
    assert!(peer.is_idle().await);
    peer.answer(B).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), file(B));
    peer.expect(C).await;
    peer.answer(C).await;
    assert_eq!(soon(c).await.unwrap().unwrap(), file(C));
}

async fn is_alone(listener: &TcpListener) -> bool {
    let wait = Duration::from_millis(100);
    tokio::time::timeout(wait, listener.accept()).await.is_err()
}

#[tokio::test]
async fn a_request_is_sent_before_the_answer_to_the_last_has_come() {
    let (source, listener, mut peer) = connected().await;
    let a = fetch(&*source, A);
    peer.expect(A).await;
    peer.send_head(A).await;
    peer.send(&file(A)[..50]).await;
    let b = fetch(&*source, B);
    // This comes while the answer to the first is on its way, and on the same connection.
    peer.expect(B).await;
    let c = fetch(&*source, C);
    // Two at once are enough.
    assert!(peer.is_idle().await);
    peer.send(&file(A)[50..]).await;
    peer.expect(C).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    peer.answer(B).await;
    peer.answer(C).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), file(B));
    assert_eq!(soon(c).await.unwrap().unwrap(), file(C));
    assert!(is_alone(&listener).await);
}

#[tokio::test]
async fn who_stands_behind_one_that_leaves_asks_again_elsewhere() {
    let (source, listener, mut peer) = connected().await;
    let mut a = source.fetch(A);
    let (first, ()) = tokio::join!(soon(a.next()), async {
        peer.expect(A).await;
        peer.send_head(A).await;
        peer.send(&file(A)[..50]).await;
    });
    assert_eq!(first.unwrap().unwrap().bytes, file(A)[..50]);
    let b = fetch(&*source, B);
    peer.expect(B).await;
    drop(a);
    let mut second = Peer::accept(&listener).await;
    assert!(peer.is_idle().await);
    second.expect(B).await;
    second.answer(B).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), file(B));
    // It was us who left: the server is still asked for more than one thing at a time.
    let b = fetch(&*source, B);
    second.expect(B).await;
    let c = fetch(&*source, C);
    second.expect(C).await;
    second.answer(B).await;
    second.answer(C).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), file(B));
    assert_eq!(soon(c).await.unwrap().unwrap(), file(C));
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_nobody_elses() {
    let (source, listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    b.abort();
    assert!(soon(b).await.unwrap_err().is_cancelled());
    let c = fetch(&*source, C);
    // Nothing goes over this connection any more.
    assert!(peer.is_idle().await);
    peer.answer(A).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    let mut second = Peer::accept(&listener).await;
    second.expect(C).await;
    second.answer(C).await;
    assert_eq!(soon(c).await.unwrap().unwrap(), file(C));
}

#[tokio::test]
async fn a_server_that_forgets_requests_behind_others_is_asked_one_by_one() {
    let (source, listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    peer.answer(A).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    drop(peer);
    let mut second = Peer::accept(&listener).await;
    second.expect(B).await;
    is_asked_one_by_one(&*source, second, b).await;
}

#[tokio::test]
async fn nor_does_it_have_to_end_the_connection_that_it_forgets_them_on() {
    let (source, listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    peer.answer(A).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    // Nothing more, for longer than an answer may take.
    let mut second = Peer::accept(&listener).await;
    second.expect(B).await;
    is_asked_one_by_one(&*source, second, b).await;
}

#[tokio::test]
async fn a_server_that_takes_two_requests_for_nonsense_is_asked_one_by_one() {
    let (source, listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    peer.answer(A).await;
    peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    let last = tokio::select! {
        mut second = Peer::accept(&listener) => { second.expect(B).await; second }
        () = peer.expect(B) => peer,
    };
    is_asked_one_by_one(&*source, last, b).await;
}

#[tokio::test]
async fn a_server_that_breaks_off_under_two_requests_is_asked_one_by_one() {
    let (source, listener, mut peer) = connected().await;
    let a = fetch(&*source, A);
    peer.expect(A).await;
    peer.send_head(A).await;
    peer.send(&file(A)[..50]).await;
    let b = fetch(&*source, B);
    peer.expect(B).await;
    drop(peer);
    assert!(soon(a).await.unwrap().is_err());
    let mut second = Peer::accept(&listener).await;
    second.expect(B).await;
    is_asked_one_by_one(&*source, second, b).await;
}

#[tokio::test]
async fn an_answer_that_is_the_last_sends_those_behind_it_elsewhere() {
    let (source, listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/1000\r\n\
                Connection: close\r\nContent-Length: 100\r\n\r\n";
    peer.send(head.as_bytes()).await;
    peer.send(&file(A)).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    let mut second = Peer::accept(&listener).await;
    second.expect(B).await;
    second.answer(B).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), file(B));
}

#[tokio::test]
async fn what_comes_unasked_is_no_answer() {
    let (source, listener, mut peer) = connected().await;
    let a = fetch(&*source, A);
    peer.expect(A).await;
    peer.answer(A).await;
    // An answer to a question that will be asked next.
    peer.answer(B).await;
    assert_eq!(soon(a).await.unwrap().unwrap(), file(A));
    let b = fetch(&*source, B);
    let mut second = Peer::accept(&listener).await;
    second.expect(B).await;
    let right = file(B);
    second.answer(B).await;
    assert_eq!(soon(b).await.unwrap().unwrap(), right);
}

#[tokio::test]
async fn answers_in_the_wrong_order_deliver_nothing() {
    let (source, _listener, mut peer) = connected().await;
    let [a, b] = two_at_once(&*source, &mut peer).await;
    peer.answer(B).await;
    peer.answer(A).await;
    let error = soon(a).await.unwrap().unwrap_err();
    assert!(matches!(error, TransferError::Protocol { .. }), "{error:?}");
    b.abort();
}

#[tokio::test]
async fn small_questions_do_not_wait_behind_ranges() {
    let bytes: Bytes = content(40 << 20);
    let (node, offer, target) = seeder(&bytes).await;
    let client = client_with(narrow()).await;
    let source = soon(client.connect(&offer, &target)).await.unwrap();
    // Two long answers, of which nobody reads more than the beginning.
    let (half, end) = (20 << 20, 40 << 20);
    let mut first = source.fetch(ByteRange::new(0, half));
    soon(first.next()).await.unwrap().unwrap();
    let second = fetch(&*source, ByteRange::new(half, end));
    for _ in 0..3 {
        soon(source.coverage()).await.unwrap();
    }
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(soon(second).await.unwrap().unwrap(), bytes[half as usize..]);
    node.shutdown().await.unwrap();
}
