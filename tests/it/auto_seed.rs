//! Whoever downloads seeds what he has so far, and is paid for it.
#![cfg(all(feature = "chain", feature = "libp2p", feature = "http"))]

use std::sync::Arc;
use std::time::Duration;

use chiral::core::transfer::TransferEventKind;
use chiral::core::{
    Admission, Bill, CHUNK_SIZE, GateError, PaymentGate, ServeRequest, Tariff, U256,
};
use chiral::protocols::EngineConfig;
use chiral::{ByteRange, Cid, Loopback, Node, NodeError};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::support::{data, node, url, within};

/// Lets so many bytes a second out.
#[derive(Debug)]
struct Uplink {
    gate: Arc<dyn PaymentGate>,
    bytes_per_second: u64,
    free_at: std::sync::Mutex<Instant>,
}

impl Uplink {
    fn layer(rate: u64) -> impl FnOnce(Arc<dyn PaymentGate>) -> Arc<dyn PaymentGate> {
        move |gate| {
            Arc::new(Self {
                gate,
                bytes_per_second: rate,
                free_at: std::sync::Mutex::new(Instant::now()),
            })
        }
    }
}

#[async_trait::async_trait]
impl PaymentGate for Uplink {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        let admission = self.gate.admit(request).await?;
        if admission == Admission::Granted {
            let takes = request.range.len() as f64 / self.bytes_per_second as f64;
            let begin = {
                let mut free_at = self.free_at.lock().unwrap();
                let begin = (*free_at).max(Instant::now());
                *free_at = begin + Duration::from_secs_f64(takes);
                begin
            };
            tokio::time::sleep_until(begin).await;
        }
        Ok(admission)
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        self.gate.served(request, sent).await;
    }

    async fn message(&self, message: bytes::Bytes) -> Result<bytes::Bytes, GateError> {
        self.gate.message(message).await
    }

    fn tariff(&self, cid: Cid) -> Tariff {
        self.gate.tariff(cid)
    }
}

async fn serving(node: &Node) -> String {
    node.manager().protocol_impl().endpoints()[0].to_string()
}

