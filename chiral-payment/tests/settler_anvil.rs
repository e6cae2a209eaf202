//! The settler against anvil, which somebody else wrote: payments, and reorganisations that
//! drop their blocks. `tests/interop/settler-anvil` runs this; it needs programs from npm.
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256, hex};
use chiral_chain::rpc::RpcConfig;
use chiral_chain::{BlockId, ChainClient, ChainSpec, DEV_ACCOUNTS, RpcChain};
use chiral_core::SettlementStatus;
use chiral_core::{Bill, BillId, ByteRange, Cid, PaymentSettler, Price, Protocol, RangeSet};
use chiral_payment::contracts::batch_pay;
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Journal};

#[path = "support/anvil.rs"]
mod anvil;

use anvil::Anvil;

const PATIENCE: Duration = Duration::from_secs(60);

fn bill(n: u8) -> Bill {
    let mut ranges = RangeSet::new();
    ranges.insert(ByteRange::new(0, 5_242_881));
    let price: Price = "0.001".parse().unwrap();
    let id = BillId(B256::repeat_byte(n));
    Bill::new(
        id,
        Cid::from_bytes([n ^ 0xff; 32]),
        ranges,
        price,
        Protocol::Http,
    )
    .unwrap()
    .owed_to(None, Some(Address::repeat_byte(n)))
}

async fn settled(settler: &ChainSettler, bills: &[Bill]) -> B256 {
    let mut transaction = B256::ZERO;
    for bill in bills {
        let waited = tokio::time::timeout(PATIENCE, settler.wait(bill.id)).await;
        let Ok(Ok(Some(SettlementStatus::Settled { transaction: hash }))) = waited else {
            panic!(
                "{waited:?}: {:?} {:?}",
                settler.payment(bill.id).await,
                settler.problem()
            );
        };
        transaction = hash;
    }
    transaction
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/settler-anvil runs it"]
async fn a_reorganisation_that_drops_the_payment_pays_once() {
    let anvil = Anvil::start();
    let rpc = RpcConfig::default().with_poll_interval(Duration::from_millis(100));
    let chain = Arc::new(RpcChain::new(&anvil.url, rpc).unwrap());
    assert_eq!(chain.chain_id().await.unwrap(), 98765);
    let contract = ChainSpec::predeployed("BatchPay").unwrap();
    let code = hex::encode_prefixed(batch_pay::runtime_code());
    anvil.cast(&["rpc", "anvil_setCode", &contract.to_string(), &code]);
    // A block before the payments: none is dropped with its contract.
    anvil.cast(&["rpc", "anvil_mine", "0x1"]);

    let config = SettlerConfig::new(98765, chain.genesis_hash().await.unwrap())
        .with_batch_contract(contract)
        .with_gather(Duration::ZERO)
        .with_poll(Duration::from_millis(100));
    let journal = Journal::in_memory().unwrap();
    let wallet = Arc::new(DEV_ACCOUNTS[0].signer());
    let settler = ChainSettler::start(journal, chain.clone(), wallet, config);
    let settler = settler.await.unwrap();

    let nonce = async || {
        let wallet = DEV_ACCOUNTS[0].address;
        chain.nonce(wallet, BlockId::Latest).await.unwrap()
    };
    for (transactions, bills) in [(1, vec![bill(0x11)]), (2, (0x21..0x29).map(bill).collect())] {
        settler.settle(bills.clone()).await.unwrap();
        let before = settled(&settler, &bills).await;
        let block = settler.payment(bills[0].id).await.unwrap().unwrap().block;
        let input = anvil.cast(&["tx", &before.to_string(), "input"]);
        for bill in &bills {
            assert!(
                input.contains(&hex::encode(bill.id.0)),
                "cast reads the bill"
            );
            assert!(
                input.contains(&hex::encode(bill.cid.as_bytes())),
                "and the cid"
            );
        }

        anvil.cast(&["rpc", "anvil_reorg", "1", "[]"]);
        let again = async {
            loop {
                let payment = settler.payment(bills[0].id).await.unwrap().unwrap();
                if payment.settled_at.is_some() && payment.block != block {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let again = tokio::time::timeout(PATIENCE, again).await;
        assert!(
            again.is_ok(),
            "not paid again: {:?}",
            settler.payments(9).await
        );
        assert_eq!(settled(&settler, &bills).await, before, "the same bytes");
        for bill in &bills {
            let balance = anvil.cast(&["balance", &bill.payee.unwrap().to_string()]);
            assert_eq!(balance, "5000000953674317", "exactly once");
            assert_eq!(bill.amount, U256::from(5_000_000_953_674_317u64));
        }
        assert_eq!(nonce().await, transactions, "one transaction for them");
        println!("{} bills: paid once in spite of anvil_reorg", bills.len());
    }
    settler.shutdown().await.unwrap();
    chain.shutdown().await.unwrap();
}
