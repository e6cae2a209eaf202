//! `chiral wallet`: keys in files, and money that goes where it is sent.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Ended, Running, chiral, home, run};

/// Well-known development accounts.
const RICH_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const RICH: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const OTHER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn event(ended: &Ended) -> Value {
    serde_json::from_str(ended.out.trim()).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn a_key_is_kept_behind_a_password_and_never_replaced() {
    let home = home();
    std::fs::write(home.path().join("password"), "correct horse\n").unwrap();
    let new = [
        "--json",
        "wallet",
        "new",
        "key",
        "--password-file",
        "password",
    ];
    let made = event(&run(chiral(&home), new).ok());
    let file = home.path().join("key");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let show = ["--json", "wallet", "show", "--keystore", "key"];
    let with_password = [&show[..], &["--password-file", "password"]].concat();
    for arguments in [&show[..], &with_password] {
        let shown = event(&run(chiral(&home), arguments).ok());
        assert_eq!(shown["address"], made["address"]);
    }
    std::fs::write(home.path().join("wrong"), "battery staple\n").unwrap();
    let wrong = [&show[..], &["--password-file", "wrong"]].concat();
    assert_eq!(run(chiral(&home), &wrong).code, 1);

    let before = std::fs::read(&file).unwrap();
    assert_eq!(run(chiral(&home), new).code, 5);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_key_that_is_imported_sends_money_from_its_wallet() {
    let home = home();
    std::fs::write(home.path().join("password"), "correct horse\n").unwrap();
    let mut import = chiral(&home);
    import.args(["wallet", "import", "key", "--password-file", "password"]);
    let mut child = import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{RICH_KEY}").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), RICH);

    let chain = Running::start(chiral(&home), ["chain", "--rpc", "127.0.0.1:0"]);
    let rpc = chain.until("chain")["rpc"].as_str().unwrap().to_owned();
    let balance = || {
        let arguments = ["--json", "wallet", "balance", OTHER, "--chain", &rpc];
        let ended = run(chiral(&home), arguments).ok();
        let wei = event(&ended)["balance_wei"].clone();
        wei.as_str().unwrap().parse::<u128>().unwrap()
    };
    let before = balance();
    let send = |to: &str, amount: &str| {
        let wallet = ["--keystore", "key", "--password-file", "password"];
        let what = ["--json", "wallet", "send", to, amount, "--chain", &rpc];
        run(chiral(&home), [&what[..], &wallet].concat())
    };
    let sent = event(&send(OTHER, "1.000000000000000001").ok());
    assert_eq!(sent["from"], RICH);
    assert_eq!(balance() - before, 1_000_000_000_000_000_001);

    // More than there is; an address with a wrong checksum; amounts that are none.
    assert_eq!(send(OTHER, "1000000").code, 1);
    let mistyped = OTHER.replace("dc79C8", "dc79c8");
    assert_eq!(send(&mistyped, "1").code, 2);
    for amount in ["-1", "1e3", "0.0000000000000000001"] {
        assert_eq!(send(OTHER, amount).code, 2, "{amount}");
    }
    assert_eq!(balance() - before, 1_000_000_000_000_000_001);
    chain.kill();
}
