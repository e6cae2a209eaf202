//! Texts that users paste: links, cids, aliases, peer ids, amounts, name hints.
#![no_main]

use chiral_core::link::{MAX_NAME_LEN, file_name};
use chiral_core::money::{format_chi, parse_chi};
use chiral_core::{Alias, FileIdentification, Link, PeerId, Protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(link) = text.parse::<Link>() {
        assert_eq!(link.to_string().parse::<Link>(), Ok(link));
    }
    if let Ok(id) = text.parse::<FileIdentification>() {
        assert_eq!(id.to_string().parse::<FileIdentification>(), Ok(id));
    }
    if let Ok(alias) = text.parse::<Alias>() {
        assert_eq!(alias.to_string(), text);
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text);
    }
    if let Ok(protocol) = text.parse::<Protocol>() {
        assert_eq!(protocol.to_string(), text);
    }
    if let Ok(wei) = parse_chi(text) {
        assert_eq!(parse_chi(&format_chi(wei)), Ok(wei));
    }
    if let Some(name) = file_name(text) {
        assert!(!name.is_empty() && name.len() <= MAX_NAME_LEN);
        assert!(!name.contains(['/', '\\', '\0']) && name != "." && name != "..");
    }
});
