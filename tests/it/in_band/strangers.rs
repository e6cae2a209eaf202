//! Who takes chunks and does not pay: at most a window, however it goes about it. More runs
//! with `CHIRAL_STRANGER_RUNS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral::Loopback;
use chiral::chain::PrivateKey;
use chiral::core::content_protocol::SeedContent;
use chiral::core::{
    Bill, BillId, ByteRange, ChunkSource, Cid, ContentProtocol, FileIdentification, GateError,
    PaymentAgent, PeerId, PeerOffer, Purchase, Sealed, SeedRequest, SettlementStatus,
    TransferRegistry,
};
use chiral::dht::MemoryNetworkHub;
use chiral::payment::messages::Policy;
use chiral::payment::{Payments, PaymentsConfig};
use chiral::protocols::private::{PrivateConfig, PrivateProtocol};
use chiral::storage::MemoryStore;
use futures_util::StreamExt;

use super::{CHUNK, asking, fund, price};
use crate::support::{data, identity, within};

/// Agrees to everything, and pays for so many chunks and no more.
#[derive(Debug)]
struct Miser {
    agent: Arc<dyn PaymentAgent>,
    pays: u64,
    verified: AtomicU64,
}

impl Miser {
    fn is_done(&self) -> bool {
        self.verified.load(Ordering::SeqCst) >= self.pays
    }
}

#[async_trait]
impl PaymentAgent for Miser {
    async fn credential(
        &self,
        of: &Purchase,
        range: ByteRange,
    ) -> Result<Option<Bytes>, GateError> {
        self.agent.credential(of, range).await
    }

    async fn respond(&self, of: &Purchase, message: Bytes) -> Result<Option<Bytes>, GateError> {
        self.agent.respond(of, message).await
    }

    async fn verified(&self, of: &Purchase, range: ByteRange) {
        // What is not known to be verified is not paid for.
        if !self.is_done() {
            self.verified.fetch_add(range.len(), Ordering::SeqCst);
            self.agent.verified(of, range).await;
        }
    }

    async fn due(&self, of: &Purchase) -> Result<Option<Bytes>, GateError> {
        self.agent.due(of).await
    }

    // As much as it likes: what it gets is for the seeder to say.

    fn is_sealed(&self, of: &Purchase) -> bool {
        self.agent.is_sealed(of)
    }

