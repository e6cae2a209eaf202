//! Payments over HTTP: agreements, refusals, delays and acknowledgements.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chiral_core::conformance::chunk_source::{any_source, receive};
use chiral_core::conformance::content_protocol::{fetching, identification};
use chiral_core::content_protocol::SeedContent;
use chiral_core::transfer::{TransferEvent, TransferEventKind};
use chiral_core::{
    ByteRange, ChunkStore, ContentProtocol, DownloadRequest, FileIdentification, GateError, PeerId,
    PeerOffer, SeedRequest, TransferError, TransferId, TransferRegistry,
};
use chiral_protocols::http::{AddressPolicy, HttpConfig, HttpProtocol};
use chiral_protocols::{DownloadReport, Engine, EngineConfig, ProtocolManager};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::support::{OpenGate, client_with, content, loopback, seeder, soon};
use crate::till::{Purse, Till, tariff};

/// A seeder with a till, and what it offers.
struct Shop {
    till: Arc<Till>,
    node: HttpProtocol,
    offer: PeerOffer,
    bytes: Bytes,
    target: FileIdentification,
}

async fn shop(till: Till, size: usize) -> Shop {
    let till = Arc::new(till);
    let store = Arc::new(MemoryStore::new(1 << 30));
    let node = HttpProtocol::bind(loopback(), store, TransferRegistry::new(), till.clone())
        .await
        .unwrap();
    let bytes = content(size);
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    let offer = node.start_seeding(request).await.unwrap().offers.remove(0);
    let target = identification(&bytes);
    Shop {
        till,
        node,
        offer,
        bytes,
        target,
    }
}

async fn buyer(config: HttpConfig, purse: &Arc<Purse>) -> HttpProtocol {
    client_with(config).await.with_agent(purse.clone())
}

