//! Swarms of nodes that download through the engine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chiral_core::chunk_store::Destination;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Alias, ByteRange, ContentProtocol, Coverage, DownloadRequest, Endpoint, FileIdentification,
    PeerOffer, Protocol, SeedRequest, TransferId,
};
use chiral_protocols::bittorrent::mse::Encryption;
use chiral_protocols::bittorrent::swarm::TorrentInfo;
use chiral_protocols::{Engine, EngineConfig};
use futures_util::StreamExt;
use std::sync::Arc;

use chiral_storage::MemoryStore;

use crate::support::{Key, Only, Peer, Shop, content, loopback, soon};

pub(crate) fn offer_of(peer: &Peer, info: &TorrentInfo) -> PeerOffer {
    let alias = chiral_core::Alias::InfoHashV1(info.info_hash);
    let endpoint = Endpoint::new(format!("{alias}@{}", peer.address())).unwrap();
    PeerOffer::new(Protocol::BitTorrent, endpoint)
}

/// A torrent is known to be this, so that peers that come by themselves, or are heard of, are
/// sources of a download of it.
pub(crate) fn expects(peer: &Peer, info: &TorrentInfo, target: &FileIdentification) {
    peer.protocol.add_torrent(info.clone()).unwrap();
    let alias = Alias::InfoHashV1(info.info_hash);
    peer.protocol.expect(&alias, target.cid().unwrap()).unwrap();
}

