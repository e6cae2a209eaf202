//! Acceptances and counter-offers from strangers, each with the quote that it is about.
#![no_main]

use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_payment::messages::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for tag in [3, 14] {
        let message = [&[tag], body].concat();
        if let Ok(read) = Message::decode(&message) {
            assert_eq!(read.encode(), message);
            assert!(message.len() <= MAX_PAYMENT_MESSAGE);
        }
    }
});
