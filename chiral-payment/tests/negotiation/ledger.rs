//! A ledger on which tests put what they want, and a settler that pays on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256, keccak256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, TransactionInfo, TransactionReceipt,
};
use chiral_core::{Bill, BillId, PaymentSettler, SettleError, SettlementStatus};
use chiral_payment::calldata::PaymentMetadata;
use chiral_payment::contracts::{batch_pay, channels};
use tokio::sync::watch;

use super::contract::Contract;
use super::support::CHAIN;

/// One transaction a block, mined when a test says so.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    head: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<B256, (TransactionInfo, TransactionReceipt)>,
    waiting: Vec<B256>,
    /// By number; block 0 is empty.
    blocks: Vec<Vec<B256>>,
    away: bool,
    count: u64,
    contract: Contract,
    /// Of the next block, in seconds since 1970, where a test has set it.
    time: Option<u64>,
}

/// What a test puts on the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) value: U256,
    pub(crate) input: Bytes,
    pub(crate) chain_id: Option<u64>,
    pub(crate) succeeded: bool,
    pub(crate) logs: Vec<(Address, Vec<B256>, Bytes)>,
}

impl Put {
    /// The transfer that pays a bill.
    pub(crate) fn paying(bill: &Bill, from: Address) -> Self {
        Self {
            from,
            to: bill.payee.unwrap(),
            value: bill.amount,
            input: PaymentMetadata::for_bill(bill).encode(),
            chain_id: Some(CHAIN.chain_id),
            succeeded: true,
            logs: Vec::new(),
        }
    }

    /// One leg of a batch that pays a bill.
    pub(crate) fn batch(bill: &Bill, from: Address) -> Self {
        let payee = bill.payee.unwrap();
        let leg = batch_pay::Leg {
            nonce: U256::ZERO,
            bill: bill.id.0,
            to: payee,
            amount: bill.amount.to(),
            meta: PaymentMetadata::for_bill(bill).encode().to_vec().into(),
        };
        let topics = vec![
            batch_pay::PAYMENT_TOPIC,
            from.into_word(),
            payee.into_word(),
            bill.id.0,
        ];
        let mut data = bill.amount.to_be_bytes::<32>().to_vec();
        data.extend_from_slice(&[0; 32]);
        Self {
            to: CHAIN.batch_pay,
            input: batch_pay::pay(vec![leg]),
            logs: vec![(CHAIN.batch_pay, topics, data.into())],
            ..Self::paying(bill, from)
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            blocks: vec![Vec::new()],
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            head: watch::channel(0).0,
        })
    }

    /// Sends a transaction, which waits.
    pub(crate) fn send(&self, put: Put) -> B256 {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let hash = keccak256(state.count.to_be_bytes());
        let nowhere = BlockRef {
            number: 0,
            hash: B256::ZERO,
        };
        let log = |(index, (address, topics, data))| LogEntry {
            address,
            topics,
            data,
            transaction: hash,
            block: nowhere,
            index,
        };
        let receipt = TransactionReceipt {
            transaction: hash,
            block: nowhere,
            succeeded: put.succeeded,
            gas_used: 21_000,
            effective_gas_price: 1,
            contract: None,
            logs: (0..).zip(put.logs).map(log).collect(),
        };
        let transaction = TransactionInfo {
            hash,
            from: put.from,
            to: Some(put.to),
            value: put.value,
            nonce: state.count,
            input: put.input,
            chain_id: put.chain_id,
            block: None,
        };
        state.known.insert(hash, (transaction, receipt));
        state.waiting.push(hash);
        hash
    }

    /// Mines what waits into one block; an empty block if nothing does.
    pub(crate) fn mine(&self) {
        let mut state = self.state.lock().unwrap();
        let number = state.blocks.len() as u64;
        let block = BlockRef {
            number,
            hash: keccak256(number.to_le_bytes()),
        };
        let waiting = std::mem::take(&mut state.waiting);
        for hash in &waiting {
            let (transaction, receipt) = state.known.get_mut(hash).unwrap();
            transaction.block = Some(block);
            receipt.block = block;
        }
        state.blocks.push(waiting);
        self.head.send_replace(number);
    }

    pub(crate) fn send_and_mine(&self, put: Put) -> B256 {
        let hash = self.send(put);
        self.mine();
        hash
    }

    /// Payments of a bill that succeeded, by plain transfer.
    pub(crate) fn payments(&self, bill: BillId) -> usize {
        let state = self.state.lock().unwrap();
        let of_bill = |(transaction, _): &&(TransactionInfo, TransactionReceipt)| {
            PaymentMetadata::decode(&transaction.input).is_ok_and(|meta| meta.bill == bill)
        };
        state.known.values().filter(of_bill).count()
    }

    /// Executes a call of the channels' contract, in a block of its own.
    pub(crate) fn execute(
        &self,
        from: Address,
        value: u128,
        input: &[u8],
    ) -> Result<(), &'static str> {
        let outcome = {
            let mut state = self.state.lock().unwrap();
            let time = state.now();
            state.contract.execute(from, value, input, time)
        };
        self.mine();
        outcome
    }

    /// What the channels' contract has.
    pub(crate) fn contract<T>(&self, look: impl FnOnce(&Contract) -> T) -> T {
        look(&self.state.lock().unwrap().contract)
    }

    /// The chain's time from now on.
    pub(crate) fn set_time(&self, time: u64) {
        self.state.lock().unwrap().time = Some(time);
    }

    /// The chain's node does not answer, or does again.
    pub(crate) fn set_away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    fn state(&self) -> Result<std::sync::MutexGuard<'_, State>, ChainError> {
        let state = self.state.lock().unwrap();
        match state.away {
            true => Err(ChainError::Timeout),
            false => Ok(state),
        }
    }
}

