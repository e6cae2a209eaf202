//! Money on the command line: a chain, a seeder with a price, and downloaders that are killed
//! while they buy. Whatever happens, each bill is paid once.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use chiral::Price;
use chiral::chain::{BlockId, ChainClient, RpcChain, RpcConfig};
use chiral::core::{Address, U256};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Running, chiral, file, home, run, same};
use crate::slow_link::SlowLink;

const CHUNK: u64 = 262_144;

/// Well-known development accounts: key and address.
pub(crate) const SEEDER: (&str, &str) = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
);
pub(crate) const BUYER: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

pub(crate) fn kills() -> u32 {
    std::env::var("CHIRAL_PAYING_KILLS")
        .ok()
        .map_or(10, |text| text.parse().unwrap())
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

pub(crate) fn start_chain(home: &TempDir, rpc: &str) -> (Running, String) {
    let mut command = chiral(home);
    command.args(["chain", "--data-dir", "chain", "--rpc", rpc]);
    let chain = Running::start(command, [""; 0]);
    let url = text(&chain.until("chain")["rpc"]);
    (chain, url)
}

struct Seller {
    process: Running,
    link: String,
    peer: String,
    bootstrap: String,
}

fn start_seller(home: &TempDir, file: &Path, rpc: &str) -> Seller {
    start_seller_over(home, file, rpc, "http")
}

fn start_seller_over(home: &TempDir, file: &Path, rpc: &str, protocols: &str) -> Seller {
    let mut command = chiral(home);
    command.args(["share", "--http", "127.0.0.1:0", "--data-dir", "seller"]);
    command.args(["--protocols", protocols]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--price", "0.001"]);
    command.args(["--chain", rpc, "--private-key", SEEDER.0]);
    let process = Running::start(command, [file]);
    let shared = process.until("shared");
    Seller {
        link: text(&shared["link"]),
        peer: text(&shared["peers"][0]),
        bootstrap: text(&shared["bootstrap"][0]),
        process,
    }
}

/// What the ledger has: each bill that the buyer knows, paid to whom and how often.
fn earned(rpc: &str) -> U256 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let chain = RpcChain::connect(rpc, RpcConfig::default()).await.unwrap();
        let seeder: Address = SEEDER.1.parse().unwrap();
        let balance = chain.balance(seeder, BlockId::Latest).await.unwrap();
        chain.shutdown().await.unwrap();
        balance
    })
}

/// The buyer's bills by id, with their amounts; all must be settled.
fn bills(home: &TempDir, rpc: &str) -> BTreeMap<String, U256> {
    bills_in(home, rpc, "buyer")
}

fn bills_in(home: &TempDir, rpc: &str, data: &str) -> BTreeMap<String, U256> {
    let mut command = chiral(home);
    command.args(["--json", "payments", "--settle", "--data-dir", data]);
    command.args(["--chain", rpc, "--private-key", BUYER]);
    let ended = run(command, [""; 0]).ok();
    let events = ended
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut bills = BTreeMap::new();
    for event in events.filter(|event| event["event"] == "payment") {
        assert_eq!(event["status"], "settled", "{event}");
        let amount = text(&event["amount_wei"]).parse().unwrap();
        assert!(
            bills.insert(text(&event["bill"]), amount).is_none(),
            "{event}"
        );
    }
    bills
}

#[test]
fn a_buyer_that_is_killed_pays_each_bill_once() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let chunks = 48;
    let original = file(&home.path().join("a"), (chunks * CHUNK - 1) as usize, 3);
    let seller = start_seller(&home, &original, &rpc);
    let before = earned(&rpc);
    let link = SlowLink::to(&seller.peer, 96 * CHUNK);
    let copy = home.path().join("copy");
    let get = || {
        let mut command = chiral(&home);
        command.args(["get", &seller.link, "-o", copy.to_str().unwrap()]);
        command.args(["--peer", &link.peer(), "--max-price", "0.01"]);
        command.args([
            "--chain",
            &rpc,
            "--private-key",
            BUYER,
            "--data-dir",
            "buyer",
        ]);
        Running::start(command, [""; 0])
    };
    for _ in 0..kills() {
        let getting = get();
        std::thread::sleep(Duration::from_millis(RandomState::new().hash_one(0) % 1200));
        getting.kill();
        if copy.exists() {
            // The moment was after the file was complete: pay what is owed, and begin anew.
            assert!(same(&original, &copy));
            std::fs::remove_file(&copy).unwrap();
        }
    }
    let (code, events) = get().end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &copy));
    let bills = bills(&home, &rpc);
    assert!(!bills.is_empty());
    let owed = bills.values().fold(U256::ZERO, |sum, amount| sum + *amount);
    assert_eq!(earned(&rpc) - before, owed, "{} bills", bills.len());
    seller.process.kill();
    chain.kill();
}

