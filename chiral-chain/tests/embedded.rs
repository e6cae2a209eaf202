//! The embedded chain: money, contracts, fees, the pool's order.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::embedded::HISTORY_BLOCKS;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainError, ChainSpec, DEV_ACCOUNTS, EmbeddedChain,
    EmbeddedConfig, Fees, LogFilter, PoolLimits, RefusalKind, Rules, Sealing, Transaction,
    TransactionReceipt,
};
use futures_util::StreamExt;

const GWEI: u128 = 1_000_000_000;
const MINER: Address = Address::repeat_byte(0xc0);
const PAYEE: Address = Address::repeat_byte(0xbe);

fn transfer(nonce: u64, value: u64) -> Transaction {
    Transaction {
        chain_id: 98_765,
        nonce,
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: 3 * GWEI,
        },
        to: Some(PAYEE),
        value: U256::from(value),
        input: Bytes::new(),
    }
}

async fn signed(account: usize, transaction: &Transaction) -> Bytes {
    let signer = DEV_ACCOUNTS[account].signer();
    transaction.sign(&signer).await.unwrap().raw.clone()
}

async fn open(sealing: Sealing) -> EmbeddedChain {
    let config = EmbeddedConfig::default()
        .with_sealing(sealing)
        .with_coinbase(MINER);
    EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap()
}

/// Waits for the receipt of a transaction, for at most ten seconds.
async fn mined(chain: &EmbeddedChain, hash: B256) -> TransactionReceipt {
    let mut heads = chain.heads().await.unwrap();
    let receipt = async {
        loop {
            if let Some(receipt) = chain.receipt(hash).await.unwrap() {
                return receipt;
            }
            heads.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), receipt)
        .await
        .unwrap()
}

