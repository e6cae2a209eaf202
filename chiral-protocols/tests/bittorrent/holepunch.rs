//! Two peers that cannot call each other, and one that both know (BEP 55).

use std::net::SocketAddr;
use std::time::Duration;

use chiral_core::conformance::content_protocol::identification;
use chiral_core::{Alias, ContentProtocol};
use chiral_protocols::bittorrent::extension::{
    ExtendedHandshake, Extensions, Holepunch, Names, PunchError,
};
use chiral_protocols::bittorrent::swarm::TorrentInfo;
use chiral_protocols::bittorrent::wire::{Decoder, Handshake, Message, Reserved};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::discovery::{end, near, until};
use crate::support::{Peer, content, soon};
use crate::swarm::{expects, get, offer_of};

/// A router, as it looks to the one behind it: what that one sends to the place inside goes out
/// from the place outside to `to`, and only from there something comes back. Nobody listens
/// there over TCP.
async fn router(to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let inside = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let outside = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    outside.connect(to).await.unwrap();
    let places = (inside.local_addr().unwrap(), outside.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut one, mut other) = ([0; 2048], [0; 2048]);
        let mut behind = None;
        loop {
            tokio::select! {
                out = inside.recv_from(&mut one) => {
                    let Ok((len, from)) = out else { return };
                    behind = Some(from);
                    let _ = outside.send(&one[..len]).await;
                }
                back = outside.recv(&mut other) => {
                    if let (Ok(len), Some(behind)) = (back, behind) {
                        let _ = inside.send_to(&other[..len], behind).await;
                    }
                }
            }
        }
    });
    places
}

/// The one that has it is behind a router, and over uTP alone with one that has nothing. That one
/// tells the third of it, where the router is; the third cannot call there, and has itself
/// called.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_called_is_asked_for_and_calls_back() {
    let quick = || {
        let mut config = near().with_utp(true);
        config.connect_timeout = Duration::from_secs(1);
        config
    };
    // It hears of nobody, but by being asked to call.
    let mut config = quick();
    config.peer_exchange = false;
    let hidden = Peer::new(config, None).await;
    let bytes = content(2_000_001);
    let (_, info) = hidden.seed(&bytes).await;
    let (hash, target) = (info.info_hash, identification(&bytes));
    let relay = Peer::new(quick(), None).await;
    relay.protocol.add_torrent(info.clone()).unwrap();
    let alias = Alias::InfoHashV1(hash).into();
    let waits = soon(relay.protocol.sources(&alias)).await.unwrap();
    let (inside, outside) = router(relay.address()).await;
    soon(hidden.protocol.dial(hash, inside)).await.unwrap();
    until(|| relay.protocol.is_connected(&hash, outside)).await;

    let asks = Peer::new(quick(), None).await;
    expects(&asks, &info, &target);
    assert!(get(&asks, target, vec![offer_of(&relay, &info)]).await == bytes);
    let peers = asks.protocol.peers(&hash);
    assert!(peers.contains(&hidden.address()), "{peers:?}");
    assert!(!peers.contains(&outside), "nobody gets in there: {peers:?}");
    drop(waits);
    end(&[&asks, &relay, &hidden]).await;
}

/// A peer that is told what to say.
struct Raw {
    stream: TcpStream,
    decoder: Decoder,
}

impl Raw {
    /// Connects, and says that it listens at this port and speaks this.
    async fn connect(to: &Peer, info: &TorrentInfo, id: u8, port: u16, speaks: bool) -> Self {
        let mut stream = TcpStream::connect(to.address()).await.unwrap();
        let greeting = Handshake {
            reserved: Reserved::OURS,
            info_hash: info.info_hash,
            peer_id: [id; 20],
        };
        stream.write_all(&greeting.encode()).await.unwrap();
        let mut theirs = [0; 68];
        soon(stream.read_exact(&mut theirs)).await.unwrap();
        let mut raw = Self {
            stream,
            decoder: Decoder::new(None),
        };
        let extended = ExtendedHandshake {
            extensions: Extensions::ours(|name| speaks && name == Names::Holepunch),
            port: Some(port),
            ..ExtendedHandshake::default()
        };
        raw.say(0, extended.encode()).await;
        raw
    }

    async fn say(&mut self, id: u8, body: Vec<u8>) {
        let mut bytes = bytes::BytesMut::new();
        let body = body.into();
        Message::Extended { id, body }.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next word of holepunching.
    async fn hears(&mut self) -> Holepunch {
        soon(async {
            loop {
                while let Some(message) = self.decoder.next_message().unwrap() {
                    if let Message::Extended { id, body } = message
                        && id == Names::Holepunch.id()
                    {
                        return Holepunch::decode(&body).unwrap();
                    }
                }
                let read = self.stream.read_buf(self.decoder.buffer()).await.unwrap();
                assert!(read > 0, "closed");
            }
        })
        .await
    }

    /// Asks to be brought together with a peer; the answer.
    async fn asks_for(&mut self, to: SocketAddr) -> Holepunch {
        let message = Holepunch::Rendezvous(to).encode();
        self.say(Names::Holepunch.id(), message).await;
        self.hears().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_both_where_the_other_is_or_says_why_not() {
    let relay = Peer::new(near().with_utp(true), None).await;
    let (_, info) = relay.seed(&content(300_000)).await;
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut asks = Raw::connect(&relay, &info, 1, 4001, true).await;
    let mut other = Raw::connect(&relay, &info, 2, 4002, true).await;
    let _deaf = Raw::connect(&relay, &info, 3, 4003, false).await;
    until(|| {
        [4001, 4002, 4003]
            .iter()
            .all(|port| relay.protocol.is_connected(&info.info_hash, at(*port)))
    })
    .await;
    for (to, error) in [
        (
            SocketAddr::from(([0, 0, 0, 0], 4002)),
            PunchError::NoSuchPeer,
        ),
        (
            SocketAddr::from(([127, 0, 0, 1], 0)),
            PunchError::NoSuchPeer,
        ),
        (
            SocketAddr::from(([224, 0, 0, 1], 4002)),
            PunchError::NoSuchPeer,
        ),
        (at(4009), PunchError::NotConnected),
        (at(4003), PunchError::NoSupport),
        (at(4001), PunchError::NoSelf),
        (relay.address(), PunchError::NoSelf),
    ] {
        assert_eq!(asks.asks_for(to).await, Holepunch::Error(to, error));
    }
    assert_eq!(asks.asks_for(at(4002)).await, Holepunch::Connect(at(4002)));
    // Over TCP a peer calls from any port: it is to be called where it listens.
    assert_eq!(other.hears().await, Holepunch::Connect(at(4001)));
    end(&[&relay]).await;
}
