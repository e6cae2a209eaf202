//! The embedded chain on disk: what was mined is there after every kind of end.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::{
    BlockId, BlockRef, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig, Fees,
    GenesisAccount, Sealing, StoreError, Transaction,
};
use futures_util::StreamExt;

const PAYEE: Address = Address::repeat_byte(0xbe);

/// Says to this test binary that it is the child that is killed.
const CHILD: &str = "CHIRAL_TEST_CHAIN_CHILD";

/// `SSTORE(calldata[0], calldata[1])`, or `SELFDESTRUCT` if calldata\[0\] is zero.
const RUNTIME: [u8; 16] = hex!("6000358060095733ff5b602035905500");

async fn open(dir: &Path, sealing: Sealing) -> EmbeddedChain {
    let config = EmbeddedConfig::default()
        .with_data_dir(dir)
        .with_sealing(sealing);
    EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap()
}

async fn raw(nonce: u64, to: Option<Address>, input: Vec<u8>) -> Bytes {
    let transaction = Transaction {
        chain_id: 98_765,
        nonce,
        gas_limit: 300_000,
        fees: Fees::Legacy {
            gas_price: 2_000_000_000,
        },
        to,
        value: U256::from(if to == Some(PAYEE) { 1 } else { 0 }),
        input: input.into(),
    };
    transaction
        .sign(&DEV_ACCOUNTS[0].signer())
        .await
        .unwrap()
        .raw
        .clone()
}

fn words(first: u64, second: u64) -> Vec<u8> {
    [first, second]
        .map(|word| U256::from(word).to_be_bytes::<32>())
        .concat()
}

/// Everything that is compared before and after.
async fn picture(chain: &EmbeddedChain, hashes: &[B256], contract: Address) -> String {
    let head = chain.head().await.unwrap();
    let mut picture = format!("{head:?}");
    for number in 0..=head.number {
        picture += &format!("{:?}", chain.block(BlockId::Number(number)).await.unwrap());
    }
    for hash in hashes {
        picture += &format!("{:?}", chain.receipt(*hash).await.unwrap().unwrap());
    }
    for wallet in [DEV_ACCOUNTS[0].address, PAYEE, Address::ZERO, contract] {
        picture += &format!(
            "{:?}",
            chain.balance(wallet, BlockId::Latest).await.unwrap()
        );
        picture += &format!("{:?}", chain.nonce(wallet, BlockId::Latest).await.unwrap());
    }
    picture + &format!("{:?}", chain.code(contract).await.unwrap())
}

#[tokio::test]
async fn after_every_block_a_crash_loses_nothing() {
    let contract = DEV_ACCOUNTS[0].address.create(0);
    let init = [&hex!("6010600c60003960106000f3")[..], &RUNTIME[..]].concat();
    let steps = [
        (None, init),
        (Some(PAYEE), Vec::new()),
        (Some(contract), words(1, 7)),
        (Some(contract), words(2, 8)),
        (Some(contract), words(1, 0)),
        (Some(contract), words(3, u64::MAX)),
        (Some(contract), words(0, 0)),
        (Some(contract), words(5, 5)),
        (Some(PAYEE), Vec::new()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("chain");
    let mut chain = open(&home, Sealing::Manual).await;
    let mut hashes = Vec::new();
    for (nonce, (to, input)) in (0u64..).zip(steps) {
        let sent = chain
            .send_raw_transaction(raw(nonce, to, input).await)
            .await
            .unwrap();
        hashes.push(sent);
        let sealed: BlockRef = chain.seal().await.unwrap();
        assert_eq!(sealed.number, nonce + 1);
        let before = picture(&chain, &hashes, contract).await;

        // What a crash leaves is what is in the file now. Opening it computes the state root
        // anew and compares it with the head's.
        let copy = dir.path().join(format!("crashed-{nonce}"));
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(home.join("chain.redb"), copy.join("chain.redb")).unwrap();
        let crashed = open(&copy, Sealing::Manual).await;
        assert_eq!(picture(&crashed, &hashes, contract).await, before);
        drop(crashed);

        // And one that was dropped without a shutdown goes on, too.
        drop(chain);
        chain = open(&home, Sealing::Manual).await;
        assert_eq!(picture(&chain, &hashes, contract).await, before);
    }
    assert!(chain.code(contract).await.unwrap().is_empty());
    chain.shutdown().await.unwrap();
    let chain = open(&home, Sealing::OnDemand).await;
    assert_eq!(chain.head().await.unwrap().number, 9);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_process_at_a_time_and_one_chain_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let chain = open(dir.path(), Sealing::OnDemand).await;
    let config = || EmbeddedConfig::default().with_data_dir(dir.path());
    let second = EmbeddedChain::open(ChainSpec::devnet(), config()).await;
    assert!(matches!(second, Err(StoreError::Database(_))), "{second:?}");
    chain.shutdown().await.unwrap();
    let rich = GenesisAccount::with_balance(U256::ONE);
    let other = ChainSpec::devnet().with_alloc([(PAYEE, rich)]);
    let refused = EmbeddedChain::open(other, config()).await;
    assert!(
        matches!(refused, Err(StoreError::Genesis { .. })),
        "{refused:?}"
    );
    open(dir.path(), Sealing::OnDemand)
        .await
        .shutdown()
        .await
        .unwrap();
}

/// Not a test: what [`killed_children_lose_nothing_that_they_answered`] kills.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    // It ends by itself if nobody kills it.
    let all = tokio::time::timeout(Duration::from_secs(60), async {
        let config = EmbeddedConfig::default()
            .with_data_dir(dir)
            .with_max_clock_lead(Duration::from_secs(1_000_000));
        let chain = EmbeddedChain::open(ChainSpec::devnet(), config)
            .await
            .unwrap();
        let mut heads = chain.heads().await.unwrap();
        let wallet = DEV_ACCOUNTS[0].address;
        loop {
            let nonce = chain.nonce(wallet, BlockId::Pending).await.unwrap();
            let hash = chain
                .send_raw_transaction(raw(nonce, Some(PAYEE), Vec::new()).await)
                .await
                .unwrap();
            while chain.receipt(hash).await.unwrap().is_none() {
                heads.next().await.unwrap();
            }
            println!("\nmined {hash}");
        }
    });
    all.await.unwrap();
}

/// Ends its child, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn killed_children_lose_nothing_that_they_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 1..=4 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mined = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("mined ")
                .map(|hash| hash.parse::<B256>().unwrap())
        });
        answered.extend(mined.take(7 * round));
        // At any moment of the next block.
        drop(child);
    }
    assert_eq!(answered.len(), 7 * (1 + 2 + 3 + 4));
    let chain = open(dir.path(), Sealing::Manual).await;
    for hash in &answered {
        assert!(chain.receipt(*hash).await.unwrap().unwrap().succeeded);
    }
    let nonce = chain
        .nonce(DEV_ACCOUNTS[0].address, BlockId::Latest)
        .await
        .unwrap();
    assert!(nonce >= answered.len() as u64);
    let paid = chain.balance(PAYEE, BlockId::Latest).await.unwrap();
    assert_eq!(paid, U256::from(nonce));
    chain.shutdown().await.unwrap();
}