async fn refusal(chain: &EmbeddedChain, raw: Bytes) -> (RefusalKind, String) {
    match chain.send_raw_transaction(raw).await {
        Err(ChainError::Refused { kind, reason }) => (kind, reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_transfer_is_mined_at_once_and_no_wei_is_lost() {
    let chain = open(Sealing::OnDemand).await;
    let sender = DEV_ACCOUNTS[0].address;
    let before = chain.balance(sender, BlockId::Latest).await.unwrap();
    let started = std::time::Instant::now();
    let transaction = Transaction {
        fees: Fees::Dynamic {
            max_fee_per_gas: 5 * GWEI,
            max_priority_fee_per_gas: 2 * GWEI,
        },
        ..transfer(0, 77)
    };
    let hash = chain
        .send_raw_transaction(signed(0, &transaction).await)
        .await
        .unwrap();
    let receipt = mined(&chain, hash).await;
    assert!(started.elapsed() < Duration::from_millis(500));
    assert!(receipt.succeeded);
    assert_eq!(receipt.gas_used, 21_000);
    // Block 1's base fee is an eighth below the first gigawei: block 0 was empty.
    let base_fee = 875_000_000;
    assert_eq!(receipt.effective_gas_price, base_fee + 2 * GWEI);
    let paid = U256::from(21_000 * receipt.effective_gas_price);
    let balance = |of| chain.balance(of, BlockId::Latest);
    assert_eq!(
        balance(sender).await.unwrap(),
        before - paid - U256::from(77)
    );
    assert_eq!(balance(PAYEE).await.unwrap(), U256::from(77));
    let reward = ChainSpec::devnet().block_reward;
    let tips = U256::from(21_000 * 2 * GWEI);
    assert_eq!(balance(MINER).await.unwrap(), reward + tips);
    // Before the block nobody had anything of it.
    let first = BlockId::Number(0);
    assert_eq!(chain.balance(PAYEE, first).await.unwrap(), U256::ZERO);
    assert_eq!(chain.balance(sender, first).await.unwrap(), before);
    chain.shutdown().await.unwrap();
    chain.shutdown().await.unwrap();
    assert!(matches!(chain.head().await, Err(ChainError::Closed)));
}

#[tokio::test]
async fn all_wei_are_the_genesis_and_the_rewards_without_what_was_burnt() {
    let chain = open(Sealing::Manual).await;
    let mut burnt = U256::ZERO;
    for round in 0..3u64 {
        for account in 0..4usize {
            let raw = signed(account, &transfer(round, 1_000 + account as u64)).await;
            chain.send_raw_transaction(raw).await.unwrap();
        }
        chain.seal().await.unwrap();
    }
    for number in 1..=3 {
        let block = chain.block(BlockId::Number(number)).await.unwrap().unwrap();
        assert_eq!(block.transactions.len(), 4);
        burnt += U256::from(4 * 21_000 * block.base_fee.unwrap());
    }
    let spec = ChainSpec::devnet();
    let made: U256 = spec.alloc.values().map(|account| account.balance).sum();
    let mut owned = U256::ZERO;
    for wallet in spec.alloc.keys().chain([&MINER, &PAYEE]) {
        owned += chain.balance(*wallet, BlockId::Latest).await.unwrap();
    }
    assert_eq!(owned, made + U256::from(3) * spec.block_reward - burnt);
    chain.shutdown().await.unwrap();
}

/// Logs its calldata's first word under topic 1, or reverts with it if the second word is not
/// zero. Written by hand:
/// `CALLDATALOAD(0) → MSTORE(0); CALLDATALOAD(32) ? REVERT(0, 32) : LOG1(0, 32, 1)`.
const RUNTIME: [u8; 26] = hex!("60003560005260203560145760016020" "6000a1005b60206000fd");

fn init_code() -> Bytes {
    let length = RUNTIME.len() as u8;
    // CODECOPY(0, 12, length); RETURN(0, length)
    let mut code = vec![
        0x60, length, 0x60, 12, 0x60, 0, 0x39, 0x60, length, 0x60, 0, 0xf3,
    ];
    code.extend_from_slice(&RUNTIME);
    code.into()
}

fn words(first: u8, second: u8) -> Bytes {
    let mut words = vec![0; 64];
    words[31] = first;
    words[63] = second;
    words.into()
}

#[tokio::test]
async fn a_contract_is_made_called_logs_and_reverts() {
    let chain = open(Sealing::OnDemand).await;
    let make = Transaction {
        to: None,
        value: U256::ZERO,
        input: init_code(),
        gas_limit: 200_000,
        ..transfer(0, 0)
    };
    let hash = chain
        .send_raw_transaction(signed(0, &make).await)
        .await
        .unwrap();
    let receipt = mined(&chain, hash).await;
    let contract = receipt.contract.unwrap();
    assert_eq!(contract, DEV_ACCOUNTS[0].address.create(0));
    assert_eq!(&chain.code(contract).await.unwrap()[..], &RUNTIME[..]);

    let call = |input| CallRequest {
        from: DEV_ACCOUNTS[1].address,
        to: Some(contract),
        input,
        ..CallRequest::default()
    };
    assert!(chain.call(call(words(7, 0))).await.unwrap().is_empty());
    match chain.call(call(words(9, 1))).await {
        Err(ChainError::Reverted { output }) => assert_eq!(output[31], 9),
        other => panic!("{other:?}"),
    }
    // A contract may ask, too.
    let from = CallRequest {
        from: contract,
        ..call(words(7, 0))
    };
    chain.call(from).await.unwrap();

    let gas = chain.estimate_gas(call(words(7, 0))).await.unwrap();
    let send = |nonce, gas_limit, input| Transaction {
        to: Some(contract),
        value: U256::ZERO,
        input,
        gas_limit,
        ..transfer(nonce, 0)
    };
    let hash = chain
        .send_raw_transaction(signed(1, &send(0, gas, words(7, 0))).await)
        .await
        .unwrap();
    let receipt = mined(&chain, hash).await;
    assert!(receipt.succeeded);
    assert_eq!(receipt.gas_used, gas);
    let hash = chain
        .send_raw_transaction(signed(1, &send(1, gas - 1, words(7, 0))).await)
        .await
        .unwrap();
    assert!(!mined(&chain, hash).await.succeeded);
    let hash = chain
        .send_raw_transaction(signed(1, &send(2, 100_000, words(9, 1))).await)
        .await
        .unwrap();
    let reverted = mined(&chain, hash).await;
    assert!(!reverted.succeeded);
    assert!(reverted.logs.is_empty());
    assert!(reverted.gas_used < 100_000);

    let mut topic = B256::ZERO;
    topic.0[31] = 1;
    let filter = LogFilter {
        from_block: 0,
        to_block: u64::MAX,
        address: Some(contract),
        topics: vec![Some(topic)],
    };
    let logs = chain.logs(filter.clone()).await.unwrap();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs, receipt.logs);
    assert_eq!(logs[0].data[31], 7);
    let none = LogFilter {
        topics: vec![Some(B256::ZERO)],
        ..filter.clone()
    };
    assert!(chain.logs(none).await.unwrap().is_empty());
    let none = LogFilter {
        topics: vec![Some(topic), None],
        ..filter.clone()
    };
    assert_eq!(chain.logs(none).await.unwrap().len(), 1);
    let none = LogFilter {
        topics: vec![Some(topic), Some(topic)],
        ..filter
    };
    assert!(chain.logs(none).await.unwrap().is_empty());
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_nonce_that_is_ahead_waits_for_those_before_it() {
    let chain = open(Sealing::OnDemand).await;
    let late = chain
        .send_raw_transaction(signed(0, &transfer(2, 1)).await)
        .await
        .unwrap();
    let middle = chain
        .send_raw_transaction(signed(0, &transfer(1, 1)).await)
        .await
        .unwrap();
    let sender = DEV_ACCOUNTS[0].address;
    assert_eq!(chain.nonce(sender, BlockId::Pending).await.unwrap(), 0);
    assert!(chain.receipt(late).await.unwrap().is_none());
    assert_eq!(chain.transaction(late).await.unwrap().unwrap().block, None);
    let first = chain
        .send_raw_transaction(signed(0, &transfer(0, 1)).await)
        .await
        .unwrap();
    assert_eq!(chain.nonce(sender, BlockId::Pending).await.unwrap(), 3);
    let blocks = [first, middle, late];
    for hash in blocks {
        assert!(mined(&chain, hash).await.succeeded);
    }
    assert_eq!(chain.nonce(sender, BlockId::Latest).await.unwrap(), 3);
    let (kind, reason) = refusal(&chain, signed(0, &transfer(1, 9)).await).await;
    assert_eq!(kind, RefusalKind::NonceTooLow);
    assert_eq!(reason, "nonce too low: next nonce 3, tx nonce 1");
    let (kind, _) = refusal(&chain, signed(0, &transfer(1, 1)).await).await;
    assert_eq!(kind, RefusalKind::AlreadyKnown);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_replacement_pays_a_tenth_more() {
    let chain = open(Sealing::Manual).await;
    let price = |gas_price, value| Transaction {
        fees: Fees::Legacy { gas_price },
        ..transfer(0, value)
    };
    let first = signed(0, &price(1_000_000_005, 1)).await;
    chain.send_raw_transaction(first.clone()).await.unwrap();
    assert_eq!(refusal(&chain, first).await.0, RefusalKind::AlreadyKnown);
    let (kind, reason) = refusal(&chain, signed(0, &price(1_100_000_005, 2)).await).await;
    assert_eq!(kind, RefusalKind::Underpriced);
    assert_eq!(reason, "replacement transaction underpriced");
    let better = signed(0, &price(1_100_000_006, 2)).await;
    let hash = chain.send_raw_transaction(better).await.unwrap();
    chain.seal().await.unwrap();
    assert!(chain.receipt(hash).await.unwrap().unwrap().succeeded);
    assert_eq!(
        chain.balance(PAYEE, BlockId::Latest).await.unwrap(),
        U256::from(2)
    );
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_paid_or_is_of_another_chain_is_refused() {
    let chain = open(Sealing::Manual).await;
    let all = chain
        .balance(DEV_ACCOUNTS[0].address, BlockId::Latest)
        .await
        .unwrap();
    let fee = U256::from(21_000 * 3 * GWEI);
    let too_much = Transaction {
        value: all - fee + U256::ONE,
        ..transfer(0, 0)
    };
    let (kind, reason) = refusal(&chain, signed(0, &too_much).await).await;
    assert_eq!(kind, RefusalKind::Funds);
    assert!(
        reason.starts_with("insufficient funds for gas * price + value"),
        "{reason}"
    );
    // To the wei; and then nothing is left for another.
    let just = Transaction {
        value: all - fee,
        ..transfer(0, 0)
    };
    chain
        .send_raw_transaction(signed(0, &just).await)
        .await
        .unwrap();
    assert_eq!(
        refusal(&chain, signed(0, &transfer(1, 0)).await).await.0,
        RefusalKind::Funds
    );

    let foreign = Transaction {
        chain_id: 1,
        ..transfer(0, 0)
    };
    let (_, reason) = refusal(&chain, signed(1, &foreign).await).await;
    assert_eq!(reason, "invalid chain id for signer: have 1 want 98765");
    let little = Transaction {
        gas_limit: 20_999,
        ..transfer(0, 0)
    };
    let (_, reason) = refusal(&chain, signed(1, &little).await).await;
    assert_eq!(
        reason,
        "intrinsic gas too low: gas 20999, minimum needed 21000"
    );
    let big = Transaction {
        gas_limit: 4_700_001,
        ..transfer(0, 0)
    };
    assert_eq!(
        refusal(&chain, signed(1, &big).await).await.1,
        "exceeds block gas limit"
    );
    let free = Transaction {
        fees: Fees::Legacy { gas_price: 6 },
        ..transfer(0, 0)
    };
    assert_eq!(
        refusal(&chain, signed(1, &free).await).await.0,
        RefusalKind::Underpriced
    );
    let far = transfer(1_024, 0);
    assert!(
        refusal(&chain, signed(1, &far).await)
            .await
            .1
            .starts_with("nonce too high")
    );
    refusal(&chain, Bytes::from_static(&[0xc0])).await;
    refusal(&chain, Bytes::new()).await;
    refusal(&chain, vec![0xf8; 200_000].into()).await;
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_pool_gives_up_who_pays_least() {
    let mut limits = PoolLimits::default();
    limits.total = 2;
    let config = EmbeddedConfig::default()
        .with_sealing(Sealing::Manual)
        .with_pool(limits);
    let chain = EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap();
    let at = |gas_price| Transaction {
        fees: Fees::Legacy { gas_price },
        ..transfer(0, 1)
    };
    let low = chain
        .send_raw_transaction(signed(0, &at(2 * GWEI)).await)
        .await
        .unwrap();
    let high = chain
        .send_raw_transaction(signed(1, &at(4 * GWEI)).await)
        .await
        .unwrap();
    assert_eq!(
        refusal(&chain, signed(2, &at(2 * GWEI)).await).await.1,
        "txpool is full"
    );
    let third = chain
        .send_raw_transaction(signed(2, &at(3 * GWEI)).await)
        .await
        .unwrap();
    assert!(chain.transaction(low).await.unwrap().is_none());
    chain.seal().await.unwrap();
    // The higher tip is first.
    let block = chain.block(BlockId::Latest).await.unwrap().unwrap();
    let order: Vec<B256> = block.transactions.iter().map(|tx| tx.hash).collect();
    assert_eq!(order, [high, third]);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_block_has_no_more_gas_than_its_limit_and_the_fee_follows() {
    let chain = open(Sealing::Manual).await;
    for nonce in 0..300 {
        chain
            .send_raw_transaction(signed(0, &transfer(nonce, 1)).await)
            .await
            .unwrap();
    }
    chain.seal().await.unwrap();
    chain.seal().await.unwrap();
    let full = chain.block(BlockId::Number(1)).await.unwrap().unwrap();
    assert_eq!(full.transactions.len(), 4_700_000 / 21_000);
    let rest = chain.block(BlockId::Number(2)).await.unwrap().unwrap();
    assert_eq!(rest.transactions.len(), 300 - 223);
    // EIP-1559, by hand: 875,000,000 + 875,000,000 · (4,683,000 − 2,350,000) / 2,350,000 / 8.
    assert_eq!(full.base_fee, Some(875_000_000));
    assert_eq!(rest.base_fee, Some(983_583_776));
    assert!(rest.timestamp > full.timestamp);
    assert_eq!(rest.parent, full.id.hash);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_price_below_the_base_fee_waits_until_it_fell() {
    let chain = open(Sealing::OnDemand).await;
    // Two empty blocks make a base fee of 1 gigawei 765,625,000 wei.
    let low = Transaction {
        fees: Fees::Legacy {
            gas_price: 770_000_000,
        },
        ..transfer(0, 1)
    };
    let hash = chain
        .send_raw_transaction(signed(0, &low).await)
        .await
        .unwrap();
    assert!(mined(&chain, hash).await.succeeded);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn blocks_in_one_second_are_dated_ahead_and_no_further_than_allowed() {
    let config = EmbeddedConfig::default().with_max_clock_lead(Duration::from_secs(3));
    let chain = EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap();
    for nonce in 0..6 {
        let hash = chain
            .send_raw_transaction(signed(0, &transfer(nonce, 1)).await)
            .await
            .unwrap();
        mined(&chain, hash).await;
        let block = chain.block(BlockId::Latest).await.unwrap().unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(block.timestamp <= now + 3);
    }
    assert_eq!(chain.head().await.unwrap().number, 6);
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn old_states_are_kept_for_a_while() {
    let chain = open(Sealing::Manual).await;
    chain
        .send_raw_transaction(signed(0, &transfer(0, 1)).await)
        .await
        .unwrap();
    for _ in 0..HISTORY_BLOCKS {
        chain.seal().await.unwrap();
    }
    let at = |number| chain.balance(PAYEE, BlockId::Number(number));
    assert_eq!(at(0).await.unwrap(), U256::ZERO);
    assert_eq!(at(1).await.unwrap(), U256::ONE);
    let by_hash = chain.block(BlockId::Number(1)).await.unwrap().unwrap();
    let by_hash = BlockId::Hash(by_hash.id.hash);
    assert_eq!(chain.balance(PAYEE, by_hash).await.unwrap(), U256::ONE);
    chain.seal().await.unwrap();
    match at(0).await {
        Err(ChainError::Rpc { message, .. }) => assert!(message.contains("not kept"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(at(1).await.unwrap(), U256::ONE);
    assert!(at(130).await.is_err());
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn under_istanbul_there_is_no_base_fee() {
    let spec = ChainSpec::devnet().with_rules(Rules::Istanbul);
    let config = EmbeddedConfig::default().with_coinbase(MINER);
    let chain = EmbeddedChain::open(spec, config).await.unwrap();
    let hash = chain
        .send_raw_transaction(signed(0, &transfer(0, 1)).await)
        .await
        .unwrap();
    assert_eq!(mined(&chain, hash).await.effective_gas_price, 3 * GWEI);
    let block = chain.block(BlockId::Latest).await.unwrap().unwrap();
    assert_eq!(block.base_fee, None);
    let dynamic = Transaction {
        fees: Fees::Dynamic {
            max_fee_per_gas: 5 * GWEI,
            max_priority_fee_per_gas: 2 * GWEI,
        },
        ..transfer(1, 1)
    };
    let (_, reason) = refusal(&chain, signed(0, &dynamic).await).await;
    assert_eq!(reason, "transaction type not supported");
    let fees = U256::from(21_000 * 3 * GWEI) + ChainSpec::devnet().block_reward;
    let owned = chain.balance(MINER, BlockId::Latest).await.unwrap();
    assert_eq!(owned, fees);
    chain.shutdown().await.unwrap();
}