    async fn lock(
        &self,
        of: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, GateError> {
        match self.is_done() {
            true => Err(GateError::Price),
            false => self.agent.lock(of, range, sealed).await,
        }
    }

    async fn unseal(
        &self,
        of: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
        answer: Bytes,
    ) -> Result<Bytes, GateError> {
        self.agent.unseal(of, range, sealed, answer).await
    }

    async fn bills(&self, cid: Option<Cid>) -> Result<Vec<Bill>, GateError> {
        self.agent.bills(cid).await
    }

    async fn settled(
        &self,
        bill: BillId,
        status: &SettlementStatus,
    ) -> Result<Option<Bytes>, GateError> {
        self.agent.settled(bill, status).await
    }

    async fn receipt(&self, bill: BillId, answer: Bytes) -> Result<bool, GateError> {
        self.agent.receipt(bill, answer).await
    }
}

fn peer(name: u8) -> PeerId {
    PeerId::from_bytes(&[0x12, 0x20, name]).unwrap()
}

async fn protocol(
    hub: &MemoryNetworkHub,
    name: u8,
    payments: &Payments,
    config: PrivateConfig,
) -> PrivateProtocol {
    let store = Arc::new(MemoryStore::new(1 << 28));
    let network = Arc::new(hub.join(peer(name)));
    let registry = TransferRegistry::new();
    let started = PrivateProtocol::start(config, network, store, registry, payments.gate());
    started.await.unwrap()
}

/// Small numbers, different from run to run, the same in each.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// Takes whatever it is given, and adds it to what it had before: what it has twice is worth no
/// more than once.
async fn plunder(
    source: &dyn ChunkSource,
    dice: &mut Dice,
    content: &[u8],
    had: &mut chiral::core::RangeSet,
) {
    let chunks = content.len() as u64 / CHUNK;
    let mut served = false;
    // Long enough to agree on everything; short once it is served.
    let now = tokio::time::Instant::now;
    let mut deadline = now() + Duration::from_secs(5);
    for _ in 0..6 {
        let mut streams = Vec::new();
        for _ in 0..=dice.below(6) {
            let first = dice.below(chunks);
            let last = first + 1 + dice.below(chunks - first);
            streams.push(source.fetch(ByteRange::new(first * CHUNK, last * CHUNK)));
        }
        let mut all = futures_util::stream::select_all(streams);
        let mut patience = 1 + dice.below(8);
        while let Ok(Some(next)) = tokio::time::timeout_at(deadline, all.next()).await {
            // Gives some requests up in the middle.
            let Ok(delivery) = next else { continue };
            if !std::mem::replace(&mut served, true) {
                deadline = now() + Duration::from_millis(400);
            }
            let range = delivery.range();
            let expected = &content[range.start as usize..range.end as usize];
            assert_eq!(
                delivery.bytes, expected,
                "it gave no sealed bytes for plain ones"
            );
            had.insert(range);
            source.verified(range).await;
            patience -= 1;
            if patience == 0 {
                break;
            }
        }
    }
}

async fn one(network: &Loopback, policy: Policy, run: u64) {
    let mut dice = Dice(run.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635);
    let (hub, content) = (MemoryNetworkHub::new(), data(12 * CHUNK as usize));
    let wallets = [PrivateKey::random().unwrap(), PrivateKey::random().unwrap()];
    let [seller_wallet, stranger_wallet] = wallets;
    fund(network, stranger_wallet.address()).await;
    let config = PaymentsConfig::new(Arc::new(seller_wallet), network.chain());
    // Whoever comes again for another window finds what it owes for the first.
    let mut config = asking(config, policy);
    config.gate.credit.initial = price().cost(CHUNK).unwrap();
    config.gate.credit.least_bytes = CHUNK;
    let selling = Payments::start(config).await.unwrap();
    let mut config = PaymentsConfig::new(Arc::new(stranger_wallet), network.chain());
    config.channels.poll = Duration::from_millis(50);
    config.agent.verify_patience = Duration::from_millis(50);
    let buying = Payments::start(config.with_max_price(price()))
        .await
        .unwrap();

    let seller = protocol(&hub, 1, &selling, PrivateConfig::default()).await;
    let request = SeedRequest::new(SeedContent::Bytes(content.clone().into()));
    let offer: PeerOffer = seller
        .start_seeding(request)
        .await
        .unwrap()
        .offers
        .remove(0);
    let identity = identity(&content);
    selling.chain_gate().set_price(identity.cid, price());
    let pays = match run % 3 {
        0 => 0,
        _ => dice.below(6) * CHUNK,
    };
    let miser = Arc::new(Miser {
        agent: buying.agent(),
        pays,
        verified: AtomicU64::new(0),
    });
    let mut fetching = PrivateConfig::default().fetch_only();
    fetching.payment_timeout = Duration::from_secs(2);
    let stranger = protocol(&hub, 2, &buying, fetching).await;
    let stranger = stranger.with_agent(miser.clone());
    let target = FileIdentification::from(identity.cid);
    let paid = || -> u64 {
        let shares = selling.channels().shares().into_iter();
        shares.map(|share| share.bytes).sum()
    };
    let mut had = chiral::core::RangeSet::new();
    for visit in 0..2 {
        let source = within(stranger.connect(&offer, &target)).await.unwrap();
        source.root_is(identity.root);
        plunder(&*source, &mut dice, &content, &mut had).await;
        source.close().await;
        let (paid, window) = (
            paid(),
            match policy {
                // Of sealed chunks nothing is worth anything but what is paid, or locked.
                Policy::LockedVoucher => CHUNK,
                // One chunk, which doubles with each window that was paid, to four; and whatever
                // becomes of agreements, the wallet's line is no longer.
                _ if visit == 0 => (paid() + CHUNK).min(4 * CHUNK),
                _ => paid() + CHUNK,
            },
        );
        assert!(
            had.len() <= paid + window,
            "run {run} under {policy:?}: {} bytes for {paid}",
            had.len()
        );
    }
    stranger.shutdown().await.unwrap();
    seller.shutdown().await.unwrap();
    buying.shutdown().await.unwrap();
    selling.shutdown().await.unwrap();
}

/// Runs at the same time.
const AT_ONCE: usize = 8;

fn runs() -> u64 {
    let said = std::env::var("CHIRAL_STRANGER_RUNS").ok();
    said.and_then(|runs| runs.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_does_not_pay_gets_a_window_at_most() {
    let network = Loopback::start().await.unwrap();
    let of = &network;
    // They wait most of the time.
    futures_util::stream::iter(0..runs())
        .for_each_concurrent(AT_ONCE, |run| async move {
            let policy = match run % 2 {
                0 => Policy::Channel,
                _ => Policy::LockedVoucher,
            };
            one(of, policy, run).await;
        })
        .await;
    network.shutdown().await;
}