#[tokio::test]
async fn an_offer_names_the_price_and_the_wallet_of_the_gate() {
    let shop = shop(Till::default(), 1000).await;
    assert_eq!(shop.offer.price, tariff().price);
    assert_eq!(shop.offer.wallet, tariff().wallet);
    shop.node.shutdown().await.unwrap();
    let (free, offer, _) = seeder(&content(1)).await;
    assert!(offer.price.is_free() && offer.wallet.is_none());
    free.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_that_are_refused_together_are_agreed_on_once() {
    let till = Till {
        rounds: 3,
        ..Till::default()
    };
    let shop = shop(till, 4_000_000).await;
    let purse = Arc::new(Purse {
        pause: Duration::from_millis(50),
        ..Purse::default()
    });
    let buyer = buyer(HttpConfig::default(), &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    assert!(!source.is_paying());
    let ranges = (0..4).map(|at| ByteRange::new(at * 1_000_000, (at + 1) * 1_000_000));
    soon(join_all(
        ranges.map(|range| receive(&*source, range, &shop.bytes)),
    ))
    .await;
    assert!(!source.is_paying());
    assert_eq!(purse.conversations.load(Ordering::SeqCst), 1);
    assert_eq!(Till::count(&shop.till.hellos), 3);
    buyer.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn long_requests_are_parts_of_what_a_gate_lends_and_every_one_ends() {
    let shop = shop(Till::default(), 20_000_000).await;
    let purse = Arc::new(Purse::default());
    let buyer = buyer(HttpConfig::default(), &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    let all = ByteRange::new(1, 20_000_000);
    soon(receive(&*source, all, &shop.bytes)).await;
    assert_eq!(Till::count(&shop.till.admitted), all.len());
    // A request that is given up is told of too.
    let mut given_up = source.fetch(all);
    assert!(soon(given_up.next()).await.unwrap().is_ok());
    drop(given_up);
    source.close().await;
    buyer.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
    assert_eq!(Till::count(&shop.till.open), 0);
}

#[tokio::test]
async fn an_agreement_outlives_the_request_that_it_began_with() {
    let shop = shop(Till::default(), 1000).await;
    let purse = Arc::new(Purse {
        pause: Duration::from_secs(3),
        ..Purse::default()
    });
    let buyer = buyer(HttpConfig::default(), &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    let mut first = source.fetch(ByteRange::new(0, 10));
    let given_up = tokio::time::timeout(Duration::from_secs(1), first.next()).await;
    assert!(given_up.is_err() && source.is_paying());
    drop(first);
    soon(receive(&*source, ByteRange::new(0, 10), &shop.bytes)).await;
    assert_eq!(purse.conversations.load(Ordering::SeqCst), 1);
    // A source that goes takes its conversation with it, and the shutdown waits for that.
    buyer.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_walks_away_is_not_asked_again() {
    for (error, again) in [
        (GateError::Price, false),
        (GateError::RootUnknown, false),
        (GateError::Ledger, true),
    ] {
        let shop = shop(Till::default(), 1000).await;
        let purse = Arc::new(Purse {
            refuses: Some(error.clone()),
            ..Purse::default()
        });
        let buyer = buyer(HttpConfig::default(), &purse).await;
        let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
        for _ in 0..3 {
            let got = soon(source.fetch(ByteRange::new(0, 10)).next()).await;
            let refused = matches!(&got, Some(Err(TransferError::Refused { reason, retryable, .. }))
                if *retryable == again && *reason == error.to_string());
            assert!(refused, "{error}: {got:?}");
        }
        let asked = if again { 3 } else { 1 };
        assert_eq!(Till::count(&shop.till.refused), asked, "{error}");
        source.close().await;
        buyer.shutdown().await.unwrap();
        shop.node.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_gate_that_is_never_content_is_left() {
    let endless = Till {
        rounds: u64::MAX,
        ..Till::default()
    };
    let insatiable = Till {
        insatiable: true,
        ..Till::default()
    };
    for till in [endless, insatiable] {
        let shop = shop(till, 1000).await;
        let purse = Arc::new(Purse::default());
        let config = HttpConfig::default().with_payment(Duration::from_secs(20), 4);
        let buyer = buyer(config, &purse).await;
        let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
        for _ in 0..3 {
            let got = soon(source.fetch(ByteRange::new(0, 10)).next()).await;
            let refused = matches!(got, Some(Err(TransferError::Refused { .. })));
            assert!(refused, "{got:?}");
        }
        let said = Till::count(&shop.till.hellos);
        assert!((4..=16).contains(&said), "{said} messages");
        assert!(Till::count(&shop.till.refused) <= 5);
        buyer.shutdown().await.unwrap();
        shop.node.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_agreement_has_a_limit_in_time() {
    let shop = shop(Till::default(), 1000).await;
    let purse = Arc::new(Purse {
        pause: Duration::from_secs(3600),
        ..Purse::default()
    });
    let config = HttpConfig::default().with_payment(Duration::from_millis(200), 4);
    let buyer = buyer(config, &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    let got = soon(source.fetch(ByteRange::new(0, 10)).next()).await;
    let late = matches!(
        got,
        Some(Err(TransferError::Refused {
            retryable: true,
            ..
        }))
    );
    assert!(late, "{got:?}");
    buyer.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_an_agent_the_terms_are_the_callers() {
    let shop = shop(Till::default(), 1000).await;
    let poor = client_with(HttpConfig::default()).await;
    let source = poor.connect(&shop.offer, &shop.target).await.unwrap();
    let got = soon(source.fetch(ByteRange::new(0, 10)).next()).await;
    let terms = matches!(&got, Some(Err(TransferError::PaymentRequired { offer, .. }))
        if offer[..] == *b"terms");
    assert!(terms, "{got:?}");
    // What the caller makes of them can be taken there.
    let hello = Bytes::from_static(b"hello");
    let answer = poor.payment_message(&shop.offer, hello.clone()).await;
    assert_eq!(answer.unwrap(), &b"yes"[..]);
    let refusals: [(&'static [u8], bool, &str); 5] = [
        (
            b"not yet",
            true,
            "the payment cannot be seen on the ledger yet",
        ),
        (b"broken", true, "payments are not taken now"),
        (b"bye", true, "payments are not taken now"),
        (
            b"cheap",
            false,
            "the terms are not what was announced: price",
        ),
        (b"", false, "payment message refused: unknown"),
    ];
    for (message, again, expected) in refusals {
        let answer = poor
            .payment_message(&shop.offer, Bytes::from_static(message))
            .await;
        let refused = matches!(&answer, Err(TransferError::Refused { retryable, reason, .. })
            if *retryable == again && reason == expected);
        assert!(refused, "{answer:?}");
    }
    let long = Bytes::from(vec![0; 16 * 1024 + 1]);
    assert!(poor.payment_message(&shop.offer, long).await.is_err());
    let mirror = shop.offer.clone().as_mirror();
    let answer = poor.payment_message(&mirror, hello).await;
    assert!(matches!(answer, Err(TransferError::Unsupported { .. })));
    poor.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_paid_source_keeps_the_contract_of_all_sources() {
    let directory = tempfile::tempdir().unwrap();
    let shop = shop(Till::default(), 5_000_001).await;
    let purse = Arc::new(Purse {
        // The suite gets the file many times over.
        forgetful: true,
        ..Purse::default()
    });
    let buyer = buyer(HttpConfig::default(), &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    soon(any_source(source, &shop.bytes)).await;
    soon(fetching(&buyer, &shop.offer, &shop.bytes, directory.path())).await;
    buyer.shutdown().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

/// A downloader with a store and an engine that is quick to call a source slow.
struct Downloader {
    manager: ProtocolManager,
    store: Arc<dyn ChunkStore>,
}

async fn downloader(purse: &Arc<Purse>) -> Downloader {
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
    let registry = TransferRegistry::new();
    let mut config = EngineConfig::default().with_source_patience(Duration::from_secs(2));
    config.manifest_patience = Duration::from_millis(300);
    config.scheduler.stall_timeout = Duration::from_millis(500);
    config.scheduler.first_byte_timeout = Duration::from_millis(1000);
    let engine = Engine::new(store.clone(), registry.clone(), config);
    let gate = Arc::new(OpenGate);
    let http = HttpProtocol::bind(HttpConfig::default(), store.clone(), registry, gate)
        .await
        .unwrap()
        .with_agent(purse.clone());
    let manager = ProtocolManager::new(engine, Arc::new(http));
    Downloader { manager, store }
}

impl Downloader {
    async fn get(
        &self,
        target: FileIdentification,
        offers: Vec<PeerOffer>,
    ) -> (Result<DownloadReport, TransferError>, Vec<TransferEvent>) {
        let mut request = DownloadRequest::new(target);
        request.offers = offers;
        let id = TransferId::from_bytes([1; 16]);
        let download = self.manager.download_file(id, request).await.unwrap();
        let (_transfer, events, finished) = download.split();
        let events = tokio::spawn(events.collect::<Vec<_>>());
        let report = soon(finished.report()).await;
        (report, soon(events).await.unwrap())
    }
}

fn blamed(events: &[TransferEvent]) -> Vec<&TransferEventKind> {
    let kinds = events.iter().map(|event| &event.kind);
    kinds
        .filter(|kind| {
            matches!(
                kind,
                TransferEventKind::SourceDemoted { .. }
                    | TransferEventKind::SourceBanned { .. }
                    | TransferEventKind::SourceDown { .. }
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_pays_for_long_is_late_and_not_blamed() {
    let shop = shop(Till::default(), 6_000_000).await;
    let purse = Arc::new(Purse {
        // Two answers: five seconds, ten times what would be a stall.
        pause: Duration::from_millis(2500),
        ..Purse::default()
    });
    let downloader = downloader(&purse).await;
    let begun = Instant::now();
    let (report, events) = downloader.get(shop.target, vec![shop.offer.clone()]).await;
    let report = report.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(5));
    assert!(blamed(&events).is_empty(), "{:?}", blamed(&events));
    assert_eq!(purse.conversations.load(Ordering::SeqCst), 1);
    assert_eq!(report.delivered[0].ranges.len(), 6_000_000);
    downloader.manager.cleanup().await.unwrap();
    shop.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_verified_is_acknowledged_before_the_end() {
    let shop = shop(Till::default(), 8 << 20).await;
    for target in [shop.target, shop.target.cid().unwrap().into()] {
        let purse = Arc::new(Purse::default());
        let downloader = downloader(&purse).await;
        shop.till.acknowledged.store(0, Ordering::SeqCst);
        let (report, _) = downloader.get(target, vec![shop.offer.clone()]).await;
        let report = report.unwrap();
        assert_eq!(*purse.verified.lock().unwrap(), report.delivered[0].ranges);
        assert_eq!(purse.verified_bytes(), 8 << 20);
        assert_eq!(Till::count(&shop.till.acknowledged), 8 << 20);
        let cid = target.cid().unwrap();
        assert!(downloader.store.open(cid).await.unwrap().is_some());
        downloader.manager.cleanup().await.unwrap();
    }
    shop.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_that_runs_out_is_renewed_by_acknowledgements() {
    // Without a root up to 16 MiB are there and not proven, hence not acknowledged: a seeder
    // that lends less waits for ever.
    for (by_link, credit) in [(true, 4 << 20), (false, 17 << 20)] {
        let till = Till {
            credit,
            ..Till::default()
        };
        let shop = shop(till, 48 << 20).await;
        let target = match by_link {
            true => shop.target,
            false => shop.target.cid().unwrap().into(),
        };
        let purse = Arc::new(Purse::default());
        let downloader = downloader(&purse).await;
        let (report, events) = downloader.get(target, vec![shop.offer.clone()]).await;
        report.unwrap();
        assert!(blamed(&events).is_empty(), "{:?}", blamed(&events));
        downloader.manager.cleanup().await.unwrap();
        shop.node.shutdown().await.unwrap();
        let refused = Till::count(&shop.till.refused);
        assert!(
            refused > if by_link { 2 } else { 0 },
            "credit never ran out"
        );
        assert_eq!(Till::count(&shop.till.acknowledged), 48 << 20);
        // What is given up while credit is renewed is little.
        let sent = Till::count(&shop.till.admitted);
        assert!(sent < 52 << 20, "{sent} bytes sent");
        assert_eq!(Till::count(&shop.till.open), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_in_advance_is_for_what_can_be_checked() {
    let shop = shop(Till::default(), 3_000_000).await;
    let thrifty = || {
        Arc::new(Purse {
            needs_root: true,
            ..Purse::default()
        })
    };
    let downloader_by_link = downloader(&thrifty()).await;
    let offers = vec![shop.offer.clone()];
    let (report, events) = downloader_by_link.get(shop.target, offers.clone()).await;
    report.unwrap();
    assert!(blamed(&events).is_empty(), "{:?}", blamed(&events));
    let downloader_by_cid = downloader(&thrifty()).await;
    let (report, _) = downloader_by_cid
        .get(shop.target.cid().unwrap().into(), offers)
        .await;
    assert!(matches!(report, Err(TransferError::NoSources { .. })));
    assert_eq!(Till::count(&shop.till.admitted), 3_000_000);
    for downloader in [downloader_by_link, downloader_by_cid] {
        downloader.manager.cleanup().await.unwrap();
    }
    shop.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_is_gone_costs_no_long_farewell() {
    let shop = shop(Till::default(), 1_000_000).await;
    let purse = Arc::new(Purse::default());
    let buyer = buyer(HttpConfig::default(), &purse).await;
    let source = buyer.connect(&shop.offer, &shop.target).await.unwrap();
    soon(receive(&*source, ByteRange::new(0, 1000), &shop.bytes)).await;
    // Nobody answers at this port any more, or somebody who says nothing.
    let address = shop.node.local_addr().unwrap();
    shop.node.shutdown().await.unwrap();
    let silent = tokio::net::TcpListener::bind(address).await.unwrap();
    source.verified(ByteRange::new(0, 1000)).await;
    assert_eq!(purse.verified_bytes(), 1000);
    let begun = Instant::now();
    source.close().await;
    source.close().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "bounded");
    drop(silent);
    buyer.shutdown().await.unwrap();
}

#[tokio::test]
async fn offers_of_strangers_lead_only_where_they_may() {
    let bytes = content(1000);
    let (node, named, target) = seeder(&bytes).await;
    let by_peer = named
        .clone()
        .with_peer(PeerId::from_bytes(b"stranger").unwrap());
    let mut announced = named.clone();
    announced.valid_until = Some(u64::MAX);
    for (policy, allowed) in [
        (AddressPolicy::Any, true),
        (AddressPolicy::GlobalOnly, false),
        (near(true, false), false),
        (near(false, true), true),
    ] {
        let client = client_with(HttpConfig::default().with_announced(policy)).await;
        assert!(client.connect(&named, &target).await.is_ok(), "by hand");
        for offer in [&by_peer, &announced] {
            let got = client.connect(offer, &target).await;
            assert_eq!(got.is_ok(), allowed, "{policy:?}: {got:?}");
            let got = client.payment_message(offer, Bytes::new()).await;
            let dialled = !matches!(&got, Err(TransferError::Refused { reason, .. })
                if reason.contains("dialled"));
            assert_eq!(dialled, allowed, "{policy:?}: {got:?}");
        }
        client.shutdown().await.unwrap();
    }
    node.shutdown().await.unwrap();
}

fn near(private: bool, loopback: bool) -> AddressPolicy {
    AddressPolicy::GlobalAnd { private, loopback }
}
