//! The table of losses: a session is cut after each of its messages, the seeder then takes from
//! the chain whatever it holds, the buyer takes back the rest, and both count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::{B256, U256};
use bytes::Bytes;
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{
    Admission, ByteRange, CHUNK_SIZE, PaymentAgent, PaymentGate, Price, Purchase, ServeRequest,
    WalletSigner,
};
use chiral_payment::channel::{ChannelTerms, ChannelView, Channels, ChannelsConfig, Side};
use chiral_payment::journal::JournalError;
use chiral_payment::messages::{Message, Policy};
use chiral_payment::{AgentConfig, ChainAgent, ChainGate, GateConfig, Journal};

use super::contract::{Desk, domain};
use super::ledger::{Ledger, Till};
use super::support::*;

/// What a chunk costs, in wei.
pub(crate) const CHUNK_PRICE: u128 = 1_000_000;
pub(crate) const CHALLENGE: u32 = 3600;
/// Chunks of the file.
pub(crate) const CHUNKS: u64 = 8;

/// The line was cut, or one of the two refused to go on: why.
#[derive(Debug)]
#[expect(dead_code, reason = "for who reads a failure")]
pub(crate) struct Cut(String);

pub(crate) fn cut(why: impl std::fmt::Display) -> Cut {
    Cut(why.to_string())
}

/// Lets so many messages through.
pub(crate) struct Line(AtomicU64);

impl Line {
    pub(crate) fn cut_after(messages: u64) -> Self {
        Self(AtomicU64::new(messages))
    }

    pub(crate) fn pass(&self) -> Result<(), Cut> {
        let left = self
            .0
            .load(Ordering::Relaxed)
            .checked_sub(1)
            .ok_or_else(|| cut("the line"))?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) buyer: Arc<FixedKeySigner>,
    pub(crate) seeder: Arc<FixedKeySigner>,
    pub(crate) till: Arc<Till>,
    pub(crate) time: Arc<AtomicU64>,
    desks: [Arc<Desk>; 2],
    pub(crate) policy: Policy,
    /// After so long a seeder writes down what it served.
    pub(crate) flush: Duration,
    /// Whether a payment and the lock behind it are one message.
    pub(crate) at_once: bool,
    terms: ChannelTerms,
}

/// Both sides while they live.
pub(crate) struct Sides {
    pub(crate) buyers: Channels,
    pub(crate) seeders: Channels,
    pub(crate) agent: ChainAgent,
    pub(crate) gate: ChainGate,
    at_once: bool,
}

/// How a session went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Chunks that the seeder sent, sealed or not.
    pub(crate) sent: u128,
    /// Chunks that the buyer has, and that are right.
    pub(crate) had: u128,
    /// Wei that the seeder got in the end.
    pub(crate) earned: u128,
}

pub(crate) fn terms() -> ChannelTerms {
    ChannelTerms {
        challenge: CHALLENGE,
        window_cap: 4,
        batch: 1,
        ..ChannelTerms::default()
    }
}

impl World {
    pub(crate) fn new(policy: Policy, terms: ChannelTerms) -> Self {
        let ledger = Ledger::new();
        let buyer = Arc::new(FixedKeySigner::numbered(1));
        let seeder = Arc::new(FixedKeySigner::numbered(2));
        let time = Arc::new(AtomicU64::new(1_790_000_000));
        ledger.set_time(1_790_000_000);
        Self {
            till: Till::new(ledger.clone(), buyer.address()),
            desks: [
                Desk::new(ledger.clone(), buyer.address()),
                Desk::new(ledger.clone(), seeder.address()),
            ],
            ledger,
            buyer,
            seeder,
            time,
            policy,
            flush: Duration::from_millis(20),
            at_once: false,
            terms,
        }
    }

    /// The same, with a payment and the lock behind it in one message.
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    pub(crate) fn pass_time(&self, seconds: u64) {
        let now = self.time.fetch_add(seconds, Ordering::Relaxed) + seconds;
        self.ledger.set_time(now);
        self.ledger.mine();
    }

