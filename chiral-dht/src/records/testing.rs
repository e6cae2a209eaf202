//! Announcements for the tests of this module.

use std::time::Duration;

use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::{Announcement, Protocol};
use libp2p::identity::Keypair;

use super::{Publication, RecordKey};

/// Some moment.
pub(super) const NOW: Duration = Duration::from_secs(1_800_000_000);

/// The node with this number.
pub(super) fn node(number: u64) -> Keypair {
    let mut secret = [0x5c; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Keypair::ed25519_from_bytes(secret).unwrap()
}

/// The key of the file that all of these announce.
pub(super) fn key() -> RecordKey {
    RecordKey::Cid(header("file").cid)
}

/// The value that announces the file at `now`, for `seconds`, at a port.
pub(super) fn announced(number: u64, now: Duration, seconds: u64, port: u16) -> Vec<u8> {
    let mut announcement = Announcement::new(header("file"), vec![offer(Protocol::Http, port)]);
    announcement.lifetime = Duration::from_secs(seconds);
    let seq = super::announcement::next_seq(0, now);
    let publication = Publication::announce(&node(number), None, &announcement, seq, now);
    publication.unwrap().records.swap_remove(0).1
}

/// The value that withdraws the file at `now`, kept for `seconds`.
pub(super) fn withdrawn(number: u64, now: Duration, seconds: u64) -> Vec<u8> {
    let until = now.as_secs() + seconds;
    let seq = super::announcement::next_seq(0, now);
    let publication = Publication::withdraw(&node(number), &header("file"), seq, until, now);
    publication.unwrap().records.swap_remove(0).1
}
