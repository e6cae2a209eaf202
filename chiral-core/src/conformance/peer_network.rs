//! The suite of [`PeerNetwork`].
//!
//! A maker joins two networks that are connected to each other. What takes a while to be
//! seen by the other side is looked for again, with the maker's pause in between, up to
//! [`TRIES`] times. Nothing here has a timeout: set one around it.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{Either, join, poll_fn, select};
use futures_util::{FutureExt, StreamExt};

use crate::peer_network::{
    BoxedPeerStream, IncomingStreams, MAX_NAME_LEN, MAX_TOPIC_MESSAGE, TopicStream,
};
use crate::{NetworkError, PeerId, PeerNetwork};

/// How often something is looked for until it is as expected.
pub const TRIES: usize = 200;

/// A protocol that nobody speaks but the suite.
pub const PROTOCOL: &str = "/chiral/conformance/1";

const TOPIC: &str = "chiral/conformance";

/// Two networks that are connected to each other.
pub type Pair = [Arc<dyn PeerNetwork>; 2];

/// Makes the networks that the suite asks for.
pub trait Maker {
    /// Two fresh networks, of a node each, connected to each other.
    fn connect(&self) -> impl Future<Output = Pair>;

    /// Lets the network work for a moment, and the runtime run other tasks.
    fn pause(&self) -> impl Future<Output = ()>;
}

/// Runs the whole suite.
pub async fn run(maker: &impl Maker) {
    peers_know_each_other(maker).await;
    streams_carry_bytes_both_ways(maker).await;
    writers_wait_for_readers(maker).await;
    closing_one_half_leaves_the_other(maker).await;
    dropping_a_stream_resets_it(maker).await;
    streams_do_not_hinder_each_other(maker).await;
    only_accepted_protocols_can_be_opened(maker).await;
    a_name_has_one_acceptor(maker).await;
    strangers_cannot_be_reached(maker).await;
    subscribers_hear_who_said_what(maker).await;
    topics_are_apart(maker).await;
    names_and_messages_are_limited(maker).await;
    shutdown_ends_everything(maker).await;
}

/// Each lists the other, and not itself.
pub async fn peers_know_each_other(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    assert_ne!(a.local_peer(), b.local_peer(), "two nodes need two ids");
    for (one, other) in [(&a, &b), (&b, &a)] {
        expect_connected(maker, one, &other.local_peer(), true).await;
        let connected = connected(one).await;
        assert!(
            !connected.contains(&one.local_peer()),
            "a node is not its own peer"
        );
    }
}

/// What one side writes the other reads; the acceptor learns who opened the stream.
pub async fn streams_carry_bytes_both_ways(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    for (opener, acceptor) in [(&a, &b), (&b, &a)] {
        let mut incoming = accept(acceptor).await;
        let (mut ours, mut theirs) = open(maker, opener, acceptor, &mut incoming).await;
        write(&mut ours, b"question").await;
        assert_eq!(read(&mut theirs, 8).await, b"question");
        write(&mut theirs, b"answer").await;
        assert_eq!(read(&mut ours, 6).await, b"answer");
    }
}

/// A writer that is faster than its reader waits; nothing is lost and the order is kept.
pub async fn writers_wait_for_readers(maker: &impl Maker) {
    const SIZE: usize = 4 << 20;
    let [a, b] = maker.connect().await;
    let mut incoming = accept(&b).await;
    let (mut ours, mut theirs) = open(maker, &a, &b, &mut incoming).await;
    let sent: Vec<u8> = (0..SIZE).map(|i| (i / 251) as u8).collect();
    let writer = async {
        write(&mut ours, &sent).await;
        close(&mut ours).await;
    };
    let ((), received) = join(writer, read_to_end(&mut theirs)).await;
    assert!(
        received == sent,
        "{} of {SIZE} bytes came, or others",
        received.len()
    );
}

/// The other side reads to the end and can still answer.
pub async fn closing_one_half_leaves_the_other(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let mut incoming = accept(&b).await;
    let (mut ours, mut theirs) = open(maker, &a, &b, &mut incoming).await;
    write(&mut ours, b"all").await;
    close(&mut ours).await;
    assert_eq!(read_to_end(&mut theirs).await, b"all");
    write(&mut theirs, b"still here").await;
    close(&mut theirs).await;
    drop(theirs);
    assert_eq!(
        read_to_end(&mut ours).await,
        b"still here",
        "after both halves were closed"
    );
}

