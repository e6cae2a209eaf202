//! The two clients of one chain, one in the process and one behind our own JSON-RPC, answer
//! alike.

#![cfg(all(feature = "rpc", feature = "server"))]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use alloy_primitives::{B256, U256, hex};
use bytes::Bytes;
use chiral_chain::{
    BlockId, CallRequest, ChainClient, ChainError, ChainSpec, DEV_ACCOUNTS, EmbeddedChain,
    EmbeddedConfig, Fees, JsonRpcServer, LogFilter, RefusalKind, RpcChain, RpcConfig, Sealing,
    ServerConfig, SignedTransaction, Transaction,
};
use futures_util::StreamExt;
use tokio::time::timeout;

/// Logs the topic 42 when it is made; reverts with 32 zero bytes whenever it is called.
const CONTRACT: [u8; 21] = hex!("602a60006000a16460206000fd6000526005601bf3");

struct Both {
    embedded: EmbeddedChain,
    server: JsonRpcServer,
    remote: RpcChain,
}

impl Both {
    async fn start() -> Self {
        let config = EmbeddedConfig::default().with_sealing(Sealing::Manual);
        let spec = ChainSpec::devnet();
        let embedded = EmbeddedChain::open(spec, config).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = JsonRpcServer::bind(address, embedded.clone(), ServerConfig::default());
        let server = server.await.unwrap();
        let config = RpcConfig::default()
            .with_expected_chain_id(98_765)
            .with_poll_interval(Duration::from_millis(10));
        let remote = RpcChain::connect(&server.url(), config).await.unwrap();
        Self {
            embedded,
            server,
            remote,
        }
    }

    async fn stop(self) {
        self.remote.shutdown().await.unwrap();
        self.server.shutdown().await;
        self.embedded.shutdown().await.unwrap();
    }

    fn clients(&self) -> [(&'static str, &dyn ChainClient); 2] {
        [("embedded", &self.embedded), ("remote", &self.remote)]
    }
}

/// Asks both, which must say the same, and gives it.
macro_rules! agreed {
    ($both:expr, $method:ident ( $($argument:expr),* )) => {{
        let here = $both.embedded.$method($($argument),*).await.unwrap();
        let there = $both.remote.$method($($argument),*).await.unwrap();
        assert_eq!(here, there, stringify!($method));
        there
    }};
}

async fn signed(account: usize, nonce: u64, to: bool) -> SignedTransaction {
    let gwei = 1_000_000_000;
    let transaction = Transaction {
        chain_id: 98_765,
        nonce,
        gas_limit: 100_000,
        fees: if to {
            Fees::Legacy {
                gas_price: 3 * gwei,
            }
        } else {
            Fees::Dynamic {
                max_fee_per_gas: 3 * gwei,
                max_priority_fee_per_gas: gwei,
            }
        },
        to: to.then_some(DEV_ACCOUNTS[1].address),
        value: U256::from(if to { 5_000_000_953_674_317_u64 } else { 0 }),
        input: match to {
            true => Bytes::new(),
            false => Bytes::from_static(&CONTRACT),
        },
    };
    let signer = DEV_ACCOUNTS[account].signer();
    transaction.sign(&signer).await.unwrap()
}

#[tokio::test]
async fn what_one_says_of_blocks_and_money_the_other_says() {
    let both = Both::start().await;
    assert_eq!(agreed!(both, chain_id()), 98_765);
    let genesis = agreed!(both, genesis_hash());
    assert_eq!(genesis, ChainSpec::devnet().genesis_hash());

    let mut heads = both.remote.heads().await.unwrap();
    let (payment, making) = (signed(0, 0, true).await, signed(2, 0, false).await);
    both.remote
        .send_raw_transaction(payment.raw.clone())
        .await
        .unwrap();
    both.embedded
        .send_raw_transaction(making.raw.clone())
        .await
        .unwrap();
    assert_eq!(
        agreed!(both, transaction(payment.hash)).unwrap().block,
        None
    );
    assert_eq!(agreed!(both, receipt(payment.hash)), None);
    let payer = DEV_ACCOUNTS[0].address;
    assert_eq!(agreed!(both, nonce(payer, BlockId::Pending)), 1);
    assert_eq!(agreed!(both, nonce(payer, BlockId::Latest)), 0);

    let sealed = both.embedded.seal().await.unwrap();
    let head = timeout(Duration::from_secs(10), heads.next())
        .await
        .unwrap();
    assert_eq!(head, Some(sealed));
    assert_eq!(agreed!(both, head()), sealed);
    for id in [
        BlockId::Latest,
        BlockId::Number(0),
        BlockId::Number(1),
        BlockId::Hash(sealed.hash),
    ] {
        assert!(agreed!(both, block(id)).is_some(), "{id:?}");
    }
    for id in [BlockId::Number(2), BlockId::Hash(B256::repeat_byte(1))] {
        assert_eq!(agreed!(both, block(id)), None);
    }
    assert_eq!(agreed!(both, transaction(B256::repeat_byte(1))), None);
    assert_eq!(agreed!(both, receipt(B256::repeat_byte(1))), None);

    assert!(agreed!(both, receipt(payment.hash)).unwrap().succeeded);
    assert_eq!(
        agreed!(both, transaction(payment.hash)).unwrap().block,
        Some(sealed)
    );
    for at in [
        BlockId::Latest,
        BlockId::Number(0),
        BlockId::Hash(sealed.hash),
    ] {
        for account in DEV_ACCOUNTS {
            agreed!(both, balance(account.address, at));
        }
    }
    agreed!(both, fees());
    both.stop().await;
}

#[tokio::test]
async fn what_one_says_of_contracts_the_other_says() {
    let both = Both::start().await;
    let making = signed(2, 0, false).await;
    both.remote
        .send_raw_transaction(making.raw.clone())
        .await
        .unwrap();
    let block = both.embedded.seal().await.unwrap();
    let receipt = agreed!(both, receipt(making.hash)).unwrap();
    let contract = receipt.contract.unwrap();
    assert_eq!(agreed!(both, code(contract)).len(), 5);
    let filter = |topic| LogFilter {
        from_block: 0,
        to_block: block.number,
        address: Some(contract),
        topics: vec![Some(B256::with_last_byte(topic))],
    };
    assert_eq!(agreed!(both, logs(filter(42))), receipt.logs);
    assert_eq!(agreed!(both, logs(filter(43))), []);

    let payment = CallRequest {
        from: DEV_ACCOUNTS[0].address,
        to: Some(DEV_ACCOUNTS[1].address),
        value: U256::from(1),
        ..CallRequest::default()
    };
    assert_eq!(agreed!(both, estimate_gas(payment.clone())), 21_000);
    agreed!(both, call(payment.clone()));
    let reverting = CallRequest {
        to: Some(contract),
        ..CallRequest::default()
    };
    for (name, client) in both.clients() {
        for error in [
            client.call(reverting.clone()).await.unwrap_err(),
            client.estimate_gas(reverting.clone()).await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, ChainError::Reverted { output } if output[..] == [0; 32]),
                "{name}: {error:?}"
            );
        }
    }
    both.stop().await;
}

