//! Packets of uTP: read, and taken by a connection that sends.
#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use chiral_protocols::bittorrent::utp::Connection;
use chiral_protocols::bittorrent::utp::packet::{Kind, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagrams: Vec<&[u8]>| {
    let mut now = Instant::now();
    let syn = Packet {
        kind: Kind::Syn,
        connection: 1,
        timestamp: 0,
        delay: 0,
        window: 0,
        sequence: 1,
        acknowledged: 0,
        selective: Vec::new(),
        payload: Bytes::new(),
    };
    let mut connection = Connection::accept(&syn, 0x3030, now, now);
    connection.write(&[5; 50_000]);
    for datagram in datagrams {
        let datagram = Bytes::copy_from_slice(datagram);
        if let Ok(packet) = Packet::decode(&datagram) {
            assert_eq!(Packet::decode(&packet.encode().into()).as_ref(), Ok(&packet));
            connection.handle(packet, now);
        }
        now += Duration::from_millis(300);
        connection.handle_timeout(now);
        while connection.poll_transmit(now).is_some() {}
        connection.read(1000, |part| assert!(part.len() <= 1000));
    }
});
