//! The in-memory network passes the suite, keeps its limits, and can be cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::peer_network::{self, Maker, PROTOCOL, Pair};
use chiral_core::{NetworkError, PeerId, PeerNetwork};
use chiral_dht::memory_network::{MAX_WAITING_MESSAGES, MAX_WAITING_STREAMS};
use chiral_dht::{MemoryNetwork, MemoryNetworkHub};
use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};

struct Hubs;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[number]).expect("one byte")
}

fn pair(hub: &MemoryNetworkHub) -> (MemoryNetwork, MemoryNetwork) {
    (hub.join(peer(1)), hub.join(peer(2)))
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("nothing came for a minute")
}

impl Maker for Hubs {
    async fn connect(&self) -> Pair {
        let (a, b) = pair(&MemoryNetworkHub::new());
        [Arc::new(a), Arc::new(b)]
    }

    async fn pause(&self) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_memory_network_passes_the_suite() {
    soon(peer_network::run(&Hubs)).await;
}

#[tokio::test]
async fn what_an_acceptor_has_no_place_for_is_reset() {
    let (a, b) = pair(&MemoryNetworkHub::new());
    let mut incoming = b.accept(PROTOCOL).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..=MAX_WAITING_STREAMS {
        streams.push(a.open(&b.local_peer(), PROTOCOL).await.unwrap());
    }
    let mut newest = streams.pop().unwrap();
    assert!(soon(newest.read(&mut [0; 1])).await.is_err());
    for mut stream in streams {
        stream.close().await.unwrap();
        let (from, mut theirs) = soon(incoming.next()).await.unwrap();
        assert_eq!(from, a.local_peer());
        assert_eq!(soon(theirs.read(&mut [0; 1])).await.unwrap(), 0);
    }
    // There is place again.
    let _stream = a.open(&b.local_peer(), PROTOCOL).await.unwrap();
    assert!(soon(incoming.next()).await.is_some());
}

#[tokio::test]
async fn a_slow_subscriber_loses_the_newest_messages_and_hinders_nobody() {
    let (a, b) = pair(&MemoryNetworkHub::new());
    let mut slow = b.subscribe("topic").await.unwrap();
    let mut quick = b.subscribe("topic").await.unwrap();
    for number in 0..MAX_WAITING_MESSAGES as u8 + 10 {
        a.publish("topic", Bytes::from(vec![number])).await.unwrap();
        assert_eq!(soon(quick.next()).await.unwrap().1[..], [number]);
    }
    for number in 0..MAX_WAITING_MESSAGES as u8 {
        assert_eq!(soon(slow.next()).await.unwrap().1[..], [number]);
    }
    // With a fresh budget, so that nothing is pending but for want of a message.
    tokio::task::yield_now().await;
    assert!(slow.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_cut_resets_streams_and_silences_topics_until_it_is_mended() {
    let hub = MemoryNetworkHub::new();
    let (a, b) = pair(&hub);
    let c = hub.join(peer(3));
    let mut incoming = b.accept(PROTOCOL).await.unwrap();
    let mut topic = b.subscribe("topic").await.unwrap();
    let mut ours = a.open(&peer(2), PROTOCOL).await.unwrap();
    let (_, mut theirs) = soon(incoming.next()).await.unwrap();
    let mut other = c.open(&peer(2), PROTOCOL).await.unwrap();
    let (_, mut others) = soon(incoming.next()).await.unwrap();

    hub.cut(&peer(2), &peer(1));
    assert!(soon(ours.read(&mut [0; 1])).await.is_err());
    assert!(theirs.write(&[0; 1]).await.is_err());
    let result = a.open(&peer(2), PROTOCOL).await.map(drop);
    assert!(
        matches!(result, Err(NetworkError::Unreachable { .. })),
        "{result:?}"
    );
    a.publish("topic", Bytes::from_static(b"unheard"))
        .await
        .unwrap();
    assert_eq!(a.connected().await.unwrap(), [peer(3)]);
    other.write_all(b"x").await.unwrap();
    assert_eq!(
        soon(others.read(&mut [0; 1])).await.unwrap(),
        1,
        "the third peer is not concerned"
    );

    hub.mend(&peer(1), &peer(2));
    a.publish("topic", Bytes::from_static(b"heard"))
        .await
        .unwrap();
    assert_eq!(
        soon(topic.next()).await.unwrap(),
        (peer(1), Bytes::from_static(b"heard"))
    );
    a.open(&peer(2), PROTOCOL).await.unwrap();
}

#[tokio::test]
async fn a_node_that_joins_again_takes_the_place_of_the_former() {
    let hub = MemoryNetworkHub::new();
    let (a, b) = pair(&hub);
    let mut incoming = b.accept(PROTOCOL).await.unwrap();
    let mut ours = a.open(&peer(2), PROTOCOL).await.unwrap();
    let again = hub.join(peer(2));
    assert!(soon(ours.read(&mut [0; 1])).await.is_err());
    while soon(incoming.next()).await.is_some() {}
    assert!(matches!(b.connected().await, Err(NetworkError::Closed)));
    // Neither shutting down nor dropping the former touches the new one.
    b.shutdown().await.unwrap();
    drop(b);
    let _incoming = again.accept(PROTOCOL).await.unwrap();
    a.open(&peer(2), PROTOCOL).await.unwrap();
    drop(again);
    assert_eq!(a.connected().await.unwrap(), []);
}