    /// What keeps the channels of the buyer (0) or the seeder (1).
    pub(crate) async fn house(
        &self,
        journal: &Journal,
        side: usize,
    ) -> Result<Channels, JournalError> {
        let mut config = ChannelsConfig::default();
        config.clock = clock(self.time.clone());
        config.claim_at_least = u128::MAX;
        config.poll = Duration::from_millis(50);
        let wallet = [&self.buyer, &self.seeder][side].clone();
        let (ledger, desk) = (self.ledger.clone(), self.desks[side].clone());
        Channels::start(journal.clone(), wallet, ledger, desk, domain(), config).await
    }

    pub(crate) async fn sides(&self, buyers: &Journal, seeders: &Journal) -> Sides {
        let buyer_house = self.house(buyers, 0).await.unwrap();
        let seeder_house = self.house(seeders, 1).await.unwrap();

        let mut gate = GateConfig::default();
        gate.price = Price::from_wei_per_mib(U256::from(4 * CHUNK_PRICE));
        gate.policy = self.policy;
        gate.credit = credit();
        gate.credit.initial = U256::from(4 * CHUNK_PRICE);
        gate.credit.least_bytes = CHUNK_SIZE;
        gate.credit.most = U256::from(1000 * CHUNK_PRICE);
        gate.credit.strangers = U256::from(1000 * CHUNK_PRICE);
        gate.channel = self.terms;
        gate.prepay_bytes = 2 * CHUNK_SIZE;
        gate.flush_interval = self.flush;
        gate.clock = clock(self.time.clone());
        let mut agent = AgentConfig::default();
        agent.channel_deposit = 100 * CHUNK_PRICE;
        agent.max_channel_deposit = 200 * CHUNK_PRICE;
        agent.prepay_bytes = 2 * CHUNK_SIZE;
        agent.ack_bytes = CHUNK_SIZE;
        agent.flush = (CHUNK_SIZE, Duration::from_millis(20));
        agent.verify_patience = Duration::from_millis(100);
        agent.clock = clock(self.time.clone());
        let (till, ledger) = (self.till.clone(), self.ledger.clone());
        let (buyer, seeder) = (self.buyer.clone(), self.seeder.clone());
        let agent = ChainAgent::start_with(
            buyers.clone(),
            buyer,
            till,
            CHAIN,
            Some(buyer_house.clone()),
            agent,
        );
        let gate = ChainGate::start_with(
            seeders.clone(),
            seeder,
            ledger,
            CHAIN,
            Some(seeder_house.clone()),
            gate,
        );
        Sides {
            agent: agent.await.unwrap(),
            gate: gate.await.unwrap(),
            buyers: buyer_house,
            seeders: seeder_house,
            at_once: self.at_once,
        }
    }

    pub(crate) fn purchase(&self) -> Purchase {
        let until = self.time.load(Ordering::Relaxed) + 3600;
        let mut purchase = purchase(self.seeder.address(), until);
        purchase.offer.price = Price::from_wei_per_mib(U256::from(4 * CHUNK_PRICE));
        purchase
    }

    /// Wei that the seeder got, out of channels and by transfers.
    pub(crate) fn earned(&self) -> u128 {
        let transfers: U256 = self.till.amounts().into_iter().sum();
        let seeder = self.seeder.address();
        let claimed = self
            .ledger
            .contract(|contract| contract.earned.get(&seeder).copied());
        transfers.to::<u128>() + claimed.unwrap_or_default()
    }

    /// The seeder takes what it can, the buyer takes back the rest.
    pub(crate) async fn aftermath(&self, sides: &Sides) {
        self.claim(sides).await;
        self.take_back(sides).await;
    }

    /// The seeder takes what it can.
    pub(crate) async fn claim(&self, sides: &Sides) {
        for view in views(&sides.seeders, Side::Payee) {
            // A lock first, and then what else there is.
            sides.seeders.claim(view.id).await.unwrap();
            sides.seeders.claim(view.id).await.unwrap();
        }
    }

