//! Torrents through the facade: shared and got, by magnet and by `.torrent`, one file and many.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chiral::core::chunk_store::{ImportRequest, ImportSource};
use chiral::core::transfer::{TransferEventKind, TransferOutcome};
use chiral::core::{Alias, ChunkStore, ContentProtocol, StoredContent, TransferRegistry};
use chiral::dht::MemoryDirectoryNetwork;
use chiral::payment::FreeGate;
use chiral::protocols::EngineConfig;
use chiral::protocols::bittorrent::Joined;
use chiral::protocols::bittorrent::create::{CollectionHasher, TorrentHasher};
use chiral::protocols::bittorrent::download::TorrentError;
use chiral::protocols::bittorrent::magnet::{Magnet, MagnetPeer};
use chiral::protocols::bittorrent::metainfo::{Metainfo, Outer, Version};
use chiral::protocols::bittorrent::protocol::BitTorrentProtocol;
use chiral::protocols::bittorrent::swarm::{BitTorrentConfig, TorrentInfo};
use chiral::protocols::http::AddressPolicy;
use chiral::storage::MemoryStore;
use chiral::{Node, NodeError, PeerId, Protocol, Share, TransferError};
use futures_util::StreamExt;

use crate::support::{data, identity, within};

/// A node that takes part in BitTorrent on loopback, and in nothing else.
async fn node(dir: &Path) -> Node {
    let listen = "127.0.0.1:0".parse().unwrap();
    let patience = EngineConfig::default().with_source_patience(Duration::from_secs(5));
    let builder = Node::builder().data_dir(dir).engine(patience);
    let builder = builder.without_http().bittorrent_listen(listen);
    builder.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_file_is_got_by_its_magnet_and_shared_on() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, three) = (
        dir.path().join("1"),
        dir.path().join("2"),
        dir.path().join("3"),
    );
    let content = data(3_000_001);
    let source = dir.path().join("photo.raw");
    std::fs::write(&source, &content).unwrap();
    let seeder = node(&one).await;
    let magnet = within(seeder.seed_file(&source)).await.unwrap();
    assert_eq!(magnet.name.as_deref(), Some("photo.raw"));
    assert_eq!(magnet.length, Some(content.len() as u64));
    assert_eq!(magnet.peers.len(), 1, "its own address");
    assert!(magnet.hashes.v1.is_some() && magnet.hashes.v2.is_some());

    // What people pass on is text.
    let magnet: Magnet = magnet.to_string().parse().unwrap();
    let second = node(&two).await;
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let get = second.download_torrent(magnet.clone()).to_directory(&out);
    let mut events = second.events();
    let getting = within(get.seed(true).start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    let [file] = &got.files[..] else {
        panic!("{:?}", got.files)
    };
    let expected = identity(&content);
    assert_eq!(
        file.path,
        Some(out.canonicalize().unwrap().join("photo.raw"))
    );
    assert_eq!(std::fs::read(out.join("photo.raw")).unwrap(), content);
    assert_eq!(
        (file.header.cid, file.header.root),
        (expected.cid, expected.root)
    );
    let (mut progress, mut complete) = (Vec::new(), None);
    while let Some(event) = within(events.next()).await {
        match event.kind {
            TransferEventKind::TorrentProgress { passed, pieces, .. } => {
                progress.push((passed, pieces));
            }
            TransferEventKind::TorrentComplete { torrent, cid } => complete = Some((torrent, cid)),
            TransferEventKind::Ended { outcome } => {
                assert!(matches!(outcome, TransferOutcome::Completed { .. }));
                break;
            }
            _ => {}
        }
    }
    let alias = Alias::InfoHashV1(magnet.hashes.v1.unwrap()).to_string();
    assert_eq!(complete, Some((alias, expected.cid)));
    assert_eq!(progress.last(), Some(&(12, 12)));
    assert!(progress.is_sorted(), "{progress:?}");

    // The first one goes; the second has it, as the same torrent, and as its cid.
    within(seeder.shutdown()).await.unwrap();
    let shared = async {
        while second.torrent(expected.cid).is_none()
            || !second.status().await.unwrap().shared.iter().any(|_| true)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(shared).await;
    let again = second.magnet(expected.cid).unwrap();
    assert_eq!(again.hashes, magnet.hashes);
    let third = node(&three).await;
    // From the .torrent file, with the peer said beside it.
    let torrent = Metainfo::parse(&second.torrent(expected.cid).unwrap().encode()).unwrap();
    let copy = dir.path().join("copy");
    let get = third.download_torrent(torrent).to_file(&copy);
    let getting = within(get.peer(again.peers[0].clone()).start())
        .await
        .unwrap();
    within(getting.outcome()).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), content);
    within(third.shutdown()).await.unwrap();
    within(second.shutdown()).await.unwrap();
}

