//! A process that pays is killed again and again, on a chain that reorganises, makes no blocks,
//! is not there at all, answers late, lies, reverts, and is used by others with the same wallet.
//! Once it is left alone, each bill is paid exactly once.
//!
//! `CHIRAL_SETTLER_KILLS` is how often it is killed, 20 unless set.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::{
    BlockId, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, Fees, JsonRpcServer, RpcChain,
    RpcConfig, Sealing, ServerConfig, SignedTransaction, Transaction,
};
use chiral_core::{Bill, PaymentSettler};
use chiral_payment::ChainSettler;

use crate::rig::{assert_paid_once, bill, config, embedded, journal, payee, settled, wallet};
use crate::unreliable::{Dice, Unreliable};

const URL: &str = "CHIRAL_STORM_URL";
const FOLDER: &str = "CHIRAL_STORM_FOLDER";
/// Absent for a line that does what it should.
const SEED: &str = "CHIRAL_STORM_SEED";

/// Bills of one world.
const BILLS: u8 = 7;

/// Lives of one journal before it is left alone.
const LIVES: u32 = 10;

/// Blocks that a reorganisation takes away, at most; failures count when they are deeper.
const DEEPEST: u64 = 3;

/// How deep a failure has to be for its bills to be paid anew.
const FAILED: u64 = DEEPEST + 2;

/// Blocks for which a payer is left alone, at least. What a bill's status says is what was seen
/// last: a payment that was settled, and whose block and nonce were taken while the payer was
/// dead, is found to be gone once the other transaction is deep enough.
const HEALED: u64 = 3 * FAILED;

fn kills() -> u32 {
    std::env::var("CHIRAL_SETTLER_KILLS")
        .ok()
        .map_or(20, |text| text.parse().unwrap())
}

