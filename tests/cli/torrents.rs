//! Torrents on the command line: shared, got by magnet link and by `.torrent`, interrupted.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Running, chiral, file, home, run, same};

fn share(home: &tempfile::TempDir, original: &Path, torrent: &Path) -> (Running, String) {
    let mut command = chiral(home);
    command
        .args(["share", "--protocols", "bittorrent", "--data-dir"])
        .arg(home.path().join("seeder"))
        .arg("--torrent-file")
        .arg(torrent);
    let process = Running::start(command, [original]);
    let shared = process.until("shared");
    assert_eq!(
        shared["peers"],
        Value::Array(Vec::new()),
        "not over anything else"
    );
    let magnet = shared["magnet"].as_str().unwrap().to_owned();
    (process, magnet)
}

#[test]
fn a_magnet_link_and_a_torrent_file_lead_to_the_same_file() {
    let home = home();
    let original = file(&home.path().join("film"), 2_000_001, 5);
    let torrent = home.path().join("film.torrent");
    let (_seeder, magnet) = share(&home, &original, &torrent);
    let peer = magnet.split("x.pe=").nth(1).unwrap().to_owned();
    let by_magnet = home.path().join("by magnet");
    let ended = run(
        chiral(&home),
        ["get", &magnet, "-o", by_magnet.to_str().unwrap()],
    )
    .ok();
    assert!(same(&original, &by_magnet));
    assert!(ended.out.contains("chiral:"), "{}", ended.out);
    assert_eq!(ended.err, "");

    let directory = home.path().join("by torrent");
    std::fs::create_dir(&directory).unwrap();
    let mut command = chiral(&home);
    command.args(["get", torrent.to_str().unwrap()]);
    command.args(["--bittorrent-peer", &peer]);
    let to = [OsStr::new("-o"), directory.as_os_str()];
    let (code, events) = Running::start(command, to).end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &directory.join("film")));
    let kinds: Vec<_> = events.iter().map(|event| &event["event"]).collect();
    for kind in ["torrent_progress", "torrent_complete", "got_torrent"] {
        assert!(kinds.contains(&&Value::from(kind)), "{kind} {kinds:?}");
    }
    let left = std::fs::read_dir(&directory).unwrap().count();
    assert_eq!(left, 1, "no state is left behind");

    // It is there by now.
    let again = run(
        chiral(&home),
        ["get", &magnet, "-o", directory.to_str().unwrap()],
    );
    assert_eq!(again.code, 5, "{again:?}");
    let wrong = run(chiral(&home), ["get", "magnet:?xt=urn:btih:abc"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn a_share_is_a_torrent_of_both_versions_or_of_the_first_alone() {
    let home = home();
    let original = file(&home.path().join("film"), 600_001, 7);
    let link = |version: Option<&str>| {
        let mut command = chiral(&home);
        command.args(["share", "--protocols", "bittorrent", "--data-dir"]);
        command.arg(home.path().join("seeder"));
        if let Some(version) = version {
            command.args(["--torrent-version", version]);
        }
        let process = Running::start(command, [&original]);
        let magnet = process.until("shared")["magnet"]
            .as_str()
            .unwrap()
            .to_owned();
        process.signal("INT");
        assert_eq!(process.end().0, 0);
        // But for the address, which is another one each time.
        magnet.split("&x.pe").next().unwrap().to_owned()
    };
    let first = link(Some("v1"));
    assert!(first.contains("urn:btih:") && !first.contains("urn:btmh:"));
    let hybrid = link(None);
    assert!(hybrid.contains("urn:btih:") && hybrid.contains("urn:btmh:"));
    assert_ne!(first.split("&dn").next(), hybrid.split("&dn").next());
    assert_eq!(link(Some("hybrid")), hybrid);
    assert_eq!(link(Some("v1")), first, "out of what is kept of both");
}

#[test]
fn a_torrent_that_is_interrupted_goes_on_where_it_was() {
    let home = home();
    let original = file(&home.path().join("film"), 40 * 262_144, 6);
    let torrent = home.path().join("film.torrent");
    let (_seeder, magnet) = share(&home, &original, &torrent);
    let copy = home.path().join("copy");
    let mut command = chiral(&home);
    let to = [OsStr::new("-o"), copy.as_os_str()];
    command.args(["get", &magnet, "--limit-rate", "2MiB"]);
    let first = Running::start(command, to);
    loop {
        let progress = first.until("torrent_progress");
        if progress["passed"].as_u64().unwrap() >= 8 {
            break;
        }
    }
    first.signal("INT");
    let (code, _) = first.end();
    assert_eq!(code, 130);
    assert!(!copy.exists());
    let mut command = chiral(&home);
    command.args(["get", &magnet]);
    let (code, events) = Running::start(command, to).end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &copy));
    let started = events.iter().find(|event| event["event"] == "started");
    let resumed = started.unwrap()["chunks_resumed"].as_u64().unwrap();
    assert!(resumed >= 8, "{resumed}");
}
