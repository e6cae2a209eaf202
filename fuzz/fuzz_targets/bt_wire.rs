//! Bytes from a peer: through the decoder alone, and through a whole session.

#![no_main]

use std::time::Duration;

use chiral_core::Bitmap;
use chiral_protocols::bittorrent::session::{Session, SessionConfig};
use chiral_protocols::bittorrent::wire::{Decoder, Geometry, Handshake, Reserved};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let geometry = Geometry::new(65_536, 1_300_000).expect("a torrent");
    let known = kind & 1 == 0;
    let mut decoder = Decoder::new(known.then(|| geometry.pieces()));
    decoder.buffer().extend_from_slice(data);
    while let Ok(Some(_)) = decoder.next_message() {}

    let mut config = SessionConfig::new([5; 20], [1; 20]);
    if known {
        config = config.with_torrent(geometry, Bitmap::new(geometry.pieces()));
    }
    let reserved = if kind & 2 == 0 { Reserved::OURS } else { Reserved::default() };
    let theirs = Handshake { reserved, info_hash: [5; 20], peer_id: [2; 20] };
    let mut session = Session::new(config, theirs, Duration::ZERO);
    session.set_wanting(true);
    session.fetch_metadata();
    let length = usize::from(kind >> 2) + 1;
    for (n, part) in data.chunks(length).enumerate() {
        if session.handle_bytes(Duration::from_millis(n as u64), part).is_err() {
            return;
        }
        while session.poll_event().is_some() {}
        session.outbox().take();
    }
});
