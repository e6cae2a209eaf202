//! What nodes tell each other of the chain.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chiral::chain::{
    BlockId, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig, Fees, Sealing,
    Transaction,
};
use chiral::core::{Address, U256};
use chiral::payment::PaymentsConfig;
use chiral::payment::settler::Problem;
use chiral::payment::statement::Status;
use chiral::{Loopback, Node, Share};

use crate::support::{data, within};

/// Has so many blocks made on the chain of a network.
async fn grow(chain: &dyn ChainClient, blocks: u64) {
    let from = DEV_ACCOUNTS[9];
    for _ in 0..blocks {
        let nonce = chain.nonce(from.address, BlockId::Latest).await.unwrap();
        let gas_price = chain.fees().await.unwrap().gas_price * 2;
        let transaction = Transaction {
            chain_id: chain.chain_id().await.unwrap(),
            nonce,
            gas_limit: 21_000,
            fees: Fees::Legacy { gas_price },
            to: Some(Address::repeat_byte(0xff)),
            value: U256::from(1),
            input: Default::default(),
        };
        let signed = transaction.sign(&from.signer()).await.unwrap();
        let hash = chain.send_raw_transaction(signed.raw).await.unwrap();
        while chain.receipt(hash).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until a node has heard of the chain from so many others.
async fn heard(node: &Node, peers: usize) {
    let heads = node.payments().unwrap().peer_heads();
    let hearing = async {
        loop {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
            if heads.heard(now) >= peers {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(hearing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_chain_is_not_that_of_the_others_pays_nothing_and_one_with_them_does() {
    let network = Loopback::start().await.unwrap();
    // The same first block, and others behind it.
    let config = EmbeddedConfig::default()
        .with_sealing(Sealing::Manual)
        .with_coinbase(Address::repeat_byte(0x77));
    let own = EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap();
    for _ in 0..40 {
        own.seal().await.unwrap();
    }
    grow(&*network.chain(), 20).await;
    let price = "0.001".parse().unwrap();
    let seeder = network.node(1).start().await.unwrap();
    let with_them = network.payments(2).with_max_price(price);
    let with_them = network.node(2).payments(with_them).start().await.unwrap();
    let wallet = Arc::new(DEV_ACCOUNTS[3].signer());
    let apart = PaymentsConfig::new(wallet, Arc::new(own.clone())).with_max_price(price);
    let apart = network.node(3).payments(apart).start().await.unwrap();
    let shared = within(seeder.share(Share::bytes(data(1 << 20)).price(price)))
        .await
        .unwrap();
    heard(&apart, 2).await;
    heard(&with_them, 2).await;

    // Both have the file: a payment that is held holds up no download.
    for node in [&apart, &with_them] {
        let got = within(node.get(shared.cid()).to_bytes().into_future())
            .await
            .unwrap();
        assert_eq!(got.bytes.unwrap().len(), 1 << 20);
    }
    let status = async |node: &Node| node.statement().await.unwrap().entries[0].status;
    let paid = async {
        while status(&with_them).await != Status::Settled {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(paid).await;
    let settler = apart.payments().unwrap().chain_settler();
    let split = Problem::Split {
        with: 0,
        against: 2,
    };
    let held = async {
        while settler.problem() != Some(split.clone()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(held).await;
    assert_ne!(status(&apart).await, Status::Settled);
    let nonce = own.nonce(DEV_ACCOUNTS[3].address, BlockId::Pending);
    assert_eq!(nonce.await.unwrap(), 0, "nothing was sent");
    for node in [&apart, &with_them, &seeder] {
        within(node.shutdown()).await.unwrap();
    }
    own.shutdown().await.unwrap();
    network.shutdown().await;
}