/// The journal ends the process itself, right before or right after each of its steps in turn,
/// as `CHIRAL_JOURNAL_CRASH` says.
#[test]
fn a_buyer_that_dies_at_any_step_of_its_journal_pays_each_bill_once() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let original = file(&home.path().join("a"), (3 * CHUNK + 5) as usize, 5);
    let seller = start_seller(&home, &original, &rpc);
    let get = |data: &str| {
        let copy = home.path().join(format!("{data}.copy"));
        let mut command = chiral(&home);
        command.args(["get", &seller.link, "--bootstrap", &seller.bootstrap]);
        command.arg("-o").arg(&copy).args(["--max-price", "0.01"]);
        command.args(["--chain", &rpc, "--private-key", BUYER, "--data-dir", data]);
        (command, copy)
    };
    for side in ["before", "after"] {
        let mut steps = 0;
        loop {
            steps += 1;
            let data = format!("{side}-{steps}");
            let before = earned(&rpc);
            let (mut command, _) = get(&data);
            command.env("CHIRAL_JOURNAL_CRASH", format!("{side}:{steps}"));
            let (died, _) = Running::start(command, [""; 0]).end();
            let (command, copy) = get(&data);
            let (code, events) = Running::start(command, [""; 0]).end();
            assert_eq!(code, 0, "{data}: {:?}", events.last());
            assert!(same(&original, &copy), "{data}");
            let bills = bills_in(&home, &rpc, &data);
            let owed = bills.values().fold(U256::ZERO, |sum, amount| sum + *amount);
            assert_eq!(earned(&rpc) - before, owed, "{data}: {} bills", bills.len());
            // No byte is on two bills; each is rounded up to a wei.
            let price: Price = "0.001".parse().unwrap();
            let most = price.cost(3 * CHUNK + 5).unwrap() + U256::from(bills.len());
            assert!(owed <= most, "{data}: {owed} wei for {most}");
            // Verified and not yet written down, it is never billed; all of it is known here.
            assert!(bills.len() <= 2, "{data}: {} bills", bills.len());
            if died == 0 {
                break;
            }
            assert!(steps < 60, "the journal has no end");
        }
        // Agreement, books, bill, and the steps of its settlement.
        assert!(steps > 8, "only {steps} steps were made");
    }
    seller.process.kill();
    chain.kill();
}

/// The file is complete, and the process dies before it closes the books on it. The same file
/// is then bought once more: its bytes are not taken for those that were paid for.
#[test]
fn a_file_that_is_got_again_is_paid_again() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let original = file(&home.path().join("a"), 5_242_881, 6);
    let seller = start_seller(&home, &original, &rpc);
    let before = earned(&rpc);
    let copy = home.path().join("copy");
    let get = || {
        let mut command = chiral(&home);
        command.args(["get", &seller.link, "--bootstrap", &seller.bootstrap]);
        command.arg("-o").arg(&copy).args(["--max-price", "0.01"]);
        command.args(["--chain", &rpc, "--private-key", BUYER]);
        command.args(["--data-dir", "buyer"]);
        command
    };
    let mut dying = get();
    dying.env("CHIRAL_JOURNAL_CRASH", "before:agent-forget");
    let (died, _) = Running::start(dying, [""; 0]).end();
    assert_ne!(died, 0);
    assert!(same(&original, &copy));
    std::fs::remove_file(&copy).unwrap();
    let (code, events) = Running::start(get(), [""; 0]).end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &copy));
    assert_eq!(bills(&home, &rpc).len(), 2);
    let one: U256 = "5000000953674317".parse().unwrap();
    assert_eq!(earned(&rpc) - before, one + one);
    // And once more: it is told what was paid for the file before.
    std::fs::remove_file(&copy).unwrap();
    let (code, events) = Running::start(get(), [""; 0]).end();
    assert_eq!(code, 0, "{:?}", events.last());
    for (name, amount) in [("paid_before", one + one), ("paid", one)] {
        let told = events.iter().find(|event| event["event"] == name);
        let told = told.unwrap_or_else(|| panic!("{name}: {events:?}"));
        assert_eq!(told["amount_wei"], amount.to_string(), "{name}");
    }
    seller.process.kill();
    chain.kill();
}

