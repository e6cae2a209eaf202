//! Each message of the architecture by its name, byte for byte on the wire, and what versions
//! say to each other.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ChunkLayout, ContentIdentity, ContentProtocol, ManifestHeader, ManifestPage, PeerNetwork,
    TransferError, chain,
};
use chiral_dht::{MemoryNetwork, MemoryNetworkHub};
use chiral_protocols::private::{
    Body, Cancel, ChunkRequest, CloseSession, FailureKind, FileRequest, Frame, MAX_WANTS,
    OpenSession, PaymentBatch, PrivateConfig, RequestChunks, RequestHave, RequestPage, STREAM_NAME,
    VERSION, Want,
};
use futures_util::{AsyncReadExt, AsyncWriteExt};

use crate::support::{OpenGate, content, node, peer, seeder, soon};

const CHUNK: u64 = 262_144;

/// Somebody who writes frames by hand.
struct Hand {
    stream: chiral_core::peer_network::BoxedPeerStream,
    buffer: BytesMut,
    _network: MemoryNetwork,
}

impl Hand {
    async fn to(hub: &MemoryNetworkHub) -> Self {
        let network = hub.join(peer(9));
        let stream = network.open(&peer(1), STREAM_NAME).await.unwrap();
        Self {
            stream,
            buffer: BytesMut::new(),
            _network: network,
        }
    }

