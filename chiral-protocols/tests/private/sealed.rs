//! Option A between a gate that seals and an agent that buys keys, both of few words: what is
//! fetched ahead, what is locked, and from whom nothing more is bought.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chiral_core::conformance::chunk_source::receive;
use chiral_core::{
    Admission, Bill, BillId, ByteRange, ChunkSource, Cid, ContentIdentity, ContentProtocol,
    GateError, PayAndLock, PaymentAgent, PaymentGate, Price, Purchase, Sealed, ServeRequest,
    SettlementStatus, U256,
};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::{PrivateConfig, PrivateProtocol};
use futures_util::StreamExt;
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::support::{OpenGate, Seeder, content, node, seeder, soon};

const CHUNK: u64 = 262_144;

/// What a seller does with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Honest,
    /// Seals something else.
    Garbage,
    /// Cuts it short.
    Short,
    /// Sends a header that is none.
    Nonsense,
    /// Takes the lock and tells no key.
    NoKey,
    /// Tells another key.
    OtherKey,
}

/// Seals by adding a number that only it knows.
#[derive(Debug, Default)]
struct Shop {
    ways: Mutex<Vec<Way>>,
    sealed: AtomicU32,
    paid: AtomicU32,
    /// Most that was sealed and not paid.
    most: AtomicU32,
    of: Mutex<Vec<Way>>,
    /// Whether it takes a payment and a lock in one message, and how many came.
    knows_both: bool,
    both: AtomicU32,
    /// Payments that it will not take, and how many it did not.
    deaf: AtomicU32,
    refused: AtomicU32,
    /// What is locked and not paid for, and how often something else was locked before it was.
    locked: Mutex<Option<u32>>,
    early: AtomicU32,
    /// How long it takes to seal.
    takes: Mutex<Duration>,
}

impl Shop {
    fn is_paid(&self) {
        self.paid.fetch_add(1, Ordering::SeqCst);
        *self.locked.lock().unwrap() = None;
    }
}

#[async_trait]
impl PaymentGate for Shop {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        Ok(match request.sealed {
            true => Admission::Granted,
            false => Admission::Refused {
                reason: "sold sealed".to_owned(),
            },
        })
    }

    async fn served(&self, _: &ServeRequest, _: ByteRange) {}

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        if &message[..] == b"pay" {
            let one_less = |left: u32| left.checked_sub(1);
            let deaf = &self.deaf;
            if deaf
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_ok()
            {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err(GateError::Message { reason: "not now" });
            }
            self.is_paid();
            return Ok(Bytes::from_static(b"paid"));
        }
        let message = match message.strip_prefix(b"both") {
            None => &message[..],
            Some(_) if !self.knows_both => {
                let reason = "an unknown kind of message";
                return Err(GateError::Message { reason });
            }
            Some(lock) => {
                self.both.fetch_add(1, Ordering::SeqCst);
                self.is_paid();
                lock
            }
        };
        let number = message.strip_prefix(b"lock").expect("a lock");
        let number = u32::from_be_bytes(number.try_into().unwrap());
        let before = self.locked.lock().unwrap().replace(number);
        if before.is_some_and(|before| before != number) {
            self.early.fetch_add(1, Ordering::SeqCst);
        }
        match self.of.lock().unwrap()[number as usize] {
            Way::NoKey => Err(GateError::Price),
            Way::OtherKey => Ok(vec![number as u8 ^ 0x5a ^ 1].into()),
            _ => Ok(vec![number as u8 ^ 0x5a].into()),
        }
    }

    async fn seal(&self, _: &ServeRequest, data: Bytes) -> Result<Sealed, GateError> {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        let way = self.ways.lock().unwrap().pop().unwrap_or(Way::Honest);
        let number = {
            let mut of = self.of.lock().unwrap();
            of.push(way);
            of.len() as u32 - 1
        };
        let sealed = self.sealed.fetch_add(1, Ordering::SeqCst) + 1;
        let unpaid = sealed - self.paid.load(Ordering::SeqCst);
        self.most.fetch_max(unpaid, Ordering::SeqCst);
        let mut data = BytesMut::from(&data[..]);
        data.iter_mut()
            .for_each(|byte| *byte ^= number as u8 ^ 0x5a);
        match way {
            Way::Garbage => data[7] ^= 1,
            Way::Short => data.truncate(data.len() - 1),
            _ => {}
        }
        let header = match way {
            Way::Nonsense => Bytes::from_static(b"?"),
            _ => Bytes::copy_from_slice(&number.to_be_bytes()),
        };
        Ok(Sealed::new(header, data.freeze()))
    }

    fn tariff(&self, _: Cid) -> chiral_core::payment_gate::Tariff {
        chiral_core::payment_gate::Tariff {
            price: Price::from_wei_per_mib(U256::from(4)),
            wallet: None,
        }
    }
}

