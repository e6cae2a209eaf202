//! A buyer, a seeder, and what passes between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use bytes::Bytes;
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::payment_gate::{AgreeError, agree};
use chiral_core::{
    Admission, ByteRange, Cid, Endpoint, GateError, PaymentAgent, PaymentGate, PeerOffer, Price,
    Protocol, Purchase, ServeRequest, WalletSigner,
};
use chiral_payment::clock::Clock;
use chiral_payment::messages::{ChainFacts, Message, Policy};
use chiral_payment::{AgentConfig, ChainAgent, ChainGate, CreditRules, GateConfig, Journal};

use super::ledger::{Ledger, Till};

pub(crate) const CHAIN: ChainFacts = ChainFacts {
    chain_id: 98_765,
    genesis: B256::repeat_byte(0x1f),
    batch_pay: Address::repeat_byte(0xba),
};

pub(crate) const MIB: u64 = 1 << 20;

/// 2026, and then as far as a test goes on.
const START: u64 = 1_790_000_000;

pub(crate) fn cid() -> Cid {
    Cid::from_bytes([7; 32])
}

/// A million wei for a MiB.
pub(crate) fn price() -> Price {
    Price::from_wei_per_mib(U256::from(1_000_000))
}

pub(crate) fn wei(mib: u64) -> U256 {
    U256::from(mib * 1_000_000)
}

/// Lends 4 MiB, to all strangers together 10 a day.
pub(crate) fn credit() -> CreditRules {
    CreditRules {
        initial: wei(4),
        least_bytes: MIB,
        most: wei(1000),
        strangers: wei(10),
        ..CreditRules::default()
    }
}

/// Both sides, in memory, on one ledger and under one clock.
pub(crate) struct Market {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) buyer: Arc<FixedKeySigner>,
    pub(crate) seeder: Arc<FixedKeySigner>,
    pub(crate) till: Arc<Till>,
    pub(crate) time: Arc<AtomicU64>,
    pub(crate) agent_journal: Journal,
    pub(crate) gate_journal: Journal,
    pub(crate) agent: ChainAgent,
    pub(crate) gate: ChainGate,
}

pub(crate) fn gate_config() -> GateConfig {
    let mut config = GateConfig::default();
    config.price = price();
    config.credit = credit();
    config.flush_interval = Duration::from_millis(20);
    config
}

pub(crate) fn agent_config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.ack_bytes = 2 * MIB;
    config.flush = (MIB, Duration::from_millis(20));
    config.prepay_bytes = 2 * MIB;
    config.max_prepay_bytes = 8 * MIB;
    config.verify_patience = Duration::from_millis(300);
    config
}

impl Market {
    pub(crate) async fn new() -> Self {
        Self::with(gate_config(), agent_config()).await
    }

    pub(crate) async fn pay_first() -> Self {
        let mut config = gate_config();
        config.policy = Policy::PayFirst;
        config.prepay_bytes = MIB;
        Self::with(config, agent_config()).await
    }

