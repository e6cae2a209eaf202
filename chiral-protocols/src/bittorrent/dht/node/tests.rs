//! Networks of nodes under a clock of their own.

use std::collections::BTreeMap;

use super::*;
use crate::bittorrent::dht::krpc::{Answer, K};

struct Net {
    nodes: BTreeMap<SocketAddr, Node>,
    events: BTreeMap<SocketAddr, Vec<Event>>,
    now: Instant,
    /// Every so many datagrams one is lost; 0 for none.
    loss: u32,
    sent: u32,
}

fn at(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], n))
}

fn config() -> NodeConfig {
    NodeConfig {
        addresses: AddressPolicy::Any,
        ..NodeConfig::default()
    }
}

impl Net {
    fn new() -> Self {
        Self {
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            now: Instant::now(),
            loss: 0,
            sent: 0,
        }
    }

    fn add(&mut self, address: SocketAddr, config: NodeConfig) {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&address.port().to_be_bytes());
        let node = Node::new(config, seed, self.now);
        self.nodes.insert(address, node);
    }

    /// A network of so many, each of which knows the first.
    fn of(count: u16) -> Self {
        let mut net = Self::new();
        for n in 1..=count {
            let mut config = config();
            config.bootstrap = vec![at(1)];
            net.add(at(n), config);
        }
        net.run(Duration::from_secs(60));
        net
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            let next = self.nodes.values().map(Node::poll_timeout).min();
            // A datagram takes its time too.
            let next = next.unwrap_or(end).max(self.now + Duration::from_millis(1));
            self.now = next.min(end);
            for node in self.nodes.values_mut() {
                node.handle_timeout(self.now);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (from, node) in &mut self.nodes {
                while let Some((to, bytes)) = node.poll_transmit() {
                    assert!(bytes.len() <= 1400, "{} bytes", bytes.len());
                    sent.push((*from, to, bytes));
                }
                while let Some(event) = node.poll_event() {
                    self.events.entry(*from).or_default().push(event);
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, bytes) in sent {
                self.sent += 1;
                if self.loss > 0 && self.sent.is_multiple_of(self.loss) {
                    continue;
                }
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.handle_datagram(from, &bytes, self.now);
                }
            }
        }
    }

    fn search(
        &mut self,
        who: SocketAddr,
        hash: u8,
        announcement: Option<Announcement>,
    ) -> SearchId {
        let now = self.now;
        let node = self.nodes.get_mut(&who).unwrap();
        node.search([hash; 20], announcement, now).unwrap()
    }

    fn found(&self, who: SocketAddr, id: SearchId) -> (Vec<SocketAddr>, Option<usize>) {
        let (mut peers, mut finished) = (Vec::new(), None);
        for event in self.events.get(&who).into_iter().flatten() {
            match event {
                Event::Peers {
                    search,
                    peers: found,
                } if *search == id => peers.extend(found),
                Event::Finished { search, announced } if *search == id => {
                    finished = Some(*announced)
                }
                _ => {}
            }
        }
        (peers, finished)
    }
}

const HERE: Announcement = Announcement {
    port: 4000,
    implied_port: false,
};

#[test]
fn what_is_announced_is_found() {
    let mut net = Net::of(60);
    for n in 1..=60 {
        assert!(net.nodes[&at(n)].nodes(true) >= K, "{n}");
    }
    let announced = net.search(at(20), 7, Some(HERE));
    net.run(Duration::from_secs(10));
    assert_eq!(net.found(at(20), announced), (vec![], Some(K)));
    let implied = Announcement {
        port: 1,
        implied_port: true,
    };
    net.search(at(21), 7, Some(implied));
    net.run(Duration::from_secs(10));
    for seeker in [3, 59] {
        let search = net.search(at(seeker), 7, None);
        net.run(Duration::from_secs(10));
        let (mut peers, finished) = net.found(at(seeker), search);
        peers.sort_unstable();
        assert_eq!(peers, [at(21), at(4000)]);
        assert_eq!(finished, Some(0));
    }
    let search = net.search(at(3), 8, None);
    net.run(Duration::from_secs(10));
    assert_eq!(net.found(at(3), search), (vec![], Some(0)));
}

#[test]
fn losses_and_dead_nodes_are_borne() {
    let mut net = Net::of(60);
    for n in (2..60).step_by(3) {
        net.nodes.remove(&at(n));
    }
    net.loss = 7;
    let announced = net.search(at(1), 7, Some(HERE));
    net.run(Duration::from_secs(60));
    assert!(net.found(at(1), announced).1 >= Some(4));
    let search = net.search(at(60), 7, None);
    net.run(Duration::from_secs(60));
    assert_eq!(net.found(at(60), search).0, [at(4000)]);
    // Who is gone is forgotten in time.
    net.run(Duration::from_secs(3600));
    let known = net.nodes[&at(60)].families[0].as_ref().unwrap().table.all();
    let dead = known.iter().filter(|c| !net.nodes.contains_key(&c.address));
    assert!(dead.count() <= known.len() / 10);
}

