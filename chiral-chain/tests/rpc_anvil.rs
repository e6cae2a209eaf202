//! The client of remote nodes against anvil, on an address that `tests/interop/chain-transactions`
//! gives.

#![cfg(feature = "rpc")]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use bytes::Bytes;
use chiral_chain::{
    BlockId, CHIRAL_CHAIN_ID, CallRequest, ChainClient, ChainError, DEV_ACCOUNTS, Fees, LogFilter,
    PrivateKey, RefusalKind, RpcChain, RpcConfig, SignedTransaction, Transaction,
    TransactionReceipt,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Wei of a bill: 5,242,881 bytes at 0.001 CHI/MiB.
const BILL: u64 = 5_000_000_953_674_317;

/// Logs the topic 42 when it is made; reverts with 32 zero bytes whenever it is called.
const CONTRACT: [u8; 21] = hex!("602a60006000a16460206000fd6000526005601bf3");
const CONTRACT_CODE: [u8; 5] = hex!("60206000fd");

fn url() -> String {
    std::env::var("CHIRAL_ANVIL_URL").expect("CHIRAL_ANVIL_URL: the address of an anvil")
}

/// What only anvil understands.
fn anvil(method: &str, params: Value) {
    let url = url();
    let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(!answer.contains("\"error\""), "{method}: {answer}");
}

async fn connect() -> RpcChain {
    let config = RpcConfig::default()
        .with_expected_chain_id(CHIRAL_CHAIN_ID)
        .with_poll_interval(Duration::from_millis(20));
    RpcChain::connect(&url(), config).await.unwrap()
}

async fn receipt(chain: &RpcChain, hash: B256) -> TransactionReceipt {
    for _ in 0..500 {
        if let Some(receipt) = chain.receipt(hash).await.unwrap() {
            return receipt;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{hash} is not mined");
}

async fn payment(chain: &RpcChain, from: &PrivateKey) -> Transaction {
    Transaction {
        chain_id: CHIRAL_CHAIN_ID,
        nonce: chain.nonce(from.address(), BlockId::Pending).await.unwrap(),
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: chain.fees().await.unwrap().gas_price * 2,
        },
        to: Some(DEV_ACCOUNTS[1].address),
        value: U256::from(BILL),
        input: Bytes::new(),
    }
}

async fn send(chain: &RpcChain, signed: &SignedTransaction) -> Result<B256, ChainError> {
    chain.send_raw_transaction(signed.raw.clone()).await
}

async fn refused(chain: &RpcChain, signed: &SignedTransaction, expected: RefusalKind) {
    match send(chain, signed).await {
        Err(ChainError::Refused { kind, .. }) if kind == expected => {}
        other => panic!("{expected:?} is expected: {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs anvil: tests/interop/chain-transactions"]
async fn anvil_is_asked_and_paid_through() {
    let chain = connect().await;
    let genesis = chain.block(BlockId::Number(0)).await.unwrap().unwrap();
    assert_eq!(chain.genesis_hash().await.unwrap(), genesis.id.hash);
    assert!(chain.fees().await.unwrap().base_fee.is_some());
    a_payment_arrives_to_the_wei(&chain).await;
    contracts_are_made_and_called_and_their_logs_found(&chain).await;
    refusals_have_their_kind(&chain).await;
    a_reorganisation_is_seen(&chain).await;
    chain.shutdown().await.unwrap();
}

async fn a_payment_arrives_to_the_wei(chain: &RpcChain) {
    let (payer, payee) = (DEV_ACCOUNTS[0].signer(), DEV_ACCOUNTS[1].address);
    let mut heads = chain.heads().await.unwrap();
    let before = chain.balance(payee, BlockId::Latest).await.unwrap();
    let signed = payment(chain, &payer).await.sign(&payer).await.unwrap();
    assert_eq!(send(chain, &signed).await.unwrap(), signed.hash);

    let receipt = receipt(chain, signed.hash).await;
    assert!(receipt.succeeded);
    assert_eq!((receipt.gas_used, receipt.contract), (21_000, None));
    let after = chain
        .balance(payee, BlockId::Hash(receipt.block.hash))
        .await
        .unwrap();
    assert_eq!(after - before, U256::from(BILL));

    let head = timeout(Duration::from_secs(10), heads.next())
        .await
        .unwrap();
    assert_eq!(head, Some(receipt.block));
    let found = chain.transaction(signed.hash).await.unwrap().unwrap();
    assert_eq!((found.from, found.to), (payer.address(), Some(payee)));
    assert_eq!(found.chain_id, Some(CHIRAL_CHAIN_ID));
    let block = chain
        .block(BlockId::Hash(receipt.block.hash))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(block.transactions, [found]);
    assert_eq!(block.id, chain.head().await.unwrap());
}

async fn contracts_are_made_and_called_and_their_logs_found(chain: &RpcChain) {
    let maker = DEV_ACCOUNTS[2].signer();
    let fees = chain.fees().await.unwrap();
    let making = CallRequest {
        from: maker.address(),
        input: Bytes::from_static(&CONTRACT),
        ..CallRequest::default()
    };
    let gas_limit = chain.estimate_gas(making).await.unwrap();
    let transaction = Transaction {
        gas_limit,
        fees: Fees::Dynamic {
            max_fee_per_gas: fees.base_fee.unwrap() * 2 + fees.priority_fee,
            max_priority_fee_per_gas: fees.priority_fee,
        },
        to: None,
        value: U256::ZERO,
        input: Bytes::from_static(&CONTRACT),
        ..payment(chain, &maker).await
    };
    assert!(gas_limit > transaction.intrinsic_gas());
    let signed = transaction.sign(&maker).await.unwrap();
    send(chain, &signed).await.unwrap();
    let receipt = receipt(chain, signed.hash).await;
    let contract = receipt.contract.unwrap();
    assert_eq!(chain.code(contract).await.unwrap(), CONTRACT_CODE[..]);
    assert_eq!(chain.code(maker.address()).await.unwrap(), Bytes::new());

    let number = receipt.block.number;
    let filter = |topic: u8| LogFilter {
        from_block: number,
        to_block: number,
        address: Some(contract),
        topics: vec![Some(B256::with_last_byte(topic))],
    };
    assert_eq!(receipt.logs.len(), 1);
    assert_eq!(chain.logs(filter(42)).await.unwrap(), receipt.logs);
    assert_eq!(chain.logs(filter(43)).await.unwrap(), []);

    let calling = CallRequest {
        to: Some(contract),
        ..CallRequest::default()
    };
    for error in [
        chain.call(calling.clone()).await.unwrap_err(),
        chain.estimate_gas(calling).await.unwrap_err(),
    ] {
        let ChainError::Reverted { output } = error else {
            panic!("{error:?}");
        };
        assert_eq!(output, [0; 32][..]);
    }
    let paying = CallRequest {
        from: maker.address(),
        to: Some(Address::repeat_byte(9)),
        value: U256::from(1),
        ..CallRequest::default()
    };
    assert_eq!(chain.estimate_gas(paying.clone()).await.unwrap(), 21_000);
    assert_eq!(chain.call(paying).await.unwrap(), Bytes::new());
}

async fn refusals_have_their_kind(chain: &RpcChain) {
    let payer = DEV_ACCOUNTS[3].signer();
    let first = payment(chain, &payer).await;
    let mined = first.sign(&payer).await.unwrap();
    send(chain, &mined).await.unwrap();
    receipt(chain, mined.hash).await;

    anvil("evm_setAutomine", json!([false]));
    let waiting = payment(chain, &payer).await;
    assert_eq!(waiting.nonce, first.nonce + 1);
    let signed = waiting.sign(&payer).await.unwrap();
    send(chain, &signed).await.unwrap();
    assert_eq!(chain.receipt(signed.hash).await.unwrap(), None);
    let found = chain.transaction(signed.hash).await.unwrap().unwrap();
    assert_eq!(found.block, None);
    let pending = chain.block(BlockId::Pending).await.unwrap().unwrap();
    assert!(pending.transactions.iter().any(|tx| tx.hash == signed.hash));
    let nonce_at = async |at| chain.nonce(payer.address(), at).await.unwrap();
    assert_eq!(
        nonce_at(BlockId::Pending).await,
        nonce_at(BlockId::Latest).await + 1
    );

    refused(chain, &signed, RefusalKind::AlreadyKnown).await;
    let other = async |change: Transaction| change.sign(&payer).await.unwrap();
    let replacing = other(Transaction {
        value: U256::from(1),
        ..waiting.clone()
    })
    .await;
    refused(chain, &replacing, RefusalKind::Underpriced).await;
    let used = other(Transaction {
        value: U256::from(1),
        ..first.clone()
    })
    .await;
    refused(chain, &used, RefusalKind::NonceTooLow).await;
    let nonce = waiting.nonce + 1;
    let rich = other(Transaction {
        nonce,
        value: U256::MAX >> 1,
        ..waiting.clone()
    })
    .await;
    refused(chain, &rich, RefusalKind::Funds).await;
    // Not tried: a legacy transaction for another chain, which anvil takes.
    let garbage = chain
        .send_raw_transaction(Bytes::from_static(b"garbage"))
        .await;
    assert!(matches!(
        garbage,
        Err(ChainError::Refused {
            kind: RefusalKind::Other,
            ..
        })
    ));

    anvil("evm_mine", json!([]));
    assert!(receipt(chain, signed.hash).await.succeeded);
    anvil("evm_setAutomine", json!([true]));
}

async fn a_reorganisation_is_seen(chain: &RpcChain) {
    let payer = DEV_ACCOUNTS[4].signer();
    let transaction = payment(chain, &payer).await;
    let signed = transaction.sign(&payer).await.unwrap();
    send(chain, &signed).await.unwrap();
    let block = receipt(chain, signed.hash).await.block;
    let mut heads = chain.heads().await.unwrap();
    anvil("anvil_reorg", json!([1, []]));
    let head = timeout(Duration::from_secs(10), heads.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head.number, block.number);
    assert_ne!(head.hash, block.hash);
    assert_eq!(chain.block(BlockId::Hash(block.hash)).await.unwrap(), None);
}
