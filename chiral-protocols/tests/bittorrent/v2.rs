//! Torrents of version 2 (BEP 52), and of both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::chunk_store::{ImportRequest, ImportSource};
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{Alias, ContentProtocol, Endpoint, PeerOffer, Protocol, StoredContent};
use chiral_protocols::bittorrent::Joined;
use chiral_protocols::bittorrent::create::{CollectionHasher, TorrentHasher};
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

/// A torrent whose first piece ends in padding, or before a gap, is served: it is no other
/// content for that. Nobody is asked for what lies between the files.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_whose_first_file_is_shorter_than_a_piece_is_seeded() {
    let files: [Bytes; 3] = [content(20_000), content(100_001), content(5)];
    for version in [Version::V2, Version::Hybrid] {
        let names = ["a", "b", "c"].map(|name| vec![name.to_owned()]);
        let entries = names
            .into_iter()
            .zip(files.iter().map(|it| it.len() as u64));
        let hasher = CollectionHasher::new("dir", entries.collect(), 32_768, version);
        let mut hasher = hasher.unwrap();
        let seeder = Peer::new(loopback(), None).await;
        let mut parts: Vec<Option<Arc<dyn StoredContent>>> = Vec::new();
        for bytes in &files {
            hasher.update(bytes).unwrap();
            let import = ImportRequest::new(ImportSource::Bytes(bytes.clone()));
            let cid = seeder.store.import(import).await.unwrap().header.cid;
            parts.push(seeder.store.open(cid).await.unwrap());
        }
        let meta = hasher.finish(Default::default()).unwrap();
        let mut stream = Vec::new();
        for (file, bytes) in (0..).zip(&files) {
            let range = meta.layout().file_range(file).unwrap();
            stream.resize(range.start as usize, 0);
            stream.extend_from_slice(bytes);
        }
        let info = TorrentInfo::of_metainfo(meta.clone()).unwrap();
        let joined = Joined::new(None, meta.layout().clone(), parts);
        seeder.protocol.add_torrent(info.clone()).unwrap();
        let seeded = seeder
            .protocol
            .seed_content(info.info_hash, Arc::new(joined));
        seeded.unwrap();
        let alias = Alias::InfoHashV2(meta.hashes().v2.unwrap());
        let endpoint = Endpoint::new(format!("{alias}@{}", seeder.address())).unwrap();
        let leecher = Peer::new(loopback(), None).await;
        let target = identification(&stream);
        leecher
            .protocol
            .expect(&alias, target.cid().unwrap())
            .unwrap();
        let offer = PeerOffer::new(Protocol::BitTorrent, endpoint);
        assert!(get(&leecher, target, vec![offer]).await == stream);
        let payload = files.iter().map(|it| it.len() as u64).sum::<u64>();
        assert!(meta.layout().size() > payload);
        soon(leecher.protocol.shutdown()).await.unwrap();
        soon(seeder.protocol.shutdown()).await.unwrap();
    }
}

/// Seeds as torrents of a version from a store; what the torrent is.
async fn seeded_as(
    version: Version,
    store: &Arc<dyn chiral_core::ChunkStore>,
    bytes: &Bytes,
) -> Metainfo {
    let config = loopback().with_share_version(version);
    let seeder = Peer::over(config, None, store.clone()).await;
    let (_, info) = seeder.seed(bytes).await;
    soon(seeder.protocol.shutdown()).await.unwrap();
    Metainfo::clone(info.metainfo())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_hybrid_unless_its_hashes_of_version_1_are_all_that_is_kept() {
    let bytes = content(700_001);
    let store = || Arc::new(chiral_storage::MemoryStore::new(1 << 30)) as Arc<_>;
    let (old, new) = (store(), store());
    assert_eq!(loopback().share_version, Version::Hybrid);
    let first = seeded_as(Version::V1, &old, &bytes).await;
    assert_eq!(first.info().version(), Version::V1);
    let again = seeded_as(Version::Hybrid, &old, &bytes).await;
    assert_eq!(
        again.hashes(),
        first.hashes(),
        "who has its link meets it still"
    );

    let hybrid = seeded_as(Version::Hybrid, &new, &bytes).await;
    assert!(hybrid.hashes().v1.is_some() && hybrid.hashes().v2.is_some());
    assert!(hybrid.is_checkable() && hybrid.tree(0).is_some());
    let single = seeded_as(Version::V1, &new, &bytes).await;
    assert_eq!(single.hashes(), first.hashes());
    let mut hasher = TorrentHasher::new(Version::Hybrid);
    hasher.update(&bytes);
    let cid = identification(&bytes).cid().unwrap().to_string();
    let made = hasher.finish().metainfo(&cid, Default::default()).unwrap();
    assert_eq!(hybrid.info_bytes(), made.info_bytes());
    assert_eq!(hybrid.tree(0), made.tree(0));
}
