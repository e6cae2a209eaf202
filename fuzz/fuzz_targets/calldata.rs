//! What strangers put into the calldata of payments.
#![no_main]

use chiral_payment::calldata::{MAX_METADATA_BYTES, PaymentMetadata};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(metadata) = PaymentMetadata::decode(bytes) {
        assert!(bytes.len() <= MAX_METADATA_BYTES);
        assert_eq!(metadata.encode(), bytes);
    }
});
