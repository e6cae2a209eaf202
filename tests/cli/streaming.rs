//! `get -o -`, `get --seed`, and lists of mirrors.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{LIMIT, Running, Seeder, chiral, file, home, run, same};
use crate::slow_link::SlowLink;

/// A child whose standard output is the file.
struct Player(Child);

impl Player {
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn play(&mut self, bytes: usize) -> Vec<u8> {
        let mut played = vec![0; bytes];
        let out = self.0.stdout.as_mut().unwrap();
        out.read_exact(&mut played).unwrap();
        played
    }

    /// Stops to read; answers the exit status and what was said.
    fn end(mut self) -> (i32, String) {
        drop(self.0.stdout.take());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        let err = self.0.stderr.as_mut().unwrap();
        err.read_to_string(&mut said).unwrap();
        (status.code().unwrap_or(-1), said)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_is_played_while_it_comes() {
    let home = home();
    let original = file(&home.path().join("a"), 12 << 20, 1);
    let bytes = std::fs::read(&original).unwrap();
    let seeder = Seeder::start(&home, &original, "seeder");
    let link = SlowLink::to(&seeder.peer, 4 << 20);
    let get = ["get", &seeder.link, "-o", "-", "--peer", &link.peer()];
    // 3 s for all of it.
    let begun = Instant::now();
    let mut player = Player::start(chiral(&home), &get);
    assert_eq!(player.play(100_000), bytes[..100_000]);
    let first = begun.elapsed();
    assert!(first < Duration::from_millis(2500), "{first:?}");
    assert!(player.play(bytes.len() - 100_000) == bytes[100_000..]);
    let (code, said) = player.end();
    assert_eq!(code, 0, "{said}");

    // A player that had enough is no failure, and leaves nothing behind.
    let mut player = Player::start(chiral(&home), &get);
    assert_eq!(player.play(1000), bytes[..1000]);
    let (code, said) = player.end();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nobody reads any more"), "{said}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // A bare cid and mirrors alone are proven before anything is written.
    let mirror = format!("{}file/{}", seeder.peer, seeder.cid);
    let get = ["get", &seeder.cid, "-o", "-", "--mirror", &mirror];
    let mut player = Player::start(chiral(&home), &get);
    assert!(player.play(bytes.len()) == bytes);
    assert_eq!(player.end().0, 0);

    let nobody = [
        "get",
        &seeder.cid,
        "-o",
        "-",
        "--mirror",
        "http://127.0.0.1:9/",
    ];
    let ended = run(chiral(&home), nobody);
    assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
}

#[test]
fn what_was_got_is_seeded() {
    let home = home();
    let original = file(&home.path().join("a"), 3 << 20, 1);
    let seeder = Seeder::start(&home, &original, "seeder");
    let (copy, again) = (home.path().join("copy"), home.path().join("again"));
    let state = home.path().join("state");
    let get = |to: &std::path::Path, peer: &str, seed: bool| {
        let to = to.to_str().unwrap();
        let mut get = vec!["get", &seeder.link, "-o", to, "--peer", peer];
        if seed {
            get.extend(["--seed", "--data-dir", state.to_str().unwrap()]);
        }
        get.into_iter().map(String::from).collect::<Vec<_>>()
    };
    let seeding = Running::start(chiral(&home), get(&copy, &seeder.peer, true));
    let event = seeding.until("seeding");
    let peer = event["peers"][0].as_str().unwrap().to_owned();
    assert!(same(&original, &copy));
    seeder.process.kill();
    run(chiral(&home), get(&again, &peer, false)).ok();
    assert!(same(&original, &again));
    seeding.signal("INT");
    let (code, _) = seeding.end();
    assert_eq!(code, 0);

    // What an earlier run got is seeded by the same command, if its state was kept.
    let seeding = Running::start(chiral(&home), get(&copy, "http://127.0.0.1:9/", true));
    let peer = seeding.until("seeding")["peers"][0]
        .as_str()
        .unwrap()
        .to_owned();
    std::fs::remove_file(&again).unwrap();
    run(chiral(&home), get(&again, &peer, false)).ok();
    seeding.signal("TERM");
    assert_eq!(seeding.end().0, 0);
}

#[test]
fn of_a_list_of_mirrors_those_that_lie_are_named() {
    let home = home();
    let original = file(&home.path().join("a"), 24 << 20, 1);
    // Of the same size, and another file nearly everywhere.
    let other = file(&home.path().join("b"), 24 << 20, 2);
    let good = [1, 2].map(|n| Seeder::start(&home, &original, &format!("good-{n}")));
    let bad = [1, 2].map(|n| Seeder::start(&home, &other, &format!("bad-{n}")));
    let url = |seeder: &Seeder| format!("{}file/{}", seeder.peer, seeder.cid);
    let (good_urls, bad_urls) = (good.each_ref().map(url), bad.each_ref().map(url));
    let copy = home.path().join("copy");
    let mut get = vec!["get", &good[0].cid, "-o", copy.to_str().unwrap()];
    for mirror in [&bad_urls[0], &good_urls[0], &bad_urls[1], &good_urls[1]] {
        get.extend(["--mirror", mirror]);
    }
    let ended = run(chiral(&home), &get).ok();
    assert!(same(&original, &copy));
    for line in ended.out.lines().filter(|line| line.starts_with("from")) {
        let lied = bad_urls.iter().any(|url| line.contains(url.as_str()));
        assert_eq!(line.contains("refused:"), lied, "{}", ended.out);
    }
    assert_eq!(ended.out.matches("refused:").count(), 2, "{}", ended.out);
    assert!(ended.out.contains("is not the file"), "{}", ended.out);
}