    /// The buyer takes back what was not taken.
    pub(crate) async fn take_back(&self, sides: &Sides) {
        for view in views(&sides.buyers, Side::Payer) {
            sides.buyers.close(view.id).await.unwrap();
            self.pass_time(u64::from(CHALLENGE));
            let over = async {
                while !self
                    .ledger
                    .contract(|contract| contract.state(view.id))
                    .is_over()
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let over = tokio::time::timeout(Duration::from_secs(20), over).await;
            assert!(over.is_ok(), "the deposit does not come back: {view:?}");
        }
    }

    /// Wei that came back to the buyer out of channels.
    pub(crate) fn returned(&self) -> u128 {
        let buyer = self.buyer.address();
        let returned = self
            .ledger
            .contract(|contract| contract.returned.get(&buyer).copied());
        returned.unwrap_or_default()
    }
}

fn views(house: &Channels, side: Side) -> Vec<ChannelView> {
    let views = house.views().into_iter();
    views.filter(|view| view.side == side).collect()
}

impl Sides {
    pub(crate) async fn end(&self) {
        let _ = self.agent.shutdown().await;
        let _ = self.gate.shutdown().await;
        let _ = self.buyers.shutdown().await;
        let _ = self.seeders.shutdown().await;
    }

    /// Takes a message to the gate, and so on until nothing is left to say. Whatever one of
    /// them answers with an error ends the session too.
    async fn converse(&self, line: &Line, purchase: &Purchase, terms: Bytes) -> Result<(), Cut> {
        let mut message = terms;
        loop {
            line.pass()?;
            let next = self.agent.respond(purchase, message).await;
            let Some(next) = next.map_err(cut)? else {
                return Ok(());
            };
            line.pass()?;
            message = self.gate.message(next).await.map_err(cut)?;
        }
    }

    pub(crate) async fn pay(&self, line: &Line, purchase: &Purchase) -> Result<(), Cut> {
        let due = self.agent.due(purchase).await.map_err(cut)?;
        let Some(due) = due else { return Ok(()) };
        line.pass()?;
        let answer = self.gate.message(due).await.map_err(cut)?;
        self.converse(line, purchase, answer).await
    }

    /// Asks for a chunk: true if it is on its way, false if something has to be paid first.
    pub(crate) async fn ask(
        &self,
        line: &Line,
        purchase: &Purchase,
        range: ByteRange,
        sealed: bool,
        owing: bool,
    ) -> Result<Option<ServeRequest>, Cut> {
        for _ in 0..8 {
            let credential = self.agent.credential(purchase, range).await;
            let mut request = request(credential.map_err(cut)?, range).with_sealed(sealed);
            request.cid = purchase.cid;
            line.pass()?;
            match self.gate.admit(&request).await.map_err(cut)? {
                Admission::Granted => return Ok(Some(request)),
                Admission::PaymentRequired(terms) => {
                    let due = matches!(Message::decode(&terms), Ok(Message::Due { amount, .. }) if !amount.is_zero());
                    if due && owing {
                        line.pass()?;
                        return Ok(None);
                    }
                    self.converse(line, purchase, terms).await?;
                }
                Admission::Refused { reason } => panic!("{reason}"),
                other => panic!("{other:?}"),
            }
        }
        Err(cut("asked for payment eight times"))
    }

    /// Takes as many chunks as it gets, verifies them, pays; until the file is complete.
    pub(crate) async fn plain(
        &self,
        line: &Line,
        purchase: &Purchase,
        count: &mut Count,
        first: u64,
    ) -> Result<(), Cut> {
        let mut next = first;
        while next < CHUNKS {
            let mut arrived = Vec::new();
            while next < CHUNKS {
                let range = chunk(next);
                let owing = !arrived.is_empty();
                let Some(request) = self.ask(line, purchase, range, false, owing).await? else {
                    break;
                };
                self.gate.served(&request, range).await;
                count.sent += 1;
                line.pass()?;
                arrived.push(range);
                next += 1;
            }
            for range in arrived {
                self.agent.verified(purchase, range).await;
                count.had += 1;
            }
            self.pay(line, purchase).await?;
        }
        Ok(())
    }

