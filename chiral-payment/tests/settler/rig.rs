//! A real chain in this process, behind a line that fails when it is told to.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use async_trait::async_trait;
use bytes::Bytes;
use chiral_chain::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, ChainSpec, DEV_ACCOUNTS,
    EmbeddedChain, EmbeddedConfig, FeeQuote, Fees, HeadStream, LogEntry, LogFilter, PrivateKey,
    RefusalKind, Sealing, Transaction, TransactionInfo, TransactionReceipt,
};
use chiral_core::{
    Bill, BillId, ByteRange, CHUNK_SIZE, Cid, PaymentSettler, Price, Protocol, RangeSet,
    SettlementStatus,
};
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Journal};

/// How long any wait may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A chain of the devnet's spec.
pub(crate) async fn embedded(sealing: Sealing) -> EmbeddedChain {
    let config = EmbeddedConfig::default()
        .with_sealing(sealing)
        .with_max_clock_lead(Duration::from_secs(1 << 20));
    EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap()
}

/// The line to a chain. Chains of one spec begin with the same block, so switching from one
/// to another is a reorganisation of all blocks.
#[derive(Debug)]
pub(crate) struct Line {
    chain: Mutex<EmbeddedChain>,
    /// Questions that are answered before the line goes down; `u32::MAX` for all.
    pub(crate) answers: AtomicU32,
    /// Transactions that reach the chain, and of which the answer is lost.
    pub(crate) lost_answers: AtomicU32,
    /// Transactions that the node says it knows already, without having taken them.
    pub(crate) false_known: AtomicU32,
    /// Fees are answered times this.
    pub(crate) dearer: AtomicU32,
    /// The wallet's nonce is answered as so many more.
    pub(crate) more_nonces: AtomicU32,
    /// Whatever is estimated would revert.
    pub(crate) refuses: AtomicBool,
    /// Estimates are answered as this, unless it is 0.
    pub(crate) estimate: AtomicU32,
    /// Transactions that were sent: the chain has answered. Who seals a block by hand when one is
    /// in here finds it in that block.
    pub(crate) sent: Mutex<Vec<Bytes>>,
}

impl Line {
    pub(crate) fn to(chain: EmbeddedChain) -> Arc<Self> {
        Arc::new(Self {
            chain: Mutex::new(chain),
            answers: AtomicU32::new(u32::MAX),
            lost_answers: AtomicU32::new(0),
            false_known: AtomicU32::new(0),
            dearer: AtomicU32::new(1),
            more_nonces: AtomicU32::new(0),
            refuses: AtomicBool::new(false),
            estimate: AtomicU32::new(0),
            sent: Mutex::default(),
        })
    }

    pub(crate) fn chain(&self) -> EmbeddedChain {
        self.chain.lock().unwrap().clone()
    }

    /// The chain is another one from now on.
    pub(crate) fn switch(&self, chain: EmbeddedChain) {
        *self.chain.lock().unwrap() = chain;
    }

    pub(crate) fn answer(&self, questions: u32) {
        self.answers.store(questions, Ordering::SeqCst);
    }

    fn ask(&self) -> Result<EmbeddedChain, ChainError> {
        let count = |left: u32| match left {
            0 => None,
            u32::MAX => Some(u32::MAX),
            left => Some(left - 1),
        };
        let up = self
            .answers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        up.map_err(|_| ChainError::Unreachable("the line is down".into()))?;
        Ok(self.chain())
    }
}

fn take(counter: &AtomicU32) -> bool {
    let less = |left: u32| left.checked_sub(1);
    let taken = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    taken.is_ok()
}

