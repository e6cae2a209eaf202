//! Limits on what is served.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Admission, ByteRange, ContentProtocol, GateError, PaymentGate, SeedRequest, ServeRequest,
    TransferRegistry,
};
use chiral_protocols::Uploads;
use chiral_protocols::http::HttpProtocol;
use chiral_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ask, content, loopback, path_of, soon};

/// Admits everybody and remembers what was served.
#[derive(Debug, Default)]
struct Counting {
    served: Mutex<Vec<ByteRange>>,
}

#[async_trait]
impl PaymentGate for Counting {
    async fn admit(&self, _: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _: &ServeRequest, sent: ByteRange) {
        self.served.lock().unwrap().push(sent);
    }

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }
}

#[tokio::test]
async fn bodies_keep_to_the_limit_and_what_is_not_let_out_does_not_count_as_served() {
    const RATE: u64 = 2 << 20;
    let bytes = content(4 << 20);
    let (gate, uploads) = (Arc::new(Counting::default()), Uploads::new());
    uploads.set_limit(RATE.try_into().ok());
    let config = loopback().with_uploads(uploads.clone());
    let store = Arc::new(MemoryStore::new(1 << 30));
    let node = HttpProtocol::bind(config, store, TransferRegistry::new(), gate.clone())
        .await
        .unwrap();
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    node.start_seeding(request).await.unwrap();
    let (address, path) = (node.local_addr().unwrap(), path_of(&identification(&bytes)));

    // A megabyte in two answers, one after the other; talk is not under the limit.
    let begun = Instant::now();
    for start in [0, 500_000] {
        let range = format!("Range: bytes={start}-{}\r\n", start + 499_999);
        let answer = soon(ask(address, "GET", &path, &range)).await;
        assert_eq!(answer.status, 206);
        assert!(answer.body == bytes[start..start + 500_000]);
        let talk = soon(ask(address, "GET", &format!("{path}/coverage"), "")).await;
        assert_eq!(talk.status, 200);
    }
    // A tenth of a second's worth may have piled up before.
    let least = Duration::from_secs_f64(1e6 / RATE as f64 - 0.1);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());

    // One that goes away in the middle.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut part = vec![0; 1 << 19];
    soon(stream.read_exact(&mut part)).await.unwrap();
    drop(stream);
    node.shutdown().await.unwrap();
    let most = begun.elapsed().as_secs_f64() * RATE as f64;
    let served = gate.served.lock().unwrap().clone();
    let [.., cut] = served[..] else {
        panic!("nothing was counted");
    };
    assert!(cut.start == 0 && cut.len() >= 400_000, "{cut:?}");
    // A tenth of a second's worth may have piled up before.
    assert!(
        cut.len() as f64 <= most + 0.1 * RATE as f64,
        "{cut:?} {most}"
    );
}