/// Downloads through the engine; the bytes.
pub(crate) async fn get(
    peer: &Peer,
    target: FileIdentification,
    offers: Vec<PeerOffer>,
) -> bytes::Bytes {
    let engine = Engine::new(
        peer.store.clone(),
        peer.registry.clone(),
        EngineConfig::default(),
    );
    let mut request = DownloadRequest::new(target);
    request.offers = offers;
    request.destination = Destination::Store;
    let connector = Arc::new(Only(peer.protocol.clone()));
    let download = engine
        .download(TransferId::from_bytes([1; 16]), request, connector)
        .unwrap();
    let report = soon(download.finished()).await.unwrap();
    let stored = peer.store.open(report.header.cid).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < report.header.size {
        let end = report.header.size.min(at + (1 << 20));
        bytes.extend(stored.read((at..end).into()).await.unwrap());
        at = end;
    }
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_gets_it_from_a_magnet_alone() {
    let seeder = Peer::new(loopback(), None).await;
    let bytes = content(9_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let leecher = Peer::new(loopback(), None).await;
    let cid = identification(&bytes).cid().unwrap();
    // Nothing is known but the info-hash and the cid: the dictionary comes from the peer.
    let got = get(&leecher, cid.into(), vec![offer_of(&seeder, &info)]).await;
    assert!(got == bytes);
    leecher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}

/// More than any buffer on the way holds, so that bytes wait enciphered.
#[tokio::test(flavor = "multi_thread")]
async fn much_is_had_under_rc4_alone() {
    let require = || {
        let mut config = loopback();
        config.encryption = Encryption::Require;
        config
    };
    let seeder = Peer::new(require(), Some(1)).await;
    let bytes = content(60_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let leecher = Peer::new(require(), Some(2)).await;
    let target = identification(&bytes);
    let got = get(&leecher, target, vec![offer_of(&seeder, &info)]).await;
    assert!(got == bytes);
    leecher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_come_by_themselves_are_sources_and_say_who_they_are() {
    let seeder = Peer::new(loopback(), Some(1)).await;
    let bytes = content(3_000_000);
    let (_, info) = seeder.seed(&bytes).await;
    let leecher = Peer::new(loopback(), Some(2)).await;
    let target = identification(&bytes);
    leecher.protocol.add_torrent(info.clone()).unwrap();
    let alias = chiral_core::Alias::InfoHashV1(info.info_hash);
    leecher
        .protocol
        .expect(&alias, target.cid().unwrap())
        .unwrap();
    let mut sources = leecher.protocol.sources(&target).await.unwrap();
    // The seeder dials.
    soon(seeder.protocol.dial(info.info_hash, leecher.address()))
        .await
        .unwrap();
    let source = soon(sources.next()).await.unwrap();
    soon(async {
        while source.coverage().await.unwrap() != Coverage::Complete {
            source.changed().await;
        }
    })
    .await;
    drop((source, sources));
    // By now it is known who that is.
    let mut sources = leecher.protocol.sources(&target).await.unwrap();
    let source = soon(sources.next()).await.unwrap();
    assert_eq!(source.offer().peer, Some(Key::signer(1).peer_id()));
    drop((source, sources));
    assert!(get(&leecher, target, vec![]).await == bytes);
    leecher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leechers_give_each_other_what_they_have_before_they_have_all() {
    let mut slow = loopback();
    slow.uploads.set_limit("4MiB".parse().ok());
    slow.choker.slots = 2;
    let seeder = Peer::new(slow, Some(1)).await;
    let bytes = content(8_000_001);
    let (_, info) = seeder.seed(&bytes).await;
    let target = identification(&bytes);
    let mut leechers = Vec::new();
    for key in 2..5 {
        let leecher = Peer::new(loopback(), Some(key)).await;
        leecher.protocol.add_torrent(info.clone()).unwrap();
        let alias = chiral_core::Alias::InfoHashV1(info.info_hash);
        leecher
            .protocol
            .expect(&alias, target.cid().unwrap())
            .unwrap();
        leechers.push(leecher);
    }
    let everybody: Vec<_> = leechers
        .iter()
        .chain([&seeder])
        .map(|peer| offer_of(peer, &info))
        .collect();
    let downloads = leechers.iter().enumerate().map(|(me, leecher)| {
        let others = everybody
            .iter()
            .enumerate()
            .filter(move |(at, _)| *at != me);
        get(
            leecher,
            target,
            others.map(|(_, offer)| offer.clone()).collect(),
        )
    });
    let got = soon(futures_util::future::join_all(downloads)).await;
    assert!(got.iter().all(|got| *got == bytes));
    for peer in leechers.iter().chain([&seeder]) {
        peer.protocol.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_is_called_again() {
    let seeder = Peer::new(loopback(), None).await;
    let bytes = content(2_000_000);
    let (_, info) = seeder.seed(&bytes).await;
    let offer = offer_of(&seeder, &info);
    let leecher = Peer::new(loopback(), None).await;
    let target = identification(&bytes);
    let source = soon(leecher.protocol.connect(&offer, &target))
        .await
        .unwrap();
    seeder.protocol.shutdown().await.unwrap();
    soon(source.changed()).await;
    soon(async {
        while source.coverage().await.is_ok() {
            source.changed().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(
        soon(source.fetch((0..16_384).into()).next())
            .await
            .unwrap()
            .is_err()
    );
    leecher.protocol.shutdown().await.unwrap();
}

/// The swarm pays nobody: what has a price, once it has one, is not given.
#[tokio::test]
async fn what_has_a_price_is_not_given_away() {
    let bytes = content(1_000_000);
    let (shop, store) = (
        Arc::new(Shop::default()),
        Arc::new(MemoryStore::new(1 << 30)),
    );
    let seeder = Peer::with_gate(loopback(), None, store, shop.clone()).await;
    let (offer, info) = seeder.seed(&bytes).await;
    shop.0.store(true, Ordering::SeqCst);
    // What is announced of it says what it costs.
    let request = SeedRequest::new(SeedContent::Bytes(content(5_000)));
    let sold = soon(seeder.protocol.start_seeding(request)).await.unwrap();
    assert!(!sold.offers[0].price.is_free());
    // Somebody of the swarm, who cannot pay, gets nothing of what he asks for.
    let leecher = Peer::new(loopback(), None).await;
    let target = Alias::InfoHashV1(info.info_hash).into();
    let source = soon(leecher.protocol.connect(&offer, &target))
        .await
        .unwrap();
    // He stays choked: what he asks for is refused, or never answered.
    let block = ByteRange::new(0, 16_384);
    let mut fetch = source.fetch(block);
    let got = tokio::time::timeout(Duration::from_secs(3), fetch.next()).await;
    assert!(!matches!(got, Ok(Some(Ok(_)) | None)), "{got:?}");
    drop(fetch);
    leecher.protocol.shutdown().await.unwrap();
    seeder.protocol.shutdown().await.unwrap();
}
