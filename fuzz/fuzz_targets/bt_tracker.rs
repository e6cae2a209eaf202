//! Answers of trackers, over HTTP and UDP.
#![no_main]

use std::time::Instant;

use chiral_protocols::bittorrent::tracker::udp::{Exchange, Question};
use chiral_protocols::bittorrent::tracker::{MAX_PEERS, http};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Vec<&[u8]>)| {
    let (body, datagrams) = input;
    if let Ok(answer) = http::announced(body) {
        assert!(answer.peers.len() <= MAX_PEERS);
    }
    if let Ok(entries) = http::scraped(body, &[[0; 20], [1; 20]]) {
        assert_eq!(entries.len(), 2);
    }
    let now = Instant::now();
    let mut exchange = Exchange::new(Question::Scrape(vec![[1; 20]]), 7, false, None, 3, now);
    for datagram in datagrams {
        let _ = exchange.handle_datagram(datagram, now);
        if datagram.len() > 8 {
            let mut known = datagram.to_vec();
            known[4..8].copy_from_slice(&7_u32.to_be_bytes());
            let _ = exchange.handle_datagram(&known, now);
        }
    }
});