/// A stream dropped with its writing half open is an error to the other side, and not an
/// end: what was cut short must not look complete.
pub async fn dropping_a_stream_resets_it(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    for dropped_by_opener in [true, false] {
        let mut incoming = accept(&b).await;
        let (mut ours, mut theirs) = open(maker, &a, &b, &mut incoming).await;
        write(&mut ours, b"hello").await;
        read(&mut theirs, 5).await;
        let (dropped, mut kept) = if dropped_by_opener {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        drop(dropped);
        let result = try_read_to_end(&mut kept).await;
        assert!(
            result.is_err(),
            "a dropped stream ended as if it had been closed"
        );
        let mut result = Ok(());
        for _ in 0..TRIES {
            result = try_write(&mut kept, &[0; 1024]).await;
            if result.is_err() {
                break;
            }
            maker.pause().await;
        }
        assert!(
            result.is_err(),
            "{TRIES} KiB went into a stream that nobody reads"
        );
    }
}

/// A stream that is not read does not stop another one between the same two.
pub async fn streams_do_not_hinder_each_other(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let mut incoming = accept(&b).await;
    let (mut stuck, _unread) = open(maker, &a, &b, &mut incoming).await;
    let (mut ours, mut theirs) = open(maker, &a, &b, &mut incoming).await;
    let flood = pin!(async move {
        loop {
            write(&mut stuck, &[0; 1 << 16]).await;
        }
    });
    let talk = pin!(async {
        for _ in 0..16 {
            write(&mut ours, b"ping").await;
            read(&mut theirs, 4).await;
            maker.pause().await;
        }
    });
    match select(flood, talk).await {
        Either::Left((never, _)) => never,
        Either::Right(((), _)) => (),
    }
}

/// A peer that is there but does not speak the protocol says so.
pub async fn only_accepted_protocols_can_be_opened(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    expect_connected(maker, &a, &b.local_peer(), true).await;
    let expect_unsupported = async |when: &str| {
        for _ in 0..TRIES {
            match a.open(&b.local_peer(), PROTOCOL).await {
                Err(NetworkError::Unsupported { peer, name }) => {
                    assert_eq!((peer, name.as_str()), (b.local_peer(), PROTOCOL));
                    return;
                }
                Err(error) => panic!("{when} the acceptor was there, open says: {error}"),
                Ok(_) => maker.pause().await,
            }
        }
        panic!("{when} the acceptor was there, streams can be opened");
    };
    expect_unsupported("before").await;
    let mut incoming = accept(&b).await;
    open(maker, &a, &b, &mut incoming).await;
    drop(incoming);
    expect_unsupported("after").await;
}

/// A second acceptor is refused while the first is there.
pub async fn a_name_has_one_acceptor(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let first = accept(&b).await;
    match b.accept(PROTOCOL).await.map(drop) {
        Err(NetworkError::Taken { name }) => assert_eq!(name, PROTOCOL),
        other => panic!("a second acceptor of one name: {other:?}"),
    }
    let other_name = b.accept("/chiral/conformance/2").await.map(drop);
    assert!(other_name.is_ok(), "another name is free: {other_name:?}");
    drop(first);
    for _ in 0..TRIES {
        if let Ok(mut second) = b.accept(PROTOCOL).await {
            open(maker, &a, &b, &mut second).await;
            return;
        }
        maker.pause().await;
    }
    panic!("the name is not free again after the acceptor was dropped");
}

/// A peer that nobody has heard of is unreachable, which may pass.
pub async fn strangers_cannot_be_reached(maker: &impl Maker) {
    let [a, _b] = maker.connect().await;
    // The identity multihash of an Ed25519 key that nobody holds.
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([0x5a; 32]);
    let stranger = PeerId::from_bytes(&bytes).expect("38 bytes");
    match a.open(&stranger, PROTOCOL).await.map(drop) {
        Err(error @ NetworkError::Unreachable { .. }) => assert!(error.is_retryable()),
        other => panic!("a stream to a stranger: {other:?}"),
    }
}

/// Messages come with their publisher's id, to all subscribers but the publisher.
pub async fn subscribers_hear_who_said_what(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    publish(&a, TOPIC, b"nobody listens").await;
    let mut own = subscribe(&a, TOPIC).await;
    let mut first = subscribe(&b, TOPIC).await;
    let mut second = subscribe(&b, TOPIC).await;
    for subscription in [&mut first, &mut second] {
        let (from, message) = hear(maker, &a, TOPIC, subscription).await;
        assert_eq!(from, a.local_peer(), "the publisher's id");
        assert!(
            message.starts_with(b"message "),
            "{message:?} was not published"
        );
    }
    drop((first, second));
    publish(&a, TOPIC, b"nobody listens any more").await;
    maker.pause().await;
    let heard = own.next().now_or_never();
    assert!(heard.is_none(), "a publisher hears itself: {heard:?}");
    let (from, _) = hear(maker, &b, TOPIC, &mut own).await;
    assert_eq!(from, b.local_peer(), "the publisher's id");
}

/// Nothing of one topic is heard in another.
pub async fn topics_are_apart(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let mut other = subscribe(&b, "chiral/conformance/other").await;
    let mut topic = subscribe(&b, TOPIC).await;
    hear(maker, &a, TOPIC, &mut topic).await;
    maker.pause().await;
    let heard = other.next().now_or_never();
    assert!(heard.is_none(), "a message of another topic: {heard:?}");
}

/// Names and messages up to the limit pass, longer ones are refused.
pub async fn names_and_messages_are_limited(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let long = format!("/{}", "n".repeat(MAX_NAME_LEN));
    let peer = b.local_peer();
    for (what, result) in [
        ("open", a.open(&peer, &long).await.map(drop)),
        ("accept", a.accept(&long).await.map(drop)),
        ("subscribe", a.subscribe(&long).await.map(drop)),
        ("publish", a.publish(&long, Bytes::new()).await),
    ] {
        let refused = matches!(
            result,
            Err(NetworkError::TooLarge {
                limit: MAX_NAME_LEN,
                ..
            })
        );
        assert!(refused, "{what} with a name over the limit: {result:?}");
    }
    let longest = &long[..MAX_NAME_LEN];
    for result in [
        a.accept(longest).await.map(drop),
        a.subscribe(longest).await.map(drop),
    ] {
        assert!(result.is_ok(), "a name at the limit: {result:?}");
    }
    let over = Bytes::from(vec![0; MAX_TOPIC_MESSAGE + 1]);
    let result = a.publish(TOPIC, over.clone()).await;
    let refused = matches!(
        result,
        Err(NetworkError::TooLarge {
            limit: MAX_TOPIC_MESSAGE,
            ..
        })
    );
    assert!(refused, "a message over the limit: {result:?}");
    publish(&a, TOPIC, &over[1..]).await;
}

/// Streams break, acceptors and subscribers end, calls are refused, the other side notices.
pub async fn shutdown_ends_everything(maker: &impl Maker) {
    let [a, b] = maker.connect().await;
    let mut incoming = accept(&a).await;
    let mut topic = subscribe(&a, TOPIC).await;
    let (mut theirs, mut ours) = open(maker, &b, &a, &mut incoming).await;
    write(&mut ours, b"hello").await;
    read(&mut theirs, 5).await;
    for time in ["first", "second"] {
        let result = a.shutdown().await;
        assert!(result.is_ok(), "the {time} shutdown failed: {result:?}");
    }

    assert!(
        incoming.next().await.is_none(),
        "the acceptor goes on after shutdown"
    );
    while topic.next().await.is_some() {}
    let peer = b.local_peer();
    for (what, result) in [
        ("connected", a.connected().await.map(drop)),
        ("open", a.open(&peer, PROTOCOL).await.map(drop)),
        ("accept", a.accept(PROTOCOL).await.map(drop)),
        ("publish", a.publish(TOPIC, Bytes::new()).await),
        ("subscribe", a.subscribe(TOPIC).await.map(drop)),
    ] {
        let refused = matches!(result, Err(NetworkError::Closed));
        assert!(refused, "{what} after shutdown: {result:?}");
    }
    for (side, stream) in [("our", &mut ours), ("the other", &mut theirs)] {
        let result = try_read_to_end(stream).await;
        assert!(result.is_err(), "{side} end of a stream outlived shutdown");
    }
    expect_connected(maker, &b, &a.local_peer(), false).await;
    let result = b.open(&a.local_peer(), PROTOCOL).await.map(drop);
    let unreachable = matches!(result, Err(NetworkError::Unreachable { .. }));
    assert!(
        unreachable,
        "a stream to a node that was shut down: {result:?}"
    );
}

async fn connected(network: &Arc<dyn PeerNetwork>) -> Vec<PeerId> {
    let result = network.connected().await;
    result.unwrap_or_else(|error| panic!("no list of peers: {error}"))
}

async fn expect_connected(
    maker: &impl Maker,
    network: &Arc<dyn PeerNetwork>,
    peer: &PeerId,
    expected: bool,
) {
    for _ in 0..TRIES {
        if connected(network).await.contains(peer) == expected {
            return;
        }
        maker.pause().await;
    }
    panic!("peer {peer} should be connected: {expected}, and stays otherwise");
}

async fn accept(network: &Arc<dyn PeerNetwork>) -> IncomingStreams {
    let result = network.accept(PROTOCOL).await;
    result.unwrap_or_else(|error| panic!("{PROTOCOL} is not accepted: {error}"))
}

/// A stream's two ends: the opener's, then the acceptor's. Opening is tried again, since
/// the acceptor may be new to the opener; of streams that did not come up, none is returned.
async fn open(
    maker: &impl Maker,
    opener: &Arc<dyn PeerNetwork>,
    acceptor: &Arc<dyn PeerNetwork>,
    incoming: &mut IncomingStreams,
) -> (BoxedPeerStream, BoxedPeerStream) {
    let mut last = None;
    for _ in 0..TRIES {
        let arrival = incoming.next();
        match opener.open(&acceptor.local_peer(), PROTOCOL).await {
            Ok(mut ours) => {
                // Some networks tell the acceptor of a stream with its first byte.
                write(&mut ours, b"!").await;
                let (peer, mut theirs) = arrival.await.expect("the acceptor ended");
                assert_eq!(peer, opener.local_peer(), "the opener's id");
                read(&mut theirs, 1).await;
                return (ours, theirs);
            }
            Err(error) => last = Some(error),
        }
        maker.pause().await;
    }
    panic!("no stream came up: {last:?}");
}

async fn write(stream: &mut BoxedPeerStream, bytes: &[u8]) {
    let result = try_write(stream, bytes).await;
    assert!(result.is_ok(), "cannot write: {result:?}");
}

async fn try_write(stream: &mut BoxedPeerStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
        assert!(
            written > 0 && written <= bytes.len(),
            "{written} bytes written"
        );
        bytes = &bytes[written..];
    }
    poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await
}

