//! Channels on the command line: bought out of one, shown, claimed by whoever is paid, ended by
//! whoever pays, and on the statement.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Running, chiral, file, home, run, same};
use crate::kills::random;
use crate::paying::{BUYER, SEEDER, kills, start_chain, text};

const CHUNK: usize = 262_144;

fn with(home: &TempDir, rpc: &str, key: &str, arguments: &[&str]) -> Command {
    let mut command = chiral(home);
    command.args(arguments);
    command.args(["--chain", rpc, "--private-key", key]);
    command
}

/// The events of a command that has to succeed.
fn events(command: Command) -> Vec<Value> {
    let ended = run(command, [""; 0]).ok();
    let lines = ended.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn one(events: &[Value]) -> &Value {
    let channels: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "channel")
        .collect();
    assert_eq!(channels.len(), 1, "{events:?}");
    channels[0]
}

#[test]
fn a_file_is_bought_out_of_a_channel_that_is_then_claimed_and_ended() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let original = file(&home.path().join("a"), 9 * CHUNK + 1, 21);
    let share = [
        "share",
        "--http",
        "127.0.0.1:0",
        "--data-dir",
        "seller",
        "--price",
        "0.004",
        "--policy",
        "channel",
        "--challenge",
        "60",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ];
    let seller = with(&home, &rpc, SEEDER.0, &share);
    let seller = Running::start(seller, [&original]);
    let shared = seller.until("shared");
    let (link, peer) = (text(&shared["link"]), text(&shared["bootstrap"][0]));
    let get = [
        "get",
        &link,
        "--bootstrap",
        &peer,
        "-o",
        "copy",
        "--max-price",
        "0.004",
        "--policy",
        "channel,incremental",
        "--deposit",
        "0.02",
        "--data-dir",
        "buyer",
    ];
    let (code, said) = Running::start(with(&home, &rpc, BUYER, &get), [""; 0]).end();
    assert_eq!(code, 0, "{:?}", said.last());
    assert!(same(&original, &home.path().join("copy")));
    // Nine chunks at 0.001 CHI, and a byte: rounded up to a wei.
    let cost = "9000003814697266";

    let of = |data: &str, what: &[&str]| {
        let mut arguments = vec!["--json"];
        arguments.extend(what);
        arguments.extend(["--data-dir", data]);
        let mut command = chiral(&home);
        command.args(arguments);
        command
    };
    let listed = events(of("buyer", &["channels"]));
    let ours = one(&listed);
    assert_eq!(
        (&ours["side"], &ours["phase"]),
        (&"payer".into(), &"open".into())
    );
    assert_eq!(ours["paid_wei"], cost, "{ours}");
    assert_eq!(ours["deposit_wei"], "20000000000000000");
    let id = text(&ours["channel"]);
    let statement = events(of("buyer", &["payments"]));
    assert_eq!(statement[0]["channel"], id.as_str(), "{statement:?}");
    assert_eq!(statement[0]["amount_wei"], cost);
    assert_eq!(statement.last().unwrap()["payable_wei"], cost);

    // The seller has ended; what it holds is in its journal.
    seller.kill();
    let theirs = events(of("seller", &["channels", "list"]));
    assert_eq!(one(&theirs)["claimable_wei"], cost, "{theirs:?}");
    let claim = ["--json", "channels", "claim", "--data-dir", "seller"];
    let claimed = events(with(&home, &rpc, SEEDER.0, &claim));
    assert_eq!(one(&claimed)["claimable_wei"], "0", "{claimed:?}");
    let statement = events(of("seller", &["payments"]));
    assert_eq!(
        statement.last().unwrap()["earned_wei"],
        cost,
        "{statement:?}"
    );
    // Added up by whatever: there is one of each, and a table says the same.
    let (cid, protocol) = (text(&statement[0]["cid"]), text(&statement[0]["protocol"]));
    for (by, key) in [
        ("file", Some(cid.as_str())),
        ("peer", None),
        ("protocol", Some(protocol.as_str())),
        ("day", None),
    ] {
        let sums = events(of("seller", &["payments", "--by", by]));
        assert_eq!(sums.len(), 1, "{sums:?}");
        let sum = &sums[0]["sum"];
        assert_eq!((&sums[0]["by"], &sum["earned"]), (&by.into(), &cost.into()));
        assert!(key.is_none_or(|key| sum["key"] == key), "{sum}");
        let mut table = chiral(&home);
        table.args(["payments", "--by", by, "--data-dir", "seller"]);
        let table = run(table, [""; 0]).ok().out;
        let row = table
            .lines()
            .find(|line| line.starts_with(&text(&sum["key"])));
        assert!(row.unwrap().contains("0.009000003814697266"), "{table}");
    }

    let close = ["--json", "channels", "close", &id, "--data-dir", "buyer"];
    let closed = events(with(&home, &rpc, BUYER, &close));
    assert_eq!(one(&closed)["phase"], "closing");
    let only_the_payer = ["channels", "close", &id, "--data-dir", "seller"];
    let refused = run(with(&home, &rpc, SEEDER.0, &only_the_payer), [""; 0]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("channels claim"), "{refused:?}");

    // Whoever is paid looks after it, and gives the rest back.
    let watch = ["channels", "watch", "--data-dir", "seller"];
    let watcher = Running::start(with(&home, &rpc, SEEDER.0, &watch), [""; 0]);
    watcher.until("watching");
    watcher.kill();

    // By hand, for people.
    let open = [
        "channels",
        "open",
        SEEDER.1,
        "--deposit",
        "0.5",
        "--challenge",
        "60",
        "--data-dir",
        "buyer",
    ];
    let opened = run(with(&home, &rpc, BUYER, &open), [""; 0]).ok();
    assert!(
        opened.out.contains("open") && opened.out.contains("of 0.5 CHI"),
        "{opened:?}"
    );
    let mut list = chiral(&home);
    list.args(["channels", "--data-dir", "buyer"]);
    let listed = run(list, [""; 0]).ok();
    assert_eq!(listed.out.matches(" CHI, ").count(), 2, "{listed:?}");
    chain.kill();
}

