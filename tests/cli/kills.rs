//! SIGKILL at any moment: a downloader goes on, and a download outlives its seeders.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Running, Seeder, chiral, file, home, run, same};
use crate::slow_link::SlowLink;

const CHUNK: u64 = 262_144;

/// Chunks that a crash may cost: 64, or what comes in 500 ms if that is more.
const WINDOW: u64 = 64;

fn kills() -> u32 {
    std::env::var("CHIRAL_KILLS")
        .ok()
        .map_or(5, |text| text.parse().unwrap())
}

/// A number below `end`, from the system's randomness.
pub(crate) fn random(end: u64) -> u64 {
    RandomState::new().hash_one(0) % end
}

fn count(events: &[Value], kind: &str) -> u64 {
    events.iter().filter(|event| event["event"] == kind).count() as u64
}

fn resumed(events: &[Value]) -> Option<u64> {
    events.iter().find(|event| event["event"] == "started")?["chunks_resumed"].as_u64()
}

/// By link and by cid alone, which keep their state in different ways.
#[test]
fn a_killed_download_goes_on_from_what_was_durable() {
    for by_cid in [false, true] {
        let home = home();
        let chunks = 160;
        let original = file(&home.path().join("a"), (chunks * CHUNK - 1) as usize, 1);
        let seeder = Seeder::start(&home, &original, "seeder");
        // 1.3 s for all of it, so that half a second is 63 chunks.
        let link = SlowLink::to(&seeder.peer, 126 * CHUNK);
        let copy = home.path().join("copy");
        let what = if by_cid { &seeder.cid } else { &seeder.link };
        let get = [
            "get",
            what,
            "-o",
            copy.to_str().unwrap(),
            "--peer",
            &link.peer(),
        ];
        let mut durable = 0;
        let mut left = kills();
        while left > 0 {
            let getting = Running::start(chiral(&home), get);
            // Until now and then it has got through.
            std::thread::sleep(Duration::from_millis(random(900)));
            let events = getting.kill();
            if let Some(resumed) = resumed(&events) {
                assert!(
                    resumed + WINDOW >= durable,
                    "{resumed} of {durable} chunks are left"
                );
                durable = resumed + count(&events, "chunk_present");
            }
            if copy.exists() {
                assert!(
                    same(&original, &copy),
                    "a file that is not whole is in its place"
                );
                finish_and_clear(&home, &get, &copy);
                durable = 0;
            }
            left -= 1;
        }
        let (code, events) = Running::start(chiral(&home), get).end();
        assert_eq!(code, 0, "{:?}", events.last());
        assert!(same(&original, &copy));
        assert!(!home.path().join(".copy.chiral").exists());
        let resumed = resumed(&events).expect("it started");
        assert!(
            resumed + WINDOW >= durable,
            "{resumed} of {durable} chunks are left"
        );
        let fetched = received(events.last().unwrap());
        // What is fetched twice on purpose, at the end, is a hundredth.
        let missing = (chunks - resumed) * CHUNK;
        assert!(
            fetched <= missing + missing / 50 + 4 * CHUNK,
            "{fetched} bytes for {missing}"
        );
    }
}

/// The kill came after the last step: the same command says so, and tidies up.
fn finish_and_clear(home: &tempfile::TempDir, get: &[&str], copy: &std::path::Path) {
    if home.path().join(".copy.chiral").exists() {
        run(chiral(home), get).ok();
        assert!(!home.path().join(".copy.chiral").exists());
    }
    std::fs::remove_file(copy).unwrap();
}

fn received(got: &Value) -> u64 {
    let sources = got["sources"].as_array().unwrap();
    let bytes = |source: &Value| source["bytes"].as_u64().zip(source["wasted"].as_u64());
    sources
        .iter()
        .filter_map(bytes)
        .map(|(bytes, wasted)| bytes + wasted)
        .sum()
}

#[test]
fn a_download_outlives_one_of_its_seeders() {
    let home = home();
    let original = file(&home.path().join("a"), 32 << 20, 1);
    let seeders = [1, 2, 3].map(|i| Seeder::start(&home, &original, &format!("seeder-{i}")));
    let links = [0, 1, 2].map(|i| SlowLink::to(&seeders[i].peer, 8 << 20));
    let copy = home.path().join("copy");
    let peers = links.each_ref().map(SlowLink::peer);
    let mut get = vec!["get", &seeders[0].link, "-o", copy.to_str().unwrap()];
    for peer in &peers {
        get.extend(["--peer", peer]);
    }
    let getting = Running::start(chiral(&home), get);
    for _ in 0..40 {
        getting.until("chunk_proven");
    }
    let [first, _second, _third] = seeders;
    first.process.kill();
    let (code, events) = getting.end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &copy));
    let got = events.last().unwrap();
    for peer in &peers[1..] {
        let sources = got["sources"].as_array().unwrap();
        let source = sources
            .iter()
            .find(|source| source["source"] == peer.as_str())
            .unwrap();
        assert!(source["bytes"].as_u64() > Some(4 << 20), "{source}");
    }
}
