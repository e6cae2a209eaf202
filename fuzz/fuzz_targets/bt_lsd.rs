//! Announcements of peers in the same network.
#![no_main]

use chiral_protocols::bittorrent::lsd::LsdMessage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(message) = LsdMessage::decode(datagram) {
        let again = LsdMessage::decode(&message.encode(true)).map(|m| (m.port, m.torrents));
        assert_eq!(again, Ok((message.port, message.torrents)));
    }
});