/// A is complete and slow; B downloads from it and seeds; C knows nothing but the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_downloader_is_drawn_from_and_paid_before_it_is_complete() {
    let network = Loopback::start().await.unwrap();
    let bytes = data(24 << 20);
    let dir = tempfile::tempdir().unwrap();
    let start = async |account: usize, name: &str, price: &str, rate: u64| {
        let mut payments = network.payments(account);
        payments = payments.with_max_price("0.01".parse().unwrap());
        payments = payments.with_price(price.parse().unwrap());
        // They know each other: what is fetched before the first payment is not the matter.
        let credit = &mut payments.gate.credit;
        credit.initial = U256::from(10).pow(U256::from(21));
        (credit.most, credit.strangers) = (credit.initial, credit.initial * U256::from(2));
        // Short requests, so that one buyer's do not keep the other's waiting for long.
        let mut engine = EngineConfig::default();
        engine.scheduler = engine.scheduler.with_request_bytes(64 << 10, 512 << 10);
        let builder = network.node(account).payments(payments).engine(engine);
        let builder = builder.data_dir(dir.path().join(name));
        let builder = builder
            .auto_seed(name == "b")
            .wrap_gate(Uplink::layer(rate));
        within(builder.start()).await.unwrap()
    };
    let a = start(1, "a", "0.001", 6 << 20).await;
    let b = start(2, "b", "0.0008", 3 << 20).await;
    let c = start(3, "c", "0", 64 << 20).await;
    let link = within(a.share(bytes.clone())).await.unwrap().link;

    let of_b = within(b.get(&link).to_file(dir.path().join("copy b")).start());
    let of_b = of_b.await.unwrap();
    // B is in the directory as soon as it has something.
    let b_url = serving(&b).await;
    let announced = async {
        loop {
            let offers = c.seeders(&link).await.unwrap();
            if let Some(offer) = offers.iter().find(|o| o.endpoint.as_str() == b_url) {
                return offer.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let offer = within(announced).await;
    assert!(of_b.progress().proven < 24 << 20, "announced when complete");
    assert_eq!(offer.price, "0.0008".parse().unwrap());
    let held = offer.coverage.expect("what it covers is announced");
    assert_ne!(held, chiral::core::Coverage::Complete);

    let of_c = within(c.get(&link).to_file(dir.path().join("copy c")).start());
    let of_c = of_c.await.unwrap();
    // C has something of B while B is not complete.
    let drawn = async {
        loop {
            let from_b = of_c.sources().into_iter().find(|s| s.source == b_url);
            let from_b = from_b.map_or(0, |source| source.bytes);
            let b_has = of_b.progress().proven;
            if from_b > 0 {
                return (from_b, b_has);
            }
            assert!(b_has < 24 << 20, "nothing came of B before it was complete");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (from_b, b_had) = within(drawn).await;
    assert!(b_had < 24 << 20 && from_b > 0, "{from_b} of {b_had}");

    let got_b = within(of_b.outcome()).await.unwrap();
    let got_c = within(of_c.outcome()).await.unwrap();
    for name in ["copy b", "copy c"] {
        assert!(std::fs::read(dir.path().join(name)).unwrap() == bytes);
    }
    assert_eq!(got_c.sources.len(), 2, "{:?}", got_c.sources);
    let by = |node: &Node| {
        let url = node.manager().protocol_impl().endpoints()[0].to_string();
        let found = got_c.sources.iter().find(|s| s.source == url);
        found.map_or(0, |source| source.bytes)
    };
    let (by_a, by_b) = (by(&a), by(&b));
    assert!(by_a > 0 && by_b > 0, "{by_a} {by_b}");
    assert_eq!(by_a + by_b, 24 << 20);
    // B is paid for what it delivered, at its price, and has it.
    let wallet = |node: &Node| node.payments().unwrap().wallet().address();
    let to_b = got_c.settled.iter().map(|(bill, _)| bill);
    let to_b: Vec<&Bill> = to_b.filter(|bill| bill.payee == Some(wallet(&b))).collect();
    assert_eq!(to_b.iter().map(|bill| bill.bytes).sum::<u64>(), by_b);
    let owed: U256 = to_b.iter().map(|bill| bill.amount).sum();
    assert!(owed > U256::ZERO);
    let bills = |got: &chiral::Got| -> Vec<_> { got.settled.iter().map(|(b, _)| b.id).collect() };
    within(c.wait_settled(bills(&got_c))).await.unwrap();
    within(b.wait_settled(bills(&got_b))).await.unwrap();

    // Now B has all of it, and says so; it is shared like anything else.
    let complete = async {
        loop {
            let offers = c.seeders(&link).await.unwrap();
            let of_b = offers.iter().find(|o| o.endpoint.as_str() == b_url);
            if of_b.is_some_and(|o| o.coverage == Some(chiral::core::Coverage::Complete)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(complete).await;
    assert_eq!(within(b.status()).await.unwrap().shared.len(), 1);
    assert!(within(c.status()).await.unwrap().shared.is_empty());
    assert!(within(b.unshare(link.cid)).await.unwrap());
    for node in [c, b, a] {
        within(node.shutdown()).await.unwrap();
    }
    within(network.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_download_that_is_cancelled_nothing_is_seeded_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let network = chiral::dht::MemoryDirectoryNetwork::new();
    let start = async |name: &str, rate: u64| {
        let peer = chiral::PeerId::from_bytes(name.as_bytes()).unwrap();
        let builder = Node::builder()
            .data_dir(dir.path().join(name))
            .http_listen("127.0.0.1:0".parse().unwrap())
            .directory(Arc::new(network.join(peer.clone())))
            .peer_id(peer)
            .wrap_gate(Uplink::layer(rate));
        within(builder.start()).await.unwrap()
    };
    let a = start("a", 4 << 20).await;
    let b = start("b", 64 << 20).await;
    let link = within(a.share(data(16 << 20))).await.unwrap().link;
    for round in 0..2 {
        let getting = within(b.get(&link).seed(true).start()).await.unwrap();
        let announced = async {
            while a.seeders(&link).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(announced).await;
        // What is proven can be had from here, and nothing else.
        let part = node(&dir.path().join(format!("part {round}"))).await;
        let mut events = getting.events();
        let proven = loop {
            let event = within(events.next()).await.unwrap();
            if let TransferEventKind::ChunkProven { index, .. } = event.kind {
                break u64::from(index);
            }
        };
        let only = ByteRange::new(proven * CHUNK_SIZE, (proven + 1) * CHUNK_SIZE);
        let get = part.get(&link).peer(&url(&b)).only(only);
        let got = within(get.into_future()).await.unwrap();
        assert_eq!(got.sources[0].bytes, CHUNK_SIZE);
        within(part.shutdown()).await.unwrap();

        assert!(getting.cancel());
        assert!(within(getting.outcome()).await.is_err());
        assert!(a.seeders(&link).await.unwrap().is_empty());
        assert!(within(b.status()).await.unwrap().shared.is_empty());
    }
    let got = within(b.get(&link).seed(true).to_bytes().into_future());
    let got = got.await.unwrap();
    assert_eq!(got.bytes.map(|bytes| bytes.len()), Some(16 << 20));
    let announced = async {
        while a.seeders(&link).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(announced).await;
    // A node that listens nowhere cannot.
    let mute = within(Node::builder().start()).await.unwrap();
    let refused = within(mute.get(&link).seed(true).start()).await;
    assert!(matches!(refused, Err(NodeError::Transfer(_))));
    for node in [a, b, mute] {
        within(node.shutdown()).await.unwrap();
    }
}
