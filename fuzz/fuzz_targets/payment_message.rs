//! Messages between gate and agent, from strangers.
#![no_main]

use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_payment::messages::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        // One message has one encoding, so one set of bytes to sign.
        let again = message.encode();
        assert_eq!(again, bytes);
        assert!(again.len() <= MAX_PAYMENT_MESSAGE);
    }
});
