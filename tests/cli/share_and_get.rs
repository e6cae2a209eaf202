//! From one process to another: identical files, by link, by cid, by `curl`.

use std::path::Path;
use std::process::Command;

use crate::harness::{Running, Seeder, chiral, file, home, run, same};

fn get<'a>(link: &'a str, to: &'a Path, peer: &'a str) -> [&'a str; 6] {
    ["get", link, "-o", to.to_str().unwrap(), "--peer", peer]
}

fn curl(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
        .args(arguments);
    let output = command.output().expect("curl is to be installed");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn files_of_every_kind_of_size_arrive() {
    let home = home();
    for (seed, size) in (1..).zip([0, 1, 262_143, 262_144, 262_145, 3_000_000]) {
        let original = file(&home.path().join(format!("{size}.bin")), size, seed);
        let seeder = Seeder::start(&home, &original, &format!("seeder-{size}"));
        for (by, link) in [("link", &seeder.link), ("cid", &seeder.cid)] {
            let copy = home.path().join(format!("{size}.{by}"));
            let ended = run(chiral(&home), get(link, &copy, &seeder.peer)).ok();
            assert!(same(&original, &copy), "{size} by {by}");
            assert!(ended.out.contains(&seeder.cid), "{ended:?}");
            // Nothing for people on standard error, as it is no terminal.
            assert_eq!(ended.err, "");
            assert!(!home.path().join(format!(".{size}.{by}.chiral")).exists());
        }
    }
}

#[test]
fn curl_fetches_the_file_and_a_range_of_it() {
    let home = home();
    let original = file(&home.path().join("a file"), 1_000_000, 7);
    let seeder = Seeder::start(&home, &original, "seeder");
    let bytes = std::fs::read(&original).unwrap();
    let url = format!("{}file/{}", seeder.peer, seeder.cid);
    assert_eq!(curl(&[&url]), bytes);
    assert_eq!(
        curl(&["--range", "262140-600000", &url]),
        bytes[262_140..=600_000]
    );
    assert_eq!(curl(&["--range", "-5", &url]), bytes[999_995..]);
    // Under its own name.
    let downloads = home.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    curl(&["--output-dir", downloads.to_str().unwrap(), "-OJ", &url]);
    assert!(same(&original, &downloads.join("a file")));
}

#[test]
fn a_cid_alone_is_verified_backwards_with_few_chunks_unproven() {
    let home = home();
    let original = file(&home.path().join("big"), 200 * 262_144 + 5, 3);
    let seeder = Seeder::start(&home, &original, "seeder");
    let copy = home.path().join("copy");
    let getting = Running::start(chiral(&home), get(&seeder.cid, &copy, &seeder.peer));
    let (code, events) = getting.end();
    assert_eq!(code, 0, "{:?}", events.last());
    let unproven = events.iter().filter_map(|event| event["unproven"].as_u64());
    assert!(unproven.max().is_some_and(|most| most <= 64));
    let proven = events
        .iter()
        .filter(|event| event["event"] == "chunk_proven");
    assert_eq!(proven.count(), 201);
    assert!(same(&original, &copy));
}

#[test]
fn the_names_of_strangers_are_hints() {
    let home = home();
    let name = "ein schöner Name ✓ mit  Leerzeichen.bin";
    let original = file(&home.path().join(name), 300_000, 9);
    let seeder = Seeder::start(&home, &original, "seeder");
    let into = home.path().join("into");
    std::fs::create_dir(&into).unwrap();
    run(chiral(&home), get(&seeder.link, &into, &seeder.peer)).ok();
    assert!(same(&original, &into.join(name)));

    let (plain, _) = seeder.link.split_once("&name=").unwrap();
    let evil = format!("{plain}&name=..%2F..%2F%2e%2e%2Fevil%20%E2%9C%93%0A.bin");
    run(chiral(&home), get(&evil, &into, &seeder.peer)).ok();
    assert!(same(&original, &into.join("evil ✓_.bin")));

    // With no hint worth the name, the cid.
    let nameless = format!("{plain}&name=..");
    run(chiral(&home), get(&nameless, &into, &seeder.peer)).ok();
    assert!(same(&original, &into.join(&seeder.cid)));
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 3);
    for above in [home.path(), home.path().parent().unwrap()] {
        assert!(!above.join("evil ✓_.bin").exists());
    }
}

#[test]
fn several_files_are_shared_at_once() {
    let home = home();
    let files = [("a", 5), ("b", 300_000), ("empty", 0)];
    let paths = files.map(|(name, size)| file(&home.path().join(name), size, size as u64));
    let mut command = chiral(&home);
    // Without --data-dir, in the home of the user.
    command.args(["share", "--http", "127.0.0.1:0"]);
    let sharing = Running::start(command, &paths);
    for path in &paths {
        let shared = sharing.until("shared");
        let peer = shared["peers"][0].as_str().unwrap();
        let copy = path.with_extension("copy");
        run(
            chiral(&home),
            get(shared["link"].as_str().unwrap(), &copy, peer),
        )
        .ok();
        assert!(same(path, &copy));
    }
    assert!(home.path().join(".local/share/chiral").is_dir());
}

#[test]
fn over_tls_a_seeder_is_known_by_its_certificate() {
    let home = home();
    let original = file(&home.path().join("original"), 700_000, 21);
    let mut command = chiral(&home);
    command.args(["share", "--tls", "--http", "127.0.0.1:0"]);
    let sharing = Running::start(command, [&original]);
    let shared = sharing.until("shared");
    let (link, peer) = (
        shared["link"].as_str().unwrap(),
        shared["peers"][0].as_str().unwrap(),
    );
    let (url, hash) = peer.split_once("#sha256=").unwrap();
    assert!(
        url.starts_with("https://127.0.0.1:") && hash.len() == 64,
        "{peer}"
    );
    let copy = home.path().join("copy");
    run(chiral(&home), get(link, &copy, peer)).ok();
    assert!(same(&original, &copy));
    let bytes = curl(&["-k", "--http2", shared["urls"][0].as_str().unwrap()]);
    assert_eq!(bytes, std::fs::read(&original).unwrap());
    // By nobody's root, and by no other certificate's hash.
    let other = format!("{url}#sha256={}", "0".repeat(64));
    for wrong in [url, &other] {
        let copy = home.path().join("never");
        let mut arguments = get(link, &copy, wrong).to_vec();
        arguments.extend(["--patience", "3"]);
        let ended = run(chiral(&home), arguments);
        assert_ne!(ended.code, 0, "{ended:?}");
        assert!(!copy.exists());
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_not_passed_by() {
    let home = home();
    let original = file(&home.path().join("original"), 10, 22);
    let seeder = Seeder::start(&home, &original, "seeder");
    for (proxy, code) in [("ftp://127.0.0.1:1", 2), ("http://127.0.0.1:1", 3)] {
        let copy = home.path().join("copy");
        let mut arguments = get(&seeder.link, &copy, &seeder.peer).to_vec();
        arguments.extend(["--patience", "3", "--proxy", proxy]);
        let ended = run(chiral(&home), arguments);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(!copy.exists());
    }
}
