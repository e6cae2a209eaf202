//! `Channels` on a real EVM, driven as a node drives it: vouchers made here are taken there, and
//! what the settler sends opens, claims and ends channels. On the embedded chain, and, where
//! `tests/interop/settler-anvil` runs it, on anvil.
// Gas is a figure that is reported.
#![allow(clippy::print_stdout)]
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::rpc::RpcConfig;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig,
    Fees, GenesisAccount, LogFilter, RpcChain, Transaction, TransactionReceipt,
};
use chiral_core::{WalletSignature, WalletSigner};
use chiral_payment::channel::payer::Phase;
use chiral_payment::channel::voucher::Share;
use chiral_payment::channel::{
    ChannelDomain, Channels, ChannelsConfig, Close, LockedVoucher, Voucher, cipher,
};
use chiral_payment::contracts::ChannelState;
use chiral_payment::contracts::channels::{self, CHANNELS};
use chiral_payment::contracts::factory::FACTORY;
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Journal};

#[path = "support/anvil.rs"]
mod anvil;
#[path = "support/factory.rs"]
mod factory;

use anvil::Anvil;

const PAYEES: &str = include_str!("../contracts/testing/Payees.json");
const REFUSER: Address = Address::repeat_byte(0xd1);
const RETURNER: Address = Address::repeat_byte(0xd2);
/// Wei for a unit of gas beyond what the chain itself takes.
const TIP: u128 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    chain: Arc<dyn ChainClient>,
    domain: ChannelDomain,
}

