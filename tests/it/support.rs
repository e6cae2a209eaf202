//! What the journeys share.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use chiral::Node;
use chiral::core::ContentIdentity;

/// Every wait of a journey ends after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

/// Bytes that no two of which sizes share a long run.
pub(crate) fn data(size: usize) -> Vec<u8> {
    (0..size as u64)
        .map(|i| ((i.wrapping_mul(2_654_435_761)) >> 13) as u8)
        .collect()
}

pub(crate) fn identity(bytes: &[u8]) -> ContentIdentity {
    ContentIdentity::of(bytes).expect("small")
}

/// A node that serves on loopback and keeps its state in a directory.
pub(crate) async fn node(dir: &Path) -> Node {
    let listen = "127.0.0.1:0".parse().expect("an address");
    Node::builder()
        .data_dir(dir)
        .http_listen(listen)
        .start()
        .await
        .expect("a node on loopback")
}

/// The URL at which a node serves.
pub(crate) fn url(node: &Node) -> String {
    let http = node.manager().protocol_impl();
    http.endpoints()[0].to_string()
}
