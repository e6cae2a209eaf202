//! Peers that speak the protocol as they like, on either side.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ByteRange, ContentIdentity, ContentProtocol, ManifestHeader, PeerNetwork, PeerOffer, Protocol,
    TransferError,
};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::{
    Body, ChunksDone, Frame, Have, MAX_HEADER, OpenSession, PrivateConfig, PrivateProtocol,
    RequestChunks, STREAM_NAME, SessionAccepted, StreamChunk,
};
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use proptest::prelude::*;

use crate::support::{OpenGate, content, node, peer, seeder, soon};

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.head().unwrap().to_vec();
    bytes.extend_from_slice(&frame.data);
    bytes
}

fn accepted(bytes: &Bytes) -> Frame {
    let identity = ContentIdentity::of(bytes).unwrap();
    let header = ManifestHeader {
        size: identity.size,
        cid: identity.cid,
        root: identity.root,
        name: None,
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    };
    let accepted = SessionAccepted {
        manifest_header: header.encode().unwrap().into(),
        price: Bytes::new(),
        wallet: Bytes::new(),
        version: 1,
    };
    Frame::new(0, Body::SessionAccepted(accepted))
}

fn have(id: u32) -> Frame {
    let all = [0u32.to_be_bytes(), 4u32.to_be_bytes()].concat();
    Frame::new(id, Body::Have(Have {})).with_data(all.into())
}

/// A seeder that answers a session with these bytes and whatever comes with the next.
async fn says(hub: &MemoryNetworkHub, script: Vec<Vec<u8>>) -> PeerOffer {
    let network = hub.join(peer(1));
    let mut incoming = network.accept(STREAM_NAME).await.unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            let script = script.clone();
            tokio::spawn(async move {
                let mut ignored = vec![0; 65_536];
                for answer in script {
                    if !matches!(stream.read(&mut ignored).await, Ok(1..)) {
                        return;
                    }
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                    let _ = stream.flush().await;
                }
                std::future::pending::<()>().await;
            });
        }
        drop(network);
    });
    PeerOffer::new(
        Protocol::Private,
        PrivateProtocol::endpoint_of(&peer(1)).unwrap(),
    )
}

fn impatient() -> PrivateConfig {
    let mut config = PrivateConfig::default().fetch_only();
    config.answer_timeout = std::time::Duration::from_millis(500);
    config.idle_timeout = std::time::Duration::from_millis(500);
    config
}