/// Two of them have one payee.
fn bills() -> Vec<Bill> {
    (1..=BILLS).map(|n| bill(n, payee(n % 6))).collect()
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, which is killed"]
async fn the_payer() {
    let folder = std::path::PathBuf::from(std::env::var(FOLDER).unwrap());
    let seed = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
    let rpc = RpcConfig::default()
        .with_poll_interval(Duration::from_millis(50))
        .with_request_timeout(Duration::from_secs(2));
    let chain = Arc::new(RpcChain::new(&std::env::var(URL).unwrap(), rpc).unwrap());
    let sent = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("sent"))
        .unwrap();
    let line = Unreliable::over(chain.clone(), seed, sent);
    let config = config()
        .with_confirmations(2)
        .with_failed_after(FAILED)
        .with_replace_after(Duration::from_millis(60))
        .with_poll(Duration::from_millis(20));
    let settler = ChainSettler::start(journal(&folder), line, wallet(), config);
    let settler = settler.await.unwrap();
    let bills = bills();
    for some in bills.chunks(3) {
        settler.settle(some.to_vec()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    settled(&settler, &bills).await;
    if seed.is_none() {
        let begin = chain.head().await.unwrap().number;
        while chain.head().await.unwrap().number < begin + HEALED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        settled(&settler, &bills).await;
    }
    settler.shutdown().await.unwrap();
}

fn start(url: &str, folder: &Path, seed: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["storm::the_payer", "--exact", "--ignored", "--nocapture"])
        .env(URL, url)
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    if let Some(seed) = seed {
        command.env(SEED, seed.to_string());
    }
    command.spawn().unwrap()
}

/// A chain behind a server on a port that stays the same when the chain becomes another.
struct World {
    chain: EmbeddedChain,
    /// `None` while the chain is not there.
    server: Option<JsonRpcServer>,
    address: SocketAddr,
    /// What others sent from the wallet.
    foreign: Vec<Bytes>,
}

impl World {
    async fn new() -> Self {
        let chain = embedded(Sealing::OnDemand).await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = serve(any, &chain).await;
        Self {
            address: server.address(),
            server: Some(server),
            chain,
            foreign: Vec::new(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    async fn nonce(&self) -> u64 {
        let wallet = DEV_ACCOUNTS[0].address;
        self.chain.nonce(wallet, BlockId::Latest).await.unwrap()
    }

    /// Somebody else uses the wallet's next nonce.
    async fn interfere(&mut self) {
        let transaction = Transaction {
            chain_id: ChainSpec::devnet().chain_id,
            nonce: self.nonce().await,
            gas_limit: 21_000,
            fees: Fees::Legacy {
                gas_price: self.chain.fees().await.unwrap().gas_price * 4,
            },
            to: Some(Address::repeat_byte(0xff)),
            value: U256::from(1),
            input: Bytes::new(),
        };
        let signed = transaction.sign(&*wallet()).await.unwrap();
        self.foreign.push(signed.raw.clone());
        // The payer may have been faster.
        let _ = self.chain.send_raw_transaction(signed.raw).await;
    }

    /// The chain has another end: without what was in its last blocks. `sealing` says whether it
    /// makes blocks from now on.
    async fn reorganise(&mut self, depth: u64, sealing: Sealing, folder: &Path) {
        let known = self.known(folder);
        let head = self.chain.head().await.unwrap().number;
        let keep = head.saturating_sub(depth);
        let anew = embedded(sealing).await;
        for number in 1..=keep {
            let block = self.chain.block(BlockId::Number(number)).await.unwrap();
            let mut waits = Vec::new();
            for transaction in block.unwrap().transactions {
                if let Some(raw) = known.get(&transaction.hash)
                    && anew.send_raw_transaction(raw.clone()).await.is_ok()
                {
                    waits.push(transaction.hash);
                }
            }
            if waits.is_empty() || sealing == Sealing::Manual {
                anew.seal().await.unwrap();
            }
            let until = Instant::now() + Duration::from_secs(5);
            for hash in waits {
                while anew.receipt(hash).await.unwrap().is_none() && Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        // The longer one wins.
        for _ in 0..depth {
            anew.seal().await.unwrap();
        }
        self.die().await;
        let before = std::mem::replace(&mut self.chain, anew);
        before.shutdown().await.unwrap();
        self.live().await;
    }

    /// Nobody answers any more.
    async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    async fn live(&mut self) {
        if self.server.is_none() {
            self.server = Some(serve(self.address, &self.chain).await);
        }
    }

    /// Everything that was ever sent, by its hash.
    fn known(&self, folder: &Path) -> HashMap<B256, Bytes> {
        let sent = std::fs::read_to_string(folder.join("sent")).unwrap_or_default();
        let sent = sent.lines().filter_map(|line| hex::decode(line).ok());
        let sent = sent.map(Bytes::from).chain(self.foreign.iter().cloned());
        let chain_id = ChainSpec::devnet().chain_id;
        sent.filter_map(|raw| {
            // The last line may be half of one.
            let signed = SignedTransaction::decode(&raw, chain_id).ok()?;
            Some((signed.hash, raw))
        })
        .collect()
    }
}

async fn serve(address: SocketAddr, chain: &EmbeddedChain) -> JsonRpcServer {
    let mut config = ServerConfig::default();
    config.drain_timeout = Duration::from_millis(1);
    for _ in 0..200 {
        match JsonRpcServer::bind(address, chain.clone(), config.clone()).await {
            Ok(server) => return server,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("{address} is not let go of");
}

/// One journal, killed so many times, and then left alone. Answers how often it was killed while
/// it worked.
async fn world(seed: u64, lives: u32) -> u32 {
    let dice = Dice::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new().await;
    let (mut trouble, mut cut) = (Vec::new(), 0);
    for life in 0..lives {
        let own = Some(seed.wrapping_mul(1000) + u64::from(life));
        let mut child = start(&world.url(), folder.path(), own);
        let until = Instant::now() + Duration::from_millis(40 + dice.below(500));
        let mut reorganises = dice.percent(40);
        let mut interferes = dice.percent(25);
        let mut stands = dice.percent(25);
        let mut dies = dice.percent(25);
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20 + dice.below(60))).await;
            if world.server.is_none() {
                trouble.push(format!("{life}: the chain is back"));
                world.live().await;
            } else if std::mem::take(&mut interferes) {
                trouble.push(format!("{life}: another uses the wallet"));
                world.interfere().await;
            } else if std::mem::take(&mut reorganises) {
                let depth = 1 + dice.below(DEEPEST);
                trouble.push(format!("{life}: {depth} blocks are lost"));
                world
                    .reorganise(depth, Sealing::OnDemand, folder.path())
                    .await;
            } else if std::mem::take(&mut stands) {
                // Until it is reorganised.
                trouble.push(format!("{life}: there are no more blocks"));
                world.reorganise(0, Sealing::Manual, folder.path()).await;
            } else if std::mem::take(&mut dies) {
                // It may be killed before the chain is back, and begin without one.
                trouble.push(format!("{life}: the chain is gone"));
                world.die().await;
            }
        }
        cut += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    world.live().await;
    let mut child = start(&world.url(), folder.path(), None);
    let until = Instant::now() + Duration::from_secs(90);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        // The chain goes on, so that everything becomes deep.
        world.chain.seal().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let what = format!("with seed {seed}: {trouble:#?}");
    assert!(
        status.is_some_and(|status| status.success()),
        "not settled {what}"
    );
    assert_paid_once(&world.chain, &bills(), &what).await;
    world.die().await;
    world.chain.shutdown().await.unwrap();
    cut
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_when_each_bill_is_paid_once() {
    let (mut left, mut seed, mut cut) = (kills(), 1, 0);
    // On a fast machine a payer may have nothing left to do when it is killed, which shows
    // nothing: there are more worlds then.
    while left > 0 {
        let lives = left.min(LIVES);
        let inside = world(seed, lives).await;
        println!("seed {seed}: {lives} kills, {inside} of them in the middle");
        cut += inside;
        let wanted = kills().saturating_sub(2 * cut);
        (left, seed) = ((left - lives).max(wanted), seed + 1);
        assert!(
            seed <= u64::from(kills()) + 2,
            "most have nothing left to do"
        );
    }
}
