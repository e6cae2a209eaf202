//! Whatever happens to a seeder, the others deliver, and it may come back.

use std::path::Path;
use std::time::Duration;

use chiral::core::transfer::{TransferEventKind, TransferState};
use chiral::protocols::EngineConfig;
use chiral::protocols::http::HttpConfig;
use chiral::{Getting, Got, Link, Node, Share};
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use crate::support::{data, node, url, within};
use crate::trouble::{Road, Trouble};

const MIB: u64 = 1 << 20;

/// A downloader that notices soon.
async fn impatient(dir: &Path) -> Node {
    let mut engine = EngineConfig::default();
    let soon = Duration::from_millis(700);
    engine.scheduler = engine.scheduler.with_timeouts(soon, soon * 2);
    let http = HttpConfig::default().with_timeouts(soon * 2, soon * 2, soon * 2);
    let builder = Node::builder().data_dir(dir).engine(engine).http(http);
    within(builder.start()).await.unwrap()
}

fn of(got: &Got, url: &str) -> u64 {
    let source = got.sources.iter().find(|source| source.source == url);
    source.map_or(0, |source| source.bytes)
}

const TROUBLES: [Trouble; 9] = [
    Trouble::Refused,
    Trouble::Reset,
    Trouble::Stall,
    Trouble::Status(403),
    Trouble::Status(404),
    Trouble::Status(410),
    Trouble::Status(429),
    Trouble::Status(500),
    Trouble::Status(503),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_one_seeder_leaves_the_rest_to_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(16 << 20);
    let a = node(&dir.path().join("a")).await;
    let b = node(&dir.path().join("b")).await;
    let link = within(a.share(bytes.clone())).await.unwrap().link;
    within(b.share(bytes.clone())).await.unwrap();
    let getter = impatient(&dir.path().join("getter")).await;
    for trouble in TROUBLES {
        for from_the_start in [false, true] {
            let road_a = Road::to(&url(&a), 2 * MIB).await;
            let road_b = Road::to(&url(&b), 2 * MIB).await;
            if from_the_start {
                road_a.set(trouble);
            }
            let get = getter.get(&link).peer(&road_a.url()).peer(&road_b.url());
            let getting = within(get.to_bytes().start()).await.unwrap();
            if !from_the_start {
                within(road_a.has_passed(MIB)).await;
                road_a.set(trouble);
            }
            let got = within(getting.outcome()).await.unwrap();
            assert!(got.bytes.as_ref().unwrap() == &bytes, "{trouble:?}");
            let (by_a, by_b) = (of(&got, &road_a.url()), of(&got, &road_b.url()));
            assert_eq!(by_a + by_b, 16 * MIB, "{trouble:?} {from_the_start}");
            assert_eq!(by_a == 0, from_the_start, "{trouble:?}: {by_a}");
            assert!(by_b >= 4 * MIB, "{trouble:?}: {by_b}");
            assert!(got.sources.iter().all(|source| source.banned.is_none()));
        }
    }
    for node in [a, b, getter] {
        within(node.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_seeder_is_gone_on_with_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(8 << 20);
    let a = node(&dir.path().join("a")).await;
    let link = within(a.share(bytes.clone())).await.unwrap().link;
    let getter = impatient(&dir.path().join("getter")).await;
    let passing = [
        Trouble::Refused,
        Trouble::Reset,
        Trouble::Stall,
        Trouble::Status(429),
        Trouble::Status(503),
    ];
    for trouble in passing {
        let road = Road::to(&url(&a), 2 * MIB).await;
        let get = getter.get(&link).peer(&road.url());
        let getting = within(get.to_bytes().start()).await.unwrap();
        within(road.has_passed(MIB)).await;
        road.set(trouble);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(getting.transfer().state(), TransferState::Running);
        road.set(Trouble::None);
        let got = within(getting.outcome()).await.unwrap();
        assert!(got.bytes.unwrap() == bytes, "{trouble:?}");
    }
    for node in [a, getter] {
        within(node.shutdown()).await.unwrap();
    }
}

/// The file that one of them serves from its place is cut short, and that of another is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_seeder_may_fail() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(24 << 20);
    let files = ["cut", "gone", "kept"].map(|name| dir.path().join(name));
    let mut seeders = Vec::new();
    let mut roads = Vec::new();
    let mut link: Option<Link> = None;
    for (n, file) in files.iter().enumerate() {
        std::fs::write(file, &bytes).unwrap();
        let seeder = node(&dir.path().join(format!("seeder {n}"))).await;
        let shared = within(seeder.share(Share::path(file))).await.unwrap();
        link = Some(shared.link);
        roads.push(Road::to(&url(&seeder), MIB).await);
        seeders.push(seeder);
    }
    let getter = impatient(&dir.path().join("getter")).await;
    let mut get = getter.get(&link.unwrap()).to_bytes();
    for road in &roads {
        get = get.peer(&road.url());
    }
    let getting = within(get.start()).await.unwrap();
    for road in &roads {
        within(road.has_passed(MIB / 2)).await;
    }
    let cut = std::fs::File::options()
        .write(true)
        .open(&files[0])
        .unwrap();
    cut.set_len(1000).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert!(got.bytes.as_ref().unwrap() == &bytes);
    let kept = of(&got, &roads[2].url());
    assert!(kept > 8 * MIB, "{kept}");
    assert!(got.sources.iter().all(|source| source.banned.is_none()));
    seeders.push(getter);
    for node in seeders {
        within(node.shutdown()).await.unwrap();
    }
}

/// The node that everybody found each other through goes away in the middle.
#[cfg(all(feature = "chain", feature = "libp2p"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let network = chiral::Loopback::start().await.unwrap();
    let bytes = data(8 << 20);
    let a = within(network.node(1).start()).await.unwrap();
    let b = within(network.node(2).start()).await.unwrap();
    let link = within(a.share(bytes.clone())).await.unwrap().link;
    within(b.share(bytes.clone())).await.unwrap();
    let mut engine = EngineConfig::default();
    engine.look_again = Duration::from_millis(200);
    let c = network.node(3).engine(engine).data_dir(dir.path());
    let c = within(c.start()).await.unwrap();
    // So that it is not over before the directory is lost.
    let slow = chiral::core::Rate::new(2 * MIB).unwrap();
    let getting = within(c.get(&link).limit_down(slow).start()).await.unwrap();
    let mut reader = getting.reader().unwrap();
    within(reader.read_u8()).await.unwrap();
    assert!(getting.pause() && getting.set_limit(None));
    network.router().shutdown().await;
    // Long enough that the directory is asked and does not answer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    within(a.shutdown()).await.unwrap();
    assert!(getting.resume());
    let mut read = vec![bytes[0]];
    within(reader.read_to_end(&mut read)).await.unwrap();
    assert!(read == bytes);
    let got = within(getting.outcome()).await.unwrap();
    assert_eq!(got.header.cid, link.cid);
    for node in [b, c] {
        within(node.shutdown()).await.unwrap();
    }
    within(network.shutdown()).await;
}