/// Buys keys; notices if it is asked to lock twice.
#[derive(Debug, Default)]
struct Customer {
    open: Mutex<Option<ByteRange>>,
    verified: Mutex<BTreeSet<u64>>,
    locks: AtomicU32,
    redeemed: AtomicU32,
    /// Whether it promises a payment and a lock at once, and what for.
    at_once: bool,
    promised: Mutex<Option<ByteRange>>,
    /// A payment was promised, and not heard.
    unheard: AtomicBool,
    /// Whether no more than a chunk is served ahead of payment, and how often that was asked.
    narrow: AtomicBool,
    asked: AtomicU32,
}

#[async_trait]
impl PaymentAgent for Customer {
    async fn credential(&self, _: &Purchase, _: ByteRange) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn respond(&self, _: &Purchase, told: Bytes) -> Result<Option<Bytes>, GateError> {
        assert_eq!(&told[..], b"paid");
        self.unheard.store(false, Ordering::SeqCst);
        Ok(None)
    }

    async fn verified(&self, _: &Purchase, range: ByteRange) {
        self.verified.lock().unwrap().insert(range.start);
    }

    async fn due(&self, _: &Purchase) -> Result<Option<Bytes>, GateError> {
        let mut open = self.open.lock().unwrap();
        let verified = self.verified.lock().unwrap();
        if open.is_some_and(|range| verified.contains(&range.start)) {
            *open = None;
            self.redeemed.fetch_add(1, Ordering::SeqCst);
            self.unheard.store(true, Ordering::SeqCst);
        }
        let unheard = self.unheard.load(Ordering::SeqCst);
        Ok(unheard.then(|| Bytes::from_static(b"pay")))
    }

    fn is_sealed(&self, _: &Purchase) -> bool {
        true
    }