#[test]
fn without_a_chain_the_file_comes_and_the_payment_waits() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let address = rpc
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let original = file(&home.path().join("a"), 5_242_881, 4);
    let seller = start_seller(&home, &original, &rpc);
    let before = earned(&rpc);
    let get = |copy: &Path| {
        let mut command = chiral(&home);
        command.args(["get", &seller.link, "-o", copy.to_str().unwrap()]);
        command.args(["--bootstrap", &seller.bootstrap, "--max-price", "0.01"]);
        command.args(["--chain", &rpc, "--private-key", BUYER]);
        command.args(["--data-dir", "buyer", "--payment-patience", "2"]);
        Running::start(command, [""; 0])
    };
    let copy = home.path().join("copy");
    let getting = get(&copy);
    // The buyer looks at its chain when it first starts; from then on it can do without.
    getting.until("started");
    chain.kill();
    let (code, events) = getting.end();
    assert!(same(&original, &copy));
    assert_eq!(code, 7, "{:?}", events.last());

    let (chain, _) = start_chain(&home, &address);
    let paid = bills(&home, &rpc);
    assert_eq!(paid.len(), 1);
    let owed: U256 = "5000000953674317".parse().unwrap();
    assert_eq!(paid.values().next(), Some(&owed));
    assert_eq!(earned(&rpc) - before, owed);

    // Once more, with a chain that is away from the beginning: the journal knows which it is.
    chain.kill();
    let again = home.path().join("again");
    let (code, events) = get(&again).end();
    assert!(same(&original, &again));
    assert_eq!(code, 7, "{:?}", events.last());
    let (chain, _) = start_chain(&home, &address);
    assert_eq!(bills(&home, &rpc).len(), 2);
    assert_eq!(earned(&rpc) - before, owed + owed);
    seller.process.kill();
    chain.kill();
}

/// Found in the directory, fetched and paid for over streams between peers: no HTTP is spoken.
#[test]
fn a_file_is_bought_over_the_private_protocol_alone() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let original = file(&home.path().join("a"), (20 * CHUNK + 7) as usize, 11);
    let seller = start_seller_over(&home, &original, &rpc, "private");
    assert!(seller.peer.starts_with("/p2p/"), "{}", seller.peer);
    let before = earned(&rpc);
    let copy = home.path().join("copy");
    let mut command = chiral(&home);
    command.args(["get", &seller.link, "--bootstrap", &seller.bootstrap]);
    command.args(["--protocol", "private", "-o", copy.to_str().unwrap()]);
    command.args([
        "--max-price",
        "0.01",
        "--chain",
        &rpc,
        "--private-key",
        BUYER,
    ]);
    command.args(["--data-dir", "buyer"]);
    let (code, events) = Running::start(command, [""; 0]).end();
    assert_eq!(code, 0, "{:?}", events.last());
    assert!(same(&original, &copy));
    let bills = bills(&home, &rpc);
    let owed = bills.values().fold(U256::ZERO, |sum, amount| sum + *amount);
    let price: Price = "0.001".parse().unwrap();
    assert_eq!(owed, price.cost(20 * CHUNK + 7).unwrap());
    assert_eq!(earned(&rpc) - before, owed);
    seller.process.kill();
    chain.kill();
}

#[test]
fn the_private_protocol_without_a_network_is_refused_with_advice() {
    let home = home();
    file(&home.path().join("a"), 10, 1);
    let ended = run(chiral(&home), ["share", "a", "--protocols", "private"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("--listen"), "{ended:?}");
}