async fn proven(getting: &Getting, bytes: u64) {
    while getting.progress().proven < bytes {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_paused_cancelled_and_gone_on_with_by_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(16 << 20);
    let a = node(&dir.path().join("a")).await;
    let link = within(a.share(bytes.clone())).await.unwrap().link;
    let road = Road::to(&url(&a), 4 * MIB).await;
    for by_cid in [false, true] {
        let target = match by_cid {
            true => chiral::FileIdentification::from(link.cid),
            false => chiral::FileIdentification::from(&link),
        };
        let home = dir.path().join(format!("getter {by_cid}"));
        let path = dir.path().join(format!("out {by_cid}"));
        let getter = impatient(&home).await;
        let get = getter.get(target).peer(&road.url()).to_file(&path);
        let getting = within(get.start()).await.unwrap();
        within(proven(&getting, 2 * MIB)).await;
        assert!(getting.pause() && !getting.pause());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let at = getting.progress().present;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(getting.progress().present, at, "nothing moves");
        assert!(getting.resume());
        within(proven(&getting, at + MIB)).await;
        // Ended in the middle, by a cancel or by the node's end.
        if by_cid {
            assert!(getting.cancel());
            assert!(within(getting.outcome()).await.is_err());
        }
        within(getter.shutdown()).await.unwrap();
        assert!(!path.exists());

        let getter = impatient(&home).await;
        assert_eq!(within(getter.status()).await.unwrap().partial, 1);
        let get = getter.get(target).peer(&road.url()).to_file(&path);
        let getting = within(get.start()).await.unwrap();
        let mut events = getting.events();
        let resumed = loop {
            let event = within(events.next()).await.unwrap();
            if let TransferEventKind::Started { chunks_resumed } = event.kind {
                break chunks_resumed;
            }
        };
        assert!(u64::from(resumed) * 262_144 >= 2 * MIB, "{resumed}");
        let mut reader = getting.reader().unwrap();
        let mut read = Vec::new();
        within(reader.read_to_end(&mut read)).await.unwrap();
        assert!(read == bytes);
        let got = within(getting.outcome()).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        let again: u64 = got.sources.iter().map(|source| source.bytes).sum();
        assert!(again <= 16 * MIB - u64::from(resumed) * 262_144, "{again}");
        within(getter.shutdown()).await.unwrap();
    }
    within(a.shutdown()).await.unwrap();
}