/// Two nodes have it, over HTTP alone and over BitTorrent alone; the info-hash leads to both,
/// and one download draws from both.
#[tokio::test(flavor = "multi_thread")]
async fn the_directory_leads_from_an_info_hash_to_seeders_of_every_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let network = MemoryDirectoryNetwork::new();
    let peer = |n: u8| PeerId::from_bytes(&[n; 8]).unwrap();
    let content = data(8_000_001);
    let listen = "127.0.0.1:0".parse().unwrap();
    let start = async |n: u8, http: bool| {
        let builder = Node::builder()
            .data_dir(dir.path().join(n.to_string()))
            .peer_id(peer(n))
            .directory(Arc::new(network.join(peer(n))));
        let builder = match http {
            true => builder.http_listen(listen),
            false => builder.without_http(),
        };
        // Whom the directory announces is on this machine.
        let swarm = BitTorrentConfig::default().with_listen(listen);
        let swarm = swarm.with_addresses(AddressPolicy::Any);
        builder.bittorrent(swarm).start().await.unwrap()
    };
    let (both, swarm) = (start(1, true).await, start(2, false).await);
    let share = || Share::bytes(content.clone()).name("a file");
    let shared = within(both.share(share())).await.unwrap();
    within(swarm.share(share())).await.unwrap();
    let mut magnet = both.magnet(shared.cid()).unwrap();
    assert_eq!(swarm.magnet(shared.cid()).unwrap().hashes, magnet.hashes);
    // Nothing but the hash.
    magnet.peers.clear();
    let getter = start(3, true).await;
    // Slow enough for both to have a part in it.
    let limit = "4MiB".parse().unwrap();
    let get = getter.download_torrent(magnet).limit_down(limit);
    let getting = within(get.start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert_eq!(got.files[0].header.cid, shared.cid());
    let from = |protocol: &Protocol| {
        let sources = got.sources.iter().filter(|it| it.protocol == *protocol);
        sources.map(|source| source.bytes).sum::<u64>()
    };
    let (http, bittorrent) = (from(&Protocol::Http), from(&Protocol::BitTorrent));
    assert_eq!(http + bittorrent, content.len() as u64);
    assert!(http > 0 && bittorrent > 0, "{http} {bittorrent}");
    for node in [getter, swarm, both] {
        within(node.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_waits_for_nobody_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let lonely = node(dir.path()).await;
    let magnet: Magnet = format!("magnet:?xt=urn:btih:{}", "7".repeat(40))
        .parse()
        .unwrap();
    let getting = within(lonely.download_torrent(magnet.clone()).start())
        .await
        .unwrap();
    assert!(getting.torrent().is_none());
    let again = within(lonely.download_torrent(magnet.clone()).start()).await;
    assert!(
        matches!(&again, Err(NodeError::Transfer(TransferError::Registry(_)))),
        "{again:?}"
    );
    assert!(getting.transfer().cancel());
    let ended = within(getting.outcome()).await;
    assert!(
        matches!(ended, Err(NodeError::Transfer(TransferError::Cancelled(_)))),
        "{ended:?}"
    );
    // Left alone it gives up, as every download that nobody delivers.
    let getting = within(lonely.download_torrent(magnet).start())
        .await
        .unwrap();
    let ended = within(getting.outcome()).await;
    assert!(
        matches!(
            ended,
            Err(NodeError::Transfer(TransferError::NoSources { .. }))
        ),
        "{ended:?}"
    );
    within(lonely.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_outlives_a_restart_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(6_000_001);
    let seeder = node(&dir.path().join("seeder")).await;
    let share = Share::bytes(content.clone()).name("a file");
    let shared = within(seeder.share(share)).await.unwrap();
    let magnet = seeder.magnet(shared.cid()).unwrap();
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let first = node(&state).await;
    let get = first.download_torrent(magnet).to_directory(&out);
    let getting = within(get.limit_down("1MiB".parse().unwrap()).start()).await;
    let getting = getting.unwrap();
    let mut events = getting.transfer().events();
    let some = async {
        while let Some(event) = events.next().await {
            if matches!(event.kind, TransferEventKind::TorrentProgress { passed, .. } if passed > 3)
            {
                return;
            }
        }
    };
    within(some).await;
    within(first.shutdown()).await.unwrap();
    drop(getting);

    let second = node(&state).await;
    assert!(second.resume_all().await.is_empty(), "it is a torrent");
    let unfinished = second.unfinished();
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].limit, "1MiB".parse().ok());
    let mut resumed = second.resume_torrents().await;
    let getting = resumed.remove(0).unwrap();
    second
        .downloads()
        .set_download_limit(getting.transfer().id(), None);
    within(getting.outcome()).await.unwrap();
    assert_eq!(std::fs::read(out.join("a file")).unwrap(), content);
    assert!(second.unfinished().is_empty());
    within(second.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

/// A peer that seeds a torrent of several files.
struct Collection {
    files: BTreeMap<&'static str, Vec<u8>>,
    torrent: Metainfo,
    protocol: BitTorrentProtocol,
}

impl Collection {
    async fn seed(version: Version) -> Self {
        let files = BTreeMap::from([
            ("a/deep/one.bin", data(700_001)),
            ("a/two.bin", data(5)),
            ("empty", Vec::new()),
            ("three.bin", data(1_400_000)),
        ]);
        let paths = files.iter().map(|(path, bytes)| {
            let parts = path.split('/').map(str::to_owned).collect();
            (parts, bytes.len() as u64)
        });
        let hasher = CollectionHasher::new("album", paths.collect(), 32_768, version);
        let mut hasher = hasher.unwrap();
        let store = Arc::new(MemoryStore::new(1 << 30));
        let mut parts: Vec<Option<Arc<dyn StoredContent>>> = Vec::new();
        for (path, _) in hasher.files().to_vec() {
            let bytes = files[path.join("/").as_str()].clone();
            hasher.update(&bytes).unwrap();
            let import = ImportRequest::new(ImportSource::Bytes(bytes.into()));
            let object = store.import(import).await.unwrap();
            parts.push(store.open(object.header.cid).await.unwrap());
        }
        let torrent = hasher.finish(Outer::default()).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = BitTorrentConfig::default().with_listen(listen);
        let (registry, gate) = (TransferRegistry::new(), Arc::new(FreeGate::default()));
        let protocol = BitTorrentProtocol::bind(config, store, registry, gate, None);
        let protocol = protocol.await.unwrap();
        // With its trees, which peers ask for.
        let info = TorrentInfo::of_metainfo(torrent.clone()).unwrap();
        let joined = Joined::new(None, torrent.layout().clone(), parts);
        protocol.add_torrent(info.clone()).unwrap();
        protocol
            .seed_content(info.info_hash, Arc::new(joined))
            .unwrap();
        Self {
            files,
            torrent,
            protocol,
        }
    }

    fn magnet(&self) -> Magnet {
        let mut magnet = self.torrent.magnet();
        let address = self.protocol.local_addr().unwrap().to_string();
        magnet.peers.push(address.parse().unwrap());
        magnet
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_of_several_files_becomes_a_directory_and_a_collection() {
    for version in [Version::V1, Version::V2, Version::Hybrid] {
        let dir = tempfile::tempdir().unwrap();
        let album = Collection::seed(version).await;
        let getter = node(&dir.path().join("state")).await;
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let get = getter.download_torrent(album.magnet()).to_directory(&out);
        let getting = within(get.seed(true).start()).await.unwrap();
        let got = within(getting.outcome()).await.unwrap();
        assert_eq!(got.files.len(), album.files.len());
        for file in &got.files {
            let expected = &album.files[file.inside.as_str()];
            let path = out.join("album").join(&file.inside);
            assert_eq!(std::fs::read(path).unwrap(), *expected, "{}", file.inside);
            assert_eq!(file.header.cid, identity(expected).cid);
            let object = getter.store().object(file.header.cid).await.unwrap();
            assert!(object.is_some_and(|object| !object.pins.is_empty()));
        }
        assert!(getter.store().partials().await.unwrap().is_empty());
        let objects = getter.store().objects().await.unwrap();
        assert_eq!(objects.len(), album.files.len(), "and not the stream");
        within(album.protocol.shutdown()).await.unwrap();

        // Seeded on, out of its files: all of it, and some of it.
        let mut magnet = album.torrent.magnet();
        let bittorrent = getter.manager().implementation(&Protocol::BitTorrent);
        let endpoint = bittorrent.unwrap().endpoints().remove(0);
        magnet.peers.push(endpoint.as_str().parse().unwrap());
        let third = node(&dir.path().join("third")).await;
        let some = dir.path().join("some");
        std::fs::create_dir(&some).unwrap();
        let two = got.files.iter().find(|file| file.inside == "a/two.bin");
        let two = two.unwrap().index;
        let get = third.download_torrent(magnet.clone()).to_directory(&some);
        let getting = within(get.select([two..=two]).start()).await.unwrap();
        let chosen = within(getting.outcome()).await.unwrap();
        assert_eq!(chosen.files.len(), 1);
        assert_eq!(
            std::fs::read(some.join("album/a/two.bin")).unwrap(),
            album.files["a/two.bin"]
        );
        assert!(!some.join("album/three.bin").exists());
        let whole = dir.path().join("whole");
        std::fs::create_dir(&whole).unwrap();
        // The same file is there.
        let get = third.download_torrent(magnet.clone()).to_directory(&some);
        let getting = within(get.start()).await.unwrap();
        let all = within(getting.outcome()).await.unwrap();
        assert_eq!(all.files.len(), album.files.len());
        // Another one is in the way of its own.
        std::fs::create_dir(whole.join("album")).unwrap();
        std::fs::write(whole.join("album/three.bin"), "mine").unwrap();
        let get = third.download_torrent(magnet).to_directory(&whole);
        let getting = within(get.start()).await.unwrap();
        let refused = within(getting.outcome()).await;
        assert!(matches!(refused, Err(NodeError::Unpack(_))), "{refused:?}");
        assert_eq!(
            std::fs::read(whole.join("album/three.bin")).unwrap(),
            b"mine"
        );
        within(third.shutdown()).await.unwrap();
        within(getter.shutdown()).await.unwrap();
    }
}

/// The peer is still connected, and counts on the pieces that were there a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_torrent_is_got_again_and_again_from_the_same_peer() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(3_000_001);
    let seeder = node(&dir.path().join("seeder")).await;
    let share = Share::bytes(content.clone()).name("a file");
    let shared = within(seeder.share(share)).await.unwrap();
    let magnet = seeder.magnet(shared.cid()).unwrap();
    let getter = node(&dir.path().join("getter")).await;
    // Not seeded, seeded, and while it is seeded.
    for (round, seed) in [false, false, true, true, false].into_iter().enumerate() {
        let copy = dir.path().join(round.to_string());
        let get = getter.download_torrent(magnet.clone()).to_file(&copy);
        let getting = within(get.seed(seed).start()).await.unwrap();
        // A connection of no use is closed after ten seconds, and made anew.
        let outcome = tokio::time::timeout(Duration::from_secs(8), getting.outcome());
        outcome.await.expect("at once").unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), content);
    }
    assert!(getter.magnet(shared.cid()).is_some(), "it is seeded still");
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_got_by_the_hash_of_version_2_alone() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(2_000_001);
    let mut hasher = TorrentHasher::new(Version::V2);
    hasher.update(&content);
    let torrent = hasher.finish().metainfo("film", Outer::default());
    let torrent = torrent.unwrap();
    let store = Arc::new(MemoryStore::new(1 << 30));
    let import = ImportRequest::new(ImportSource::Bytes(content.clone().into()));
    let cid = store.import(import).await.unwrap().header.cid;
    let config = BitTorrentConfig::default().with_listen("127.0.0.1:0".parse().unwrap());
    let (registry, gate) = (TransferRegistry::new(), Arc::new(FreeGate::default()));
    let seeder = BitTorrentProtocol::bind(config, store, registry, gate, None);
    let seeder = seeder.await.unwrap();
    let info = TorrentInfo::of_metainfo(torrent.clone()).unwrap();
    seeder.seed_torrent(info, cid).unwrap();
    let mut magnet = torrent.magnet();
    assert!(magnet.hashes.v1.is_none() && magnet.hashes.v2.is_some());
    let address = seeder.local_addr().unwrap().to_string();
    let peer: MagnetPeer = address.parse().unwrap();
    magnet.peers.push(peer.clone());

    // The tree comes from the peer, or with the torrent.
    let one = node(&dir.path().join("1")).await;
    let get = one.download_torrent(magnet).to_file(dir.path().join("a"));
    let got = within(within(get.start()).await.unwrap().outcome()).await;
    assert_eq!(got.unwrap().files[0].header.cid, cid);
    let two = node(&dir.path().join("2")).await;
    let get = two.download_torrent(torrent).to_file(dir.path().join("b"));
    let got = within(within(get.peer(peer).start()).await.unwrap().outcome()).await;
    assert_eq!(got.unwrap().files[0].header.cid, cid);
    for copy in ["a", "b"] {
        assert!(std::fs::read(dir.path().join(copy)).unwrap() == content);
    }
    within(two.shutdown()).await.unwrap();
    within(one.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

/// Bytes of the disk that files below a directory take, of those whose name ends so.
fn used(directory: &Path, end: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let used = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => used(&path, end),
        path if path.to_string_lossy().ends_with(end) => path.metadata().unwrap().blocks() * 512,
        _ => 0,
    };
    entries.map(used).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_lie_where_they_go_and_outlive_a_restart_there() {
    let dir = tempfile::tempdir().unwrap();
    let album = Collection::seed(Version::Hybrid).await;
    let payload: u64 = album.files.values().map(|bytes| bytes.len() as u64).sum();
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let first = node(&state).await;
    let get = first.download_torrent(album.magnet()).to_directory(&out);
    let getting = within(get.limit_down("512KiB".parse().unwrap()).start()).await;
    let getting = getting.unwrap();
    let mut events = getting.transfer().events();
    let some = async {
        while let Some(event) = events.next().await {
            if matches!(event.kind, TransferEventKind::TorrentProgress { passed, .. } if passed > 24)
            {
                return;
            }
        }
    };
    within(some).await;
    within(first.shutdown()).await.unwrap();
    drop(getting);
    let came = used(&out, "");
    assert!(came > 500_000, "it lies where it goes: {came}");
    assert!(
        !out.join("album/three.bin").exists(),
        "under its name once it is complete"
    );

    let second = node(&state).await;
    // From before the start, so that none is missed; there is no other transfer.
    let mut events = second.events();
    let mut resumed = second.resume_torrents().await;
    let getting = resumed.remove(0).unwrap();
    second
        .downloads()
        .set_download_limit(getting.transfer().id(), None);
    within(getting.outcome()).await.unwrap();
    let mut there = 0;
    while let Some(event) = within(events.next()).await {
        match event.kind {
            TransferEventKind::Started { chunks_resumed, .. } => there = chunks_resumed,
            TransferEventKind::Ended { .. } => break,
            _ => {}
        }
    }
    assert!(there >= 2, "{there} chunks were there");
    for (inside, bytes) in &album.files {
        assert!(std::fs::read(out.join("album").join(inside)).unwrap() == *bytes);
    }
    // But for the ends of blocks.
    let taken = used(&out, "") + used(&state, ".data");
    assert!(taken < payload + 64 * 1024, "{taken} for {payload}");
    assert!(second.unfinished().is_empty());
    within(second.shutdown()).await.unwrap();
    within(album.protocol.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_directory_leads_no_file_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let album = Collection::seed(Version::V1).await;
    let (out, elsewhere) = (dir.path().join("out"), dir.path().join("elsewhere"));
    std::fs::create_dir(&out).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, out.join("album")).unwrap();
    let getter = node(&dir.path().join("state")).await;
    let get = getter.download_torrent(album.magnet()).to_directory(&out);
    let refused = within(within(get.start()).await.unwrap().outcome()).await;
    assert!(
        matches!(
            refused,
            Err(NodeError::Transfer(TransferError::BadLink { .. }))
        ),
        "{refused:?}"
    );
    let get = getter
        .download_torrent(album.torrent.clone())
        .to_directory(&out);
    let refused = within(get.start()).await.map(drop);
    assert!(
        matches!(refused, Err(NodeError::Torrent(TorrentError::Target(_)))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(getter.store().partials().await.unwrap().is_empty());
    within(getter.shutdown()).await.unwrap();
    within(album.protocol.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_downloaded_as_is_wished_is_said_at_once_if_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let album = Collection::seed(Version::V1).await;
    let getter = node(dir.path()).await;
    let get = getter.download_torrent(album.torrent.clone());
    let refused = within(get.to_file(dir.path().join("x")).start()).await;
    let directory = NodeError::Torrent(TorrentError::Directory).to_string();
    assert_eq!(refused.unwrap_err().to_string(), directory);
    let get = getter.download_torrent(album.torrent.clone());
    let refused = within(get.select([77..=80]).start()).await;
    assert!(
        matches!(refused, Err(NodeError::Torrent(TorrentError::Nothing))),
        "{refused:?}"
    );
    // And while it is under way, if it is not.
    let get = getter.download_torrent(album.magnet());
    let getting = within(get.to_file(dir.path().join("x")).start())
        .await
        .unwrap();
    let refused = within(getting.outcome()).await;
    assert!(
        matches!(
            refused,
            Err(NodeError::Transfer(TransferError::BadLink { .. }))
        ),
        "{refused:?}"
    );
    let without = Node::builder().start().await.unwrap();
    let refused = within(without.download_torrent(album.magnet()).start()).await;
    assert!(
        matches!(refused, Err(NodeError::NoBitTorrent)),
        "{refused:?}"
    );
    within(without.shutdown()).await.unwrap();
    within(getter.shutdown()).await.unwrap();
    within(album.protocol.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_torrents_are_got_at_once() {
    const TORRENTS: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let (files, out) = (dir.path().join("files"), dir.path().join("out"));
    std::fs::create_dir(&files).unwrap();
    std::fs::create_dir(&out).unwrap();
    let content = |number: usize| data(600_000 + 1000 * number);
    let seeder = node(&dir.path().join("1")).await;
    let getter = node(&dir.path().join("2")).await;
    let mut getting = Vec::new();
    for number in 0..TORRENTS {
        let file = files.join(number.to_string());
        std::fs::write(&file, content(number)).unwrap();
        let magnet = within(seeder.seed_file(&file)).await.unwrap();
        let get = getter.download_torrent(magnet).to_directory(&out);
        // Nobody is waited for to begin.
        getting.push(within(get.start()).await.unwrap());
    }
    for (number, getting) in getting.into_iter().enumerate() {
        within(getting.outcome()).await.unwrap();
        let got = std::fs::read(out.join(number.to_string())).unwrap();
        assert!(got == content(number), "{number}");
    }
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}
