//! `BatchPay` on a real EVM: pays once, refunds what it does not pay, keeps for the payee what
//! that refuses, and gives nothing away to those who come back while they are paid.
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use bytes::Bytes;
use chiral_chain::rpc::RpcConfig;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig,
    Fees, GenesisAccount, RpcChain, Transaction, TransactionReceipt,
};
use chiral_core::BillId;
use chiral_payment::contracts::batch_pay::{self, skipped};
use chiral_payment::contracts::factory::FACTORY;
use chiral_payment::contracts::{BatchPayment, Leg};

#[path = "support/anvil.rs"]
mod anvil;
#[path = "support/factory.rs"]
mod factory;

use anvil::Anvil;

const REFUSER: Address = Address::repeat_byte(0xd1);
const BURNER: Address = Address::repeat_byte(0xd2);
const BOMB: Address = Address::repeat_byte(0xd3);
const REENTRANT: Address = Address::repeat_byte(0xd4);
const PAYEES: &str = include_str!("../contracts/testing/Payees.json");

struct Bench {
    chain: Arc<dyn ChainClient>,
    contract: Address,
    /// The process, where the chain is one.
    _anvil: Option<Anvil>,
}

/// Where a test has its chain.
#[derive(Clone, Copy)]
enum On {
    Embedded,
    Anvil,
}

fn payees() -> [(Address, Bytes); 4] {
    let codes: serde_json::Value = serde_json::from_str(PAYEES).unwrap();
    [
        (REFUSER, "Refuser"),
        (BURNER, "Burner"),
        (BOMB, "Bomb"),
        (REENTRANT, "Reentrant"),
    ]
    .map(|(at, name)| {
        (
            at,
            hex::decode(codes[name].as_str().unwrap()).unwrap().into(),
        )
    })
}

impl Bench {
    async fn new(on: On) -> Self {
        match on {
            On::Embedded => Self::embedded().await,
            On::Anvil => Self::anvil(),
        }
    }

    async fn embedded() -> Self {
        let alloc = payees().map(|(at, code)| {
            let account = GenesisAccount {
                code,
                ..Default::default()
            };
            (at, account)
        });
        let factory = GenesisAccount {
            code: hex::decode(factory::FACTORY_CODE).unwrap().into(),
            ..Default::default()
        };
        let alloc = alloc.into_iter().chain([(FACTORY, factory)]);
        let spec = ChainSpec::devnet().with_alloc(alloc);
        let config = EmbeddedConfig::default().with_max_clock_lead(Duration::from_secs(1 << 20));
        Self {
            chain: Arc::new(EmbeddedChain::open(spec, config).await.unwrap()),
            contract: ChainSpec::predeployed("BatchPay").unwrap(),
            _anvil: None,
        }
    }

    fn anvil() -> Self {
        let anvil = Anvil::start();
        let contract = ChainSpec::predeployed("BatchPay").unwrap();
        let code = (contract, batch_pay::runtime_code());
        for (at, code) in payees().into_iter().chain([code]) {
            let code = hex::encode_prefixed(code);
            anvil.cast(&["rpc", "anvil_setCode", &at.to_string(), &code]);
        }
        let rpc = RpcConfig::default().with_poll_interval(Duration::from_millis(100));
        Self {
            chain: Arc::new(RpcChain::new(&anvil.url, rpc).unwrap()),
            contract,
            _anvil: Some(anvil),
        }
    }

