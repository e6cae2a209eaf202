//! Nodes that are told of nobody: they find each other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{Alias, ContentProtocol, Endpoint, PeerOffer, Protocol};
use chiral_protocols::bittorrent::lsd;
use chiral_protocols::bittorrent::swarm::{BitTorrentConfig, TorrentInfo};
use chiral_protocols::http::AddressPolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::{Peer, content, loopback, soon};
use crate::swarm::{expects, get, offer_of};

pub(crate) fn near() -> BitTorrentConfig {
    loopback().with_addresses(AddressPolicy::Any)
}

/// A tracker over HTTP on this machine, and what it was told.
#[derive(Clone)]
struct Tracker {
    url: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Tracker {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let tracker = Self {
            url,
            told: Arc::default(),
        };
        let told = tracker.told.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let query = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut peers = Vec::new();
                {
                    let mut told = told.lock().unwrap();
                    told.push(query.clone());
                    let hash = hash_in(&query);
                    let same = told.iter().filter(|query| hash_in(query) == hash);
                    for port in same.filter_map(|query| value(query, "port")) {
                        peers.extend([127, 0, 0, 1]);
                        peers.extend(port.parse::<u16>().unwrap().to_be_bytes());
                    }
                }
                let body = [
                    format!("d8:intervali1800e5:peers{}:", peers.len()).as_bytes(),
                    &peers,
                    b"e",
                ]
                .concat();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        tracker
    }

    /// What a peer said of a torrent, in order: its event and how much it is without.
    fn heard(&self, peer: &Peer, hash: &[u8]) -> Vec<(String, u64)> {
        let port = peer.address().port().to_string();
        let told = self.told.lock().unwrap();
        told.iter()
            .filter(|query| value(query, "port") == Some(&port) && hash_in(query) == hash)
            .map(|query| {
                let event = value(query, "event").unwrap_or_default().to_owned();
                (event, value(query, "left").unwrap().parse().unwrap())
            })
            .collect()
    }
}

/// Which torrent is asked about.
fn hash_in(query: &str) -> Vec<u8> {
    let said = value(query, "info_hash").unwrap_or_default();
    percent_encoding::percent_decode_str(said).collect()
}

fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let pairs = query.split(['?', '&']);
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
}

pub(crate) async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Has a peer get what another one seeds, knowing but its name.
async fn finds(leecher: &Peer, bytes: &Bytes, info: &TorrentInfo) {
    let target = identification(bytes);
    let alias = Alias::InfoHashV1(info.info_hash);
    let expected = leecher.protocol.expect(&alias, target.cid().unwrap());
    expected.unwrap();
    assert!(get(leecher, target, vec![]).await == *bytes);
}

