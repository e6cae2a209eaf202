//! The client of remote nodes, against nodes that lie, stall, flood and vanish.

#![cfg(feature = "rpc")]
#![allow(clippy::unwrap_used)]

mod node;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, keccak256};
use bytes::Bytes;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainError, ConnectError, LogFilter, RefusalKind, RpcChain,
    RpcConfig,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use node::{Node, Reply};
use serde_json::{Value, json};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> RpcConfig {
    RpcConfig::default()
        .with_expected_chain_id(98_765)
        .with_request_timeout(5 * SECOND)
        .with_poll_interval(Duration::from_millis(10))
}

async fn client(node: &Node) -> RpcChain {
    RpcChain::connect(&node.url(), config()).await.unwrap()
}

fn hash(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

fn head(number: u64, byte: u8) -> Value {
    json!({ "number": format!("{number:#x}"), "hash": hash(byte), "baseFeePerGas": "0x7" })
}

fn reason(error: ChainError) -> &'static str {
    match error {
        ChainError::Protocol { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused() {
    let node = Node::plain(|_, _| Reply::Result(json!("0x1"))).await;
    let error = RpcChain::connect(&node.url(), config()).await.unwrap_err();
    assert!(matches!(
        error,
        ConnectError::Chain(ChainError::WrongChain {
            expected: 98_765,
            found: 1
        })
    ));
    // Without connecting first: nothing is sent to it.
    let chain = RpcChain::new(&node.url(), config()).unwrap();
    let error = chain.send_raw_transaction(Bytes::from_static(b"x")).await;
    assert!(matches!(error, Err(ChainError::WrongChain { .. })));
    assert_eq!(node.asked("eth_sendRawTransaction"), 0);
    // Who expects no particular chain takes any.
    let chain = RpcChain::connect(&node.url(), RpcConfig::default()).await;
    assert_eq!(chain.unwrap().chain_id().await.unwrap(), 1);
}

#[tokio::test]
async fn a_node_that_comes_back_as_another_chain_is_noticed() {
    let calls = AtomicUsize::new(0);
    let node = Node::plain(
        move |method, _| match (method, calls.fetch_add(1, Ordering::SeqCst)) {
            ("eth_chainId", 0) => Reply::Result(json!("0x181cd")),
            ("eth_chainId", _) => Reply::Result(json!("0x1")),
            _ => Reply::Close,
        },
    )
    .await;
    let chain = RpcChain::connect(&node.url(), config().with_read_retries(0))
        .await
        .unwrap();
    let error = chain.head().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable(_)), "{error:?}");
    let error = chain.head().await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { .. }), "{error:?}");
}

#[tokio::test]
async fn blocks_hold_transactions_of_any_type() {
    let node = Node::new(|_, params| {
        assert_eq!(params[1], true);
        Reply::Result(json!({
            "number": "0x5", "hash": hash(5), "parentHash": hash(4), "timestamp": "0x68b3b2ca",
            "gasLimit": "0x47b760", "baseFeePerGas": "0x3b9aca00", "miner": Address::ZERO,
            "transactions": [
                {
                    "hash": hash(1), "from": Address::repeat_byte(1), "to": null, "type": "0x7e",
                    "value": "0x0", "nonce": "0x1", "input": "0x0102", "mint": "0x1",
                    "blockHash": hash(5), "blockNumber": "0x5",
                },
                {
                    "hash": hash(2), "from": Address::repeat_byte(1), "type": "0x0",
                    "to": Address::repeat_byte(2), "value": "0xde0b6b3a7640000", "nonce": "0x2",
                    "input": "0x", "v": "0x303be", "blockHash": hash(5), "blockNumber": "0x5",
                },
            ],
        }))
    })
    .await;
    let chain = client(&node).await;
    let block = chain.block(BlockId::Number(5)).await.unwrap().unwrap();
    assert_eq!((block.id.number, block.id.hash), (5, hash(5)));
    assert_eq!(block.base_fee, Some(1_000_000_000));
    let [deposit, payment] = &block.transactions[..] else {
        panic!("two transactions");
    };
    assert_eq!((deposit.to, deposit.chain_id), (None, None));
    assert_eq!(deposit.input, [1, 2][..]);
    assert_eq!(payment.value, U256::from(10).pow(U256::from(18)));
    // From `v` of a legacy transaction, as old nodes have it.
    assert_eq!(payment.chain_id, Some(98_765));
    assert_eq!(payment.block, Some(block.id));

    let other = chain.block(BlockId::Number(6)).await.unwrap_err();
    assert_eq!(reason(other), "another block than was asked for");
    let other = chain.block(BlockId::Hash(hash(6))).await.unwrap_err();
    assert_eq!(reason(other), "another block than was asked for");
}

fn receipt(transaction: u8, log_of: u8) -> Value {
    json!({
        "transactionHash": hash(transaction), "blockHash": hash(9), "blockNumber": "0x9",
        "status": "0x1", "gasUsed": "0x5208", "effectiveGasPrice": "0x4a817c800",
        "contractAddress": null, "logs": [log(log_of, 9)],
    })
}

