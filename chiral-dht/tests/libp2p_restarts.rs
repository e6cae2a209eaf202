//! A hundred nodes that all restart, twice: one group after another, and all at once. In a
//! binary of its own, since it needs the processors for itself.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::{Announcement, ManifestHeader, PeerId, Protocol, ProviderQuery};
use chiral_dht::{Libp2pConfig, Libp2pNode};
use futures_util::future::join_all;
use libp2p::Multiaddr;
use support::{address, network, peers, until};

mod support;

const NODES: usize = 100;
const SEEDERS: usize = 30;

/// Every third node seeds, so that each group has some.
const SEEDER_EVERY: usize = 3;

/// Nodes that are down at the same time in the first round.
const GROUP: usize = 20;

/// Those who hold announcements do so in memory, and restart as well. If all who held one did
/// so since, its repetition brings it back: sooner than in 25 minutes here.
const LIFETIME: Duration = Duration::from_secs(600);
const REPEAT: Duration = Duration::from_secs(120);

/// Neither that nor anything else takes so long: with a third of a processor it took six
/// minutes, and 150 seconds of processors in the dev profile.
const AT_MOST: Duration = Duration::from_secs(900);

/// Nodes with a directory each, and where they listen.
struct Network {
    root: tempfile::TempDir,
    nodes: Vec<Libp2pNode>,
    addresses: Vec<Multiaddr>,
    header: ManifestHeader,
}

impl Network {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = |number: usize| config(root.path().join(number.to_string()));
        let nodes = network(NODES, |number| {
            config(number).with_listen(address("/memory/0"))
        })
        .await;
        let addresses = nodes
            .iter()
            .map(|node| node.listen_addresses()[0].clone())
            .collect();
        let header = header("kept");
        Self {
            root,
            nodes,
            addresses,
            header,
        }
    }

    fn is_seeder(number: usize) -> bool {
        number.is_multiple_of(SEEDER_EVERY) && number < SEEDERS * SEEDER_EVERY
    }

    fn seeders(&self) -> Vec<PeerId> {
        let numbers = (0..NODES).filter(|number| Self::is_seeder(*number));
        peers(numbers.map(|number| &self.nodes[number]))
    }

    /// The seeders of a group say what they have, as a share does that is taken up after a
    /// start; at another address in each round, so that it is told from what they said before.
    async fn announce(&self, group: Range<usize>, round: u16) {
        let seeding = group.filter(|number| Self::is_seeder(*number));
        let announced = seeding.map(async |number| {
            let offers = vec![offer(Protocol::Http, round)];
            let announcement = Announcement::new(self.header.clone(), offers);
            self.nodes[number].directory().announce(announcement).await
        });
        for announced in join_all(announced).await {
            announced.unwrap();
        }
    }

    /// One reader finds all seeders, and what they said in this round.
    async fn expect_all(&self, reader: usize, round: u16) {
        let expected = self.seeders();
        assert_eq!(expected.len(), SEEDERS);
        let endpoint = offer(Protocol::Http, round).endpoint;
        until("all seeders", async || {
            let query = ProviderQuery::new(self.header.cid.into());
            let found = self.nodes[reader].directory().providers(query).await;
            let mut found: Vec<PeerId> = found
                .unwrap()
                .into_iter()
                .filter(|offer| offer.endpoint == endpoint)
                .filter_map(|offer| offer.peer)
                .collect();
            found.sort();
            found == expected
        })
        .await;
    }

    async fn know_enough(&self, group: Range<usize>) {
        until("routing tables are filled", async || {
            let nodes = &self.nodes[group.clone()];
            nodes.iter().all(|node| node.known_nodes() >= 20)
        })
        .await;
    }

    async fn shut_down(&mut self, group: Range<usize>) {
        join_all(self.nodes[group].iter().map(Libp2pNode::shutdown)).await;
    }

    /// From their directories. Nobody is told a way into the network: they know it from what
    /// they have seen.
    async fn start_again(&mut self, group: Range<usize>) {
        for number in group {
            let mut address = self.addresses[number].clone();
            address.pop();
            let directory = self.root.path().join(number.to_string());
            let node = Libp2pNode::start(config(directory).with_listen(address)).await;
            let before = std::mem::replace(&mut self.nodes[number], node.unwrap());
            assert_eq!(self.nodes[number].local_peer(), before.local_peer());
            let listen = self.nodes[number].listen_addresses();
            assert_eq!(listen, self.addresses[number..=number]);
        }
    }
}

fn config(directory: PathBuf) -> Libp2pConfig {
    Libp2pConfig::new()
        .allowing_loopback()
        .with_announcements(LIFETIME, REPEAT)
        .with_data_dir(directory)
}

/// Time of a phase, and the processors' time where Linux tells it.
struct Phase(Instant, f64);

impl Phase {
    fn begin() -> Self {
        Self(Instant::now(), processor_seconds())
    }

    fn end(&mut self, what: &str) {
        let processor = processor_seconds() - self.1;
        println!(
            "{what}: {:.1?}, {processor:.1} s of processors",
            self.0.elapsed()
        );
        *self = Self::begin();
    }
}

fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rounds_of_every_node_restarting_lose_no_seeder() {
    tokio::time::timeout(AT_MOST, two_rounds())
        .await
        .expect("it comes to an end");
}

async fn two_rounds() {
    let (mut whole, mut phase) = (Phase::begin(), Phase::begin());
    let mut network = Network::start().await;
    network.know_enough(0..NODES).await;
    phase.end("start");
    network.announce(0..NODES, 1).await;
    network.expect_all(NODES - 1, 1).await;
    phase.end("published and seen");

    for first in (0..NODES).step_by(GROUP) {
        let group = first..first + GROUP;
        network.shut_down(group.clone()).await;
        network.start_again(group.clone()).await;
        network.know_enough(group.clone()).await;
        network.announce(group, 2).await;
        phase.end("a group restarted");
    }
    for reader in [0, NODES - 1] {
        network.expect_all(reader, 2).await;
    }
    phase.end("all are seen after the first round");

    network.shut_down(0..NODES).await;
    phase.end("all are down");
    network.start_again(0..NODES).await;
    network.announce(0..NODES, 3).await;
    for reader in [0, NODES - 1] {
        network.expect_all(reader, 3).await;
    }
    phase.end("all are seen after the second round");
    network.shut_down(0..NODES).await;
    phase.end("the end");
    whole.end("in all");
}