    /// A transaction of development account `from`.
    async fn send(
        &self,
        from: usize,
        to: Option<Address>,
        value: u64,
        input: Bytes,
        gas_limit: u64,
    ) -> TransactionReceipt {
        let from = DEV_ACCOUNTS[from];
        let transaction = Transaction {
            chain_id: ChainSpec::devnet().chain_id,
            nonce: self
                .chain
                .nonce(from.address, BlockId::Latest)
                .await
                .unwrap(),
            gas_limit,
            fees: Fees::Legacy {
                gas_price: 2 * self.chain.fees().await.unwrap().gas_price,
            },
            to,
            value: U256::from(value),
            input,
        };
        let signed = transaction.sign(&from.signer()).await.unwrap();
        let hash = self.chain.send_raw_transaction(signed.raw).await.unwrap();
        for _ in 0..2000 {
            if let Some(receipt) = self.chain.receipt(hash).await.unwrap() {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the transaction is in no block");
    }

    async fn pay(&self, from: usize, value: u64, legs: &[Leg]) -> TransactionReceipt {
        let input = batch_pay::pay(legs.to_vec());
        self.send(from, Some(self.contract), value, input, 2_000_000)
            .await
    }

    async fn balance(&self, of: Address) -> u64 {
        let balance = self.chain.balance(of, BlockId::Latest).await.unwrap();
        balance.to()
    }

    async fn ask(&self, input: Bytes) -> U256 {
        let call = CallRequest {
            to: Some(self.contract),
            input,
            ..Default::default()
        };
        U256::from_be_slice(&self.chain.call(call).await.unwrap())
    }

    async fn credit(&self, of: Address) -> u64 {
        self.ask(batch_pay::credits(of)).await.to()
    }

    fn payments(&self, receipt: &TransactionReceipt) -> Vec<(Address, u64, bool)> {
        let logs = receipt.logs.iter();
        logs.filter_map(|log| BatchPayment::from_log(log, self.contract))
            .map(|payment| (payment.payee, payment.amount as u64, payment.credited))
            .collect()
    }
}

fn leg(nonce: u64, to: Address, amount: u64) -> Leg {
    Leg {
        nonce: U256::from(nonce),
        bill: B256::with_last_byte(nonce as u8),
        to,
        amount: u128::from(amount),
        meta: Default::default(),
    }
}

fn payee(n: u8) -> Address {
    Address::repeat_byte(0xa0 + n)
}

fn call(signature: &str, arguments: &[B256]) -> Bytes {
    let mut input = keccak256(signature)[..4].to_vec();
    arguments
        .iter()
        .for_each(|word| input.extend_from_slice(word.as_slice()));
    input.into()
}

async fn a_used_nonce_is_skipped_and_refunded_and_belongs_to_its_payer_alone(on: On) {
    let bench = Bench::new(on).await;
    // At both ends of a word of the bitmap, and the same bit of the next.
    let legs = [
        leg(0, payee(1), 10),
        leg(255, payee(2), 20),
        leg(256, payee(3), 30),
    ];
    let receipt = bench.pay(0, 100, &legs).await;
    assert!(receipt.succeeded);
    let paid = [
        (payee(1), 10, false),
        (payee(2), 20, false),
        (payee(3), 30, false),
    ];
    assert_eq!(bench.payments(&receipt), paid);
    assert_eq!(
        bench.balance(bench.contract).await,
        0,
        "what is left went back"
    );

    // Again, with one that is new, in one transaction and twice in it.
    let again = [
        legs[0].clone(),
        leg(1, payee(1), 5),
        leg(1, payee(1), 5),
        legs[2].clone(),
    ];
    let receipt = bench.pay(0, 50, &again).await;
    assert_eq!(bench.payments(&receipt), [(payee(1), 5, false)]);
    let payer = DEV_ACCOUNTS[0].address;
    let left_out: Vec<_> = receipt
        .logs
        .iter()
        .filter_map(|log| skipped(log, bench.contract, payer))
        .collect();
    let bills = [0, 1, 0].map(|n| BillId(B256::with_last_byte(n)));
    assert_eq!(left_out, bills, "nonce 256 has the last byte 0");
    assert_eq!(
        (bench.balance(payee(1)).await, bench.balance(payee(3)).await),
        (15, 30)
    );
    assert_eq!(bench.balance(bench.contract).await, 0);

    for (payer, nonce, used) in [(0, 0, 1), (0, 255, 1), (0, 254, 0), (1, 0, 0)] {
        let ask = batch_pay::is_used(DEV_ACCOUNTS[payer].address, U256::from(nonce));
        assert_eq!(bench.ask(ask).await, U256::from(used), "{payer} {nonce}");
    }
    let receipt = bench.pay(1, 10, &legs[..1]).await;
    assert_eq!(
        bench.payments(&receipt),
        [(payee(1), 10, false)],
        "another payer's"
    );
}

async fn too_little_money_or_gas_pays_nobody(on: On) {
    let bench = Bench::new(on).await;
    let legs = [leg(0, payee(1), 10), leg(1, payee(2), 20)];
    assert!(!bench.pay(0, 29, &legs).await.succeeded);
    // Enough for the payment, not for what a payee may use of it: nobody is made to fail.
    let input = batch_pay::pay(vec![leg(0, REFUSER, 10)]);
    let receipt = bench.send(0, Some(bench.contract), 10, input, 90_000).await;
    assert!(!receipt.succeeded);
    assert_eq!(
        (bench.balance(payee(1)).await, bench.credit(REFUSER).await),
        (0, 0)
    );
    assert!(
        bench.pay(0, 30, &legs).await.succeeded,
        "the nonces are still good"
    );
    assert_eq!(bench.balance(payee(2)).await, 20);
}

async fn who_refuses_is_credited_and_stops_nobody(on: On) {
    let bench = Bench::new(on).await;
    let legs = [
        leg(0, payee(1), 10),
        leg(1, REFUSER, 20),
        leg(2, BURNER, 30),
        leg(3, BOMB, 40),
        leg(4, bench.contract, 50),
        leg(5, REFUSER, 5),
        leg(6, payee(2), 60),
    ];
    let receipt = bench.pay(0, 1000, &legs).await;
    assert!(receipt.succeeded);
    let credited: Vec<_> = bench
        .payments(&receipt)
        .iter()
        .map(|payment| payment.2)
        .collect();
    assert_eq!(credited, [false, true, true, true, true, true, false]);
    assert!(receipt.gas_used < 500_000, "{} gas", receipt.gas_used);
    assert_eq!(
        (bench.balance(payee(1)).await, bench.balance(payee(2)).await),
        (10, 60)
    );
    let kept = [
        (REFUSER, 25),
        (BURNER, 30),
        (BOMB, 40),
        (bench.contract, 50),
    ];
    for (payee, credit) in kept {
        assert_eq!(
            (bench.credit(payee).await, bench.balance(payee).await),
            (credit, if payee == bench.contract { 145 } else { 0 }),
            "{payee}"
        );
    }
    // Paid is paid: the nonce of a credited leg is used.
    let receipt = bench.pay(0, 20, &legs[1..2]).await;
    assert_eq!(bench.payments(&receipt), []);

    let mut arguments = [bench.contract.into_word(), payee(3).into_word()];
    let withdraw = call("withdraw(address,address)", &arguments);
    assert!(
        bench
            .send(0, Some(REFUSER), 0, withdraw.clone(), 200_000)
            .await
            .succeeded
    );
    assert_eq!(
        (bench.balance(payee(3)).await, bench.credit(REFUSER).await),
        (25, 0)
    );
    let twice = bench.send(0, Some(REFUSER), 0, withdraw, 200_000).await;
    assert!(!twice.succeeded, "there is no credit any more");
    // Nobody withdraws another's credit, and a refused withdrawal keeps it.
    let direct = batch_pay::withdraw(payee(3));
    assert!(
        !bench
            .send(1, Some(bench.contract), 0, direct, 200_000)
            .await
            .succeeded
    );
    bench.pay(0, 7, &[leg(7, REFUSER, 7)]).await;
    arguments[1] = BURNER.into_word();
    let into_the_fire = call("withdraw(address,address)", &arguments);
    assert!(
        !bench
            .send(0, Some(REFUSER), 0, into_the_fire, 200_000)
            .await
            .succeeded
    );
    assert_eq!(bench.credit(REFUSER).await, 7);
}

async fn who_comes_back_while_being_paid_gets_nothing_twice(on: On) {
    for refusing in [false, true] {
        let bench = Bench::new(on).await;
        // Somebody else's money is in the contract, to be had by whoever breaks it.
        bench.pay(1, 500, &[leg(0, REFUSER, 500)]).await;
        let flag = B256::with_last_byte(u8::from(refusing));
        let prepare = call("prepare(address,bool)", &[bench.contract.into_word(), flag]);
        assert!(
            bench
                .send(0, Some(REENTRANT), 0, prepare, 200_000)
                .await
                .succeeded
        );

        let mut pay = batch_pay::pay(vec![leg(0, REENTRANT, 10), leg(1, payee(1), 20)]).to_vec();
        pay[..4].copy_from_slice(&keccak256("pay((uint256,bytes32,address,uint128,bytes)[])")[..4]);
        let receipt = bench
            .send(0, Some(REENTRANT), 30, pay.into(), 3_000_000)
            .await;
        assert!(receipt.succeeded);
        assert_eq!(bench.payments(&receipt).len(), 2, "each leg once");
        assert_eq!(bench.balance(payee(1)).await, 20);
        let (balance, credit) = (
            bench.balance(REENTRANT).await,
            bench.credit(REENTRANT).await,
        );
        assert_eq!(
            balance + credit,
            10,
            "refusing {refusing}: {balance} and {credit}"
        );
        assert_eq!(bench.balance(bench.contract).await, 500 + credit);

        let withdraw = call("withdraw()", &[]);
        let withdrawn = bench.send(0, Some(REENTRANT), 0, withdraw, 1_000_000).await;
        assert_eq!(withdrawn.succeeded, credit > 0);
        assert_eq!(bench.balance(REENTRANT).await, 10);
        let call = CallRequest {
            to: Some(REENTRANT),
            input: call("entered()", &[]),
            ..Default::default()
        };
        let entered = U256::from_be_slice(&bench.chain.call(call).await.unwrap());
        assert!(!entered.is_zero(), "it did come back");
        assert_eq!(
            bench.balance(bench.contract).await,
            500,
            "the sum is conserved"
        );
        assert_eq!(bench.credit(REFUSER).await, 500);
    }
}

async fn what_it_makes_is_what_the_devnet_has(on: On) {
    let bench = Bench::new(on).await;
    let code = bench.chain.code(bench.contract).await.unwrap();
    assert_eq!(code, batch_pay::runtime_code());
    let creation = batch_pay::creation_code();
    let receipt = bench.send(0, None, 0, creation, 2_000_000).await;
    let made = bench.chain.code(receipt.contract.unwrap()).await.unwrap();
    assert_eq!(made, code);
}

async fn the_factory_makes_it_at_one_address_everywhere(on: On) {
    let bench = Bench::new(on).await;
    let at = batch_pay::deployed_at();
    assert!(bench.chain.code(at).await.unwrap().is_empty());
    // Whoever asks for it, and once only.
    for (from, makes) in [(2, true), (3, false)] {
        let words = batch_pay::deployment();
        let receipt = bench.send(from, Some(FACTORY), 0, words, 2_000_000).await;
        assert_eq!(receipt.succeeded, makes);
        let code = bench.chain.code(at).await.unwrap();
        assert_eq!(code, batch_pay::runtime_code());
    }
}

async fn gas_of_a_batch(on: On) {
    let bench = Bench::new(on).await;
    let mut nonce = 0;
    for count in [1u64, 2, 5, 20] {
        let mut gas = Vec::new();
        // New payees, then the same again.
        for _ in 0..2 {
            let legs: Vec<_> = (0..count)
                .map(|n| Leg {
                    meta: vec![7; 150].into(),
                    ..leg(
                        nonce + n,
                        Address::left_padding_from(&[9, count as u8, n as u8]),
                        1,
                    )
                })
                .collect();
            nonce += count;
            gas.push(bench.pay(0, count, &legs).await.gas_used);
        }
        println!(
            "{count} legs: {} gas, of payees the chain knows {}",
            gas[0], gas[1]
        );
        assert!(gas[1] < 45_000 + 18_000 * count, "{gas:?}");
    }
}

/// The same on both chains.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(super::On::Embedded).await;
                }
            )*
        }

        mod anvils {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "tests/interop/settler-anvil runs it"]
                async fn $name() {
                    super::$name(super::On::Anvil).await;
                }
            )*
        }
    };
}

on_both![
    a_used_nonce_is_skipped_and_refunded_and_belongs_to_its_payer_alone,
    too_little_money_or_gas_pays_nobody,
    who_refuses_is_credited_and_stops_nobody,
    who_comes_back_while_being_paid_gets_nothing_twice,
    what_it_makes_is_what_the_devnet_has,
    the_factory_makes_it_at_one_address_everywhere,
    gas_of_a_batch,
];
