//! Bytes to both sides of the encrypted handshake.

#![no_main]

use chiral_protocols::bittorrent::mse::{
    Encryption, Initiator, MAX_PAD, Methods, Randomness, Responder,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let random = Randomness { secret: [3; 20], pad_len: 5, pad: [1; MAX_PAD] };
    let methods = Methods::of(Encryption::Prefer);
    let mut responder = Responder::new(&random, methods);
    let (mut initiator, _) = Initiator::new(&random, [7; 20], methods, b"handshake");
    for part in data.chunks(113) {
        let _ = responder.handle(part, &[[7; 20]]);
        let _ = initiator.handle(part);
    }
});