impl State {
    fn now(&self) -> u64 {
        self.time.unwrap_or(self.blocks.len() as u64 - 1)
    }
}

const UNUSED: ChainError = ChainError::Protocol {
    reason: "not on this ledger",
};

#[async_trait]
impl ChainClient for Ledger {
    async fn chain_id(&self) -> Result<u64, ChainError> {
        self.state().map(|_| CHAIN.chain_id)
    }

    async fn genesis_hash(&self) -> Result<B256, ChainError> {
        self.state().map(|_| CHAIN.genesis)
    }

    async fn head(&self) -> Result<BlockRef, ChainError> {
        let number = self.state()?.blocks.len() as u64 - 1;
        let hash = keccak256(number.to_le_bytes());
        Ok(BlockRef { number, hash })
    }

    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError> {
        let BlockId::Number(number) = block else {
            return Err(UNUSED);
        };
        let state = self.state()?;
        let hash = |number: u64| keccak256(number.to_le_bytes());
        let transactions = state.blocks.get(number as usize).map(|hashes| {
            let known = hashes.iter().map(|hash| state.known[hash].0.clone());
            known.collect()
        });
        Ok(transactions.map(|transactions| BlockInfo {
            id: BlockRef {
                number,
                hash: hash(number),
            },
            parent: hash(number.saturating_sub(1)),
            timestamp: state.time.unwrap_or(number),
            base_fee: None,
            gas_limit: 4_700_000,
            transactions,
        }))
    }

    async fn balance(&self, _: Address, _: BlockId) -> Result<U256, ChainError> {
        Err(UNUSED)
    }

    async fn nonce(&self, _: Address, _: BlockId) -> Result<u64, ChainError> {
        Err(UNUSED)
    }

    async fn code(&self, contract: Address) -> Result<Bytes, ChainError> {
        assert_eq!(contract, channels::CHANNELS);
        self.state().map(|_| channels::runtime_code())
    }

    async fn fees(&self) -> Result<FeeQuote, ChainError> {
        Err(UNUSED)
    }

    async fn estimate_gas(&self, _: CallRequest) -> Result<u64, ChainError> {
        Err(UNUSED)
    }

    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError> {
        let state = self.state()?;
        let id = B256::from_slice(&call.input[4..]);
        assert_eq!(call.input, channels::look(id));
        let it = state.contract.state(id);
        let words = [
            it.payer.into_word(),
            U256::from(it.challenge).into(),
            U256::from(it.closes_at).into(),
            it.payee.into_word(),
            U256::from(it.deposit).into(),
            B256::from(U256::from(it.claimed)),
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.0).collect();
        Ok(bytes.into())
    }

    async fn send_raw_transaction(&self, _: Bytes) -> Result<B256, ChainError> {
        Err(UNUSED)
    }

    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError> {
        let state = self.state()?;
        Ok(state.known.get(&hash).map(|known| known.0.clone()))
    }

    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        let state = self.state()?;
        let known = state.known.get(&hash);
        let mined = known.filter(|known| known.0.block.is_some());
        Ok(mined.map(|known| known.1.clone()))
    }

    async fn logs(&self, _: LogFilter) -> Result<Vec<LogEntry>, ChainError> {
        Err(UNUSED)
    }

    async fn heads(&self) -> Result<HeadStream, ChainError> {
        let heads = self.head.subscribe();
        Ok(Box::pin(futures_util::stream::unfold(
            heads,
            |mut heads| async move {
                heads.changed().await.ok()?;
                let number = *heads.borrow_and_update();
                let hash = keccak256(number.to_le_bytes());
                Some((BlockRef { number, hash }, heads))
            },
        )))
    }

    async fn shutdown(&self) -> Result<(), ChainError> {
        Ok(())
    }
}

/// Pays each bill with a plain transfer, once.
pub(crate) struct Till {
    ledger: Arc<Ledger>,
    payer: Address,
    paid: Mutex<HashMap<BillId, B256>>,
}

impl Till {
    pub(crate) fn new(ledger: Arc<Ledger>, payer: Address) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            payer,
            paid: Mutex::default(),
        })
    }

    pub(crate) fn bills(&self) -> usize {
        self.paid.lock().unwrap().len()
    }

    pub(crate) fn paid(&self) -> Vec<BillId> {
        self.paid.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn amounts(&self) -> Vec<U256> {
        let paid = self.paid.lock().unwrap();
        let state = self.ledger.state.lock().unwrap();
        paid.values()
            .map(|hash| state.known[hash].0.value)
            .collect()
    }
}

impl fmt::Debug for Till {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Till")
    }
}

#[async_trait]
impl PaymentSettler for Till {
    async fn settle(&self, bills: Vec<Bill>) -> Result<Vec<SettlementStatus>, SettleError> {
        let mut paid = self.paid.lock().unwrap();
        let mut statuses = Vec::new();
        for bill in bills {
            let pay = || self.ledger.send_and_mine(Put::paying(&bill, self.payer));
            let transaction = *paid.entry(bill.id).or_insert_with(pay);
            statuses.push(SettlementStatus::Settled { transaction });
        }
        Ok(statuses)
    }

    async fn status(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError> {
        let paid = self.paid.lock().unwrap();
        let found = paid.get(&bill).copied();
        Ok(found.map(|transaction| SettlementStatus::Settled { transaction }))
    }

    async fn shutdown(&self) -> Result<(), SettleError> {
        Ok(())
    }
}