fn log(transaction: u8, block: u64) -> Value {
    json!({
        "address": Address::repeat_byte(7), "topics": [hash(1)], "data": "0x01",
        "transactionHash": hash(transaction), "blockHash": hash(9),
        "blockNumber": format!("{block:#x}"), "logIndex": "0x3", "removed": false,
    })
}

#[tokio::test]
async fn answers_about_something_else_are_no_answers() {
    let node = Node::new(|method, _| {
        Reply::Result(match method {
            "eth_getTransactionReceipt" => receipt(1, 2),
            "eth_getLogs" => json!([log(1, 9)]),
            "eth_sendRawTransaction" => json!(hash(1)),
            "eth_getTransactionByHash" => json!({
                "hash": hash(1), "from": Address::ZERO, "to": null, "value": "0x0",
                "nonce": "0x1", "input": "0x", "blockHash": null, "blockNumber": null,
            }),
            _ => Value::Null,
        })
    })
    .await;
    let chain = client(&node).await;
    let raw = Bytes::from_static(b"a transaction");
    assert_eq!(
        reason(chain.send_raw_transaction(raw).await.unwrap_err()),
        "the hash of another transaction"
    );
    assert_eq!(
        reason(chain.receipt(hash(1)).await.unwrap_err()),
        "a receipt with another transaction's log"
    );
    assert_eq!(
        reason(chain.receipt(hash(2)).await.unwrap_err()),
        "another receipt than was asked for"
    );
    assert_eq!(
        reason(chain.transaction(hash(2)).await.unwrap_err()),
        "another transaction than was asked for"
    );
    assert_eq!(
        chain.transaction(hash(1)).await.unwrap().unwrap().block,
        None
    );

    let wanted = LogFilter {
        from_block: 9,
        to_block: 9,
        address: Some(Address::repeat_byte(7)),
        topics: vec![Some(hash(1))],
    };
    assert_eq!(chain.logs(wanted.clone()).await.unwrap()[0].index, 3);
    for other in [
        LogFilter {
            from_block: 10,
            to_block: 11,
            ..wanted.clone()
        },
        LogFilter {
            address: Some(Address::ZERO),
            ..wanted.clone()
        },
        LogFilter {
            topics: vec![Some(hash(2))],
            ..wanted.clone()
        },
        LogFilter {
            topics: vec![None, Some(hash(1))],
            ..wanted.clone()
        },
    ] {
        let error = chain.logs(other).await.unwrap_err();
        assert_eq!(reason(error), "a log that was not asked for");
    }
    // Null is an answer where there may be nothing, and none elsewhere.
    assert_eq!(chain.block(BlockId::Number(1)).await.unwrap(), None);
    let error = chain
        .balance(Address::ZERO, BlockId::Latest)
        .await
        .unwrap_err();
    assert_eq!(reason(error), "null where there is an answer");
}

#[tokio::test]
async fn a_flood_is_not_read_to_its_end() {
    let node = Node::new(|method, _| match method {
        "eth_getCode" => Reply::Endless,
        _ => Reply::Raw(
            200,
            format!("{{\"id\":1,\"result\":\"{}\"}}", "0".repeat(70_000)),
        ),
    })
    .await;
    let config = config().with_max_response_bytes(65_536);
    let chain = RpcChain::connect(&node.url(), config).await.unwrap();
    for error in [
        timeout(4 * SECOND, chain.code(Address::ZERO))
            .await
            .unwrap()
            .unwrap_err(),
        chain.call(CallRequest::default()).await.unwrap_err(),
    ] {
        assert_eq!(reason(error), "an answer longer than is allowed");
    }
}

#[tokio::test]
async fn a_silent_node_ends_in_a_timeout() {
    let node = Node::new(|_, _| Reply::Hang).await;
    let config = config().with_request_timeout(SECOND);
    let chain = RpcChain::connect(&node.url(), config).await.unwrap();
    let error = chain.head().await.unwrap_err();
    assert!(matches!(error, ChainError::Timeout), "{error:?}");
    assert_eq!(node.asked("eth_getBlockByNumber"), 1, "it has had its time");
}

