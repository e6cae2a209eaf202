//! Receipts and notices from strangers, and proofs of delivery from anybody.
#![no_main]

use chiral_payment::delivery::DeliveryProof;
use chiral_payment::messages::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for tag in [9, 10] {
        let message = [&[tag], body].concat();
        if let Ok(read) = Message::decode(&message) {
            assert_eq!(read.encode(), message);
        }
    }
    for file in [body.to_vec(), [b"chirldlv\x01", body].concat()] {
        if let Ok(proof) = DeliveryProof::decode(&file) {
            assert_eq!(proof.encode(), file);
            // Nobody can sign by chance.
            assert!(proof.verify().is_err());
        }
    }
});
