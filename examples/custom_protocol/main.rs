//! A protocol of one's own, beside HTTP in one download, without a change in any crate.
//!
//! ```text
//! cargo run --release --example custom_protocol
//! ```
//!
//! The protocol, `example-tcp`, is as small as one can be. A client sends 48 bytes (the cid,
//! an offset, a length) over TCP; the server answers with so many bytes. No manifests, no
//! discovery: those come from the other seeder, over HTTP, and from the directory. It is
//! enough to implement `ContentProtocol` and `ChunkSource`; scheduling, verification,
//! accounting and resuming come with the node.
//!
//! Prints what each of the two delivered:
//!
//! ```text
//! http           17301504 bytes  http://127.0.0.1:45631/
//! example-tcp    16252928 bytes  127.0.0.1:41907
//! ```

#![allow(clippy::print_stdout)]

mod protocol;
mod source;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use chiral::core::ChunkStore;
use chiral::dht::MemoryDirectoryNetwork;
use chiral::storage::MemoryStore;
use chiral::{Node, PeerId, Protocol};

use protocol::ExampleTcp;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let everybody = MemoryDirectoryNetwork::new();
    let join = |name: &str| {
        let peer = PeerId::from_bytes(name.as_bytes())?;
        let builder = Node::builder().directory(Arc::new(everybody.join(peer.clone())));
        Ok::<_, Failure>(builder.peer_id(peer))
    };

    let over_http = join("over http")?
        .http_listen(([127, 0, 0, 1], 0).into())
        .start()
        .await?;

    // Made before its node, hence over the same store and the same registry.
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
    let builder = join("over example-tcp")?
        .without_http()
        .store(store.clone());
    let server = ExampleTcp::server(builder.registry().clone(), store).await?;
    let over_tcp = builder.protocol(Arc::new(server)).start().await?;

    // Speaks both.
    let builder = join("downloader")?;
    let client = ExampleTcp::client(builder.registry().clone());
    let downloader = builder.protocol(Arc::new(client)).start().await?;

    let bytes: Vec<u8> = (0..32u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let bytes = Bytes::from(bytes);
    let shared = over_http.share(bytes.clone()).await?;
    over_tcp.share(bytes.clone()).await?;
    let got = downloader.get(&shared.link).to_bytes().await;

    for node in [&downloader, &over_tcp, &over_http] {
        node.shutdown().await?;
    }
    let got = got?;
    for source in &got.sources {
        println!(
            "{:<12} {:>10} bytes  {}",
            source.protocol, source.bytes, source.source
        );
    }
    if got.bytes != Some(bytes) {
        return Err("the bytes are not those that were shared".into());
    }
    let delivered = |protocol: &Protocol| {
        let of_it = got
            .sources
            .iter()
            .filter(|source| source.protocol == *protocol);
        of_it.map(|source| source.bytes).sum::<u64>()
    };
    match [Protocol::Http, protocol::name()]
        .iter()
        .find(|protocol| delivered(protocol) == 0)
    {
        Some(idle) => Err(format!("{idle} delivered nothing").into()),
        None => Ok(()),
    }
}
