//! Torrents of version 2 (BEP 52), and of both.

use std::time::Duration;

use chiral_core::conformance::content_protocol::identification;
use chiral_core::{Alias, ContentProtocol, Endpoint, PeerOffer, Protocol};
use chiral_protocols::bittorrent::create::TorrentHasher;
use chiral_protocols::bittorrent::metainfo::{Metainfo, Version};
use chiral_protocols::bittorrent::swarm::TorrentInfo;

use crate::support::{Peer, content, loopback, soon};
use crate::swarm::get;

fn torrent(bytes: &[u8], version: Version) -> Metainfo {
    let mut hasher = TorrentHasher::new(version);
    hasher.update(bytes);
    let hashes = hasher.finish();
    hashes.metainfo("a name", Default::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_of_version_2_is_had_by_its_hash_alone_with_the_piece_layer() {
    let bytes = content(5_000_001);
    for version in [Version::V2, Version::Hybrid] {
        let meta = torrent(&bytes, version);
        let seeder = Peer::new(loopback(), None).await;
        let cid = seeder.seed(&bytes).await.0.header.unwrap().cid;
        let info = TorrentInfo::of_metainfo(meta.clone()).unwrap();
        seeder.protocol.seed_torrent(info, cid).unwrap();
        let alias = Alias::InfoHashV2(meta.hashes().v2.unwrap());
        let endpoint = Endpoint::new(format!("{alias}@{}", seeder.address())).unwrap();
        let offer = PeerOffer::new(Protocol::BitTorrent, endpoint);
        let leecher = Peer::new(loopback(), None).await;
        let target = identification(&bytes);
        leecher.protocol.expect(&alias, cid).unwrap();
        assert!(get(&leecher, target, vec![offer]).await == bytes);
        soon(async {
            while leecher.protocol.metainfo(&alias).unwrap().tree(0) != meta.tree(0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        soon(leecher.protocol.shutdown()).await.unwrap();
        soon(seeder.protocol.shutdown()).await.unwrap();
    }
}