    fn most_at_once(&self, _: &Purchase) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.narrow.load(Ordering::SeqCst) {
            true => CHUNK,
            false => u64::MAX,
        }
    }

    async fn pay_and_lock(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<PayAndLock>, GateError> {
        if !self.at_once || sealed.header.len() != 4 {
            return Ok(None);
        }
        let Some(pay) = self.due(purchase).await? else {
            return Ok(None);
        };
        let lock = self.lock(purchase, range, sealed).await?;
        *self.promised.lock().unwrap() = Some(range);
        let both = [b"both", &lock[..]].concat().into();
        Ok(Some(PayAndLock::new(both, pay)))
    }

    async fn lock(
        &self,
        _: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, GateError> {
        if sealed.header.len() != 4 {
            return Err(GateError::Message { reason: "no seal" });
        }
        if self.promised.lock().unwrap().take() == Some(range) {
            // Said again, by itself.
            return Ok([b"lock", &sealed.header[..]].concat().into());
        }
        let before = self.open.lock().unwrap().replace(range);
        assert_eq!(before, None, "one lock at a time");
        self.locks.fetch_add(1, Ordering::SeqCst);
        Ok([b"lock", &sealed.header[..]].concat().into())
    }

    async fn unseal(
        &self,
        _: &Purchase,
        _: ByteRange,
        sealed: &Sealed,
        answer: Bytes,
    ) -> Result<Bytes, GateError> {
        let number = sealed.header[3];
        if answer[..] != [number ^ 0x5a] {
            return Err(GateError::Message { reason: "no key" });
        }
        // No key comes before what was locked until then is paid.
        self.unheard.store(false, Ordering::SeqCst);
        let mut data = BytesMut::from(&sealed.data[..]);
        data.iter_mut().for_each(|byte| *byte ^= answer[0]);
        Ok(data.freeze())
    }

    async fn bills(&self, _: Option<Cid>) -> Result<Vec<Bill>, GateError> {
        Ok(Vec::new())
    }

    async fn settled(&self, _: BillId, _: &SettlementStatus) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn receipt(&self, _: BillId, _: Bytes) -> Result<bool, GateError> {
        Ok(true)
    }
}

struct Street {
    shop: Arc<Shop>,
    customer: Arc<Customer>,
    from: Seeder,
    buyer: PrivateProtocol,
    source: Arc<dyn ChunkSource>,
}

impl Street {
    async fn new(hub: &MemoryNetworkHub, bytes: &Bytes, ahead: usize, ways: Vec<Way>) -> Self {
        Self::between(hub, bytes, ahead, ways, false, false).await
    }

    async fn between(
        hub: &MemoryNetworkHub,
        bytes: &Bytes,
        ahead: usize,
        ways: Vec<Way>,
        at_once: bool,
        knows_both: bool,
    ) -> Self {
        let shop = Arc::new(Shop {
            knows_both,
            ..Shop::default()
        });
        *shop.ways.lock().unwrap() = ways.into_iter().rev().collect();
        let from = seeder(hub, PrivateConfig::default(), shop.clone(), bytes).await;
        let mut config = PrivateConfig::default().fetch_only();
        config.sealed_ahead = ahead;
        let customer = Arc::new(Customer {
            at_once,
            ..Customer::default()
        });
        let buyer = node(hub, 2, config, Arc::new(OpenGate)).await;
        let buyer = buyer.with_agent(customer.clone());
        let source = buyer.connect(&from.offer, &from.target).await.unwrap();
        source.root_is(ContentIdentity::of(bytes).unwrap().root);
        Self {
            shop,
            customer,
            from,
            buyer,
            source,
        }
    }

    async fn end(self) {
        soon(self.source.close()).await;
        self.buyer.shutdown().await.unwrap();
        self.from.node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_sealed_some_ahead_and_are_bought_one_by_one() {
    for ahead in [1, 3, 8] {
        let (hub, bytes) = (MemoryNetworkHub::new(), content(5_000_001));
        let street = Street::new(&hub, &bytes, ahead, Vec::new()).await;
        // Where chunks are cut is the buyer's business, not the caller's.
        let cuts = [0, 3 * CHUNK, 3 * CHUNK + 1000, 11 * CHUNK, 5_000_001];
        let parts = cuts.windows(2).map(|cut| ByteRange::new(cut[0], cut[1]));
        soon(join_all(
            parts.map(|part| receive(&*street.source, part, &bytes)),
        ))
        .await;
        // Twenty chunks; the one that was cut in two may have been bought for both.
        let locks = street.customer.locks.load(Ordering::SeqCst);
        assert!((20..=21).contains(&locks), "{locks}");
        let most = street.shop.most.load(Ordering::SeqCst);
        // One is paid for while the next is on its way.
        assert!(
            most as usize <= ahead + 1,
            "{most} ahead where {ahead} are allowed"
        );
        let customer = street.customer.clone();
        street.end().await;
        assert_eq!(customer.redeemed.load(Ordering::SeqCst), locks);
    }
}

/// What pays for a chunk travels with the lock for the next one; with a seller that does not
/// know such messages, each by itself after the first. Either way every chunk is paid once.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_and_the_lock_behind_it_travel_together_if_the_seller_knows_that() {
    for knows_both in [true, false] {
        let (hub, bytes) = (MemoryNetworkHub::new(), content(20 * CHUNK as usize));
        let street = Street::between(&hub, &bytes, 8, Vec::new(), true, knows_both).await;
        let all = ByteRange::new(0, 20 * CHUNK);
        soon(receive(&*street.source, all, &bytes)).await;
        let (customer, shop) = (street.customer.clone(), street.shop.clone());
        street.end().await;
        let count = |count: &AtomicU32| count.load(Ordering::SeqCst);
        assert_eq!(
            (count(&customer.locks), count(&customer.redeemed)),
            (20, 20)
        );
        assert_eq!(count(&shop.paid), 20, "knows both: {knows_both}");
        assert_eq!(count(&shop.both) > 0, knows_both);
    }
}

/// A seller that will not take a payment is given up on for the moment; whoever comes back pays
/// that first, and locks nothing before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_is_paid_before_anything_else_is_locked() {
    for at_once in [true, false] {
        let (hub, bytes) = (MemoryNetworkHub::new(), content(6 * CHUNK as usize));
        let street = Street::between(&hub, &bytes, 4, Vec::new(), at_once, at_once).await;
        street.shop.deaf.store(1, Ordering::SeqCst);
        let first = ByteRange::new(0, CHUNK);
        soon(receive(&*street.source, first, &bytes)).await;
        // Nothing is bought behind it, and so it is paid for by itself.
        let refused = async {
            while street.shop.refused.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(refused).await;
        assert_eq!(street.shop.paid.load(Ordering::SeqCst), 0);
        let rest = ByteRange::new(CHUNK, 6 * CHUNK);
        soon(receive(&*street.source, rest, &bytes)).await;
        let shop = street.shop.clone();
        street.end().await;
        let count = |count: &AtomicU32| count.load(Ordering::SeqCst);
        assert_eq!((count(&shop.paid), count(&shop.early)), (6, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_not_bought_and_waits_for_who_wants_it() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(20 * CHUNK as usize));
    let street = Street::new(&hub, &bytes, 4, Vec::new()).await;
    for round in 0..10 {
        let mut given_up = street.source.fetch(ByteRange::new(0, 20 * CHUNK));
        let first = soon(given_up.next()).await.unwrap().unwrap();
        assert_eq!(first.range(), ByteRange::new(0, CHUNK), "{round}");
        // Not assert_eq: it would print a quarter of a megabyte.
        assert!(first.bytes == bytes[..CHUNK as usize], "{round}");
    }
    // The first was wanted each time and is not kept; of the rest few were bought.
    let locks = street.customer.locks.load(Ordering::SeqCst);
    assert!(locks <= 40, "{locks}");
    soon(receive(
        &*street.source,
        ByteRange::new(CHUNK, 20 * CHUNK),
        &bytes,
    ))
    .await;
    street.end().await;
}

/// Who takes what comes slowly has little bought ahead; and what was bought and not taken by the
/// one is there for the next, and is not bought again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_bought_and_not_taken_is_little_and_is_not_lost() {
    const AHEAD: u32 = 3;
    const TAKEN: u32 = 12;
    let (hub, bytes) = (MemoryNetworkHub::new(), content(20 * CHUNK as usize));
    let street = Street::new(&hub, &bytes, AHEAD as usize, Vec::new()).await;
    let locks = || street.customer.locks.load(Ordering::SeqCst);
    let mut slow = street.source.fetch(ByteRange::new(0, 20 * CHUNK));
    for taken in 1..=TAKEN {
        let next = soon(slow.next()).await.unwrap().unwrap();
        assert_eq!(next.offset, u64::from(taken - 1) * CHUNK);
        // Until all that has come is bought.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(locks() <= taken + AHEAD, "{} of {taken}", locks());
    }
    assert!(locks() > TAKEN, "nothing is bought that is not taken");
    drop(slow);
    let rest = ByteRange::new(u64::from(TAKEN) * CHUNK, 20 * CHUNK);
    soon(receive(&*street.source, rest, &bytes)).await;
    assert_eq!(locks(), 20);
    street.end().await;
}

/// Several that wait for room wait, and do not wake each other.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_wakes_nobody() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(4 * CHUNK as usize));
    let street = Street::new(&hub, &bytes, 4, Vec::new()).await;
    street.customer.narrow.store(true, Ordering::SeqCst);
    *street.shop.takes.lock().unwrap() = Duration::from_millis(100);
    let chunks = (0..4).map(|index| ByteRange::new(index * CHUNK, (index + 1) * CHUNK));
    soon(join_all(
        chunks.map(|chunk| receive(&*street.source, chunk, &bytes)),
    ))
    .await;
    let asked = street.customer.asked.load(Ordering::SeqCst);
    assert!(asked < 1000, "{asked} times");
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_sealed_is_bought_before_the_root_is_known() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1_000_000));
    let shop = Arc::new(Shop::default());
    let from = seeder(&hub, PrivateConfig::default(), shop, &bytes).await;
    let customer = Arc::new(Customer::default());
    let config = PrivateConfig::default().fetch_only();
    let buyer = node(&hub, 2, config, Arc::new(OpenGate)).await;
    let buyer = buyer.with_agent(customer.clone());
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    let first = soon(source.fetch(ByteRange::new(0, CHUNK)).next()).await;
    assert!(first.unwrap().is_err());
    assert_eq!(customer.locks.load(Ordering::SeqCst), 0);
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => Just(Way::Honest),
        1 => Just(Way::Garbage),
        1 => Just(Way::Short),
        1 => Just(Way::Nonsense),
        1 => Just(Way::NoKey),
        1 => Just(Way::OtherKey),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(64), ..ProptestConfig::default() })]

    /// However a seller cheats: what comes is right up to the first thing that is not, which is
    /// paid for by nothing that was redeemed, and nothing is bought behind it.
    #[test]
    fn a_seller_that_cheats_gets_one_lock_at_most(
        ways in proptest::collection::vec(way(), 8),
        ahead in 1usize..6,
        at_once: bool,
        knows_both: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (hub, bytes) = (MemoryNetworkHub::new(), content(8 * CHUNK as usize));
            let ways_too = ways.clone();
            let street = Street::between(&hub, &bytes, ahead, ways_too, at_once, knows_both).await;
            let mut all = street.source.fetch(ByteRange::new(0, 8 * CHUNK));
            let (mut right, mut wrong) = (0, 0);
            while let Some(Ok(delivery)) = soon(all.next()).await {
                let range = delivery.range();
                match delivery.bytes == bytes[range.start as usize..range.end as usize] {
                    true => right += 1,
                    false => wrong += 1,
                }
            }
            drop(all);
            let honest = ways.iter().take_while(|way| **way == Way::Honest).count();
            assert_eq!(right, honest);
            let garbage = ways.get(honest) == Some(&Way::Garbage);
            assert_eq!(wrong, usize::from(garbage));
            let customer = street.customer.clone();
            street.end().await;
            let locks = customer.locks.load(Ordering::SeqCst) as usize;
            let redeemed = customer.redeemed.load(Ordering::SeqCst) as usize;
            assert!(redeemed <= honest && locks <= redeemed + 1, "{locks}, {redeemed}");
        });
    }
}
