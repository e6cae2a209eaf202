//! Bodies of extension messages: the extended handshake, metadata, holepunch, Chiral's own.

#![no_main]

use bytes::Bytes;
use chiral_protocols::bittorrent::extension::{
    ChiralMessage, ExtendedHandshake, Holepunch, MetadataMessage,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut handshake = ExtendedHandshake::default();
    if handshake.update(data).is_ok() {
        let mut again = ExtendedHandshake::default();
        again.update(&handshake.encode()).expect("what is written is read");
    }
    if let Ok(Some(message)) = MetadataMessage::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(MetadataMessage::decode(&message.encode().into()), Ok(Some(message)));
    }
    if let Ok(message) = Holepunch::decode(data) {
        assert_eq!(Holepunch::decode(&message.encode()), Ok(message));
    }
    if let Ok(Some(message)) = ChiralMessage::decode(data) {
        assert_eq!(ChiralMessage::decode(&message.encode()), Ok(Some(message)));
    }
});