#[test]
fn a_search_before_the_node_has_joined_waits_for_that() {
    let mut net = Net::of(20);
    net.search(at(2), 7, Some(HERE));
    net.run(Duration::from_secs(10));
    let mut late = config();
    late.bootstrap = vec![at(1)];
    net.add(at(99), late);
    let search = net.search(at(99), 7, None);
    net.run(Duration::from_secs(10));
    assert_eq!(net.found(at(99), search), (vec![at(4000)], Some(0)));
}

#[test]
fn a_node_comes_back_with_what_it_has_saved() {
    let mut net = Net::of(20);
    let old = net.nodes.remove(&at(5)).unwrap();
    let mut again = config();
    again.saved = Some(old.save());
    net.nodes.remove(&at(1));
    net.add(at(5), again);
    net.run(Duration::from_secs(10));
    let node = &net.nodes[&at(5)];
    assert_eq!(node.id(true), old.id(true));
    assert!(node.nodes(true) >= K);
}

#[test]
fn a_read_only_node_finds_but_is_not_known() {
    let mut net = Net::of(20);
    net.search(at(2), 7, Some(HERE));
    let mut shy = config();
    shy.bootstrap = vec![at(1)];
    shy.read_only = true;
    net.add(at(50), shy);
    net.run(Duration::from_secs(10));
    let search = net.search(at(50), 7, None);
    net.run(Duration::from_secs(10));
    assert_eq!(net.found(at(50), search).0, [at(4000)]);
    for node in net.nodes.values() {
        let known = node.families[0].as_ref().unwrap().table.all();
        assert!(!known.iter().any(|contact| contact.address == at(50)));
    }
}

#[test]
fn both_families_are_searched() {
    let mut net = Net::new();
    let six = |n| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], n));
    for n in 1..=10 {
        let mut config = config();
        (config.v4, config.v6) = (false, true);
        config.bootstrap = vec![six(1)];
        net.add(six(n), config);
    }
    net.run(Duration::from_secs(30));
    net.search(six(2), 7, Some(HERE));
    net.run(Duration::from_secs(10));
    let search = net.search(six(9), 7, None);
    net.run(Duration::from_secs(10));
    assert_eq!(net.found(six(9), search).0, [six(4000)]);
}

#[test]
fn strangers_do_not_lead_into_networks_of_ones_own() {
    let now = Instant::now();
    let mut node = Node::new(NodeConfig::default(), [1; 32], now);
    let query = |id: u8, method| {
        let query = Query {
            id: NodeId([id; 20]),
            method,
            want: Want::default(),
            read_only: false,
        };
        let (transaction, body) = (vec![1], Body::Query(query));
        Message { transaction, body }.encode()
    };
    // From a private address not even an answer goes.
    node.handle_datagram("10.0.0.1:1".parse().unwrap(), &query(1, Method::Ping), now);
    node.handle_datagram("8.8.8.8:0".parse().unwrap(), &query(1, Method::Ping), now);
    assert_eq!(node.poll_transmit(), None);
    let from: SocketAddr = "8.8.8.8:1".parse().unwrap();
    node.handle_datagram(from, &query(1, Method::Ping), now);
    let (to, _) = node.poll_transmit().unwrap();
    assert_eq!(to, from);
    // It is then asked itself, answers, and names the router and our own machine.
    let (_, ping) = node.poll_transmit().unwrap();
    let answer = |transaction: Vec<u8>, nodes: &[&str], values: &[&str]| {
        let nodes = nodes.iter().enumerate().map(|(n, at)| Contact {
            id: NodeId([n as u8; 20]),
            address: at.parse().unwrap(),
        });
        let answer = Answer {
            id: NodeId([1; 20]),
            nodes: nodes.collect(),
            values: values.iter().map(|at| at.parse().unwrap()).collect(),
            token: Some(vec![1]),
            seen: None,
        };
        let body = Body::Answer(answer);
        Message { transaction, body }.encode()
    };
    let transaction = Message::decode(&ping).unwrap().transaction;
    node.handle_datagram(from, &answer(transaction, &[], &[]), now);
    assert_eq!(node.nodes(true), 1);
    node.families[0].as_mut().unwrap().next_join = now + JOIN_AGAIN;
    let search = node.search([7; 20], None, now).unwrap();
    let (_, asked) = node.poll_transmit().unwrap();
    let transaction = Message::decode(&asked).unwrap().transaction;
    let near = [
        "192.168.1.1:53",
        "127.0.0.1:22",
        "169.254.169.254:80",
        "9.9.9.9:0",
        "9.9.9.9:9",
    ];
    // Only who was asked may answer, and only once.
    node.handle_datagram(
        "8.8.8.9:1".parse().unwrap(),
        &answer(transaction.clone(), &near, &near),
        now,
    );
    assert_eq!(node.poll_event(), None);
    node.handle_datagram(from, &answer(transaction.clone(), &near, &near), now);
    node.handle_datagram(from, &answer(transaction, &near, &["9.9.9.9:10"]), now);
    let peers = vec!["9.9.9.9:9".parse().unwrap()];
    assert_eq!(node.poll_event(), Some(Event::Peers { search, peers }));
    assert_eq!(node.poll_event(), None);
    let (to, _) = node.poll_transmit().unwrap();
    assert_eq!(to, "9.9.9.9:9".parse().unwrap());
    assert_eq!(node.poll_transmit(), None);
}

