//! The specs: hashes of block 0, and its export.

#![allow(clippy::unwrap_used)]

use alloy_primitives::{B256, U256, address, b256, hex, keccak256};
use chiral_chain::{ChainSpec, DEV_ACCOUNTS, GenesisAccount, Rules};
use serde_json::Value;

#[test]
fn genesis_hashes_of_the_chiral_network_are_the_known_ones() {
    let london = ChainSpec::chiral();
    assert_eq!((london.chain_id, london.network_id), (98_765, 98_765));
    assert_eq!(
        london.genesis_hash(),
        b256!("1f651f88d0d2d22a738f8246db83300eb9275997b897f04dace7102a93fcd51b")
    );
    assert_eq!(
        ChainSpec::chiral()
            .with_rules(Rules::Istanbul)
            .genesis_hash(),
        b256!("4500b31c21377c37e38115bea1771c6240f226136faf49569d7347074ec5e865")
    );
}

/// ethereum/tests, `GenesisTests/basic_genesis_tests.json`, "test1" and "test3".
#[test]
fn state_roots_are_those_of_ethereum() {
    assert_eq!(
        ChainSpec::chiral().genesis_state_root(),
        b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
    );
    let contract = GenesisAccount {
        code: vec![0x60; 9].into(),
        storage: [(B256::with_last_byte(3), B256::with_last_byte(7))].into(),
        ..GenesisAccount::default()
    };
    let wei = U256::from(1_234_567_000_000_000_000_000_u128);
    let spec = ChainSpec::chiral().with_alloc([
        (
            address!("9ca0e998df92c5351cecbbb6dba82ac2266f7e0c"),
            contract,
        ),
        (
            address!("cd2a3d9f938e13cd947ec05abc7fe734df8dd826"),
            GenesisAccount::with_balance(wei),
        ),
    ]);
    assert_eq!(
        spec.genesis_state_root(),
        b256!("dd406a973a0a5a9826d00da276e996d28426d24f12b8fa683723e9db532b8c59")
    );
}

#[test]
fn what_is_allocated_changes_the_hash_and_zero_storage_does_not() {
    let wallet = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
    let empty = ChainSpec::chiral();
    let with = |account: GenesisAccount| ChainSpec::chiral().with_alloc([(wallet, account)]);
    let one = with(GenesisAccount::with_balance(U256::from(1)));
    let two = with(GenesisAccount::with_balance(U256::from(2)));
    assert_ne!(one.genesis_hash(), empty.genesis_hash());
    assert_ne!(one.genesis_hash(), two.genesis_hash());

    let mut account = GenesisAccount::with_balance(U256::from(1));
    account
        .storage
        .insert(keccak256("slot"), Default::default());
    assert_eq!(with(account.clone()).genesis_hash(), one.genesis_hash());
    account
        .storage
        .insert(keccak256("slot"), keccak256("value"));
    assert_ne!(with(account).genesis_hash(), one.genesis_hash());
}

#[test]
fn the_devnet_funds_its_accounts_and_has_its_contracts() {
    let spec = ChainSpec::devnet();
    assert_eq!(spec.chain_id, ChainSpec::chiral().chain_id);
    assert_eq!(spec.difficulty, U256::from(0x20000));
    assert_ne!(spec.genesis_hash(), ChainSpec::chiral().genesis_hash());
    let ten_thousand = U256::from(10_000) * U256::from(10).pow(U256::from(18));
    for account in DEV_ACCOUNTS {
        assert_eq!(spec.alloc[&account.address].balance, ten_thousand);
    }
    for contract in ["BatchPay", "Channels"] {
        let address = ChainSpec::predeployed(contract).unwrap();
        assert!(!spec.alloc[&address].code.is_empty(), "{contract}");
    }
    assert_eq!(spec.alloc.len(), DEV_ACCOUNTS.len() + 2);
    assert_eq!(ChainSpec::predeployed("NoSuchThing"), None);
}

#[test]
fn the_export_names_everything_that_the_hash_depends_on() {
    let json: Value = serde_json::from_str(&ChainSpec::devnet().to_genesis_json()).unwrap();
    assert_eq!(json["config"]["chainId"], 98_765);
    assert_eq!(json["config"]["londonBlock"], 0);
    assert_eq!(json["nonce"], "0x0000000000000042");
    assert_eq!(json["timestamp"], "0x68b3b2ca");
    assert_eq!(json["difficulty"], "0x20000");
    assert_eq!(json["gasLimit"], "0x47b760");
    assert_eq!(
        json["extraData"],
        "0x4b656570206f6e206b656570696e67206f6e21"
    );
    assert_eq!(json["baseFeePerGas"], "0x3b9aca00");
    assert_eq!(json["mixHash"].as_str().unwrap().len(), 66);
    assert_eq!(json["coinbase"].as_str().unwrap().len(), 42);
    let alloc = json["alloc"].as_object().unwrap();
    let first = &alloc["0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"];
    assert_eq!(first["balance"], "0x21e19e0c9bab2400000");
    let batch_pay = ChainSpec::predeployed("BatchPay").unwrap();
    let code = alloc[&hex::encode_prefixed(batch_pay)]["code"]
        .as_str()
        .unwrap();
    assert_eq!(
        hex::decode(code).unwrap(),
        ChainSpec::devnet().alloc[&batch_pay].code
    );

    let istanbul = ChainSpec::chiral().with_rules(Rules::Istanbul);
    let json: Value = serde_json::from_str(&istanbul.to_genesis_json()).unwrap();
    assert_eq!(json["config"].get("londonBlock"), None);
    assert_eq!(json.get("baseFeePerGas"), None);
}
