//! Proofs of delivery on the command line: who bought a file shows it to somebody who has
//! neither wallet, chain nor network.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Running, chiral, file, home, run, same};
use crate::paying::{BUYER, SEEDER, start_chain, text};

const CHUNK: usize = 262_144;

#[test]
fn what_was_bought_is_proven_to_who_has_no_wallet_chain_or_network() {
    let home = home();
    let (chain, rpc) = start_chain(&home, "127.0.0.1:0");
    let original = file(&home.path().join("a"), 7 * CHUNK + 3, 31);
    let mut share = chiral(&home);
    share.args(["share", "--http", "127.0.0.1:0", "--data-dir", "seller"]);
    share.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--price", "0.004"]);
    share.args(["--chain", &rpc, "--private-key", SEEDER.0]);
    let seller = Running::start(share, [&original]);
    let shared = seller.until("shared");
    let mut get = chiral(&home);
    get.args(["get", &text(&shared["link"]), "-o", "copy"]);
    get.args(["--bootstrap", &text(&shared["bootstrap"][0])]);
    get.args(["--max-price", "0.004", "--data-dir", "buyer"]);
    get.args(["--chain", &rpc, "--private-key", BUYER]);
    let (code, said) = Running::start(get, [""; 0]).end();
    assert_eq!(code, 0, "{:?}", said.last());
    let copy = home.path().join("copy");
    assert!(same(&original, &copy));
    // Nobody is there any more.
    seller.kill();
    chain.kill();

    let mut payments = chiral(&home);
    payments.args(["--json", "payments", "--data-dir", "buyer"]);
    let listed = run(payments, [""; 0]).ok();
    let first = listed.out.lines().next().unwrap();
    let paid: Value = serde_json::from_str(first).unwrap();
    assert_eq!(
        (&paid["event"], &paid["status"]),
        (&"payment".into(), &"settled".into())
    );
    assert_eq!(paid["receipt"], true, "{paid}");
    let bill = text(&paid["bill"]);

    let prove = |of: &Path, to: &str| {
        let mut prove = chiral(&home);
        prove.args(["prove", &bill]).arg(of);
        prove.args(["-o", to, "--private-key", BUYER, "--data-dir", "buyer"]);
        run(prove, [""; 0])
    };
    prove(&copy, "proof").ok();
    let again = prove(&copy, "proof");
    assert_eq!(again.code, 5, "what is there is not overwritten: {again:?}");
    let other = file(&home.path().join("b"), 7 * CHUNK + 3, 32);
    assert_ne!(prove(&other, "of-another").code, 0, "another file's chunks");

    let verify = |proof: &str| {
        // Somebody else, somewhere else: the proof is all that there is.
        let elsewhere = crate::harness::home();
        std::fs::copy(home.path().join(proof), elsewhere.path().join("it")).unwrap();
        let mut verify = chiral(&elsewhere);
        verify.args(["--json", "verify-receipt", "it"]);
        run(verify, [""; 0])
    };
    let shown = verify("proof").ok();
    let shown: Value = serde_json::from_str(shown.out.lines().next().unwrap()).unwrap();
    for (field, expected) in [
        ("bill", Value::from(bill.clone())),
        ("cid", shared["cid"].clone()),
        ("payee", SEEDER.1.into()),
        ("bytes", (7 * CHUNK + 3).into()),
        ("chunks", 8.into()),
        ("amount_wei", paid["amount_wei"].clone()),
        ("transaction", paid["transaction"].clone()),
    ] {
        assert_eq!(shown[field], expected, "{field} of {shown}");
    }

    // Whatever is changed in it is found.
    let proof = std::fs::read(home.path().join("proof")).unwrap();
    for at in (0..proof.len()).step_by(proof.len() / 40) {
        let mut twisted = proof.clone();
        twisted[at] ^= 1;
        std::fs::write(home.path().join("twisted"), &twisted).unwrap();
        let refused = verify("twisted");
        assert_eq!(refused.code, 4, "byte {at}: {refused:?}");
    }
    std::fs::write(home.path().join("cut"), &proof[..proof.len() - 1]).unwrap();
    assert_eq!(verify("cut").code, 4);
}
