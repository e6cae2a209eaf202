//! Acknowledgements from strangers: their ranges are sorted, apart, bounded, and add up.
#![no_main]

use chiral_payment::messages::{MAX_ACK_RANGES, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let message = [&[6], body].concat();
    let Ok(Message::Ack(ack)) = Message::decode(&message) else {
        return;
    };
    let ranges = &ack.body.ranges;
    assert!((1..=MAX_ACK_RANGES).contains(&ranges.fragments()));
    assert!(ranges.len() <= ack.body.total);
    assert_eq!(Message::Ack(ack).encode(), message);
});