    async fn say(&mut self, id: u32, body: Body) {
        let head = Frame::new(id, body).head().unwrap();
        self.stream.write_all(&head).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame; `None` at the end.
    async fn hear(&mut self) -> Option<Frame> {
        soon(async {
            loop {
                if let Some(frame) = Frame::take(&mut self.buffer).unwrap() {
                    return Some(frame);
                }
                let mut more = vec![0; 65_536];
                match self.stream.read(&mut more).await {
                    Ok(read @ 1..) => self.buffer.extend_from_slice(&more[..read]),
                    _ => return None,
                }
            }
        })
        .await
    }

    async fn open(&mut self, bytes: &Bytes, version: u32) -> u32 {
        let cid = identification(bytes).cid().unwrap();
        let open = OpenSession {
            file_hash: Bytes::copy_from_slice(cid.as_bytes()),
            version,
        };
        self.say(0, Body::OpenSession(open)).await;
        let accepted = self.hear().await.unwrap();
        assert_eq!(accepted.id, 0);
        let Body::SessionAccepted(accepted) = accepted.body else {
            panic!("{accepted:?}");
        };
        let header = ManifestHeader::decode(&accepted.manifest_header).unwrap();
        assert_eq!(header.cid, cid);
        accepted.version
    }
}

fn plain(offset: u64, length: u64) -> Want {
    Want {
        offset,
        length,
        credential: None,
        sealed: false,
    }
}

fn list(wants: Vec<Want>) -> Body {
    Body::ChunkRequest(ChunkRequest {
        wants,
        payment_proof: None,
    })
}

fn failure(frame: Option<Frame>) -> FailureKind {
    match frame.map(|frame| frame.body) {
        Some(Body::Failed(failed)) => FailureKind::try_from(failed.kind).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_is_opened_asked_and_closed() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(700_000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let identity = ContentIdentity::of(&bytes).unwrap();
    let layout = ChunkLayout::new(700_000).unwrap();
    let mut hand = Hand::to(&hub).await;
    // OPEN_SESSION
    assert_eq!(hand.open(&bytes, VERSION).await, VERSION);

    // HAVE map
    hand.say(1, Body::RequestHave(RequestHave {})).await;
    let have = hand.hear().await.unwrap();
    assert!(matches!(have.body, Body::Have(_)));
    let all = [0u32.to_be_bytes(), 3u32.to_be_bytes()].concat();
    assert_eq!((have.id, &have.data[..]), (1, &all[..]));

    // Manifest page
    hand.say(2, Body::RequestPage(RequestPage { index: 0 }))
        .await;
    let page = hand.hear().await.unwrap();
    assert!(matches!(page.body, Body::Page(_)));
    let page = ManifestPage::decode(&page.data).unwrap();
    let page = page.verify(identity.root, layout, 0).unwrap();
    hand.say(3, Body::RequestPage(RequestPage { index: 1 }))
        .await;
    assert_eq!(failure(hand.hear().await), FailureKind::Missing);

    // REQUEST_CHUNKS, answered by STREAM_CHUNKS
    let request = RequestChunks {
        offset: 1000,
        length: 600_000,
        credential: None,
    };
    hand.say(4, Body::RequestChunks(request)).await;
    let mut at = 1000;
    loop {
        let frame = hand.hear().await.unwrap();
        assert_eq!(frame.id, 4);
        match frame.body {
            Body::StreamChunk(chunk) => {
                assert_eq!(chunk.offset, at);
                let end = at + frame.data.len() as u64;
                assert_eq!(frame.data, bytes[at as usize..end as usize]);
                at = end;
            }
            Body::ChunksDone(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(at, 601_000);

    // CHUNK_REQUEST, a want-list, answered by a CHUNK_RESPONSE each
    let wants = vec![plain(2 * CHUNK, 700_000 - 2 * CHUNK), plain(0, CHUNK)];
    hand.say(5, list(wants)).await;
    for (id, index) in [(5, 2u32), (6, 0)] {
        let frame = hand.hear().await.unwrap();
        assert_eq!(frame.id, id);
        let Body::ChunkResponse(response) = frame.body else {
            panic!("{frame:?}");
        };
        assert!(response.seal.is_empty() && response.payment_answer.is_empty());
        let (before, after) = page.around(index).unwrap();
        assert_eq!(&response.verification_hash[..], after.as_bytes());
        chain::check(layout, index, before, after, &frame.data).unwrap();
    }
    // What is to be sealed comes sealed or not at all.
    let mut sealed = plain(0, CHUNK);
    sealed.sealed = true;
    hand.say(8, list(vec![sealed])).await;
    assert_eq!(failure(hand.hear().await), FailureKind::Refused);
    for want in [
        plain(CHUNK - 1, 2),
        plain(0, 0),
        plain(u64::MAX, 2),
        plain(700_000, 1),
    ] {
        hand.say(9, list(vec![want])).await;
        assert_eq!(failure(hand.hear().await), FailureKind::Missing);
    }

    // PAYMENT_BATCH: this gate takes none
    let message = Bytes::from_static(b"a voucher");
    hand.say(10, Body::PaymentBatch(PaymentBatch { message }))
        .await;
    assert_eq!(failure(hand.hear().await), FailureKind::Refused);

    // FileRequest and FileResponse
    let request = FileRequest {
        file_hash: Bytes::copy_from_slice(identity.cid.as_bytes()),
        offset: CHUNK,
        length: u64::MAX,
        credential: None,
    };
    hand.say(11, Body::FileRequest(request)).await;
    let frame = hand.hear().await.unwrap();
    let Body::FileResponse(response) = frame.body else {
        panic!("{frame:?}");
    };
    assert!(!response.is_last_chunk);
    assert_eq!(&response.next_chunk_hash[..], identity.cid.as_bytes());
    assert_eq!(frame.data, bytes[CHUNK as usize..2 * CHUNK as usize]);

    // Of what is cancelled no end is told; the session goes on, and is closed.
    hand.say(12, Body::Cancel(Cancel {})).await;
    hand.say(13, Body::RequestHave(RequestHave {})).await;
    assert_eq!(hand.hear().await.unwrap().id, 13);
    hand.say(0, Body::CloseSession(CloseSession {})).await;
    assert_eq!(hand.hear().await, None);
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_newest_version_that_both_know_is_spoken() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    for (offered, spoken) in [(0, 1), (1, 1), (7, VERSION), (u32::MAX, VERSION)] {
        let mut hand = Hand::to(&hub).await;
        assert_eq!(hand.open(&bytes, offered).await, spoken);
    }
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_refused() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    // Takes the seeder's place, and is ahead of its time.
    let (offer, target) = (from.offer.clone(), from.target);
    from.node.shutdown().await.unwrap();
    let network = hub.join(peer(1));
    let mut incoming = network.accept(STREAM_NAME).await.unwrap();
    let header = {
        let identity = ContentIdentity::of(&bytes).unwrap();
        let header = ManifestHeader {
            size: identity.size,
            cid: identity.cid,
            root: identity.root,
            name: None,
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        header.encode().unwrap()
    };
    tokio::spawn(async move {
        use futures_util::StreamExt;
        while let Some((_, mut stream)) = incoming.next().await {
            let mut said = [0; 256];
            let _ = stream.read(&mut said).await;
            let accepted = chiral_protocols::private::SessionAccepted {
                manifest_header: header.clone().into(),
                price: Bytes::new(),
                wallet: Bytes::new(),
                version: VERSION + 1,
            };
            let head = Frame::new(0, Body::SessionAccepted(accepted))
                .head()
                .unwrap();
            let _ = stream.write_all(&head).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
    });
    let config = PrivateConfig::default().fetch_only();
    let buyer = node(&hub, 2, config, Arc::new(OpenGate)).await;
    let refused = soon(buyer.connect(&offer, &target)).await.unwrap_err();
    assert!(
        matches!(refused, TransferError::Protocol { .. }),
        "{refused:?}"
    );
    buyer.shutdown().await.unwrap();
    drop(network);
}

#[tokio::test]
async fn want_lists_of_no_possible_length_end_the_session() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let too_many = vec![plain(0, 1); MAX_WANTS + 1];
    for (id, wants) in [
        (1, Vec::new()),
        (1, too_many),
        (u32::MAX, vec![plain(0, 1)]),
    ] {
        let mut hand = Hand::to(&hub).await;
        hand.open(&bytes, VERSION).await;
        hand.say(id, list(wants)).await;
        assert_eq!(hand.hear().await, None);
    }
    // As many as there may be are answered, each.
    let mut hand = Hand::to(&hub).await;
    hand.open(&bytes, VERSION).await;
    hand.say(1, list(vec![plain(0, 1); MAX_WANTS])).await;
    for id in 1..=MAX_WANTS as u32 {
        let frame = hand.hear().await.unwrap();
        assert_eq!((frame.id, frame.data.len()), (id, 1));
    }
    from.node.shutdown().await.unwrap();
}