#[test]
fn terms_that_make_no_sense_are_refused_with_advice() {
    let home = home();
    file(&home.path().join("a"), 10, 1);
    let key = ["--chain", "http://127.0.0.1:1/", "--private-key", SEEDER.0];
    for (arguments, said) in [
        (&["--policy", "channel"][..], "--price"),
        (
            &["--price", "0.001", "--policy", "locked-voucher"][..],
            "--protocols private",
        ),
        (
            &["--price", "0.001", "--discount", "10:0.002"][..],
            "no lower price",
        ),
        (
            &["--price", "0.001", "--discount", "10"][..],
            "MIB:CHI_PER_MIB",
        ),
        (
            &[
                "--price",
                "0.001",
                "--discount",
                "10:0.0005",
                "--discount",
                "5:0.0001",
            ][..],
            "discounts",
        ),
    ] {
        let mut command = chiral(&home);
        command.args(["share", "a"]).args(key).args(arguments);
        let ended = run(command, [""; 0]);
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(said), "{arguments:?}: {ended:?}");
    }
}

/// Sealed chunks, bought by a process that is killed at any moment: it goes on in its channel,
/// and no key is paid for twice.
#[test]
fn a_buyer_of_sealed_chunks_that_is_killed_pays_each_once() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let size = 48 * CHUNK - 1;
    let original = file(&home.path().join("a"), size, 22);
    let mut share = chiral(&home);
    share.args(["share", "--protocols", "private", "--data-dir", "seller"]);
    share.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--price", "0.001"]);
    share.args(["--policy", "locked-voucher", "--challenge", "60"]);
    // Slow enough to be interrupted.
    share.args(["--limit-rate", "5MiB"]);
    share.args(["--chain", &rpc, "--private-key", SEEDER.0]);
    let seller = Running::start(share, [&original]);
    let shared = seller.until("shared");
    let (link, peer) = (text(&shared["link"]), text(&shared["bootstrap"][0]));
    let copy = home.path().join("copy");
    let get = || {
        let mut get = chiral(&home);
        get.args(["get", &link, "--bootstrap", &peer, "--protocol", "private"]);
        get.args(["-o", "copy", "--max-price", "0.001", "--data-dir", "buyer"]);
        get.args(["--policy", "locked-voucher", "--deposit", "0.02"]);
        get.args(["--chain", &rpc, "--private-key", BUYER]);
        Running::start(get, [""; 0])
    };
    let mut lives = 0;
    while !copy.exists() && lives < kills() {
        let getting = get();
        std::thread::sleep(Duration::from_millis(random(2500)));
        getting.kill();
        lives += 1;
    }
    if !copy.exists() {
        let (code, said) = get().end();
        assert_eq!(code, 0, "{:?}", said.last());
    }
    assert!(same(&original, &copy));
    seller.kill();
    let mut channels = chiral(&home);
    channels.args(["--json", "channels", "--data-dir", "buyer"]);
    let listed = events(channels);
    let price: chiral::Price = "0.001".parse().unwrap();
    let cost = price.cost(size as u64).unwrap();
    assert_eq!(
        one(&listed)["paid_wei"],
        cost.to_string(),
        "{lives} lives: {listed:?}"
    );
    chain.kill();
}
