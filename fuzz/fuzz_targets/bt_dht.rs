//! Datagrams to a node of the mainline DHT: read as messages, and taken by a node that searches.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chiral_protocols::bittorrent::dht::krpc::{Body, MAX_NODES, MAX_VALUES, Message};
use chiral_protocols::bittorrent::dht::{Announcement, Node, NodeConfig};
use chiral_protocols::http::AddressPolicy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagrams: Vec<&[u8]>| {
    let mut now = Instant::now();
    let first: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut config = NodeConfig::default();
    config.addresses = AddressPolicy::Any;
    config.bootstrap = vec![first];
    let mut node = Node::new(config, [1; 32], now);
    node.handle_timeout(now);
    let announcement = Announcement {
        port: 1,
        implied_port: false,
    };
    node.search([7; 20], Some(announcement), now);
    let mut asked = None;
    for datagram in datagrams {
        if let Ok(message) = Message::decode(datagram) {
            if let Body::Answer(answer) = &message.body {
                assert!(answer.nodes.len() <= 2 * MAX_NODES && answer.values.len() <= MAX_VALUES);
            }
            // As the answer to what was asked last, too.
            if let Some((to, transaction)) = asked.take() {
                let body = message.body.clone();
                let answer = Message { transaction, body }.encode();
                node.handle_datagram(to, &answer, now);
            }
        }
        node.handle_datagram(first, datagram, now);
        now += Duration::from_millis(700);
        node.handle_timeout(now);
        while let Some((to, bytes)) = node.poll_transmit() {
            assert!(bytes.len() <= 1400);
            let sent = Message::decode(&bytes).expect("what we send is a message");
            asked = Some((to, sent.transaction));
        }
        while node.poll_event().is_some() {}
    }
});