    /// Has chunks sealed, as many ahead as it gets, and buys their keys one after the other.
    pub(crate) async fn sealed(
        &self,
        line: &Line,
        purchase: &Purchase,
        count: &mut Count,
        garbage: bool,
        last: &mut Option<(u64, Bytes)>,
        first: u64,
    ) -> Result<(), Cut> {
        let mut next = first;
        while next < CHUNKS {
            let mut arrived = Vec::new();
            while next < CHUNKS {
                let range = chunk(next);
                let owing = !arrived.is_empty();
                let Some(request) = self.ask(line, purchase, range, true, owing).await? else {
                    break;
                };
                let plain = Bytes::from(vec![
                    if garbage { 0xee } else { next as u8 };
                    CHUNK_SIZE as usize
                ]);
                let sealed = self.gate.seal(&request, plain).await.map_err(cut)?;
                self.gate.served(&request, range).await;
                count.sent += 1;
                line.pass()?;
                arrived.push((next, range, sealed));
                next += 1;
            }
            let mut right = false;
            for (index, range, sealed) in arrived {
                let both = match self.at_once && right {
                    true => self.agent.pay_and_lock(purchase, range, &sealed).await,
                    false => Ok(None),
                };
                let lock = match both.map_err(cut)? {
                    Some(promised) => promised.both,
                    // Of what was bought before, only the key is asked for.
                    None => {
                        if self.at_once {
                            self.pay(line, purchase).await?;
                        }
                        let lock = self.agent.lock(purchase, range, &sealed).await;
                        lock.map_err(cut)?
                    }
                };
                *last = Some((index, sealed.data.clone()));
                line.pass()?;
                let key = self.gate.message(lock).await.map_err(cut)?;
                line.pass()?;
                let plain = self.agent.unseal(purchase, range, &sealed, key).await;
                let plain = plain.map_err(cut)?;
                if plain[0] != index as u8 {
                    // Nobody buys from such a seeder again.
                    return Err(cut("garbage"));
                }
                *last = None;
                count.had += 1;
                self.agent.verified(purchase, range).await;
                right = true;
                if !self.at_once {
                    self.pay(line, purchase).await?;
                }
            }
            if self.at_once {
                self.pay(line, purchase).await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn chunk(index: u64) -> ByteRange {
    ByteRange::new(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)
}

/// How much more than nothing.
fn over(a: u128, b: u128) -> u128 {
    a.saturating_sub(b)
}

/// The worst that happened to buyer and seeder, in wei, and to the seeder's upload, in chunks,
/// over all cuts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Worst {
    buyer: u128,
    seeder: u128,
    upload: u128,
}

async fn worst(policy: Policy, terms: ChannelTerms, channel_first: bool, garbage: bool) -> Worst {
    worst_in(|| World::new(policy, terms), channel_first, garbage).await
}

async fn worst_in(world: impl Fn() -> World, channel_first: bool, garbage: bool) -> Worst {
    let mut worst = Worst::default();
    let mut complete = false;
    for messages in 0..400 {
        let world = world();
        let policy = world.policy;
        let (ours, theirs) = (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
        let sides = world.sides(&ours, &theirs).await;
        if channel_first {
            let deposit = 100 * CHUNK_PRICE;
            let opened = sides
                .buyers
                .open(world.seeder.address(), CHALLENGE, deposit);
            sides.buyers.ready(opened.await.unwrap()).await.unwrap();
        }
        let (line, purchase) = (Line::cut_after(messages), world.purchase());
        let (mut count, mut last) = (Count::default(), None);
        let end = match policy {
            Policy::LockedVoucher => {
                sides
                    .sealed(&line, &purchase, &mut count, garbage, &mut last, 0)
                    .await
            }
            _ => sides.plain(&line, &purchase, &mut count, 0).await,
        };
        world.aftermath(&sides).await;
        count.earned = world.earned();
        let public: Vec<B256> = world.ledger.contract(|contract| contract.keys.clone());
        if let (Some((index, sealed)), Some(key)) = (last, public.last()) {
            // The claim has told the buyer its key, or that of the one before.
            let mut plain = sealed.to_vec();
            chiral_payment::channel::cipher::apply(key, &mut plain);
            let right = plain.iter().all(|byte| u64::from(*byte) == index);
            count.had += u128::from(!garbage && right);
        }
        sides.end().await;
        let value = |chunks: u128| chunks * CHUNK_PRICE;
        worst.buyer = worst.buyer.max(over(count.earned, value(count.had)));
        let given = match policy {
            Policy::LockedVoucher => count.had,
            _ => count.sent,
        };
        worst.seeder = worst.seeder.max(over(value(given), count.earned));
        worst.upload = worst
            .upload
            .max(over(count.sent, count.earned / CHUNK_PRICE));
        if end.is_ok() {
            assert_eq!(count.had, u128::from(CHUNKS));
            assert!(count.earned <= value(count.had));
            complete = true;
            break;
        }
        if garbage && messages > 60 {
            complete = true;
            break;
        }
    }
    assert!(complete, "the session never comes to its end");
    worst
}

#[tokio::test]
async fn channel_the_buyer_loses_nothing_and_the_seeder_a_window() {
    let worst = worst(Policy::Channel, terms(), false, false).await;
    let expected = Worst {
        buyer: 0,
        seeder: 4 * CHUNK_PRICE,
        upload: 4,
    };
    assert_eq!(worst, expected);
}

#[tokio::test]
async fn incremental_the_seeder_loses_a_batch() {
    let mut terms = terms();
    terms.batch = 3;
    for channel in [true, false] {
        let worst = worst(Policy::Incremental, terms, channel, false).await;
        let expected = Worst {
            buyer: 0,
            seeder: 3 * CHUNK_PRICE,
            upload: 3,
        };
        assert_eq!(worst, expected, "out of a channel: {channel}");
    }
}

#[tokio::test]
async fn locked_the_seeder_loses_an_upload_and_the_buyer_nothing_to_an_honest_one() {
    let worst = worst(Policy::LockedVoucher, terms(), false, false).await;
    let expected = Worst {
        buyer: 0,
        seeder: 0,
        upload: 4,
    };
    assert_eq!(worst, expected);
    let world = || World::new(Policy::LockedVoucher, terms()).at_once();
    assert_eq!(worst_in(world, false, false).await, expected);
}

#[tokio::test]
async fn locked_the_buyer_loses_one_chunks_price_to_garbage() {
    let worst = worst(Policy::LockedVoucher, terms(), false, true).await;
    assert_eq!((worst.buyer, worst.seeder), (CHUNK_PRICE, 0));
    let world = || World::new(Policy::LockedVoucher, terms()).at_once();
    let worst = worst_in(world, false, true).await;
    assert_eq!((worst.buyer, worst.seeder), (CHUNK_PRICE, 0));
}

#[tokio::test]
async fn pay_after_the_seeder_loses_the_line() {
    let worst = worst(Policy::PayAfter, terms(), false, false).await;
    // The line is four chunks at first; it grows with what was paid, see `credit.rs`.
    let expected = Worst {
        buyer: 0,
        seeder: 4 * CHUNK_PRICE,
        upload: 4,
    };
    assert_eq!(worst, expected);
}

#[tokio::test]
async fn pay_first_the_buyer_loses_what_it_paid_ahead() {
    let worst = worst(Policy::PayFirst, terms(), false, false).await;
    let expected = Worst {
        buyer: 2 * CHUNK_PRICE,
        seeder: 0,
        upload: 0,
    };
    assert_eq!(worst, expected);
}