#[test]
fn a_flood_is_not_answered_without_end() {
    let now = Instant::now();
    let mut node = Node::new(config(), [1; 32], now);
    let mut sent = 0;
    for n in 0..20_000_u32 {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let query = Query {
            id: NodeId(id),
            method: Method::GetPeers { info_hash: id },
            want: Want { v4: true, v6: true },
            read_only: false,
        };
        let message = Message {
            transaction: vec![0; 2],
            body: Body::Query(query),
        };
        let forged = SocketAddr::from(([1, 2, 3, 4], 5));
        node.handle_datagram(forged, &message.encode(), now);
        while let Some((_, bytes)) = node.poll_transmit() {
            sent += bytes.len();
        }
    }
    assert!(sent <= 17 << 10, "{sent}");
    assert!(node.pending.len() <= 1, "one ping for one address");
}

#[test]
fn an_announcement_needs_the_token_of_its_own_address() {
    let now = Instant::now();
    let mut node = Node::new(config(), [1; 32], now);
    let mut ask = |from: SocketAddr, method| {
        let query = Query {
            id: NodeId([5; 20]),
            method,
            want: Want::default(),
            read_only: true,
        };
        let (transaction, body) = (vec![1], Body::Query(query));
        let bytes = Message { transaction, body }.encode();
        node.handle_datagram(from, &bytes, now);
        let (_, answer) = node.poll_transmit().unwrap();
        Message::decode(&answer).unwrap().body
    };
    let announce = |token: &[u8], port, implied_port| Method::AnnouncePeer {
        info_hash: [7; 20],
        port,
        implied_port,
        token: token.to_vec(),
    };
    let (one, other) = ("8.8.8.8:1".parse().unwrap(), "9.9.9.9:1".parse().unwrap());
    let asked = Method::GetPeers { info_hash: [7; 20] };
    let Body::Answer(Answer {
        token: Some(token), ..
    }) = ask(one, asked.clone())
    else {
        panic!()
    };
    assert_eq!(ask(other, announce(&token, 5, false)), Body::Error(203));
    assert_eq!(ask(one, announce(b"", 5, false)), Body::Error(203));
    assert_eq!(ask(one, announce(&token, 0, false)), Body::Error(203));
    assert!(matches!(
        ask(one, announce(&token, 5, false)),
        Body::Answer(_)
    ));
    assert!(matches!(
        ask(one, announce(&token, 0, true)),
        Body::Answer(_)
    ));
    let Body::Answer(Answer { mut values, .. }) = ask(other, asked) else {
        panic!()
    };
    values.sort_unstable();
    assert_eq!(
        values,
        ["8.8.8.8:1".parse().unwrap(), "8.8.8.8:5".parse().unwrap()]
    );
    let unknown = b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe";
    node.handle_datagram(one, unknown, now);
    let (_, answer) = node.poll_transmit().unwrap();
    assert_eq!(Message::decode(&answer).unwrap().body, Body::Error(204));
}

#[test]
fn others_tell_us_our_address_and_the_id_follows() {
    let now = Instant::now();
    let mut config = config();
    config.bootstrap = (1..9)
        .map(|n| SocketAddr::from(([9, 9, n, 9], 1)))
        .collect();
    let mut node = Node::new(config, [1; 32], now);
    let before = node.id(true).unwrap();
    let seen: SocketAddr = "8.8.4.4:99".parse().unwrap();
    node.handle_timeout(now);
    let mut answered = 0;
    while let Some((to, bytes)) = node.poll_transmit() {
        let answer = Answer {
            id: NodeId([to.ip().to_string().as_bytes()[4]; 20]),
            nodes: Vec::new(),
            values: Vec::new(),
            token: None,
            seen: Some(seen),
        };
        let transaction = Message::decode(&bytes).unwrap().transaction;
        let body = Body::Answer(answer);
        node.handle_datagram(to, &Message { transaction, body }.encode(), now);
        answered += 1;
    }
    assert!(answered >= 8);
    let after = node.id(true).unwrap();
    assert!(after != before && after.fits(seen.ip()));
    assert!(node.nodes(true) >= 7);
    let told = std::iter::from_fn(|| node.poll_event()).filter(|e| *e == Event::Address(seen.ip()));
    assert_eq!(told.count(), 1);
}
