//! The nodes: three seeders and a downloader, who know each other through a directory only.

use std::path::Path;
use std::sync::Arc;

use chiral::core::CHUNK_SIZE;
use chiral::dht::MemoryDirectoryNetwork;
use chiral::protocols::EngineConfig;
use chiral::{ByteRange, Node, PeerId, Share, Shared};

use super::Failure;
use super::uplink::Uplink;

/// A node with a name to show.
pub(crate) struct Seeder {
    /// What the table calls it.
    pub(crate) name: &'static str,
    pub(crate) node: Node,
}

pub(crate) struct Network {
    pub(crate) seeders: Vec<Seeder>,
    pub(crate) downloader: Node,
}

impl Network {
    /// Starts the nodes, each with a store of its own below `directory` and, for those that
    /// seed, an HTTP server on a free port of the loopback that sends at most so many bytes
    /// per second; 0 for no limit.
    pub(crate) async fn start(directory: &Path, uplink: u64) -> Result<Self, Failure> {
        let everybody = MemoryDirectoryNetwork::new();
        let start = async |name: &str, seeds: bool| {
            let peer = PeerId::from_bytes(name.as_bytes())?;
            // Short requests share a small file out more evenly.
            let mut engine = EngineConfig::default();
            engine.scheduler = engine.scheduler.with_request_bytes(64 << 10, 1 << 20);
            let mut builder = Node::builder()
                .engine(engine)
                .data_dir(directory.join(name))
                .directory(Arc::new(everybody.join(peer.clone())))
                .peer_id(peer);
            if seeds {
                builder = builder.http_listen(([127, 0, 0, 1], 0).into());
            }
            if seeds && uplink > 0 {
                builder = builder.gate(Arc::new(Uplink::new(uplink)));
            }
            Ok::<_, Failure>(builder.start().await?)
        };
        let mut network = Self {
            downloader: start("downloader", false).await?,
            seeders: Vec::new(),
        };
        for name in ["whole 1", "whole 2", "first half"] {
            match start(name, true).await {
                Ok(node) => network.seeders.push(Seeder { name, node }),
                Err(error) => {
                    // The first error is the one to tell.
                    network.shutdown().await.unwrap_or_default();
                    return Err(error);
                }
            }
        }
        Ok(network)
    }

    /// Shares a file: from where it is by the first two, and half of it by the third, once
    /// that has downloaded it.
    pub(crate) async fn share(&self, file: &Path) -> Result<Shared, Failure> {
        let [whole, again, half] = &self.seeders[..] else {
            return Err("there are to be three seeders".into());
        };
        let shared = whole.node.share(file).await?;
        again.node.share(file).await?;
        let size = shared.link.size.unwrap_or(0);
        // A file of one chunk has no half that could be verified.
        if size > CHUNK_SIZE {
            let part = ByteRange::new(0, size / 2);
            half.node.get(&shared.link).only(part).await?;
            half.node.share(Share::stored(shared.cid())).await?;
        }
        Ok(shared)
    }

    /// Which seeder serves at this place.
    pub(crate) fn name_of(&self, source: &str) -> &'static str {
        let serves = |seeder: &&Seeder| {
            let protocols = seeder.node.manager().protocols();
            let mut endpoints = protocols.iter().flat_map(|protocol| protocol.endpoints());
            endpoints.any(|endpoint| endpoint.as_str() == source)
        };
        self.seeders
            .iter()
            .find(serves)
            .map_or("somebody", |seeder| seeder.name)
    }

    /// Ends all nodes; the first failure is answered after all have been ended.
    pub(crate) async fn shutdown(&self) -> Result<(), Failure> {
        let mut result = self.downloader.shutdown().await;
        for seeder in &self.seeders {
            result = result.and(seeder.node.shutdown().await);
        }
        Ok(result?)
    }
}
