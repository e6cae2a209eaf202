//! Bodies of peer exchange.

#![no_main]

use chiral_protocols::bittorrent::extension::{MAX_PEX_PEERS, Pex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(pex) = Pex::decode(data) {
        assert!(pex.added.len() <= 2 * MAX_PEX_PEERS && pex.dropped.len() <= 2 * MAX_PEX_PEERS);
        let again = Pex::decode(&pex.encode()).expect("what is written is read");
        assert_eq!(again.added.len(), pex.added.len());
    }
});
