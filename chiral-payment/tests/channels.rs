//! `Channels` on a real EVM, driven as a node drives it: vouchers made here are taken there, and
//! what the settler sends opens, claims and ends channels. On the embedded chain, and, where
//! `tests/interop/settler-anvil` runs it, on anvil.
// Gas is a figure that is reported.
#![allow(clippy::print_stdout)]
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::rpc::RpcConfig;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig,
    Fees, GenesisAccount, RpcChain, Transaction, TransactionReceipt,
};
use chiral_core::{WalletSignature, WalletSigner};
use chiral_payment::channel::payer::Phase;
use chiral_payment::channel::voucher::Share;
use chiral_payment::channel::{
    ChannelDomain, Channels, ChannelsConfig, Close, LockedVoucher, Voucher, cipher,
};
use chiral_payment::contracts::ChannelState;
use chiral_payment::contracts::channels::{self, CHANNELS, FACTORY};
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Journal};

const PATIENCE: Duration = Duration::from_secs(120);
/// Code of the factory (<https://github.com/Arachnid/deterministic-deployment-proxy>).
const FACTORY_CODE: &str = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe0\
    3601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";

struct Bench {
    chain: Arc<dyn ChainClient>,
    domain: ChannelDomain,
}

async fn embedded() -> Bench {
    let factory = GenesisAccount {
        code: hex::decode(FACTORY_CODE).unwrap().into(),
        ..Default::default()
    };
    let spec = ChainSpec::devnet().with_alloc([(FACTORY, factory)]);
    let config = EmbeddedConfig::default().with_max_clock_lead(Duration::from_secs(1 << 20));
    let chain = EmbeddedChain::open(spec, config).await.unwrap();
    assert_eq!(ChainSpec::predeployed("Channels").unwrap(), CHANNELS);
    Bench {
        chain: Arc::new(chain),
        domain: ChannelDomain::new(ChainSpec::devnet().chain_id, CHANNELS),
    }
}