pub(crate) async fn end(peers: &[&Peer]) {
    for peer in peers {
        soon(peer.protocol.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_tracker_which_hears_of_the_beginning_and_the_end() {
    let tracker = Tracker::start().await;
    let config = || near().with_trackers([tracker.url.clone()]);
    let seeder = Peer::new(config(), None).await;
    let bytes = content(3_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    until(|| !tracker.heard(&seeder, &info.info_hash).is_empty()).await;
    assert_eq!(
        tracker.heard(&seeder, &info.info_hash),
        [("started".to_owned(), 0)]
    );
    let leecher = Peer::new(config(), None).await;
    finds(&leecher, &bytes, &info).await;
    until(|| tracker.heard(&leecher, &info.info_hash).len() == 2).await;
    end(&[&leecher, &seeder]).await;
    let event = |event: &str, left| (event.to_owned(), left);
    let heard = tracker.heard(&leecher, &info.info_hash);
    assert_eq!(heard[1..], [event("completed", 0), event("stopped", 0)]);
    // Of the size nothing is known at first.
    assert_eq!(heard[0], event("started", 1));
    let heard = tracker.heard(&seeder, &info.info_hash);
    assert_eq!(heard, [event("started", 0), event("stopped", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_tracker_of_the_torrents_own_that_is_named_later() {
    let tracker = Tracker::start().await;
    let seeder = Peer::new(near(), None).await;
    let bytes = content(1_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let tiers = [vec![tracker.url.clone(), tracker.url.clone()]];
    let alias = Alias::InfoHashV1(info.info_hash);
    seeder.protocol.add_trackers(&alias, &tiers).unwrap();
    until(|| !tracker.heard(&seeder, &info.info_hash).is_empty()).await;
    let leecher = Peer::new(near(), None).await;
    leecher.protocol.add_trackers(&alias, &tiers).unwrap();
    finds(&leecher, &bytes, &info).await;
    end(&[&leecher, &seeder]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_torrent_is_told_to_its_own_tracker_alone() {
    let (own, common) = (Tracker::start().await, Tracker::start().await);
    let config = near().with_trackers([common.url.clone()]);
    let seeder = Peer::new(config, None).await;
    let bytes = content(100_000);
    let (_, public) = seeder.seed(&content(50_000)).await;
    let info = format!(
        "d6:lengthi{}e4:name1:x12:piece lengthi262144e6:pieces20:",
        bytes.len()
    );
    let hash: [u8; 20] = <sha1::Sha1 as sha1::Digest>::digest(&bytes).into();
    let info = [info.as_bytes(), &hash, b"7:privatei1ee"].concat();
    let info = TorrentInfo::parse(info.into()).unwrap();
    let alias = Alias::InfoHashV1(info.info_hash);
    let other = vec![vec![own.url.clone()]];
    seeder.protocol.add_torrent(info.clone()).unwrap();
    seeder.protocol.add_trackers(&alias, &other).unwrap();
    let cid = seeder.seed(&bytes).await.0.header.unwrap().cid;
    seeder.protocol.seed_torrent(info, cid).unwrap();
    let Alias::InfoHashV1(private) = alias else {
        panic!("of version 1")
    };
    let named = |tracker: &Tracker, hash: &[u8; 20]| !tracker.heard(&seeder, hash).is_empty();
    until(|| named(&own, &private)).await;
    until(|| named(&common, &public.info_hash)).await;
    end(&[&seeder]).await;
    assert!(!named(&common, &private) && !named(&own, &public.info_hash));
}

/// A hybrid is in two swarms (BEP 52): who knows one of its names finds, and is found by, who knows
/// the other.
#[tokio::test(flavor = "multi_thread")]
async fn by_either_name_of_a_hybrid() {
    let tracker = Tracker::start().await;
    let first = Peer::new(near().with_dht([]), None).await;
    let config = |told: bool| {
        let config = near().with_dht([first.address().to_string()]);
        let tracker = told.then(|| tracker.url.clone());
        config.with_trackers(tracker)
    };
    let seeder = Peer::new(config(true), None).await;
    let bytes = content(1_500_001);
    let (_, info) = seeder.seed(&bytes).await;
    let hashes: Vec<[u8; 20]> = info.metainfo().hashes().wire().collect();
    let [v1, v2] = hashes[..] else {
        panic!("a share is a hybrid")
    };
    for hash in [v1, v2] {
        until(|| !tracker.heard(&seeder, &hash).is_empty()).await;
    }
    let second = info
        .aliases()
        .find(|alias| matches!(alias, Alias::InfoHashV2(_)));
    let second = second.unwrap();
    let target = identification(&bytes);
    let mut leechers = Vec::new();
    // One asks the tracker, and one the DHT alone.
    for told in [true, false] {
        let leecher = Peer::new(config(told), None).await;
        let expected = leecher.protocol.expect(&second, target.cid().unwrap());
        expected.unwrap();
        assert!(get(&leecher, target, vec![]).await == bytes, "{told}");
        leechers.push(leecher);
    }
    // What it learnt of the torrent has its first name in it.
    until(|| !tracker.heard(&leechers[0], &v1).is_empty()).await;
    assert!(!tracker.heard(&leechers[0], &v2).is_empty());
    end(&[&leechers[0], &leechers[1], &seeder, &first]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_dht_by_a_node_that_both_know() {
    let first = Peer::new(near().with_dht([]), None).await;
    let config = || near().with_dht([first.address().to_string()]);
    let seeder = Peer::new(config(), None).await;
    let bytes = content(2_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let leecher = Peer::new(config(), None).await;
    finds(&leecher, &bytes, &info).await;
    assert!(leecher.protocol.dht_status().unwrap().nodes > 0);
    assert!(leecher.protocol.save_dht().await.is_some());
    end(&[&leecher, &seeder, &first]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_local_network() {
    let config = || {
        let mut config = near().with_lsd(true);
        // Another port: a client that runs here is left alone.
        config.lsd_group = SocketAddr::new(lsd::group(true).ip(), 16_772);
        config
    };
    let leecher = Peer::new(config(), None).await;
    let seeder = Peer::new(config(), None).await;
    let bytes = content(1_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    finds(&leecher, &bytes, &info).await;
    end(&[&leecher, &seeder]).await;
}

/// One that has nothing and knows both: whoever asks it hears of the other.
#[tokio::test(flavor = "multi_thread")]
async fn by_a_peer_that_tells_of_another() {
    // It dials nobody that it hears of: those who hear of it do.
    let deaf = || {
        let mut config = near();
        config.peer_exchange = false;
        config
    };
    let seeder = Peer::new(deaf(), None).await;
    let bytes = content(2_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let target = identification(&bytes);
    let between = Peer::new(near(), None).await;
    between.protocol.add_torrent(info.clone()).unwrap();
    let alias = Alias::InfoHashV1(info.info_hash).into();
    let between_waits = soon(between.protocol.sources(&alias)).await.unwrap();
    soon(seeder.protocol.dial(info.info_hash, between.address()))
        .await
        .unwrap();
    let leecher = Peer::new(near(), None).await;
    expects(&leecher, &info, &target);
    let offer = offer_of(&between, &info);
    assert!(get(&leecher, target, vec![offer]).await == bytes);
    assert!(
        leecher
            .protocol
            .is_connected(&info.info_hash, seeder.address())
    );
    // Who does not want to be told dials nobody.
    let alone = Peer::new(deaf(), None).await;
    alone.protocol.add_torrent(info.clone()).unwrap();
    let waits = soon(alone.protocol.sources(&alias)).await.unwrap();
    soon(alone.protocol.dial(info.info_hash, between.address()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert!(
        !alone
            .protocol
            .is_connected(&info.info_hash, seeder.address())
    );
    drop((waits, between_waits));
    end(&[&alone, &leecher, &between, &seeder]).await;
}

/// Where nobody listens over TCP, but datagrams are passed on.
async fn relay(to: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let mut other = None;
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let onward = match from == to {
                true => other,
                false => {
                    other = Some(from);
                    Some(to)
                }
            };
            if let Some(onward) = onward {
                let _ = socket.send_to(&buffer[..len], onward).await;
            }
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_reached_over_tcp_is_reached_over_utp() {
    let seeder = Peer::new(near().with_utp(true), None).await;
    let bytes = content(2_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let place = relay(seeder.address()).await;
    let endpoint = Endpoint::new(format!("{}@{place}", Alias::InfoHashV1(info.info_hash)));
    let offer = PeerOffer::new(Protocol::BitTorrent, endpoint.unwrap());
    let leecher = Peer::new(near().with_utp(true), None).await;
    let target = identification(&bytes);
    assert!(get(&leecher, target, vec![offer.clone()]).await == bytes);
    end(&[&leecher, &seeder]).await;
    let without = Peer::new(near(), None).await;
    let refused = soon(without.protocol.connect(&offer, &target)).await;
    assert!(refused.is_err());
    end(&[&without]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_call_each_other_talk_over_one_connection() {
    let (one, other) = (Peer::new(near(), None).await, Peer::new(near(), None).await);
    let bytes = content(100_000);
    let (_, info) = one.seed(&bytes).await;
    other.seed(&bytes).await;
    let hash = info.info_hash;
    for _ in 0..3 {
        let (a, b) = tokio::join!(
            one.protocol.dial(hash, other.address()),
            other.protocol.dial(hash, one.address()),
        );
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    }
    until(|| one.protocol.peers(&hash).len() == 1 && other.protocol.peers(&hash).len() == 1).await;
    end(&[&one, &other]).await;
}
