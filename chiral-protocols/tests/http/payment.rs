//! The payment gate's word over HTTP.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::conformance::chunk_source::receive;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Admission, Bill, BillId, ByteRange, Cid, ContentProtocol, GateError, PaymentAgent, PaymentGate,
    Purchase, SeedRequest, ServeRequest, SettlementStatus, TransferError, TransferRegistry,
};
use chiral_protocols::http::{HttpConfig, HttpProtocol};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;

use crate::support::{ask, client, content, loopback, path_of, soon};

/// Wants to see `paid`, refuses `thief`, and remembers what was served.
#[derive(Debug, Default)]
struct Toll {
    served: Mutex<Vec<ByteRange>>,
}

#[async_trait]
impl PaymentGate for Toll {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        Ok(match request.credential.as_deref() {
            Some(b"paid") => Admission::Granted,
            Some(b"thief") => Admission::Refused {
                reason: "we know you".to_owned(),
            },
            _ => Admission::PaymentRequired(Bytes::from_static(b"\0terms\xff")),
        })
    }

    async fn served(&self, _: &ServeRequest, sent: ByteRange) {
        self.served.lock().unwrap().push(sent);
    }

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }
}

#[derive(Debug)]
struct Payer;

#[async_trait]
impl PaymentAgent for Payer {
    async fn credential(&self, _: &Purchase, _: ByteRange) -> Result<Option<Bytes>, GateError> {
        Ok(Some(Bytes::from_static(b"paid")))
    }

    async fn respond(&self, _: &Purchase, _: Bytes) -> Result<Option<Bytes>, GateError> {
        Err(GateError::Price)
    }

    async fn verified(&self, _: &Purchase, _: ByteRange) {}

    async fn due(&self, _: &Purchase) -> Result<Option<Bytes>, GateError> {
        Ok(None)
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

#[tokio::test]
async fn bytes_are_for_those_who_pay_and_what_was_sent_is_counted() {
    let bytes = content(1_000_000);
    let gate = Arc::new(Toll::default());
    let store = Arc::new(MemoryStore::new(1 << 30));
    let registry = TransferRegistry::new();
    let node = HttpProtocol::bind(loopback(), store.clone(), registry.clone(), gate.clone())
        .await
        .unwrap();
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    let offer = node.start_seeding(request).await.unwrap().offers.remove(0);
    let target = identification(&bytes);
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));

    let answer = ask(address, "GET", &path, "").await;
    assert_eq!(
        (answer.status, &answer.body[..]),
        (402, &b"\0terms\xff"[..])
    );
    let answer = ask(address, "GET", &path, "Chiral-Payment: dGhpZWY=\r\n").await;
    assert_eq!(
        (answer.status, &answer.body[..]),
        (403, &b"we know you\n"[..])
    );
    let answer = ask(address, "GET", &path, "Chiral-Payment: !\r\n").await;
    assert_eq!(answer.status, 400);
    for free in ["", "/manifest", "/manifest/0", "/coverage"] {
        let method = if free.is_empty() { "HEAD" } else { "GET" };
        assert_eq!(
            ask(address, method, &format!("{path}{free}"), "")
                .await
                .status,
            200
        );
    }
    let paid = "Chiral-Payment: cGFpZA==\r\nRange: bytes=0-9\r\n";
    let answer = ask(address, "GET", &path, paid).await;
    assert_eq!((answer.status, answer.body.len()), (206, 10));
    assert_eq!(answer.header("cache-control"), Some("private, immutable"));

    let poor = client().await;
    let source = poor.connect(&offer, &target).await.unwrap();
    let first = source.fetch(ByteRange::new(0, 10)).next().await.unwrap();
    assert!(
        matches!(&first, Err(TransferError::PaymentRequired { offer, .. })
            if offer[..] == *b"\0terms\xff"),
        "{first:?}"
    );
    let rich = HttpProtocol::bind(HttpConfig::default(), store, registry, gate.clone())
        .await
        .unwrap()
        .with_agent(Arc::new(Payer));
    let source = rich.connect(&offer, &target).await.unwrap();
    soon(receive(&*source, ByteRange::new(5, 1_000_000), &bytes)).await;
    // The shutdown waits until the gate has heard of everything.
    node.shutdown().await.unwrap();
    let served = gate.served.lock().unwrap().clone();
    assert_eq!(
        served,
        [ByteRange::new(0, 10), ByteRange::new(5, 1_000_000)]
    );
}
