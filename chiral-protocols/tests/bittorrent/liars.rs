//! Peers that give other bytes than the torrent has.

use bytes::Bytes;
use chiral_core::chunk_store::{Destination, ImportRequest, ImportSource};
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{DownloadRequest, TransferId};
use chiral_protocols::bittorrent::download::{TorrentDownload, TorrentTarget};
use chiral_protocols::bittorrent::metainfo::Metainfo;
use chiral_protocols::bittorrent::swarm::TorrentInfo;
use chiral_protocols::{Engine, EngineConfig};
use std::sync::Arc;

use crate::discovery::{end, near, until};
use crate::support::{Only, Peer, content, soon};
use crate::swarm::offer_of;

/// A peer that has the first piece of a torrent, and says that it has the others.
async fn liar(bytes: &Bytes, info: &TorrentInfo) -> Peer {
    let liar = Peer::new(near(), None).await;
    let mut wrong = bytes.to_vec();
    wrong[300_000..].fill(7);
    let import = ImportRequest::new(ImportSource::Bytes(wrong.into()));
    let cid = liar.store.import(import).await.unwrap().header.cid;
    liar.protocol.seed_torrent(info.clone(), cid).unwrap();
    liar
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_wrong_bytes_is_left_and_not_let_in_again() {
    let honest = Peer::new(near(), None).await;
    let bytes = content(8_000_001);
    let (_, info) = honest.seed(&bytes).await;
    let hash = info.info_hash;
    let liar = liar(&bytes, &info).await;
    let leecher = Peer::new(near(), None).await;
    let torrent = Metainfo::parse(&info.to_torrent_file()).unwrap();
    // By the torrent's own hashes, as of whoever knows nothing of Chiral.
    let download = TorrentDownload::of_torrent(
        leecher.protocol.clone(),
        torrent,
        Vec::new(),
        TorrentTarget::Store,
    );
    let download = download.unwrap();
    let engine = Engine::new(
        leecher.store.clone(),
        leecher.registry.clone(),
        EngineConfig::default(),
    );
    let mut request = DownloadRequest::new(download.identification());
    request.offers = vec![offer_of(&liar, &info), offer_of(&honest, &info)];
    request.lookup = Some(download.clone());
    request.destination = Destination::Store;
    request.limit = "2MiB".parse().ok();
    let connector = download.connector(Arc::new(Only(leecher.protocol.clone())));
    let running = engine
        .download(TransferId::from_bytes([1; 16]), request, connector)
        .unwrap();
    until(|| leecher.protocol.is_connected(&hash, liar.address())).await;
    until(|| !engine.peers().penalties().is_empty()).await;
    until(|| !leecher.protocol.is_connected(&hash, liar.address())).await;
    // It comes from another port, as whoever it was.
    soon(liar.protocol.dial(hash, leecher.address())).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let from_it = |peer: &std::net::SocketAddr| *peer != honest.address();
    let peers = leecher.protocol.peers(&hash);
    assert!(!peers.iter().any(from_it), "{peers:?}");
    assert!(leecher.protocol.is_connected(&hash, honest.address()));
    let report = soon(running.finished()).await.unwrap();
    assert_eq!(report.header.cid, identification(&bytes).cid().unwrap());
    end(&[&leecher, &liar, &honest]).await;
}
