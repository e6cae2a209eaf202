//! Nodes, wallets and announcements for these tests.

use std::time::Duration;

use alloy_primitives::U256;
use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{Announcement, PeerOffer, Price, Protocol};
use chiral_dht::records::announcement::next_seq;
use chiral_dht::records::{Publication, RecordKey, WalletBinding};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use prost::Message;

/// Some moment.
pub(crate) const NOW: Duration = Duration::from_secs(1_800_000_000);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The node with this number.
pub(crate) fn node(number: u64) -> Keypair {
    let mut secret = [0x5c; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Keypair::ed25519_from_bytes(secret).unwrap()
}

pub(crate) fn peer(number: u64) -> PeerId {
    node(number).public().to_peer_id()
}

/// The key of a file.
pub(crate) fn key(name: &str) -> RecordKey {
    RecordKey::Cid(header(name).cid)
}

/// The wallet of the node with this number, which signed for it.
pub(crate) fn wallet(number: u64) -> WalletBinding {
    let signer = FixedKeySigner::numbered(number + 1);
    futures_util::future::FutureExt::now_or_never(WalletBinding::sign(&signer, &peer(number)))
        .expect("a key in memory signs at once")
        .unwrap()
}

/// An offer at a price.
pub(crate) fn paid(port: u16, wei: u64) -> PeerOffer {
    let mut paid = offer(Protocol::Http, port);
    paid.price = Price::from_wei_per_mib(U256::from(wei));
    paid
}

/// A publication of a node, made at `now`, for `seconds`.
pub(crate) fn publish(
    number: u64,
    name: &str,
    offers: Vec<PeerOffer>,
    now: Duration,
    seconds: u64,
) -> Publication {
    let mut announcement = Announcement::new(header(name), offers);
    announcement.lifetime = Duration::from_secs(seconds);
    let wallet = Some(wallet(number));
    let seq = next_seq(0, now);
    Publication::announce(&node(number), wallet.as_ref(), &announcement, seq, now).unwrap()
}

/// The value under the cid of a free file.
pub(crate) fn announced(number: u64, name: &str, now: Duration, seconds: u64) -> Vec<u8> {
    let port = u16::try_from(number).unwrap();
    let offers = vec![offer(Protocol::Http, port)];
    publish(number, name, offers, now, seconds)
        .records
        .swap_remove(0)
        .1
}

/// The value under the cid of a withdrawn file.
pub(crate) fn withdrawn(number: u64, name: &str, now: Duration, seconds: u64) -> Vec<u8> {
    let until = now.as_secs() + seconds;
    let publication =
        Publication::withdraw(&node(number), &header(name), next_seq(0, now), until, now);
    publication.unwrap().records.swap_remove(0).1
}

/// The value of a record, as anybody can write one.
#[derive(Message)]
pub(crate) struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) announcements: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) headers: Vec<Vec<u8>>,
}

/// The members of several values in one.
pub(crate) fn united(values: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Set::decode(&values[0][..]).unwrap();
    for value in &values[1..] {
        let other = Set::decode(&value[..]).unwrap();
        all.announcements.extend(other.announcements);
        let headers = other.headers.into_iter();
        let new: Vec<_> = headers.filter(|h| !all.headers.contains(h)).collect();
        all.headers.extend(new);
    }
    all.encode_to_vec()
}