#[tokio::test]
async fn reads_are_tried_again_and_transactions_are_not() {
    let failures = AtomicUsize::new(2);
    let node = Node::new(move |method, _| {
        let fails = method == "eth_getBalance"
            && failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        match method {
            "eth_getBalance" if !fails => Reply::Result(json!("0x5")),
            "eth_getBalance" => Reply::Close,
            _ => Reply::Raw(503, "busy".to_owned()),
        }
    })
    .await;
    let chain = client(&node).await;
    let balance = chain.balance(Address::ZERO, BlockId::Latest).await.unwrap();
    assert_eq!((balance, node.asked("eth_getBalance")), (U256::from(5), 3));

    let error = chain
        .send_raw_transaction(Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert!(matches!(error, ChainError::Unreachable(_)), "{error:?}");
    assert_eq!(node.asked("eth_sendRawTransaction"), 1);
}

#[tokio::test]
async fn nobody_at_the_address_may_be_tried_again_later() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = RpcChain::connect(&url, config()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let error = RpcChain::connect("https://node", config())
        .await
        .unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("https"),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_and_reverts_are_told_by_kind() {
    let node = Node::new(|method, _| match method {
        "eth_sendRawTransaction" => Reply::Error(-32_000, "nonce too low: next nonce 2"),
        _ => Reply::Error(3, "execution reverted: no"),
    })
    .await;
    let chain = client(&node).await;
    let error = chain.send_raw_transaction(Bytes::new()).await.unwrap_err();
    assert!(matches!(
        error,
        ChainError::Refused {
            kind: RefusalKind::NonceTooLow,
            ..
        }
    ));
    for error in [
        chain.call(CallRequest::default()).await.unwrap_err(),
        chain
            .estimate_gas(CallRequest::default())
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, ChainError::Reverted { .. }), "{error:?}");
    }
    let error = chain.head().await.unwrap_err();
    assert!(
        matches!(error, ChainError::Rpc { code: 3, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn fees_are_known_before_and_after_london() {
    let node = Node::new(|method, _| match method {
        "eth_gasPrice" => Reply::Result(json!("0xa")),
        "eth_feeHistory" => Reply::Result(json!({ "baseFeePerGas": ["0x7", "0x6"] })),
        "eth_maxPriorityFeePerGas" => Reply::Error(-32_601, "no such method"),
        _ => Reply::Result(head(1, 1)),
    })
    .await;
    let fees = client(&node).await.fees().await.unwrap();
    assert_eq!(
        (fees.base_fee, fees.priority_fee, fees.gas_price),
        (Some(6), 4, 10)
    );

    let node = Node::new(|method, _| match method {
        "eth_getBlockByNumber" => Reply::Result(json!({ "number": "0x1", "hash": hash(1) })),
        _ => Reply::Result(json!("0xa")),
    })
    .await;
    let fees = client(&node).await.fees().await.unwrap();
    assert_eq!(
        (fees.base_fee, fees.priority_fee, fees.gas_price),
        (None, 10, 10)
    );
}

#[tokio::test]
async fn heads_are_told_once_each_and_end_with_the_client() {
    let asked = AtomicUsize::new(0);
    let node = Node::new(move |_, _| {
        Reply::Result(match asked.fetch_add(1, Ordering::SeqCst) {
            0..3 => head(1, 1),
            3..6 => head(2, 2),
            6 => return Reply::Raw(500, String::new()),
            // The same number on another branch.
            7..9 => head(2, 3),
            _ => head(3, 4),
        })
    })
    .await;
    let chain = RpcChain::connect(&node.url(), config().with_read_retries(0))
        .await
        .unwrap();
    let mut heads = chain.heads().await.unwrap();
    for (number, byte) in [(2, 2), (2, 3), (3, 4)] {
        let head = timeout(5 * SECOND, heads.next()).await.unwrap().unwrap();
        assert_eq!((head.number, head.hash), (number, hash(byte)));
    }
    let ended = tokio::spawn(async move { heads.next().await });
    tokio::task::yield_now().await;
    chain.shutdown().await.unwrap();
    assert_eq!(timeout(5 * SECOND, ended).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn shutdown_ends_what_is_under_way() {
    let node = Node::new(|_, _| Reply::Hang).await;
    let chain = Arc::new(client(&node).await);
    let waiting = tokio::spawn({
        let chain = chain.clone();
        async move { chain.head().await }
    });
    while node.asked("eth_getBlockByNumber") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    chain.shutdown().await.unwrap();
    chain.shutdown().await.unwrap();
    let ended = timeout(5 * SECOND, waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ChainError::Closed)), "{ended:?}");
    assert!(matches!(chain.head().await, Err(ChainError::Closed)));
}

#[tokio::test]
async fn many_callers_get_each_their_own_answer() {
    let node = Node::new(|_, params| {
        let wallet: Address = serde_json::from_value(params[0].clone()).unwrap();
        Reply::Result(json!(U256::from_be_slice(&wallet[..8])))
    })
    .await;
    let chain = RpcChain::connect(&node.url(), config().with_max_concurrent_requests(4))
        .await
        .unwrap();
    let balances = join_all((0..200_u64).map(|number| {
        let wallet = Address::from_slice(&keccak256(number.to_be_bytes())[..20]);
        let chain = &chain;
        async move { (wallet, chain.balance(wallet, BlockId::Latest).await) }
    }));
    for (wallet, balance) in balances.await {
        assert_eq!(balance.unwrap(), U256::from_be_slice(&wallet[..8]));
    }
}

#[test]
fn debug_shows_where_it_goes_and_no_access_key() {
    let chain = RpcChain::new("http://127.0.0.1:1/v3/secret?key=secret", config()).unwrap();
    let text = format!("{chain:?}");
    assert!(
        text.contains("127.0.0.1:1") && !text.contains("secret"),
        "{text}"
    );
}
