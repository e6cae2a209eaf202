//! Nodes, content and raw sockets for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    ChunkStore, ContentProtocol, FileIdentification, PeerOffer, SeedRequest, TransferRegistry,
};
use chiral_protocols::http::{HttpConfig, HttpProtocol};
use chiral_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use crate::common::{OpenGate, content, soon};

/// Limit on what a client waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration on a free port of the loopback interface.
pub(crate) fn loopback() -> HttpConfig {
    HttpConfig::listening(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A node over this store.
pub(crate) async fn node_over(config: HttpConfig, store: Arc<dyn ChunkStore>) -> HttpProtocol {
    HttpProtocol::bind(config, store, TransferRegistry::new(), Arc::new(OpenGate))
        .await
        .unwrap()
}

/// A node with a store of its own in memory.
pub(crate) async fn node(config: HttpConfig) -> HttpProtocol {
    node_over(config, Arc::new(MemoryStore::new(1 << 30))).await
}

/// A client that serves nobody.
pub(crate) async fn client() -> HttpProtocol {
    client_with(HttpConfig::default()).await
}

/// A client with short patience where a test is about patience.
pub(crate) async fn client_with(config: HttpConfig) -> HttpProtocol {
    node(config).await
}

/// A node that seeds these bytes, its offer, and what to ask for.
pub(crate) async fn seeder(bytes: &Bytes) -> (HttpProtocol, PeerOffer, FileIdentification) {
    seeder_with(loopback(), bytes, None).await
}

/// A node that seeds these bytes under a name.
pub(crate) async fn seeder_with(
    config: HttpConfig,
    bytes: &Bytes,
    name: Option<&str>,
) -> (HttpProtocol, PeerOffer, FileIdentification) {
    let node = node(config).await;
    let mut request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    request.name = name.map(str::to_owned);
    let metadata = node.start_seeding(request).await.unwrap();
    let offer = metadata.offers[0].clone();
    (node, offer, identification(bytes))
}

/// The path of a seeded file.
pub(crate) fn path_of(target: &FileIdentification) -> String {
    format!("/file/{}", target.cid().unwrap())
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawAnswer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = bytes[end + 4..].to_vec();
        Self { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Sends bytes as they are, and reads until the server closes.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has heard enough may close before it has read all.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    answer
}

/// A request with these headers (each line ending in CRLF) whose connection ends after it.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> RawAnswer {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    RawAnswer::parse(&raw(address, request.as_bytes()).await)
}