async fn close(stream: &mut BoxedPeerStream) {
    let result = poll_fn(|cx| Pin::new(&mut *stream).poll_close(cx)).await;
    assert!(result.is_ok(), "cannot close: {result:?}");
}

async fn read(stream: &mut BoxedPeerStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let rest = &mut bytes[filled..];
        match poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, rest)).await {
            Ok(read) if read > 0 => filled += read,
            end => panic!("{filled} of {len} bytes came, then {end:?}"),
        }
    }
    bytes
}

async fn read_to_end(stream: &mut BoxedPeerStream) -> Vec<u8> {
    let result = try_read_to_end(stream).await;
    result.unwrap_or_else(|error| panic!("no clean end: {error}"))
}

async fn try_read_to_end(stream: &mut BoxedPeerStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut part)).await?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&part[..read]);
    }
}

async fn publish(network: &Arc<dyn PeerNetwork>, topic: &str, message: &[u8]) {
    let result = network
        .publish(topic, Bytes::copy_from_slice(message))
        .await;
    assert!(
        result.is_ok(),
        "publishing failed, though reaching nobody is no error: {result:?}"
    );
}

async fn subscribe(network: &Arc<dyn PeerNetwork>, topic: &str) -> TopicStream {
    let result = network.subscribe(topic).await;
    result.unwrap_or_else(|error| panic!("no subscription to {topic}: {error}"))
}

/// Publishes until the subscriber hears something.
async fn hear(
    maker: &impl Maker,
    publisher: &Arc<dyn PeerNetwork>,
    topic: &str,
    subscription: &mut TopicStream,
) -> (PeerId, Bytes) {
    for number in 0..TRIES {
        publish(publisher, topic, format!("message {number}").as_bytes()).await;
        maker.pause().await;
        if let Some(heard) = subscription.next().now_or_never() {
            return heard.expect("the subscription ended");
        }
    }
    panic!("a subscriber of {topic} hears nothing of {TRIES} messages");
}