#[async_trait]
impl ChainClient for Line {
    async fn chain_id(&self) -> Result<u64, ChainError> {
        self.ask()?.chain_id().await
    }
    async fn genesis_hash(&self) -> Result<B256, ChainError> {
        self.ask()?.genesis_hash().await
    }
    async fn head(&self) -> Result<BlockRef, ChainError> {
        self.ask()?.head().await
    }
    async fn block(&self, block: BlockId) -> Result<Option<BlockInfo>, ChainError> {
        self.ask()?.block(block).await
    }
    async fn balance(&self, wallet: Address, at: BlockId) -> Result<U256, ChainError> {
        self.ask()?.balance(wallet, at).await
    }
    async fn nonce(&self, wallet: Address, at: BlockId) -> Result<u64, ChainError> {
        let nonce = self.ask()?.nonce(wallet, at).await?;
        Ok(nonce + u64::from(self.more_nonces.load(Ordering::SeqCst)))
    }
    async fn code(&self, contract: Address) -> Result<Bytes, ChainError> {
        self.ask()?.code(contract).await
    }
    async fn fees(&self) -> Result<FeeQuote, ChainError> {
        let mut quote = self.ask()?.fees().await?;
        let times = u128::from(self.dearer.load(Ordering::SeqCst));
        quote.gas_price *= times;
        quote.priority_fee *= times;
        Ok(quote)
    }
    async fn estimate_gas(&self, call: CallRequest) -> Result<u64, ChainError> {
        if self.refuses.load(Ordering::SeqCst) {
            let output = Bytes::new();
            return Err(ChainError::Reverted { output });
        }
        match self.estimate.load(Ordering::SeqCst) {
            0 => self.ask()?.estimate_gas(call).await,
            gas => Ok(gas.into()),
        }
    }
    async fn call(&self, call: CallRequest) -> Result<Bytes, ChainError> {
        self.ask()?.call(call).await
    }
    async fn send_raw_transaction(&self, raw: Bytes) -> Result<B256, ChainError> {
        let chain = self.ask()?;
        let sent = || self.sent.lock().unwrap().push(raw.clone());
        if take(&self.false_known) {
            sent();
            return Err(ChainError::Refused {
                kind: RefusalKind::AlreadyKnown,
                reason: "already known".to_owned(),
            });
        }
        let answer = chain.send_raw_transaction(raw.clone()).await;
        sent();
        match take(&self.lost_answers) {
            true => Err(ChainError::Timeout),
            false => answer,
        }
    }
    async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ChainError> {
        self.ask()?.transaction(hash).await
    }
    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        self.ask()?.receipt(hash).await
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<LogEntry>, ChainError> {
        self.ask()?.logs(filter).await
    }
    async fn heads(&self) -> Result<HeadStream, ChainError> {
        self.ask()?.heads().await
    }
    async fn shutdown(&self) -> Result<(), ChainError> {
        self.chain().shutdown().await
    }
}

/// The wallet that pays: of development account 0.
pub(crate) fn wallet() -> Arc<PrivateKey> {
    Arc::new(DEV_ACCOUNTS[0].signer())
}

/// Pays at once, through the devnet's contract.
pub(crate) fn config() -> SettlerConfig {
    let spec = ChainSpec::devnet();
    SettlerConfig::new(spec.chain_id, spec.genesis_hash())
        .with_batch_contract(ChainSpec::predeployed("BatchPay").unwrap())
        .with_failed_after(1)
        .with_gather(Duration::ZERO)
        .with_poll(Duration::from_millis(10))
        .with_max_backoff(Duration::from_millis(20))
        .with_retry_after(Duration::ZERO)
}

pub(crate) fn journal(path: &Path) -> Journal {
    Journal::open(path.join("journal")).unwrap()
}

pub(crate) async fn start(
    journal: &Journal,
    line: &Arc<Line>,
    config: SettlerConfig,
) -> Arc<ChainSettler> {
    ChainSettler::start(journal.clone(), line.clone(), wallet(), config)
        .await
        .unwrap()
}

/// A payee that nobody has paid before.
pub(crate) fn payee(n: u8) -> Address {
    Address::repeat_byte(0xa0 + n)
}

