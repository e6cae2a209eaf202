//! The directory among many nodes, hostile ones, and dying ones.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use chiral_core::conformance::peer_directory::header;
use chiral_core::{Cid, ManifestHeader};
use chiral_dht::{Libp2pConfig, Libp2pNode};
use futures_util::future::join_all;
use libp2p::Multiaddr;
use support::hostile::Hostile;
use support::{announce, in_memory, network, peers, seeders, soon, until};

mod support;

const NODES: usize = 100;
const SEEDERS: usize = 30;

fn record_key(cid: &Cid) -> Vec<u8> {
    format!("/chiral/{cid}").into_bytes()
}

/// Everywhere the same seeders, asked once.
async fn expect_seeders(readers: &[Libp2pNode], header: &ManifestHeader, of: &[Libp2pNode]) {
    for reader in readers {
        let found = seeders(reader, header).await;
        assert_eq!(found.len(), of.len());
        assert_eq!(found, peers(of));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_who_publish_at_once_are_thirty_whatever_a_hostile_node_puts() {
    let start = Instant::now();
    let nodes = network(NODES, |_| in_memory()).await;
    println!("{NODES} nodes are connected after {:?}", start.elapsed());
    until("routing tables are filled", async || {
        nodes.iter().all(|node| node.known_nodes() >= 20)
    })
    .await;
    println!("{:?} after the start", start.elapsed());
    let (popular, other) = (header("popular"), header("other"));
    let (seeding, rest) = nodes.split_at(SEEDERS);
    let readers = &rest[rest.len() - 3..];

    let start = Instant::now();
    soon(join_all(
        seeding.iter().map(|node| announce(node, &popular)),
    ))
    .await;
    println!("{SEEDERS} publications took {:?}", start.elapsed());
    // On a busy machine `announce` returns before all of it is done.
    until("all are seen", async || {
        seeders(&readers[0], &popular).await == peers(seeding)
    })
    .await;
    println!("{:?} after they began", start.elapsed());
    expect_seeders(readers, &popular, seeding).await;

    let addresses: Vec<Multiaddr> = nodes
        .iter()
        .flat_map(Libp2pNode::listen_addresses)
        .collect();
    let mut hostile = Hostile::new(&addresses);
    let key = record_key(&popular.cid);
    let before = soon(hostile.get(&key)).await;
    assert!(!before.is_empty(), "the record can be read by anybody");
    announce(&nodes[SEEDERS], &other).await;
    let of_another = soon(Hostile::new(&addresses).get(&record_key(&other.cid))).await;
    let mut tampered = before[0].clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let invalid = [
        ("nothing", Vec::new()),
        ("rubbish", vec![0xa5; 500]),
        ("a changed copy", tampered),
        (
            "too much",
            before[0].repeat(49 * 1024 / before[0].len() + 1),
        ),
        ("another file's", of_another[0].clone()),
    ];
    let start = Instant::now();
    for (what, value) in invalid {
        assert!(value.len() < 60 * 1024, "{what} goes out at all");
        assert_eq!(soon(hostile.put(&key, value)).await, 0, "{what} was taken");
    }
    // A refusal that nobody answers lasts until a timeout of 10 seconds, each of the five.
    let took = start.elapsed();
    println!("five refusals took {took:?}");
    assert!(took < Duration::from_secs(40), "{took:?}");
    expect_seeders(readers, &popular, seeding).await;

    let target = popular.cid.into();
    let withdrawn = seeding[0].directory().withdraw(&target).await;
    assert!(withdrawn.unwrap());
    until("the withdrawn one is gone", async || {
        seeders(&readers[0], &popular).await == peers(&seeding[1..])
    })
    .await;
    soon(hostile.put(&key, before[0].clone())).await;
    expect_seeders(readers, &popular, &seeding[1..]).await;
    let start = Instant::now();
    soon(join_all(nodes.iter().map(Libp2pNode::shutdown))).await;
    println!("the end took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_seeder_vanishes_and_one_that_lives_repeats_itself() {
    const LIFETIME: Duration = Duration::from_secs(6);
    let config = |_| in_memory().with_announcements(LIFETIME, LIFETIME / 3);
    let mut nodes = network(6, config).await;
    let header = header("mortal");
    announce(&nodes[1], &header).await;
    announce(&nodes[2], &header).await;
    expect_seeders(&nodes[3..4], &header, &nodes[1..3]).await;
    let killed = Instant::now();
    drop(nodes.remove(1));
    until("the killed one is gone", async || {
        seeders(&nodes[2], &header).await == peers(&nodes[1..2])
    })
    .await;
    let took = killed.elapsed();
    assert!(took < LIFETIME + Duration::from_secs(5), "{took:?}");
    tokio::time::sleep(LIFETIME).await;
    expect_seeders(&nodes[2..], &header, &nodes[1..2]).await;
    nodes[1].shutdown().await;
    expect_seeders(&nodes[2..], &header, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_before_there_is_a_network_is_published_when_there_is() {
    let header = header("early");
    // Reserves an address.
    let first = Libp2pNode::start(in_memory()).await.unwrap();
    let way_in = first.listen_addresses()[0].clone();
    first.shutdown().await;
    let mut listen = way_in.clone();
    listen.pop();
    // Whoever it is that will be there.
    let config = || in_memory().with_bootstrap(listen.clone());

    let seeder = Libp2pNode::start(config()).await.unwrap();
    announce(&seeder, &header).await;
    let loopback = Libp2pConfig::new().allowing_loopback();
    let router = Libp2pNode::start(loopback.with_listen(listen.clone()))
        .await
        .unwrap();
    let reader = Libp2pNode::start(config()).await.unwrap();
    until("the early announcement is found", async || {
        seeders(&reader, &header).await == [seeder.local_peer()]
    })
    .await;
    assert_eq!(seeders(&router, &header).await, [seeder.local_peer()]);
    let found = soon(reader.provider_peers(header.cid)).await.unwrap();
    assert_eq!(found, [seeder.local_peer()], "by provider record too");
}