async fn embedded() -> Bench {
    let factory = GenesisAccount {
        code: hex::decode(factory::FACTORY_CODE).unwrap().into(),
        ..Default::default()
    };
    let [refuser, returner] = ["Refuser", "Returner"].map(|name| GenesisAccount {
        code: payee(name),
        ..Default::default()
    });
    let spec = ChainSpec::devnet().with_alloc([
        (FACTORY, factory),
        (REFUSER, refuser),
        (RETURNER, returner),
    ]);
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
        // Not what the chain proposes: anvil proposes what was paid last, so that a multiple of
        // it doubles with each transaction, and soon nobody has so much.
        let base = self.chain.fees().await.unwrap().base_fee.unwrap();
        let transaction = Transaction {
            chain_id: self.domain.chain_id(),
            nonce: self
                .chain
                .nonce(from.address, BlockId::Latest)
                .await
                .unwrap(),
            gas_limit: 3_000_000,
            fees: Fees::Legacy {
                gas_price: 2 * base + TIP,
            },
            to: Some(to),
            value: U256::from(value),
            input,
        };
        let signed = transaction.sign(&from.signer()).await.unwrap();
        let sent = self.chain.send_raw_transaction(signed.raw).await;
        let hash = sent.unwrap_or_else(|error| panic!("{error}: {transaction:?}"));
        for _ in 0..5000 {
            if let Some(receipt) = self.chain.receipt(hash).await.unwrap() {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        panic!("the transaction is in no block");
    }

    /// On a chain where each block is a second later than the one before it.
    async fn wait(&self, seconds: u64) {
        for _ in 0..seconds {
            self.send(5, DEV_ACCOUNTS[6].address, 1, Bytes::new()).await;
        }
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

    /// What the payee and the payer had of a channel in the end, as its event says.
    async fn ended_with(&self, id: B256) -> (u128, u128) {
        let head = self.chain.head().await.unwrap();
        let filter = LogFilter {
            from_block: 0,
            to_block: head.number,
            address: Some(self.domain.contract()),
            topics: Vec::new(),
        };
        let logs = self.chain.logs(filter).await.unwrap();
        let closed = |log| channels::closed(log, self.domain.contract());
        let its: Vec<_> = logs
            .iter()
            .filter_map(closed)
            .filter(|(of, ..)| *of == id)
            .collect();
        assert_eq!(its.len(), 1, "{its:?}");
        (its[0].1, its[0].2)
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

/// What makes `Refuser` say something.
fn says(to: Address, words: &Bytes) -> Bytes {
    alloy_sol_types::sol! {
        function say(address to, bytes words);
    }
    let words = words.to_vec().into();
    alloy_sol_types::SolCall::abi_encode(&sayCall { to, words }).into()
}

/// The code of a payee that does what it should not.
fn payee(name: &str) -> Bytes {
    let codes: serde_json::Value = serde_json::from_str(PAYEES).unwrap();
    hex::decode(codes[name].as_str().unwrap()).unwrap().into()
}

/// Reverting payees, signatures with the higher s, vouchers in any order, locks that have
/// expired, the race for the end of a challenge, and a payee that is away until the last block.
async fn attacks_and_races_pay_what_was_promised(bench: &Bench, pass: impl AsyncFn(u64)) {
    let claim = async |id: B256, cumulative: u128, close: bool| {
        let said = voucher(id, cumulative);
        let signature = sign(0, said.digest(&bench.domain)).await;
        channels::claim(id, cumulative, said.context, &signature, close)
    };

    // Vouchers in any order: the highest counts, an older one takes nothing back.
    let id = bench.open(11, 1000).await;
    for (cumulative, succeeds, claimed) in [(300, true, 300), (200, false, 300), (700, true, 700)] {
        let input = claim(id, cumulative, false).await;
        let receipt = bench.call(1, 0, input).await;
        assert_eq!(receipt.succeeded, succeeds, "{cumulative}");
        assert_eq!(bench.state(id).await.claimed, claimed);
    }

    // The same signature with the higher s is none.
    let mut twisted = claim(id, 800, false).await.to_vec();
    let s = twisted.len() - 32;
    let vs = U256::from_be_slice(&twisted[s..]);
    let parity = vs >> 255;
    let low = vs & ((U256::from(1) << 255) - U256::from(1));
    let order = U256::from_str_radix(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        16,
    );
    // There is no room for it beside the other parity, which is what refuses it.
    let high: U256 = (order.unwrap() - low) | ((U256::from(1) - parity) << 255);
    twisted[s..].copy_from_slice(&high.to_be_bytes::<32>());
    assert!(!bench.call(1, 0, twisted.into()).await.succeeded, "high s");
    let good = claim(id, 800, false).await;
    assert!(bench.call(1, 0, good).await.succeeded);

    // Challenge race: the payer begins the end, the payee claims within it, and nothing after.
    assert!(bench.call(0, 0, channels::start_close(id)).await.succeeded);
    let state = bench.state(id).await;
    assert!(state.is_closing());
    let early = bench.call(0, 0, channels::finalize(id)).await;
    assert!(!early.succeeded, "the challenge is not over");
    let topped = bench.call(0, 10, channels::top_up(id)).await;
    assert!(!topped.succeeded, "a channel that ends takes no more");
    // Away until the last block of the challenge, and later still: as long as nobody has ended
    // it, what was promised is paid.
    pass(61).await;
    let before = bench.balance(0).await;
    let last = claim(id, 900, true).await;
    let receipt = bench.call(1, 0, last).await;
    assert!(receipt.succeeded, "in the last moment");
    assert!(bench.state(id).await.is_over());
    let back = bench.balance(0).await - before;
    assert_eq!(back, U256::from(100), "and the rest is back with its payer");
    for late in [channels::finalize(id), claim(id, 1000, false).await] {
        assert!(!bench.call(1, 0, late).await.succeeded, "it is over");
    }

    // Once it is ended, who comes late gets nothing, whatever was promised.
    let id = bench.open(12, 1000).await;
    assert!(bench.call(0, 0, channels::start_close(id)).await.succeeded);
    pass(61).await;
    assert!(bench.call(0, 0, channels::finalize(id)).await.succeeded);
    let late = claim(id, 500, false).await;
    assert!(!bench.call(1, 0, late).await.succeeded);

    // A lock that has expired is worth nothing, even with its key.
    let id = bench.open(13, 1000).await;
    let block = bench.chain.block(BlockId::Latest).await.unwrap().unwrap();
    let (key, expiry) = (B256::repeat_byte(6), block.timestamp);
    let locked = LockedVoucher {
        channel: id,
        cumulative: 100,
        context: B256::ZERO,
        key_hash: cipher::key_hash(&key),
        expiry,
    };
    let signature = sign(0, locked.digest(&bench.domain)).await;
    let late = channels::claim_locked(id, 100, B256::ZERO, expiry, key, &signature);
    assert!(!bench.call(1, 0, late).await.succeeded, "expired");

    // A payee that refuses money is credited, and stops nobody.
    let salt = B256::repeat_byte(14);
    let receipt = bench.call(0, 700, channels::open(REFUSER, 60, salt)).await;
    assert!(receipt.succeeded);
    let contract = bench.domain.contract();
    let id = channels::id_of(
        bench.domain.chain_id(),
        contract,
        DEV_ACCOUNTS[0].address,
        REFUSER,
        60,
        salt,
    );
    let said = voucher(id, 600);
    let signature = sign(0, said.digest(&bench.domain)).await;
    let words = channels::claim(id, 600, said.context, &signature, true);
    let foreign = bench.call(1, 0, words.clone()).await;
    assert!(!foreign.succeeded, "only the payee claims");
    let before = bench.balance(0).await;
    let receipt = bench.send(2, REFUSER, 0, says(contract, &words)).await;
    assert!(receipt.succeeded && bench.state(id).await.is_over());
    assert_eq!(bench.balance(0).await - before, U256::from(100));
    let credit = U256::from_be_slice(&bench.ask(channels::credits(REFUSER)).await);
    assert_eq!(credit, U256::from(600), "kept for it");
    let elsewhere = Address::repeat_byte(0xe1);
    let words = channels::withdraw(elsewhere);
    for succeeds in [true, false] {
        let receipt = bench.send(2, REFUSER, 0, says(contract, &words)).await;
        assert_eq!(receipt.succeeded, succeeds, "once");
    }
    let got = bench.chain.balance(elsewhere, BlockId::Latest).await;
    assert_eq!(got.unwrap(), U256::from(600));
}

/// Each call by everybody whose call it is not, and with words of whoever may not say them.
async fn nobody_but_the_parties_moves_anything(bench: &Bench) {
    let id = bench.open(21, 1000).await;
    let said = voucher(id, 400);
    let close = Close {
        channel: id,
        paid: 100,
    };
    let (key, expiry) = (B256::repeat_byte(6), u64::MAX);
    let locked = LockedVoucher {
        channel: id,
        cumulative: 300,
        context: B256::ZERO,
        key_hash: cipher::key_hash(&key),
        expiry,
    };
    let claim = async |by: usize, close: bool| {
        let signature = sign(by, said.digest(&bench.domain)).await;
        channels::claim(id, said.cumulative, said.context, &signature, close)
    };
    let claim_locked = async |by: usize, key: B256| {
        let signature = sign(by, locked.digest(&bench.domain)).await;
        channels::claim_locked(id, 300, B256::ZERO, expiry, key, &signature)
    };
    let leave = async |by: usize| {
        let signature = sign(by, close.digest(&bench.domain)).await;
        channels::cooperative_close(id, close.paid, &signature)
    };
    let before = bench.state(id).await;
    let mut wrong = Vec::new();
    for stranger in [1, 2] {
        wrong.push(("topUp", stranger, 10, channels::top_up(id)));
        wrong.push(("startClose", stranger, 0, channels::start_close(id)));
        wrong.push(("cooperativeClose", stranger, 0, leave(1).await));
    }
    for stranger in [0, 2] {
        wrong.push(("claim", stranger, 0, claim(0, false).await));
        wrong.push(("claimAndClose", stranger, 0, claim(0, true).await));
        wrong.push(("giveBack", stranger, 0, channels::give_back(id)));
        wrong.push(("claimLocked", stranger, 0, claim_locked(0, key).await));
    }
    for anybody in [0, 1, 2] {
        wrong.push(("finalize", anybody, 0, channels::finalize(id)));
    }
    for liar in [1, 2] {
        wrong.push(("a voucher of another", 1, 0, claim(liar, false).await));
        wrong.push(("an end with it", 1, 0, claim(liar, true).await));
        wrong.push(("a lock of another", 1, 0, claim_locked(liar, key).await));
    }
    let other = claim_locked(0, B256::repeat_byte(7)).await;
    wrong.push(("another key", 1, 0, other));
    for liar in [0, 2] {
        wrong.push(("another's leave", 0, 0, leave(liar).await));
    }
    for (what, from, value, input) in wrong {
        let receipt = bench.call(from, value, input).await;
        assert!(!receipt.succeeded, "{what} by {from}");
        assert_eq!(bench.state(id).await, before, "{what} by {from}");
    }

    let [payer, payee] = [0, 1].map(|n: usize| DEV_ACCOUNTS[n].address);
    let (longest, salt) = (30 * 86_400, B256::repeat_byte(22));
    for (what, value, input) in [
        ("nobody", 10, channels::open(Address::ZERO, 60, salt)),
        ("itself", 10, channels::open(payer, 60, salt)),
        ("too short", 10, channels::open(payee, 59, salt)),
        ("too long", 10, channels::open(payee, longest + 1, salt)),
        ("nothing", 0, channels::open(payee, 60, salt)),
        (
            "twice",
            10,
            channels::open(payee, 60, B256::repeat_byte(21)),
        ),
    ] {
        assert!(!bench.call(0, value, input).await.succeeded, "{what}");
    }
    // And what each of them may do is done.
    assert!(bench.call(1, 0, claim_locked(0, key).await).await.succeeded);
    assert!(bench.call(1, 0, claim(0, false).await).await.succeeded);
    assert!(bench.call(0, 10, channels::top_up(id)).await.succeeded);
    let state = bench.state(id).await;
    assert_eq!((state.claimed, state.deposit), (400, 1010));
}

/// A payee that calls the contract from within being paid: once with the little gas that a
/// receiver gets, then with all that there is, when it withdraws.
async fn who_comes_back_while_being_paid_gets_nothing_twice(bench: &Bench) {
    alloy_sol_types::sol! {
        function prepare(address channels, bytes[] words);
        function say(bytes words);
        function entered() returns (uint256);
        function succeeded() returns (uint256);
    }
    use alloy_sol_types::SolCall;
    let contract = bench.domain.contract();
    let say = |words: &Bytes| -> Bytes {
        let words = words.to_vec().into();
        sayCall { words }.abi_encode().into()
    };
    let count = async |input: Vec<u8>| {
        let call = CallRequest {
            to: Some(RETURNER),
            input: input.into(),
            ..Default::default()
        };
        U256::from_be_slice(&bench.chain.call(call).await.unwrap())
    };
    let holds = async |of: Address| {
        let balance = bench.chain.balance(of, BlockId::Latest).await.unwrap();
        balance.to::<u128>()
    };
    let credit =
        async || U256::from_be_slice(&bench.ask(channels::credits(RETURNER)).await).to::<u128>();
    // Somebody else's money, to be had by whoever breaks in.
    bench.open(31, 500).await;
    let before = holds(contract).await;
    let salt = B256::repeat_byte(32);
    let opened = bench.call(0, 100, channels::open(RETURNER, 60, salt)).await;
    assert!(opened.succeeded);
    let payer = DEV_ACCOUNTS[0].address;
    let id = channels::id_of(bench.domain.chain_id(), contract, payer, RETURNER, 60, salt);
    let withdraw = channels::withdraw(RETURNER);
    let mut entered = U256::ZERO;
    for (cumulative, close) in [(60, false), (80, true)] {
        let said = voucher(id, cumulative);
        let signature = sign(0, said.digest(&bench.domain)).await;
        let claim = channels::claim(id, cumulative, said.context, &signature, close);
        // What it says from within: the same again, and its credit.
        let words = [&claim, &withdraw].map(|words| words.to_vec().into());
        let prepare = prepareCall {
            channels: contract,
            words: words.to_vec(),
        };
        let prepared = bench.send(2, RETURNER, 0, prepare.abi_encode().into());
        assert!(prepared.await.succeeded);
        assert!(bench.send(2, RETURNER, 0, say(&claim)).await.succeeded);
        assert_eq!(holds(RETURNER).await + credit().await, cumulative);
        if credit().await > 0 {
            assert!(bench.send(2, RETURNER, 0, say(&withdraw)).await.succeeded);
        }
        assert!(
            count(enteredCall {}.abi_encode()).await > entered,
            "it came back"
        );
        entered = count(enteredCall {}.abi_encode()).await;
        assert_eq!(count(succeededCall {}.abi_encode()).await, U256::ZERO);
        assert_eq!(holds(RETURNER).await, cumulative);
        assert!(!bench.send(2, RETURNER, 0, say(&withdraw)).await.succeeded);
    }
    assert!(bench.state(id).await.is_over());
    assert_eq!(holds(contract).await, before, "the sum is conserved");
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
    assert_eq!(bench.ended_with(id).await, (250, 750));

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
async fn attacks_and_races_on_the_embedded_chain_pay_what_was_promised() {
    let bench = embedded().await;
    attacks_and_races_pay_what_was_promised(&bench, async |seconds| bench.wait(seconds).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_chain_nobody_but_the_parties_moves_anything() {
    nobody_but_the_parties_moves_anything(&embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_chain_who_comes_back_gets_nothing_twice() {
    who_comes_back_while_being_paid_gets_nothing_twice(&embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_chains_factory_makes_it_where_it_should_be() {
    the_factory_makes_it_where_it_should_be(&embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_use_channels_on_the_embedded_chain() {
    let bench = embedded().await;
    nodes_open_pay_challenge_and_end(&bench, async |seconds| bench.wait(seconds).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/settler-anvil runs it"]
async fn channels_on_anvil_are_the_same() {
    let anvil = Anvil::start();
    for (at, name) in [(REFUSER, "Refuser"), (RETURNER, "Returner")] {
        let code = hex::encode_prefixed(payee(name));
        anvil.cast(&["rpc", "anvil_setCode", &at.to_string(), &code]);
    }
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
    attacks_and_races_pay_what_was_promised(&bench, &pass).await;
    nobody_but_the_parties_moves_anything(&bench).await;
    who_comes_back_while_being_paid_gets_nothing_twice(&bench).await;
    nodes_open_pay_challenge_and_end(&bench, &pass).await;
    chain.shutdown().await.unwrap();
}