/// A bill of `n` MiB and one byte at 1,000 wei.
pub(crate) fn bill(n: u8, payee: Address) -> Bill {
    let mut ranges = RangeSet::new();
    ranges.insert(ByteRange::new(
        CHUNK_SIZE,
        CHUNK_SIZE + u64::from(n) * (1 << 20) + 1,
    ));
    let id = BillId(B256::repeat_byte(n));
    let cid = Cid::from_bytes([n; 32]);
    let price = Price::from_wei_per_mib(U256::from(1000));
    Bill::new(id, cid, ranges, price, Protocol::Http)
        .unwrap()
        .owed_to(None, Some(payee))
}

/// What the bills of `n` come to at their payee.
pub(crate) fn owed(bills: &[Bill], payee: Address) -> U256 {
    let owed = bills.iter().filter(|bill| bill.payee == Some(payee));
    owed.map(|bill| bill.amount).sum()
}

/// Waits until all bills are settled and answers their transactions.
pub(crate) async fn settled(settler: &ChainSettler, bills: &[Bill]) -> Vec<B256> {
    let mut transactions = Vec::new();
    for bill in bills {
        let waited = tokio::time::timeout(PATIENCE, settler.wait(bill.id)).await;
        let status = match waited {
            Ok(status) => status.unwrap(),
            Err(_) => panic!(
                "{:#?}: {:?}",
                settler.payment(bill.id).await,
                settler.problem()
            ),
        };
        match status {
            Some(SettlementStatus::Settled { transaction }) => transactions.push(transaction),
            other => panic!("{other:?}"),
        }
    }
    transactions
}

/// Waits until something holds.
pub(crate) async fn until<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "never came: {what}");
}

/// Every payee has exactly what it is owed.
pub(crate) async fn assert_paid_once(chain: &EmbeddedChain, bills: &[Bill], when: &str) {
    for bill in bills {
        let payee = bill.payee.unwrap();
        let balance = chain.balance(payee, BlockId::Latest).await.unwrap();
        assert_eq!(balance, owed(bills, payee), "{payee} {when}");
    }
}

/// A transaction of the paying wallet that the settler knows nothing of.
pub(crate) async fn foreign(chain: &EmbeddedChain, nonce: u64, gas_price: u128) -> B256 {
    let transaction = Transaction {
        chain_id: ChainSpec::devnet().chain_id,
        nonce,
        gas_limit: 21_000,
        fees: Fees::Legacy { gas_price },
        to: Some(Address::repeat_byte(0xff)),
        value: U256::from(1),
        input: Bytes::new(),
    };
    let signed = transaction.sign(&*wallet()).await.unwrap();
    chain.send_raw_transaction(signed.raw).await.unwrap()
}

/// Ends a settler and lets go of its journal.
pub(crate) async fn end(settler: &ChainSettler, journal: &Journal) {
    settler.shutdown().await.unwrap();
    journal.close().await;
}

/// A transaction of another wallet, which waits for a block.
pub(crate) async fn pay_from(
    chain: &EmbeddedChain,
    from: chiral_chain::DevAccount,
    to: Address,
) -> B256 {
    let transaction = Transaction {
        chain_id: ChainSpec::devnet().chain_id,
        nonce: chain.nonce(from.address, BlockId::Latest).await.unwrap(),
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: chain.fees().await.unwrap().gas_price,
        },
        to: Some(to),
        value: U256::from(1),
        input: Bytes::new(),
    };
    let signed = transaction.sign(&from.signer()).await.unwrap();
    chain.send_raw_transaction(signed.raw).await.unwrap()
}

/// Gives a wallet money, from development account 9.
pub(crate) async fn give(chain: &EmbeddedChain, to: Address, value: U256) {
    let from = DEV_ACCOUNTS[9];
    let transaction = Transaction {
        chain_id: ChainSpec::devnet().chain_id,
        nonce: chain.nonce(from.address, BlockId::Latest).await.unwrap(),
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: chain.fees().await.unwrap().gas_price,
        },
        to: Some(to),
        value,
        input: Bytes::new(),
    };
    let signed = transaction.sign(&from.signer()).await.unwrap();
    let hash = chain.send_raw_transaction(signed.raw).await.unwrap();
    until("the money is there", async || {
        chain.receipt(hash).await.unwrap().is_some()
    })
    .await;
}
