//! The attacks of `claims`, and an honest sale, on a real chain: every transaction is signed,
//! executed and in a block.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use bytes::Bytes;
use chiral_chain::{
    BlockId, ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig, Fees, PrivateKey,
    Transaction, TransactionReceipt,
};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{
    Bill, ChunkHash, ChunkLayout, Cid, ContentIdentity, PaymentAgent, PaymentGate, PaymentSettler,
    Purchase, SettlementStatus, WalletSigner,
};
use chiral_payment::calldata::PaymentMetadata;
use chiral_payment::contracts::batch_pay::{self, Leg};
use chiral_payment::delivery::{DeliveryError, DeliveryProof, MakeError};
use chiral_payment::messages::{ChainFacts, Message};
use chiral_payment::statement::{GroupBy, Statement};
use chiral_payment::{ChainAgent, ChainGate, ChainSettler, Journal, SettlerConfig};

use super::support::*;

/// A buyer with a development account, a seeder, and their chain.
struct Street {
    chain: EmbeddedChain,
    facts: ChainFacts,
    buyer: Arc<PrivateKey>,
    seeder: Arc<FixedKeySigner>,
    journal: Journal,
    agent: ChainAgent,
    gate: ChainGate,
    settler: Arc<ChainSettler>,
}

impl Street {
    async fn new() -> Self {
        let spec = ChainSpec::devnet();
        let facts = ChainFacts {
            chain_id: spec.chain_id,
            genesis: spec.genesis_hash(),
            batch_pay: ChainSpec::predeployed("BatchPay").unwrap(),
        };
        let lead = Duration::from_secs(1 << 20);
        let config = EmbeddedConfig::default().with_max_clock_lead(lead);
        let chain = EmbeddedChain::open(spec, config).await.unwrap();
        let client: Arc<dyn ChainClient> = Arc::new(chain.clone());
        let buyer = Arc::new(DEV_ACCOUNTS[0].signer());
        let seeder = Arc::new(FixedKeySigner::numbered(2));
        let (journal, seeders) = (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
        let config = SettlerConfig::new(facts.chain_id, facts.genesis)
            .with_batch_contract(facts.batch_pay)
            .with_gather(Duration::ZERO)
            .with_poll(Duration::from_millis(20));
        let settler = ChainSettler::start(journal.clone(), client.clone(), buyer.clone(), config);
        let settler = settler.await.unwrap();
        let agent = ChainAgent::start(
            journal.clone(),
            buyer.clone(),
            settler.clone(),
            facts,
            agent_config(),
        );
        let gate = ChainGate::start(seeders, seeder.clone(), client, facts, gate_config());
        Self {
            agent: agent.await.unwrap(),
            gate: gate.await.unwrap(),
            chain,
            facts,
            buyer,
            seeder,
            journal,
            settler,
        }
    }

    fn purchase(&self, file: Cid) -> Purchase {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let mut purchase = purchase(self.seeder.address(), since.as_secs() + 3600);
        purchase.cid = file;
        purchase
    }

    async fn fetch(&self, purchase: &Purchase, range: chiral_core::ByteRange) {
        let ask = ask(&self.agent, &self.gate, purchase, range).await.unwrap();
        ask.deliver(&self.gate).await;
        self.agent.verified(purchase, range).await;
    }

    /// A bill for one MiB of a file, not paid yet.
    async fn owing(&self, file: Cid, from_mib: u64) -> Bill {
        let purchase = self.purchase(file);
        self.fetch(&purchase, range(from_mib, from_mib + 1)).await;
        self.agent.bills(Some(file)).await.unwrap().remove(0)
    }

    /// A transaction of a development account, executed.
    async fn send(
        &self,
        from: usize,
        to: Option<Address>,
        value: U256,
        input: Bytes,
    ) -> TransactionReceipt {
        let from = DEV_ACCOUNTS[from];
        let nonce = self.chain.nonce(from.address, BlockId::Latest).await;
        let transaction = Transaction {
            chain_id: self.facts.chain_id,
            nonce: nonce.unwrap(),
            gas_limit: 2_000_000,
            fees: Fees::Legacy {
                gas_price: self.chain.fees().await.unwrap().gas_price,
            },
            to,
            value,
            input,
        };
        let signed = transaction.sign(&from.signer()).await.unwrap();
        let hash = self.chain.send_raw_transaction(signed.raw).await.unwrap();
        for _ in 0..3000 {
            if let Some(receipt) = self.chain.receipt(hash).await.unwrap() {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        panic!("the transaction is in no block");
    }

    /// What the seeder says to the notice that this transaction settled the bill.
    async fn claim(&self, bill: &Bill, receipt: &TransactionReceipt) -> Message {
        let transaction = receipt.transaction;
        let status = SettlementStatus::Settled { transaction };
        let notice = self.agent.settled(bill.id, &status).await.unwrap();
        let answer = self.gate.message(notice.unwrap()).await.unwrap();
        Message::decode(&answer).unwrap()
    }

    async fn end(self) {
        self.gate.shutdown().await.unwrap();
        self.agent.shutdown().await.unwrap();
        self.settler.shutdown().await.unwrap();
        self.chain.shutdown().await.unwrap();
    }
}

fn leg(bill: &Bill, amount: U256, nonce: u64) -> Leg {
    Leg {
        nonce: U256::from(nonce),
        bill: bill.id.0,
        to: bill.payee.unwrap(),
        amount: amount.to(),
        meta: PaymentMetadata::for_bill(bill).encode().to_vec().into(),
    }
}

fn file(n: u8) -> Cid {
    Cid::from_bytes([n; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pays_no_bill_on_a_real_chain_gets_no_receipt() {
    let street = Street::new().await;
    let bill = street.owing(file(1), 0).await;
    let (seeder, amount) = (bill.payee, bill.amount);
    let said = PaymentMetadata::for_bill(&bill).encode();
    let contract = Some(street.facts.batch_pay);
    // A contract of the same code at another address: its events say nothing.
    let made = street
        .send(0, None, U256::ZERO, batch_pay::creation_code())
        .await;
    let lookalike = made.contract.unwrap();
    let one = U256::from(1);
    let batch = |amount, nonce| batch_pay::pay(vec![leg(&bill, amount, nonce)]);
    // A leg whose nonce was used is skipped: the log of that is no payment.
    let used = Leg {
        bill: file(9).as_bytes().into(),
        to: DEV_ACCOUNTS[5].address,
        ..leg(&bill, one, 7)
    };
    street
        .send(0, contract, one, batch_pay::pay(vec![used]))
        .await;
    let mut another_bill = PaymentMetadata::for_bill(&bill);
    another_bill.bill.0.0[0] ^= 1;
    for (what, from, to, value, input, expected) in [
        (
            "a wei too small",
            0,
            seeder,
            amount - one,
            said.clone(),
            "too small",
        ),
        (
            "a wei too small in a batch",
            0,
            contract,
            amount,
            batch(amount - one, 1),
            "too small",
        ),
        (
            "the low bits of the amount",
            0,
            contract,
            amount,
            batch(amount & U256::from(0xff), 2),
            "too small",
        ),
        (
            "another buyer",
            3,
            seeder,
            amount,
            said.clone(),
            "another wallet paid",
        ),
        (
            "another buyer's batch",
            3,
            contract,
            amount,
            batch(amount, 1),
            "another wallet paid",
        ),
        (
            "another payee",
            0,
            Some(DEV_ACCOUNTS[5].address),
            amount,
            said.clone(),
            "another wallet",
        ),
        (
            "another bill",
            0,
            seeder,
            amount,
            another_bill.encode(),
            "another bill",
        ),
        ("no bill", 0, seeder, amount, Bytes::new(), "another wallet"),
        (
            "bytes behind the bill",
            0,
            seeder,
            amount,
            [&said[..], &[0]].concat().into(),
            "another wallet",
        ),
        (
            "a batch without money",
            0,
            contract,
            U256::ZERO,
            batch(amount, 3),
            "failed",
        ),
        (
            "a leg that was skipped",
            0,
            contract,
            amount,
            batch(amount, 7),
            "another wallet",
        ),
        (
            "an event of a lookalike",
            0,
            Some(lookalike),
            amount,
            batch(amount, 1),
            "another wallet",
        ),
    ] {
        let receipt = street.send(from, to, value, input).await;
        let answer = street.claim(&bill, &receipt).await;
        let reason = refusal(answer);
        assert!(reason.contains(expected), "{what}: {reason}");
        assert_eq!(
            street.gate.exposure(street.buyer.address()),
            wei(1),
            "{what}"
        );
    }
    // And then it is paid.
    let receipt = street.send(0, seeder, amount, said).await;
    let answer = street.claim(&bill, &receipt).await;
    assert!(matches!(answer, Message::Receipt(_)), "{answer:?}");
    assert!(
        street
            .agent
            .receipt(bill.id, answer.encode())
            .await
            .unwrap()
    );
    // The same transaction again: for the next bill, for another file, for another buyer's.
    for next in [
        street.owing(file(1), 1).await,
        street.owing(file(2), 0).await,
    ] {
        assert_eq!(next.amount, amount, "the amount alone would do");
        let answer = street.claim(&next, &receipt).await;
        assert!(refusal(answer).contains("another bill"));
    }
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_on_a_real_chain_is_proven_to_third_parties_and_on_the_statement() {
    let street = Street::new().await;
    let bytes: Vec<u8> = (0..3 * MIB + 17).map(|i| ((i * 31) >> 7) as u8).collect();
    let identity = ContentIdentity::of(&bytes).unwrap();
    let (layout, hashes) = hashes(&bytes);
    let purchase = street.purchase(identity.cid);
    for part in [range(0, 1), range(2, 3)] {
        street.fetch(&purchase, part).await;
    }
    let bills = street.agent.bills(None).await.unwrap();
    let bill = bills[0].clone();
    street.settler.settle(bills).await.unwrap();
    let status = street.settler.wait(bill.id).await.unwrap().unwrap();
    let make = || {
        let wallet = &*street.buyer;
        DeliveryProof::of_journal(
            &street.journal,
            street.facts,
            wallet,
            bill.id,
            layout,
            &hashes,
        )
    };
    assert!(matches!(make().await, Err(MakeError::NoReceipt)));
    let notice = street.agent.settled(bill.id, &status).await.unwrap();
    let mut answer = street.gate.message(notice.clone().unwrap()).await.unwrap();
    while !street.agent.receipt(bill.id, answer).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = street.gate.message(notice.clone().unwrap()).await.unwrap();
    }

    let proof = make().await.unwrap();
    let read = DeliveryProof::decode(&proof.encode()).unwrap();
    assert_eq!(read, proof);
    let shown = read.verify().unwrap();
    assert_eq!((shown.cid, shown.bytes), (identity.cid, 2 * MIB));
    assert_eq!(shown.payer, street.buyer.address());
    assert_eq!(shown.payee, street.seeder.address());
    assert_eq!((shown.amount, shown.chunks.unwrap().1), (wei(2), 8));
    assert_eq!(shown.chunks.unwrap().0, identity.root);

    // Whatever is changed of it, it is no proof any more.
    type Change = fn(&mut DeliveryProof);
    let changes: [(&str, Change); 9] = [
        ("a wei more", |p| p.receipt.body.amount += U256::from(1)),
        ("a byte more", |p| p.receipt.body.bytes += 1),
        ("another transaction", |p| {
            p.receipt.body.transaction.0[0] ^= 1
        }),
        ("another bill", |p| p.sequence += 1),
        ("another chain", |p| p.chain.chain_id += 1),
        ("a chunk fewer, signed before", |p| {
            p.transfers[0].chunks.pop();
        }),
        ("no chunk", |p| p.transfers.clear()),
        ("no signature under the chunks", |p| {
            p.transfers[0].signature = None
        }),
        ("the chunks twice", |p| {
            let again = p.transfers[0].clone();
            p.transfers.push(again);
        }),
    ];
    for (what, change) in changes {
        let mut changed = proof.clone();
        change(&mut changed);
        assert!(changed.verify().is_err(), "{what}");
    }
    // Chunks that somebody else says came.
    let mut forged = proof.clone();
    let thief = FixedKeySigner::numbered(66);
    forged.transfers[0].signature = Some(thief.sign(forged.transfers[0].digest()).await.unwrap());
    assert!(matches!(forged.verify(), Err(DeliveryError::Transfer(_))));
    let bytes = proof.encode();
    // A bit anywhere: it is not read, or not in another way, and does not convince.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let bit = (0..bytes.len(), 0u8..8);
    let flipped = runner.run(&bit, |(at, bit)| {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        if let Ok(read) = DeliveryProof::decode(&changed) {
            proptest::prop_assert_eq!(read.encode(), changed);
            proptest::prop_assert!(read.verify().is_err(), "bit {} of byte {}", bit, at);
        }
        Ok(())
    });
    assert!(flipped.is_ok(), "{flipped:?}");
    for length in (0..bytes.len()).step_by(97) {
        assert!(DeliveryProof::decode(&bytes[..length]).is_err());
    }
    assert!(DeliveryProof::decode(&[&bytes[..], &[0]].concat()).is_err());

    let statement = Statement::of(&street.journal).await.unwrap();
    assert_eq!((statement.spent, statement.payable), (wei(2), U256::ZERO));
    let files = statement.by(GroupBy::File);
    assert_eq!(files[0].key, identity.cid.to_string());
    assert_eq!((files[0].spent, files[0].bytes_fetched), (wei(2), 2 * MIB));
    street.end().await;
}

fn hashes(bytes: &[u8]) -> (ChunkLayout, Vec<ChunkHash>) {
    let mut hasher = chiral_core::ChunkHasher::new();
    hasher.update(bytes);
    let layout = ChunkLayout::new(bytes.len() as u64).unwrap();
    (layout, hasher.finish().unwrap().0)
}