    pub(crate) async fn with(gate: GateConfig, agent: AgentConfig) -> Self {
        let ledger = Ledger::new();
        let buyer = Arc::new(FixedKeySigner::numbered(1));
        let seeder = Arc::new(FixedKeySigner::numbered(2));
        let till = Till::new(ledger.clone(), buyer.address());
        let time = Arc::new(AtomicU64::new(START));
        let (agent_journal, gate_journal) =
            (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
        let agent_side = start_agent(
            &agent_journal,
            buyer.clone(),
            till.clone(),
            time.clone(),
            agent,
        );
        let gate_side = start_gate(
            &gate_journal,
            seeder.clone(),
            ledger.clone(),
            time.clone(),
            gate,
        );
        Self {
            agent: agent_side.await,
            gate: gate_side.await,
            ledger,
            buyer,
            seeder,
            till,
            time,
            agent_journal,
            gate_journal,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::Relaxed);
    }

    /// As the seeder announces it.
    pub(crate) fn purchase(&self) -> Purchase {
        purchase(self.seeder.address(), self.now() + 3600)
    }

    /// Asks until it is served or refused, as a protocol does.
    pub(crate) async fn ask(
        &self,
        purchase: &Purchase,
        range: ByteRange,
    ) -> Result<Ask, GateError> {
        ask(&self.agent, &self.gate, purchase, range).await
    }

    /// Has a range served and verified.
    pub(crate) async fn fetch(&self, purchase: &Purchase, range: ByteRange) {
        let ask = self.ask(purchase, range).await.unwrap();
        ask.deliver(&self.gate).await;
        self.agent.verified(purchase, range).await;
    }

    /// Settles what is owed and tells the seeder; answers the bills that were paid.
    pub(crate) async fn settle(&self) -> Vec<chiral_core::Bill> {
        use chiral_core::PaymentSettler;
        let bills = self.agent.bills(None).await.unwrap();
        let statuses = self.till.settle(bills.clone()).await.unwrap();
        for (bill, status) in bills.iter().zip(statuses) {
            let notice = self.agent.settled(bill.id, &status).await.unwrap().unwrap();
            let answer = self.gate.message(notice).await.unwrap();
            assert!(self.agent.receipt(bill.id, answer).await.unwrap());
        }
        bills
    }
}

pub(crate) fn clock(time: Arc<AtomicU64>) -> Clock {
    Clock::new(move || time.load(Ordering::Relaxed))
}

pub(crate) async fn start_agent(
    journal: &Journal,
    wallet: Arc<FixedKeySigner>,
    till: Arc<Till>,
    time: Arc<AtomicU64>,
    mut config: AgentConfig,
) -> ChainAgent {
    config.clock = clock(time);
    let agent = ChainAgent::start(journal.clone(), wallet, till, CHAIN, config);
    agent.await.unwrap()
}

pub(crate) async fn start_gate(
    journal: &Journal,
    wallet: Arc<FixedKeySigner>,
    ledger: Arc<Ledger>,
    time: Arc<AtomicU64>,
    mut config: GateConfig,
) -> ChainGate {
    config.clock = clock(time);
    let gate = ChainGate::start(journal.clone(), wallet, ledger, CHAIN, config);
    gate.await.unwrap()
}

pub(crate) fn purchase(payee: Address, valid_until: u64) -> Purchase {
    let mut offer = PeerOffer::new(Protocol::Http, Endpoint::new("http://192.0.2.1/").unwrap());
    offer.price = price();
    offer.wallet = Some(payee);
    offer.valid_until = Some(valid_until);
    Purchase::new(cid(), offer).with_root_known(true)
}

pub(crate) fn range(from_mib: u64, to_mib: u64) -> ByteRange {
    ByteRange::new(from_mib * MIB, to_mib * MIB)
}

/// A request that was admitted.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) request: ServeRequest,
}

impl Ask {
    pub(crate) async fn deliver(&self, gate: &ChainGate) {
        gate.served(&self.request, self.request.range).await;
    }
}

pub(crate) fn request(credential: Option<Bytes>, range: ByteRange) -> ServeRequest {
    let mut request = ServeRequest::new(cid(), range, Protocol::Http);
    request.credential = credential;
    request
}

/// Asks, agrees, asks again: at most a few times.
pub(crate) async fn ask(
    agent: &dyn PaymentAgent,
    gate: &dyn PaymentGate,
    purchase: &Purchase,
    range: ByteRange,
) -> Result<Ask, GateError> {
    for _ in 0..4 {
        let credential = agent.credential(purchase, range).await?;
        let mut request = request(credential, range);
        request.cid = purchase.cid;
        match gate.admit(&request).await? {
            Admission::Granted => return Ok(Ask { request }),
            Admission::PaymentRequired(terms) => {
                let carry = |message| gate.message(message);
                match agree(agent, purchase, terms, carry).await {
                    Ok(()) => {}
                    Err(AgreeError::Agent(error) | AgreeError::Carrier(error)) => {
                        return Err(error);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            other => panic!("refused: {other:?}"),
        }
    }
    Err(GateError::Ledger)
}

/// What a gate says to a request.
pub(crate) fn said(admission: Admission) -> Message {
    match admission {
        Admission::PaymentRequired(terms) => Message::decode(&terms).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What a gate answers to a message.
pub(crate) async fn tell(gate: &ChainGate, message: Message) -> Message {
    let answer = gate.message(message.encode()).await.unwrap();
    Message::decode(&answer).unwrap()
}

pub(crate) fn refusal(message: Message) -> String {
    match message {
        Message::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}
