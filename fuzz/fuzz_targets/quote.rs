//! Quotes from strangers: one encoding, and prices that neither panic nor fall.
#![no_main]

use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_payment::messages::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (position, bytes, body) = input;
    let message = [&[2], body].concat();
    let Ok(Message::Quote(quote)) = Message::decode(&message) else {
        return;
    };
    assert_eq!(Message::Quote(quote.clone()).encode(), message);
    assert!(message.len() <= MAX_PAYMENT_MESSAGE);
    let pricing = quote.body.pricing();
    let Some(cost) = pricing.cost(position, bytes) else {
        return;
    };
    // A part never costs more than the whole, nor the whole less than the least.
    let half = pricing.cost(position, bytes / 2).expect("a part of it");
    assert!(half <= cost);
    if position == 0 && cost.bit_len() < 200 {
        assert!(pricing.covered(cost) >= bytes);
        assert!(pricing.least(bytes).expect("less") <= cost);
    }
});
