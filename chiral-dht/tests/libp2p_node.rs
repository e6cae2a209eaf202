//! A node by itself: what it says of itself, whom it dials, what it keeps, where it listens.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used)]

use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::{
    Announcement, DirectoryError, NetworkError, Price, Protocol, ProviderQuery, WalletSigner,
};
use chiral_dht::swarm::{MAX_WAITING_STREAMS, NodeInfo};
use chiral_dht::{Libp2pConfig, Libp2pError, Libp2pNode};
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use support::{TestWallet, address, announce, in_memory, network, seeders, soon, until};

mod support;

const NAME: &str = "/test/1";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_what_it_is_and_signs_it() {
    let wallet = TestWallet::new();
    let owner = wallet.address();
    let nodes = network(2, |_| in_memory().with_wallet(wallet.clone())).await;
    let header = header("listed");
    announce(&nodes[0], &header).await;
    nodes[0].set_info(NodeInfo {
        protocols: vec![Protocol::Http],
        capacity_bytes: None,
        used_bytes: 7,
    });
    let record = soon(nodes[1].node_record(&nodes[0].local_peer()))
        .await
        .unwrap();
    assert_eq!(record.protocols, [Protocol::Http]);
    assert_eq!((record.used_bytes, record.capacity_bytes), (7, None));
    assert_eq!((record.seeded_count, record.seeded), (1, vec![header.cid]));
    assert_eq!(record.wallet.unwrap().wallet(), owner);
    let mut expected = nodes[0].listen_addresses();
    expected[0].pop();
    assert_eq!(record.addresses, expected);

    nodes[0].shutdown().await;
    let gone = soon(nodes[1].node_record(&nodes[0].local_peer())).await;
    assert!(matches!(gone, Err(Libp2pError::Peer { .. })), "{gone:?}");
    let closed = soon(nodes[0].node_record(&nodes[1].local_peer())).await;
    assert!(matches!(closed, Err(Libp2pError::Closed)), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_comes_back_with_the_wallet_that_signed_for_it() {
    let wallet = TestWallet::new();
    let owner = wallet.address();
    let nodes = network(2, |_| in_memory().with_wallet(wallet.clone())).await;
    let header = header("paid");
    let mut paid = offer(Protocol::Http, 1);
    paid.price = Price::from_wei_per_mib(alloy_primitives::U256::from(1000));
    paid.wallet = Some(owner);
    let announcement = Announcement::new(header.clone(), vec![paid.clone()]);
    nodes[0]
        .directory()
        .announce(announcement.clone())
        .await
        .unwrap();
    let query = ProviderQuery::new(header.cid.into());
    let found = nodes[1].directory().providers(query).await.unwrap();
    assert_eq!((found[0].price, found[0].wallet), (paid.price, Some(owner)));
    assert!(found[0].valid_until.is_some());

    let poor = Libp2pNode::start(in_memory()).await.unwrap();
    let refused = poor.directory().announce(announcement).await;
    assert!(
        matches!(refused, Err(DirectoryError::Refused { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_policy_allows_is_dialled() {
    let there = Libp2pConfig::new()
        .allowing_loopback()
        .with_listen(address("/ip4/127.0.0.1/tcp/0"));
    let there = Libp2pNode::start(there).await.unwrap();
    let target = there.listen_addresses()[0].clone();
    let strict = Libp2pNode::start(Libp2pConfig::new()).await.unwrap();
    let refused = soon(strict.dial(target.clone())).await;
    assert!(
        matches!(refused, Err(Libp2pError::Dial { .. })),
        "{refused:?}"
    );
    assert_eq!(strict.connected().await.unwrap(), []);
    let found = Libp2pNode::start(Libp2pConfig::new().with_bootstrap(target.clone()))
        .await
        .unwrap();
    soon(found.bootstrap()).await.unwrap();
    assert_eq!(soon(found.dial(target)).await.unwrap(), there.local_peer());
    // Who listens nowhere is nobody to ask.
    assert_eq!(there.known_nodes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_ask_is_an_error_where_there_should_be_somebody() {
    let header = header("lonely");
    let alone = Libp2pNode::start(in_memory()).await.unwrap();
    assert_eq!(seeders(&alone, &header).await, []);
    announce(&alone, &header).await;
    assert_eq!(seeders(&alone, &header).await, [alone.local_peer()]);

    let lost = in_memory().with_bootstrap(address("/memory/1"));
    let lost = Libp2pNode::start(lost).await.unwrap();
    let query = ProviderQuery::new(header.cid.into());
    let result = lost.directory().providers(query).await;
    assert!(
        matches!(result, Err(DirectoryError::Unreachable)),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_acceptor_has_no_place_for_is_reset() {
    let nodes = network(2, |_| in_memory()).await;
    let (a, b) = (nodes[0].network(), nodes[1].network());
    let mut incoming = b.accept(NAME).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..=MAX_WAITING_STREAMS {
        streams.push(soon(a.open(&b.local_peer(), NAME)).await.unwrap());
    }
    let mut newest = streams.pop().unwrap();
    assert!(soon(newest.read(&mut [0; 1])).await.is_err());
    for mut stream in streams {
        stream.close().await.unwrap();
        let (from, mut theirs) = soon(incoming.next()).await.unwrap();
        assert_eq!(from, a.local_peer());
        assert_eq!(soon(theirs.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_only_others_know_is_found_and_reached() {
    let nodes = network(4, |_| in_memory()).await;
    let last = nodes[3].network();
    let mut incoming = last.accept(NAME).await.unwrap();
    let mut stream = soon(nodes[1].network().open(&last.local_peer(), NAME))
        .await
        .unwrap();
    stream.write_all(b"found").await.unwrap();
    stream.close().await.unwrap();
    let (from, mut theirs) = soon(incoming.next()).await.unwrap();
    let mut said = Vec::new();
    theirs.read_to_end(&mut said).await.unwrap();
    assert_eq!((from, &said[..]), (nodes[1].local_peer(), &b"found"[..]));
    let nobody = chiral_core::PeerId::from_bytes(b"not libp2p's").unwrap();
    let result = soon(nodes[1].network().open(&nobody, NAME)).await.map(drop);
    assert!(
        matches!(result, Err(NetworkError::Unreachable { .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_free_and_the_identity_is_kept_after_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let mut listen: Vec<_> = [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/127.0.0.1/tcp/0/ws",
    ]
    .map(address)
    .into();
    let mut known: Option<Vec<_>> = None;
    for _ in 0..2 {
        let config = Libp2pConfig::new()
            .allowing_loopback()
            .with_data_dir(dir.path());
        let config = listen
            .iter()
            .cloned()
            .fold(config, Libp2pConfig::with_listen);
        let node = Libp2pNode::start(config).await.unwrap();
        let mut addresses = node.listen_addresses();
        addresses.sort();
        assert_eq!(addresses.len(), 3);
        if let Some(known) = &known {
            assert_eq!(*known, addresses);
        }
        listen = addresses.clone();
        for address in &mut listen {
            address.pop();
        }
        known = Some(addresses);
        soon(node.shutdown()).await;
        soon(node.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_reached_over_every_transport_it_listens_on() {
    let config = [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/127.0.0.1/tcp/0/ws",
    ]
    .map(address)
    .into_iter()
    .fold(
        Libp2pConfig::new().allowing_loopback(),
        Libp2pConfig::with_listen,
    );
    let node = Libp2pNode::start(config).await.unwrap();
    let mut incoming = node.network().accept(NAME).await.unwrap();
    for way_in in node.listen_addresses() {
        let other = Libp2pNode::start(Libp2pConfig::new().with_bootstrap(way_in.clone()))
            .await
            .unwrap();
        soon(other.bootstrap()).await.unwrap();
        let mut stream = soon(other.network().open(&node.local_peer(), NAME))
            .await
            .unwrap();
        stream
            .write_all(way_in.to_string().as_bytes())
            .await
            .unwrap();
        stream.close().await.unwrap();
        let (_, mut theirs) = soon(incoming.next()).await.unwrap();
        let mut said = String::new();
        theirs.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, way_in.to_string());
        other.shutdown().await;
    }
    until("all have left", async || {
        node.connected().await.unwrap().is_empty()
    })
    .await;
}
