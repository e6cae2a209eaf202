//! What each command says, and how it fails: exit statuses, errors that help, JSON.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Running, Seeder, chiral, file, home, run, same};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn a_destination_that_exists_is_left_alone() {
    let home = home();
    let original = file(&home.path().join("a"), 1000, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let taken = home.path().join("taken");
    std::fs::write(&taken, "mine").unwrap();
    let to = taken.to_str().unwrap();
    let ended = run(
        chiral(&home),
        ["get", &seeder.link, "-o", to, "--peer", &seeder.peer],
    );
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(
        ended.err.contains("taken exists") && ended.err.contains("-o"),
        "{ended:?}"
    );
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
}

#[test]
fn exit_statuses_tell_what_happened() {
    let home = home();
    let original = file(&home.path().join("a"), 600_000, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let other = file(&home.path().join("b"), 600_000, 2);
    let other = Seeder::start(&home, &other, "other");
    let (link, peer) = (seeder.link.as_str(), seeder.peer.as_str());
    let root = other
        .link
        .split_once("root=")
        .unwrap()
        .1
        .split_once('&')
        .unwrap()
        .0;
    let contradictory = format!("chiral:{}?root={root}", seeder.cid);
    let nobody = "http://127.0.0.1:1/";
    for (code, arguments) in [
        (2, vec!["get", "no link", "-o", "x"]),
        (
            2,
            vec!["get", link, "-o", "x", "--peer", "ftp://a.example/"],
        ),
        (2, vec!["frobnicate"]),
        (3, vec!["get", link, "-o", "x"]),
        (
            3,
            vec!["get", link, "-o", "x", "--peer", nobody, "--patience", "1"],
        ),
        (
            3,
            vec![
                "get",
                &other.cid,
                "-o",
                "x",
                "--peer",
                peer,
                "--patience",
                "1",
            ],
        ),
        (3, vec!["info", &other.cid, "--peer", peer]),
        (
            4,
            vec![
                "get",
                &contradictory,
                "-o",
                "x",
                "--peer",
                peer,
                "--peer",
                &other.peer,
            ],
        ),
        (1, vec!["get", link, "-o", "nowhere/x", "--peer", peer]),
        (1, vec!["hash", "nowhere"]),
        (1, vec!["share", "nowhere", "--http", "127.0.0.1:0"]),
        (
            6,
            vec![
                "share",
                "a",
                "--http",
                "127.0.0.1:0",
                "--data-dir",
                "seeder",
            ],
        ),
        (
            6,
            vec!["get", &other.cid, "-o", "x", "--data-dir", "seeder"],
        ),
    ] {
        let ended = run(chiral(&home), &arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert!(
            !ended.err.is_empty() && ended.out.is_empty(),
            "{arguments:?}: {ended:?}"
        );
        assert!(!home.path().join("x").exists());
    }
    let ended = run(chiral(&home), ["get", &other.cid, "-o", "x", "--json"]);
    let error = json(ended.out.lines().last().unwrap());
    assert_eq!(
        (error["event"].as_str(), error["exit_status"].as_u64()),
        (Some("error"), Some(3))
    );
    assert!(error["next"].as_str().unwrap().contains("--peer"));
}

#[test]
fn hash_prints_what_sha256sum_prints() {
    let home = home();
    let names = ["empty", "one chunk", "more"];
    for (name, size) in names.iter().zip([0, 262_144, 5_000_000]) {
        file(&home.path().join(name), size, 4);
    }
    let ended = run(chiral(&home), ["hash"].iter().chain(&names)).ok();
    let mut sha256sum = Command::new("sha256sum");
    sha256sum.current_dir(home.path());
    let expected = run(sha256sum, names).ok();
    let cids = ended.out.lines().map(|line| {
        let (link, name) = line.split_once("  ").unwrap();
        let cid = link
            .strip_prefix("chiral:")
            .unwrap()
            .split_once('?')
            .unwrap()
            .0;
        format!("{cid}  {name}\n")
    });
    assert_eq!(cids.collect::<String>(), expected.out);
    // One that fails does not stop the rest, but it is not forgotten.
    let ended = run(chiral(&home), ["hash", "nowhere", "more"]);
    assert_eq!((ended.code, ended.out.lines().count()), (1, 1), "{ended:?}");
    let ended = run(chiral(&home), ["hash", "--json", "more"]).ok();
    assert_eq!(json(&ended.out)["size"], 5_000_000);
}

#[test]
fn hash_and_share_agree_on_the_link() {
    let home = home();
    let original = file(&home.path().join("a ✓"), 700_000, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let ended = run(chiral(&home), ["hash", "a ✓"]).ok();
    assert_eq!(ended.out, format!("{}  a ✓\n", seeder.link));
}

#[test]
fn info_shows_the_file_and_who_has_it() {
    let home = home();
    let original = file(&home.path().join("a"), 600_000, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let ended = run(
        chiral(&home),
        ["info", &seeder.cid, "--peer", &seeder.peer, "--json"],
    )
    .ok();
    let info = json(&ended.out);
    assert_eq!(info["file_hash"], seeder.cid.as_str());
    assert_eq!(info["link"], seeder.link.as_str());
    assert_eq!(
        (
            info["total_chunks"].as_u64(),
            info["total_seeders"].as_u64()
        ),
        (Some(3), Some(1))
    );
    assert_eq!(info["seeders"]["http"][0]["http_url"], seeder.peer.as_str());
    let ended = run(
        chiral(&home),
        ["info", &seeder.link, "--peer", &seeder.peer],
    )
    .ok();
    assert!(ended.out.contains("600000 bytes, 3 chunks"), "{ended:?}");
    // A full link tells that much by itself.
    let ended = run(chiral(&home), ["info", &seeder.link]).ok();
    assert!(ended.out.contains("600000 bytes, 3 chunks"), "{ended:?}");
}

#[test]
fn sigterm_ends_share_cleanly() {
    let home = home();
    let original = file(&home.path().join("a"), 600_000, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let address = seeder
        .peer
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    for signal in ["TERM", "INT"] {
        let mut command = chiral(&home);
        command.args(["share", "a", "--http", "127.0.0.1:0", "--data-dir", "again"]);
        let sharing = Running::start(command, [""; 0]);
        sharing.until("shared");
        sharing.signal(signal);
        assert_eq!(sharing.end().0, 0);
    }
    seeder.process.signal("TERM");
    assert_eq!(seeder.process.end().0, 0);
    // Port and lock are free.
    drop(std::net::TcpListener::bind(&address).unwrap());
    Seeder::start(&home, &original, "seeder");
}

#[test]
fn help_is_for_people_who_do_not_know_it() {
    let home = home();
    let help = run(chiral(&home), ["--help"]).ok().out;
    for word in [
        "share",
        "get",
        "info",
        "hash",
        "Examples:",
        "Exit status:",
        "--json",
    ] {
        assert!(help.contains(word), "{word}");
    }
    for command in ["share", "get", "info", "hash"] {
        let help = run(chiral(&home), [command, "--help"]).ok().out;
        assert!(help.contains("Usage: chiral"), "{help}");
    }
}

#[test]
fn an_interrupted_get_goes_on() {
    let home = home();
    let original = file(&home.path().join("a"), 8 << 20, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let link = crate::slow_link::SlowLink::to(&seeder.peer, 8 << 20);
    let copy = home.path().join("copy");
    let slow = [
        "get",
        &seeder.link,
        "-o",
        copy.to_str().unwrap(),
        "--peer",
        &link.peer(),
    ];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let getting = Running::start(chiral(&home), slow);
        for _ in 0..4 {
            getting.until("chunk_present");
        }
        getting.signal(signal);
        let (ended, events) = getting.end();
        assert_eq!(ended, code, "{events:?}");
        assert!(!copy.exists());
        assert!(home.path().join(".copy.chiral").is_dir());
    }
    let getting = Running::start(chiral(&home), slow);
    assert!(getting.until("started")["chunks_resumed"].as_u64() >= Some(8));
    assert_eq!(getting.end().0, 0);
    assert!(same(&original, &copy));
    assert!(!home.path().join(".copy.chiral").exists());
}
