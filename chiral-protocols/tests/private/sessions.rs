//! Sessions that break, and limits on them.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::chain;
use chiral_core::conformance::chunk_source::receive;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    ByteRange, ChunkLayout, ContentProtocol, Endpoint, PeerNetwork, PeerOffer, Protocol,
    SeedRequest, TransferError,
};
use chiral_dht::MemoryNetworkHub;
use chiral_protocols::private::{FileRequest, PrivateConfig, PrivateProtocol, STREAM_NAME};
use futures_util::{AsyncReadExt, StreamExt};

use crate::support::{OpenGate, content, node, peer, seeder, soon};

#[tokio::test]
async fn a_session_that_broke_is_opened_again() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(3_000_000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    let all = ByteRange::new(0, 3_000_000);
    let mut begun = source.fetch(all);
    assert!(soon(begun.next()).await.unwrap().is_ok());
    hub.cut(&peer(1), &peer(2));
    let mut last = soon(begun.next()).await;
    while let Some(Ok(_)) = last {
        last = soon(begun.next()).await;
    }
    assert!(
        matches!(last, Some(Err(ref error)) if error.is_retryable()),
        "{last:?}"
    );
    let gone = soon(source.coverage()).await.unwrap_err();
    assert!(gone.is_retryable(), "{gone}");
    hub.mend(&peer(1), &peer(2));
    soon(receive(&*source, all, &bytes)).await;
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_given_up_leave_room_for_others() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(8_000_000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let source = buyer.connect(&from.offer, &from.target).await.unwrap();
    for _ in 0..50 {
        let mut given_up = source.fetch(ByteRange::new(0, 8_000_000));
        assert!(soon(given_up.next()).await.unwrap().is_ok());
    }
    soon(receive(&*source, ByteRange::new(5, 2_000_000), &bytes)).await;
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_peer_has_only_so_many_sessions() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let mut config = PrivateConfig::default();
    config.max_sessions_per_peer = 2;
    let from = seeder(&hub, config, Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let a = soon(buyer.connect(&from.offer, &from.target))
        .await
        .unwrap();
    let _b = soon(buyer.connect(&from.offer, &from.target))
        .await
        .unwrap();
    assert!(
        soon(buyer.connect(&from.offer, &from.target))
            .await
            .is_err()
    );
    let other = node(&hub, 3, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let _c = soon(other.connect(&from.offer, &from.target))
        .await
        .unwrap();
    a.close().await;
    drop(a);
    // The place is free once the seeder has seen the end.
    let again = async {
        while buyer.connect(&from.offer, &from.target).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon(again).await;
    for node in [buyer, other, from.node] {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_served_is_missing_and_who_does_not_speak_it_refuses() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(
        &hub,
        2,
        PrivateConfig::default().fetch_only(),
        Arc::new(OpenGate),
    )
    .await;
    let other = chiral_core::Cid::from_bytes([1; 32]).into();
    let missing = soon(buyer.connect(&from.offer, &other)).await.unwrap_err();
    assert!(
        matches!(missing, TransferError::Missing { .. }),
        "{missing:?}"
    );
    let dumb = hub.join(peer(7));
    let mut offer = from.offer.clone();
    offer.peer = Some(peer(7));
    offer.endpoint = PrivateProtocol::endpoint_of(&peer(7)).unwrap();
    let refused = soon(buyer.connect(&offer, &from.target)).await.unwrap_err();
    assert!(
        matches!(refused, TransferError::Refused { .. }),
        "{refused:?}"
    );
    offer.peer = Some(peer(1));
    let strange = soon(buyer.connect(&offer, &from.target)).await.unwrap_err();
    assert!(
        matches!(strange, TransferError::Protocol { .. }),
        "{strange:?}"
    );
    let nobody = PeerOffer::new(Protocol::Private, Endpoint::new("/ip4/127.0.0.1").unwrap());
    assert!(buyer.connect(&nobody, &from.target).await.is_err());
    let seeding = SeedRequest::new(SeedContent::Bytes(bytes));
    assert!(buyer.start_seeding(seeding).await.is_err());
    dumb.shutdown().await.unwrap();
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_in_which_nothing_happens_ends() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(1000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let idle = hub.join(peer(5));
    // It says nothing at all.
    let mut stream = idle.open(&peer(1), STREAM_NAME).await.unwrap();
    let mut rest = Vec::new();
    let begun = tokio::time::Instant::now();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(begun.elapsed() <= PrivateConfig::default().answer_timeout * 2);
    from.node.shutdown().await.unwrap();
}

#[tokio::test]
async fn single_chunks_come_with_the_hash_of_the_next() {
    let (hub, bytes) = (MemoryNetworkHub::new(), content(600_000));
    let from = seeder(&hub, PrivateConfig::default(), Arc::new(OpenGate), &bytes).await;
    let buyer = node(&hub, 2, PrivateConfig::default(), Arc::new(OpenGate)).await;
    let cid = from.target.cid().unwrap();
    let layout = ChunkLayout::new(600_000).unwrap();
    let (mut offset, mut before) = (0, chain::INITIAL);
    let mut expected = None;
    for index in 0..layout.count() {
        let request = FileRequest {
            file_hash: Bytes::copy_from_slice(cid.as_bytes()),
            offset,
            length: u64::MAX,
            credential: None,
        };
        let (response, data) = soon(buyer.request_file(&from.offer, request))
            .await
            .unwrap();
        let hash = chain::hash_after(layout, index, before, &data).unwrap();
        assert!(expected.is_none_or(|expected: Bytes| expected == hash.as_bytes()[..]));
        (offset, before) = (offset + data.len() as u64, hash);
        expected = Some(response.next_chunk_hash).filter(|hash| !hash.is_empty());
        assert_eq!(response.is_last_chunk, layout.is_last(index));
    }
    assert_eq!((offset, expected), (600_000, None));
    assert_eq!(before, cid.into());
    buyer.shutdown().await.unwrap();
    from.node.shutdown().await.unwrap();
}