#[tokio::test]
async fn no_opening_that_is_none_is_taken() {
    let bytes = content(1_000_000);
    let target = identification(&bytes);
    let other = accepted(&content(5));
    let mut bad_price = accepted(&bytes);
    if let Body::SessionAccepted(accepted) = &mut bad_price.body {
        accepted.price = Bytes::from(vec![1; 33]);
    }
    let openings = [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![0],
        vec![0xff; 64],
        encoded(&other),
        encoded(&bad_price),
        encoded(&Frame::new(0, Body::ChunksDone(ChunksDone {}))),
        [encoded(&accepted(&bytes)), vec![0xff; 10]].concat(),
    ];
    for opening in openings {
        let hub = MemoryNetworkHub::new();
        let offer = says(&hub, vec![opening.clone()]).await;
        let buyer = node(&hub, 2, impatient(), Arc::new(OpenGate)).await;
        let result = soon(buyer.connect(&offer, &target)).await;
        assert!(result.is_err(), "{opening:?}");
        soon(buyer.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_were_not_asked_for_are_refused() {
    let bytes = content(1_000_000);
    let target = identification(&bytes);
    let chunk = |offset, data: &[u8]| {
        Frame::new(2, Body::StreamChunk(StreamChunk { offset }))
            .with_data(Bytes::copy_from_slice(data))
    };
    let answers = [
        chunk(1, &bytes[1..10]),
        chunk(0, &bytes[..2000]),
        chunk(0, &[]),
        chunk(u64::MAX, &bytes[..5]),
        Frame::new(2, Body::ChunksDone(ChunksDone {})),
        have(2),
        Frame::new(77, Body::ChunksDone(ChunksDone {})),
    ];
    for answer in answers {
        let hub = MemoryNetworkHub::new();
        let script = vec![
            encoded(&accepted(&bytes)),
            encoded(&have(1)),
            encoded(&answer),
        ];
        let offer = says(&hub, script).await;
        let buyer = node(&hub, 2, impatient(), Arc::new(OpenGate)).await;
        let source = soon(buyer.connect(&offer, &target)).await.unwrap();
        let mut stream = source.fetch(ByteRange::new(0, 1000));
        let first = soon(stream.next()).await.unwrap();
        assert!(first.is_err(), "{answer:?} gave {first:?}");
        assert!(soon(stream.next()).await.is_none());
        soon(buyer.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn ranges_that_are_none_and_floods_are_answered_and_nothing_else() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1_000_000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let hostile = hub.join(peer(6));
    let mut stream = hostile.open(&peer(1), STREAM_NAME).await.unwrap();
    let file_hash = Bytes::copy_from_slice(from.target.cid().unwrap().as_bytes());
    let open = Frame::new(
        0,
        Body::OpenSession(OpenSession {
            file_hash,
            version: 1,
        }),
    );
    stream.write_all(&encoded(&open)).await.unwrap();
    for (id, (offset, length)) in [(0, 0), (u64::MAX, 2), (0, u64::MAX), (999_999, 2)]
        .into_iter()
        .enumerate()
    {
        let request = RequestChunks {
            offset,
            length,
            credential: None,
        };
        let frame = Frame::new(id as u32 + 1, Body::RequestChunks(request));
        stream.write_all(&encoded(&frame)).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut answers = vec![0; 65_536];
    let mut read = 0;
    // One acceptance, four refusals: each says that it is not within the file.
    while String::from_utf8_lossy(&answers[..read])
        .matches("not within the file")
        .count()
        < 4
    {
        let more = soon(stream.read(&mut answers[read..])).await.unwrap();
        assert!(more > 0);
        read += more;
    }
    drop(stream);
    // It serves others as before.
    let buyer = node(&hub, 2, impatient(), Arc::new(OpenGate)).await;
    let source = soon(buyer.connect(&from.offer, &from.target))
        .await
        .unwrap();
    let range = ByteRange::new(0, 1_000_000);
    chiral_core::conformance::chunk_source::receive(&*source, range, &bytes).await;
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_session_without_a_file_has_no_bytes() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, impatient(), Arc::new(OpenGate)).await;
    let error = soon(buyer.payment_message(&from.offer, Bytes::from_static(b"x"))).await;
    assert!(
        matches!(error, Err(TransferError::Refused { .. })),
        "{error:?}"
    );
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is said to a seeder, it goes on serving others.
    #[test]
    fn noise_ends_its_own_session_only(noise in proptest::collection::vec(any::<u8>(), 0..2000), opened: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (hub, bytes) = (MemoryNetworkHub::new(), content(300_000));
            let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
            let hostile = hub.join(peer(6));
            let mut stream = hostile.open(&peer(1), STREAM_NAME).await.unwrap();
            if opened {
                let file_hash = Bytes::copy_from_slice(from.target.cid().unwrap().as_bytes());
                let open = Frame::new(0, Body::OpenSession(OpenSession {
        file_hash,
        version: 1,
    }));
                stream.write_all(&encoded(&open)).await.unwrap();
            }
            // The seeder may have hung up in the middle of it.
            let _ = stream.write_all(&noise).await;
            let _ = stream.flush().await;
            let buyer = node(&hub, 2, impatient(), Arc::new(OpenGate)).await;
            let source = soon(buyer.connect(&from.offer, &from.target)).await.unwrap();
            let range = ByteRange::new(0, 300_000);
            chiral_core::conformance::chunk_source::receive(&*source, range, &bytes).await;
            buyer.shutdown().await.unwrap();
            from.node.shutdown().await.unwrap();
        });
    }
}

#[test]
fn limits_are_what_they_say() {
    let message = Bytes::from(vec![1; MAX_HEADER]);
    let batch = chiral_protocols::private::PaymentBatch { message };
    assert!(Frame::new(1, Body::PaymentBatch(batch)).head().is_err());
}
