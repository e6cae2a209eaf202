//! Locks that are claimed on the chain: by a seller whose buyer does not hear the key, or is
//! gone. What the claim shows opens the chunk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral::chain::{DEV_ACCOUNTS, LogFilter};
use chiral::core::payment_gate::Tariff;
use chiral::core::{
    Admission, B256, ByteRange, GateError, PaymentGate, Sealed, ServeRequest, U256,
};
use chiral::payment::channel::ChannelMessage;
use chiral::payment::contracts::channels::{CHANNELS, UNLOCKED_TOPIC, unlocked};
use chiral::payment::messages::{Message, Policy};
use chiral::protocols::private::PrivateConfig;
use chiral::{Cid, Loopback, Node, NodeBuilder, Share};
use tokio::sync::Notify;

use super::{CHUNK, agreed, asking, buyer, claimed, fund, paid, price};
use crate::support::{data, within};

/// Which lock's key is told to nobody: the one of the third chunk.
const MUTE: usize = 3;

/// A gate that takes every lock, and keeps one key to itself.
#[derive(Debug)]
struct Mute {
    gate: Arc<dyn PaymentGate>,
    /// Those that came: of which agreement and request.
    locks: Mutex<Vec<(B256, u64)>>,
    taken: Arc<Notify>,
}

#[async_trait]
impl PaymentGate for Mute {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        self.gate.admit(request).await
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        self.gate.served(request, sent).await;
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        let lock = match Message::decode(&message) {
            Ok(Message::Channel(
                ChannelMessage::Lock(lock) | ChannelMessage::PayAndLock(_, lock),
            )) => Some((lock.agreement, lock.counter)),
            _ => None,
        };
        let answer = self.gate.message(message).await?;
        let Some(lock) = lock else {
            return Ok(answer);
        };
        let which = {
            let mut locks = self.locks.lock().unwrap();
            if !locks.contains(&lock) {
                locks.push(lock);
            }
            locks.iter().position(|known| *known == lock).unwrap() + 1
        };
        match which {
            MUTE => {
                self.taken.notify_one();
                Err(GateError::Ledger)
            }
            _ => Ok(answer),
        }
    }

    async fn seal(&self, request: &ServeRequest, data: Bytes) -> Result<Sealed, GateError> {
        self.gate.seal(request, data).await
    }

    fn tariff(&self, cid: Cid) -> Tariff {
        self.gate.tariff(cid)
    }
}

/// A seller of sealed chunks who keeps a key back, and a word for each time that it does.
async fn mute_seller(network: &Loopback) -> (Node, Arc<Notify>) {
    let mut payments = asking(network.payments(1), Policy::LockedVoucher);
    payments.channels.least_lock = Duration::from_secs(60);
    payments.channels.lock_margin = Duration::from_secs(120);
    let taken = Arc::<Notify>::default();
    let tell = taken.clone();
    let builder: NodeBuilder = network.node(1).without_http().payments(payments);
    let builder = builder.private(PrivateConfig::default()).wrap_gate(|gate| {
        Arc::new(Mute {
            gate,
            locks: Mutex::default(),
            taken: tell,
        })
    });
    (within(builder.start()).await.unwrap(), taken)
}

/// How many keys claims have shown.
async fn shown(network: &Loopback) -> usize {
    let chain = network.chain();
    let filter = LogFilter {
        from_block: 0,
        to_block: chain.head().await.unwrap().number,
        address: Some(CHANNELS),
        topics: vec![Some(UNLOCKED_TOPIC)],
    };
    let logs = chain.logs(filter).await.unwrap();
    logs.iter()
        .filter_map(|log| unlocked(log, CHANNELS))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_told_is_read_off_the_claim_and_opens_its_chunk() {
    let network = Loopback::start().await.unwrap();
    let (seller, taken) = mute_seller(&network).await;
    let size = 9 * CHUNK + 321;
    let content = data(size as usize);
    let shared = within(seller.share(Share::bytes(content.clone()))).await;
    let link = shared.unwrap().link;
    let buyer = buyer(&network, 2).await;
    let getting = within(buyer.get(&link).to_bytes().start()).await.unwrap();
    within(taken.notified()).await;
    let channels = seller.payments().unwrap().channels();
    let channel = channels.views().pop().unwrap().id;
    // As it does by itself shortly before the lock expires.
    within(channels.claim(channel)).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert_eq!(shown(&network).await, 1);

    // It went on in the channel, and nothing is paid twice.
    let cost = price().cost(size).unwrap().to::<u128>();
    assert_eq!(agreed(&buyer, &seller).await, (cost, size));
    assert_eq!(channels.views().len(), 1);
    assert_eq!(claimed(&network, &seller).await, cost);
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_whose_buyer_is_gone_claims_the_lock_with_its_key() {
    let network = Loopback::start().await.unwrap();
    let (seller, taken) = mute_seller(&network).await;
    let size = 9 * CHUNK;
    let content = data(size as usize);
    let shared = within(seller.share(Share::bytes(content.clone()))).await;
    let link = shared.unwrap().link;
    let dir = tempfile::tempdir().unwrap();
    let start = || async {
        let mut payments = network.payments(2).with_max_price(price());
        payments.channels.poll = Duration::from_millis(100);
        // Late, as the seller sees it, after eight seconds.
        payments.channels.lock_lifetime = Duration::from_secs(128);
        let private = PrivateConfig::default().fetch_only();
        let builder = network.node(2).payments(payments).private(private);
        let builder = builder.data_dir(dir.path().join("node"));
        within(builder.start()).await.unwrap()
    };
    let file = dir.path().join("file");
    let first = start().await;
    let getting = within(first.get(&link).to_file(&file).start()).await;
    within(taken.notified()).await;
    within(first.shutdown()).await.unwrap();
    drop(getting);

    // Nobody tells it to.
    let channels = seller.payments().unwrap().channels();
    let chunk = price().cost(CHUNK).unwrap().to::<u128>();
    let claim = async {
        let channel = channels.views().pop().unwrap().id;
        while channels.on_chain(channel).await.unwrap().claimed < MUTE as u128 * chunk {
            // The chain's time is that of its blocks.
            fund(&network, DEV_ACCOUNTS[8].address).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(claim).await;
    assert_eq!(shown(&network).await, 1);

    // Back again it goes on, and has paid for one chunk twice at most: the one whose sealed
    // bytes went with it.
    let second = start().await;
    let got = within(second.get(&link).to_file(&file).into_future()).await;
    got.unwrap();
    assert!(std::fs::read(&file).unwrap() == content);
    let (wei, _) = paid(&second, &seller);
    let cost = price().cost(size).unwrap();
    assert!(
        U256::from(wei) >= cost && U256::from(wei) <= cost + U256::from(chunk),
        "{wei} for {cost}"
    );
    assert_eq!(claimed(&network, &seller).await, wei);
    within(second.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}