#[tokio::test]
async fn both_refuse_alike() {
    let both = Both::start().await;
    let mined = signed(0, 0, true).await;
    both.remote
        .send_raw_transaction(mined.raw.clone())
        .await
        .unwrap();
    both.embedded.seal().await.unwrap();
    let waiting = signed(0, 1, true).await;
    both.remote
        .send_raw_transaction(waiting.raw.clone())
        .await
        .unwrap();
    let changed = async |change: fn(&mut Transaction)| {
        let mut transaction = waiting.transaction.clone();
        change(&mut transaction);
        transaction
            .sign(&DEV_ACCOUNTS[0].signer())
            .await
            .unwrap()
            .raw
    };
    for (raw, expected) in [
        (waiting.raw.clone(), RefusalKind::AlreadyKnown),
        (
            changed(|tx| (tx.nonce, tx.value) = (0, U256::from(1))).await,
            RefusalKind::NonceTooLow,
        ),
        (
            changed(|tx| tx.value = U256::from(1)).await,
            RefusalKind::Underpriced,
        ),
        (
            changed(|tx| (tx.nonce, tx.value) = (2, U256::MAX >> 1)).await,
            RefusalKind::Funds,
        ),
        (
            changed(|tx| tx.gas_limit = 20_999).await,
            RefusalKind::Other,
        ),
        (changed(|tx| tx.chain_id = 1).await, RefusalKind::Other),
        (Bytes::from_static(b"garbage"), RefusalKind::Other),
    ] {
        for (name, client) in both.clients() {
            match client.send_raw_transaction(raw.clone()).await {
                Err(ChainError::Refused { kind, reason }) => {
                    assert_eq!(kind, expected, "{name}: {reason}");
                }
                other => panic!("{name}: {expected:?} is expected: {other:?}"),
            }
        }
    }
    both.stop().await;
}