impl Bench {
    async fn send(
        &self,
        from: usize,
        to: Address,
        value: u128,
        input: Bytes,
    ) -> TransactionReceipt {
        let from = DEV_ACCOUNTS[from];
        let transaction = Transaction {
            chain_id: self.domain.chain_id(),
            nonce: self
                .chain
                .nonce(from.address, BlockId::Latest)
                .await
                .unwrap(),
            gas_limit: 3_000_000,
            fees: Fees::Legacy {
                gas_price: 2 * self.chain.fees().await.unwrap().gas_price,
            },
            to: Some(to),
            value: U256::from(value),
            input,
        };
        let signed = transaction.sign(&from.signer()).await.unwrap();
        let hash = self.chain.send_raw_transaction(signed.raw).await.unwrap();
        for _ in 0..5000 {
            if let Some(receipt) = self.chain.receipt(hash).await.unwrap() {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        panic!("the transaction is in no block");
    }

    async fn call(&self, from: usize, value: u128, input: Bytes) -> TransactionReceipt {
        self.send(from, self.domain.contract(), value, input).await
    }

    async fn ask(&self, input: Bytes) -> Bytes {
        let call = CallRequest {
            to: Some(self.domain.contract()),
            input,
            ..Default::default()
        };
        self.chain.call(call).await.unwrap()
    }

    async fn state(&self, id: B256) -> ChannelState {
        ChannelState::read(&self.ask(channels::look(id)).await).unwrap()
    }

    /// From account 0 to account 1.
    async fn open(&self, salt: u8, deposit: u128) -> B256 {
        let (payer, payee) = (DEV_ACCOUNTS[0].address, DEV_ACCOUNTS[1].address);
        let salt = B256::repeat_byte(salt);
        let receipt = self.call(0, deposit, channels::open(payee, 60, salt)).await;
        assert!(receipt.succeeded);
        let id = channels::opened(&receipt.logs[0], self.domain.contract(), payer).unwrap();
        let (chain, contract) = (self.domain.chain_id(), self.domain.contract());
        assert_eq!(id, channels::id_of(chain, contract, payer, payee, 60, salt));
        println!("open: {} gas", receipt.gas_used);
        id
    }

    async fn balance(&self, of: usize) -> U256 {
        let balance = self
            .chain
            .balance(DEV_ACCOUNTS[of].address, BlockId::Latest);
        balance.await.unwrap()
    }
}

fn voucher(id: B256, cumulative: u128) -> Voucher {
    Voucher {
        channel: id,
        cumulative,
        context: B256::repeat_byte(0xcc),
    }
}

async fn sign(account: usize, digest: B256) -> WalletSignature {
    DEV_ACCOUNTS[account].signer().sign(digest).await.unwrap()
}

async fn words_made_here_are_taken_there(bench: &Bench) {
    let separator = bench.ask(channels::domain_separator()).await;
    assert_eq!(B256::from_slice(&separator), bench.domain.separator());
    let id = bench.open(1, 1000).await;
    let first = voucher(id, 100);
    let signature = sign(0, first.digest(&bench.domain)).await;
    let claim = |voucher: Voucher, signature: &WalletSignature, close| {
        channels::claim(id, voucher.cumulative, voucher.context, signature, close)
    };
    let receipt = bench.call(1, 0, claim(first, &signature, false)).await;
    assert!(receipt.succeeded, "a voucher");
    println!("claim: {} gas", receipt.gas_used);
    assert!(
        !bench
            .call(1, 0, claim(first, &signature, false))
            .await
            .succeeded,
        "again"
    );
    assert!(
        !bench
            .call(2, 0, claim(voucher(id, 101), &signature, false))
            .await
            .succeeded
    );
    assert_eq!(bench.state(id).await.claimed, 100);

    // What another chain's or another contract's voucher is worth.
    for other in [
        ChannelDomain::new(bench.domain.chain_id() + 1, bench.domain.contract()),
        ChannelDomain::new(bench.domain.chain_id(), Address::repeat_byte(1)),
    ] {
        let more = voucher(id, 200);
        let signature = sign(0, more.digest(&other)).await;
        assert!(
            !bench
                .call(1, 0, claim(more, &signature, false))
                .await
                .succeeded
        );
    }

    let receipt = bench.call(0, 500, channels::top_up(id)).await;
    assert!(receipt.succeeded);
    println!("topUp: {} gas", receipt.gas_used);
    let (key, expiry) = (B256::repeat_byte(5), u64::MAX);
    let locked = LockedVoucher {
        channel: id,
        cumulative: 300,
        context: B256::ZERO,
        key_hash: cipher::key_hash(&key),
        expiry,
    };
    let signature = sign(0, locked.digest(&bench.domain)).await;
    let unlock = |key| channels::claim_locked(id, 300, B256::ZERO, expiry, key, &signature);
    assert!(
        !bench.call(1, 0, unlock(B256::ZERO)).await.succeeded,
        "another key"
    );
    let receipt = bench.call(1, 0, unlock(key)).await;
    assert!(receipt.succeeded, "a locked voucher and its key");
    println!("claimLocked: {} gas", receipt.gas_used);
    let shown = receipt
        .logs
        .iter()
        .find_map(|log| channels::unlocked(log, bench.domain.contract()));
    assert_eq!(
        shown,
        Some((id, locked.key_hash, key)),
        "the payer learns it"
    );

    let last = voucher(id, 9999);
    let signature = sign(0, last.digest(&bench.domain)).await;
    let before = bench.balance(0).await;
    let receipt = bench.call(1, 0, claim(last, &signature, true)).await;
    assert!(receipt.succeeded);
    println!("claimAndClose: {} gas", receipt.gas_used);
    assert!(bench.state(id).await.is_over());
    assert_eq!(
        bench.balance(0).await,
        before,
        "no more than the deposit was there"
    );

    let id = bench.open(2, 1000).await;
    let close = Close {
        channel: id,
        paid: 250,
    };
    let wrong = sign(0, close.digest(&bench.domain)).await;
    let signature = sign(1, close.digest(&bench.domain)).await;
    let end = |signature| channels::cooperative_close(id, 250, signature);
    assert!(
        !bench.call(0, 0, end(&wrong)).await.succeeded,
        "the payer's own word"
    );
    let receipt = bench.call(0, 0, end(&signature)).await;
    assert!(receipt.succeeded);
    println!("cooperativeClose: {} gas", receipt.gas_used);

    let id = bench.open(3, 1000).await;
    let receipt = bench.call(0, 0, channels::start_close(id)).await;
    assert!(receipt.succeeded && bench.state(id).await.is_closing());
    println!("startClose: {} gas", receipt.gas_used);
    assert!(
        !bench.call(0, 0, channels::finalize(id)).await.succeeded,
        "too early"
    );
    let id = bench.open(4, 1000).await;
    assert!(bench.call(1, 0, channels::give_back(id)).await.succeeded);
    assert!(bench.state(id).await.is_over());
}

async fn the_factory_makes_it_where_it_should_be(bench: &Bench) {
    let receipt = bench.send(2, FACTORY, 0, channels::deployment()).await;
    assert!(receipt.succeeded);
    println!(
        "deployment: {} gas at {}",
        receipt.gas_used,
        channels::deployed_at()
    );
    let code = bench.chain.code(channels::deployed_at()).await.unwrap();
    assert_eq!(code, channels::runtime_code());
}

/// Wallet 0 pays wallet 1 as nodes do it, each with a settler and a watcher of its own; the
/// payer then closes, the payee claims within the challenge, and the rest comes back.
async fn nodes_open_pay_challenge_and_end(bench: &Bench, pass: impl AsyncFn(u64)) {
    let genesis = bench.chain.genesis_hash().await.unwrap();
    let node = async |account: usize| {
        let journal = Journal::in_memory().unwrap();
        let wallet: Arc<dyn WalletSigner> = Arc::new(DEV_ACCOUNTS[account].signer());
        let config = SettlerConfig::new(bench.domain.chain_id(), genesis)
            .with_gather(Duration::ZERO)
            .with_poll(Duration::from_millis(100));
        let settler =
            ChainSettler::start(journal.clone(), bench.chain.clone(), wallet.clone(), config);
        let settler = settler.await.unwrap();
        let mut config = ChannelsConfig::default();
        config.poll = Duration::from_millis(200);
        let chain = bench.chain.clone();
        let started = Channels::start(
            journal,
            wallet,
            chain,
            settler.clone(),
            bench.domain,
            config,
        );
        (started.await.unwrap(), settler)
    };
    let (payer, payers) = node(0).await;
    let (payee, payees) = node(1).await;
    let id = payer.open(DEV_ACCOUNTS[1].address, 60, 1000).await.unwrap();
    payer.ready(id).await.unwrap();
    let agreement = B256::repeat_byte(7);
    let seen = payee
        .bind(agreement, DEV_ACCOUNTS[0].address, id, 60)
        .await
        .unwrap();
    assert_eq!(seen, Some(1000));
    for (bytes, amount) in [(10, 100), (25, 250)] {
        let share = Share {
            agreement,
            bytes,
            amount,
        };
        let pay = payer.pay(id, share).await.unwrap();
        assert!(payee.take(&pay, amount).await.unwrap());
    }
    payer.close(id).await.unwrap();
    // The payee's watcher sees it, claims, and gives the rest back.
    let over = async {
        while payer.payer(id).unwrap().phase() != Phase::Closed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
    assert!(bench.state(id).await.is_over());

    // A payee that never answers: the payer has its money back when the challenge is over.
    let id = payer.open(DEV_ACCOUNTS[3].address, 60, 500).await.unwrap();
    payer.ready(id).await.unwrap();
    payer.close(id).await.unwrap();
    let closing = async {
        while !bench.state(id).await.is_closing() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.unwrap();
    pass(61).await;
    let over = async {
        while payer.payer(id).unwrap().phase() != Phase::Closed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
    for (house, settler) in [(payer, payers), (payee, payees)] {
        use chiral_core::PaymentSettler;
        house.shutdown().await.unwrap();
        settler.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_made_here_are_taken_on_the_embedded_chain() {
    words_made_here_are_taken_there(&embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_chains_factory_makes_it_where_it_should_be() {
    the_factory_makes_it_where_it_should_be(&embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_use_channels_on_the_embedded_chain() {
    let bench = embedded().await;
    // Each block is a second later than the one before it.
    let pass = async |seconds: u64| {
        for _ in 0..seconds {
            bench
                .send(5, DEV_ACCOUNTS[6].address, 1, Bytes::new())
                .await;
        }
    };
    nodes_open_pay_challenge_and_end(&bench, pass).await;
}

struct Anvil {
    child: Child,
    url: String,
}

fn program(name: &str) -> std::path::PathBuf {
    let peers = std::env::var("CHIRAL_PEERS").expect("CHIRAL_PEERS has node_modules");
    let scope = std::path::PathBuf::from(peers).join("node_modules/@foundry-rs");
    let folders = std::fs::read_dir(&scope).unwrap();
    let found = folders
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .find(|path| path.is_file() && path.to_string_lossy().contains("-linux-"));
    found.unwrap_or_else(|| panic!("no {name} in {}", scope.display()))
}

impl Anvil {
    fn start() -> Self {
        let arguments = ["--hardfork", "london", "--chain-id", "98765", "--port", "0"];
        let mut child = Command::new(program("anvil"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("Listening on ").map(str::to_owned)
        });
        let url = format!("http://{}", address.expect("anvil listens"));
        // Whatever it prints later must not fill its pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    fn cast(&self, arguments: &[&str]) {
        let output = Command::new(program("cast"))
            .args(arguments)
            .args(["--rpc-url", &self.url])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cast {arguments:?}: {said}");
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/settler-anvil runs it"]
async fn channels_on_anvil_are_the_same() {
    let anvil = Anvil::start();
    let rpc = RpcConfig::default().with_poll_interval(Duration::from_millis(100));
    let chain = Arc::new(RpcChain::new(&anvil.url, rpc).unwrap());
    // anvil has the factory from its first block on.
    let bench = Bench {
        chain: chain.clone(),
        domain: ChannelDomain::new(98_765, channels::deployed_at()),
    };
    the_factory_makes_it_where_it_should_be(&bench).await;
    words_made_here_are_taken_there(&bench).await;
    let pass = async |seconds: u64| {
        let seconds = format!("0x{seconds:x}");
        anvil.cast(&["rpc", "evm_increaseTime", &seconds]);
        anvil.cast(&["rpc", "anvil_mine", "0x1"]);
    };
    nodes_open_pay_challenge_and_end(&bench, pass).await;
    chain.shutdown().await.unwrap();
}
