//! A whole session of the private protocol with a stranger who says these bytes: the seeder
//! answers or ends it, and is there for the next.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{ContentProtocol, PeerId, PeerNetwork, SeedRequest, TransferRegistry};
use chiral_dht::{MemoryNetwork, MemoryNetworkHub};
use chiral_payment::FreeGate;
use chiral_protocols::private::{Body, Frame, OpenSession, PrivateConfig, PrivateProtocol, STREAM_NAME};
use chiral_storage::MemoryStore;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

struct Seeder {
    runtime: Runtime,
    stranger: MemoryNetwork,
    opening: Vec<u8>,
    _seeder: PrivateProtocol,
}

fn peer(name: u8) -> PeerId {
    PeerId::from_bytes(&[0x12, 0x20, name]).unwrap()
}

static SEEDER: LazyLock<Seeder> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let hub = MemoryNetworkHub::new();
    let (seeder, opening) = runtime.block_on(async {
        let network = Arc::new(hub.join(peer(1)));
        let store = Arc::new(MemoryStore::new(1 << 24));
        let (registry, gate) = (TransferRegistry::new(), Arc::new(FreeGate::default()));
        let config = PrivateConfig::default();
        let seeder = PrivateProtocol::start(config, network, store, registry, gate).await.unwrap();
        let content = Bytes::from(vec![7; 600_000]);
        let request = SeedRequest::new(SeedContent::Bytes(content));
        let file = seeder.start_seeding(request).await.unwrap();
        let open = OpenSession {
            file_hash: Bytes::copy_from_slice(file.header.cid.as_bytes()),
            version: 1,
        };
        let opening = Frame::new(0, Body::OpenSession(open)).head().unwrap();
        (seeder, opening.to_vec())
    });
    Seeder {
        runtime,
        stranger: hub.join(peer(2)),
        opening,
        _seeder: seeder,
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, said)) = bytes.split_first() else {
        return;
    };
    let seeder = &*SEEDER;
    seeder.runtime.block_on(async {
        let Ok(stream) = seeder.stranger.open(&peer(1), STREAM_NAME).await else {
            panic!("nobody accepts any more");
        };
        let (mut read, mut write) = stream.split();
        let talk = async {
            // Mostly in a session that stands.
            if first % 8 != 0 {
                write.write_all(&seeder.opening).await?;
            }
            write.write_all(said).await?;
            write.close().await
        };
        let hear = async {
            let mut rest = vec![0; 65_536];
            while let Ok(1..) = read.read(&mut rest).await {}
        };
        let both = futures_util::future::join(talk, hear);
        let ended = tokio::time::timeout(Duration::from_secs(20), both).await;
        assert!(ended.is_ok(), "it holds a session that was ended");
    });
});
