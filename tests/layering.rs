//! Which crate may know which: the edges that `cargo tree` finds against those allowed.
//!
//! A layer crate knows the core alone; payment also knows the chain, so that transactions
//! are encoded in one place; the facade knows everybody. What a layer needs of another it
//! asks for through a trait in the core.

use std::collections::BTreeSet;
use std::process::Command;

const FACADE: &str = "chiral-network";
const CORE: &str = "chiral-core";

/// Runtimes and network stacks, by the beginning of their names: not in the core.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "libp2p",
    "hyper",
    "quinn",
    "mio",
];

/// Whether one crate of the workspace may depend on another.
fn is_allowed(from: &str, to: &str) -> bool {
    match (from, to) {
        (CORE, _) | (_, FACADE) => false,
        (FACADE, _) | (_, CORE) | ("chiral-payment", "chiral-chain") => true,
        _ => false,
    }
}

/// Every edge between crates of the workspace, from the output of
/// `cargo tree --workspace --depth 1 --prefix depth`.
fn edges(tree: &str) -> BTreeSet<(&str, &str)> {
    let lines: Vec<(bool, &str)> = tree.lines().filter_map(parse).collect();
    let members: BTreeSet<&str> = lines.iter().filter(|(top, _)| *top).map(|l| l.1).collect();
    let mut edges = BTreeSet::new();
    let mut from = "";
    for (top, name) in lines {
        if top {
            from = name;
        } else if members.contains(name) {
            edges.insert((from, name));
        }
    }
    edges
}

/// Whether a line is of a workspace member, and the name of its package.
fn parse(line: &str) -> Option<(bool, &str)> {
    let name = line.split_whitespace().next()?;
    let package = name.trim_start_matches(|c: char| c.is_ascii_digit());
    match &name[..name.len() - package.len()] {
        "0" => Some((true, package)),
        "1" => Some((false, package)),
        depth => panic!("depth {depth:?} in {line:?}"),
    }
}

fn forbidden(tree: &str) -> Vec<(&str, &str)> {
    let edges = edges(tree).into_iter();
    edges.filter(|(from, to)| !is_allowed(from, to)).collect()
}

/// Packages in a flat list whose names begin in one of the given ways.
fn beginning_with<'a>(packages: &'a str, beginnings: &[&str]) -> BTreeSet<&'a str> {
    let names = packages
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| {
            beginnings
                .iter()
                .any(|beginning| name.starts_with(beginning))
        })
        .collect()
}

fn cargo_tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--all-features", "-e", "normal", "--offline"])
        .args(arguments)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree failed: {errors}");
    String::from_utf8(output.stdout).expect("names of packages are UTF-8")
}

#[test]
fn no_crate_knows_more_than_it_may() {
    let tree = cargo_tree(&[
        "--workspace",
        "--no-dedupe",
        "--depth",
        "1",
        "--prefix",
        "depth",
    ]);
    // An empty list would pass as well: see that the tree was understood.
    let edges = edges(&tree);
    for layer in [
        "chiral-dht",
        "chiral-payment",
        "chiral-protocols",
        "chiral-storage",
    ] {
        assert!(
            edges.contains(&(layer, CORE)),
            "{layer} -> {CORE} is not in\n{tree}"
        );
    }
    assert!(
        edges.contains(&(FACADE, CORE)),
        "{FACADE} -> {CORE} is not in\n{tree}"
    );
    assert_eq!(
        forbidden(&tree),
        [],
        "edges that ARCHITECTURE.md does not have"
    );
}

#[test]
fn the_core_has_no_runtime_and_no_network_stack() {
    let packages = cargo_tree(&["-p", CORE, "--prefix", "none"]);
    assert!(
        packages.contains("async-trait "),
        "not understood:\n{packages}"
    );
    assert_eq!(beginning_with(&packages, NOT_IN_CORE), BTreeSet::new());
}

#[test]
fn protocols_do_not_reach_other_layers_by_any_way() {
    let packages = cargo_tree(&["-p", "chiral-protocols", "--prefix", "none"]);
    let layers = [
        "chiral-dht",
        "chiral-payment",
        "chiral-storage",
        "chiral-chain",
        FACADE,
    ];
    assert!(
        packages.contains("chiral-core "),
        "not understood:\n{packages}"
    );
    assert_eq!(beginning_with(&packages, &layers), BTreeSet::new());
}

#[test]
fn the_check_can_fail() {
    let tree = "\
0chiral-network v0.1.0 (/w)
1chiral-core v0.1.0 (/w/chiral-core)
1chiral-payment v0.1.0 (/w/chiral-payment)

0chiral-core v0.1.0 (/w/chiral-core)
1bytes v1.12.0
1chiral-dht v0.1.0 (/w/chiral-dht)

0chiral-dht v0.1.0 (/w/chiral-dht)
1chiral-core v0.1.0 (/w/chiral-core)
1chiral-network v0.1.0 (/w)

0chiral-payment v0.1.0 (/w/chiral-payment)
1chiral-chain v0.1.0 (/w/chiral-chain)
1chiral-core v0.1.0 (/w/chiral-core)

0chiral-chain v0.1.0 (/w/chiral-chain)
1chiral-payment v0.1.0 (/w/chiral-payment)
1serde_derive v1.0.228 (proc-macro)
";
    let found = forbidden(tree);
    let expected = [
        ("chiral-chain", "chiral-payment"),
        ("chiral-core", "chiral-dht"),
        ("chiral-dht", "chiral-network"),
    ];
    assert_eq!(found, expected);
    let packages = "chiral-core v0.1.0 (/w)\ntokio-util v0.7.20\nbytes v1.12.0 (*)\n";
    assert_eq!(
        beginning_with(packages, NOT_IN_CORE),
        BTreeSet::from(["tokio-util"])
    );
}
