//! Limits on rates, and what is held against peers.

use std::time::Instant;

use serde_json::Value;

use crate::harness::{Running, Seeder, chiral, file, home, run, same};

#[test]
fn rates_are_limited_on_either_side() {
    let home = home();
    let original = file(&home.path().join("a"), 6 << 20, 1);
    let mut limited = chiral(&home);
    limited.args(["share", "--http", "127.0.0.1:0", "--data-dir", "slow"]);
    limited.args(["--limit-rate", "3MiB"]);
    let slow = Running::start(limited, [&original]);
    let shared = slow.until("shared");
    let fast = Seeder::start(&home, &original, "fast");
    for (peer, limit, to) in [
        (shared["peers"][0].as_str().unwrap(), "1GiB", "x"),
        (&fast.peer, "3MiB", "y"),
    ] {
        let begun = Instant::now();
        let arguments = [
            "get",
            &fast.link,
            "-o",
            to,
            "--peer",
            peer,
            "--limit-rate",
            limit,
        ];
        run(chiral(&home), arguments).ok();
        let took = begun.elapsed().as_secs_f64();
        // 6 MiB at 3 MiB/s; a chunk that shows the identity is not under the limit.
        assert!(took >= 1.8, "{to}: {took}");
        assert!(same(&original, &home.path().join(to)));
    }
    for bad in ["fast", "0", "10X", "-1M"] {
        let limit = format!("--limit-rate={bad}");
        let ended = run(chiral(&home), ["get", &fast.link, "-o", "z", &limit]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("rate is"), "{ended:?}");
    }
}

#[test]
fn bans_are_shown_with_their_reasons_and_taken_back() {
    let home = home();
    let original = file(&home.path().join("right"), 700_000, 1);
    let wrong = file(&home.path().join("wrong"), 700_000, 2);
    let right = Seeder::start(&home, &original, "right.d");
    let wrong = Seeder::start(&home, &wrong, "wrong.d");
    let mirror = format!("{}file/{}", wrong.peer, wrong.cid);
    let get = [
        "get",
        &right.cid,
        "-o",
        "copy",
        "--mirror",
        &mirror,
        "--patience",
        "2",
    ];
    assert_eq!(run(chiral(&home), get).code, 3);
    let again = run(chiral(&home), get);
    assert_eq!(again.code, 3, "{again:?}");
    assert!(again.err.contains("is banned for"), "{again:?}");
    assert!(again.err.contains("chiral peers --clear"), "{again:?}");

    let peers = |more: &[&str]| {
        let arguments = [&["peers", "--data-dir", ".copy.chiral"], more].concat();
        run(chiral(&home), arguments).ok().out
    };
    let told = peers(&[]);
    assert!(told.contains("banned") && told.contains(&mirror), "{told}");
    let event: Value = serde_json::from_str(peers(&["--json"]).trim()).unwrap();
    assert_eq!(
        (&event["event"], &event["penalty"]["kind"]),
        (&"penalty".into(), &"banned".into())
    );
    assert_eq!(event["penalty"]["content"], right.cid.as_str());
    assert!(event["penalty"]["until"].as_u64() > event["penalty"]["since"].as_u64());
    assert_eq!(
        peers(&["--clear", &mirror]),
        "1 cleared\nnobody is banned or demoted\n"
    );
    // It is drawn from again, and found out again.
    assert_eq!(run(chiral(&home), get).code, 3);
    let anew: Value = serde_json::from_str(peers(&["--json"]).trim()).unwrap();
    assert_eq!(anew["penalty"]["endpoint"], mirror.as_str());
    assert_eq!(
        peers(&["--clear", &mirror]),
        "1 cleared\nnobody is banned or demoted\n"
    );
    // With somebody honest it is found out again, and the file comes.
    let both = [&get[..], &["--peer", &right.peer]].concat();
    run(chiral(&home), both).ok();
    assert!(same(&original, &home.path().join("copy")));
}
