//! BitTorrent, on our own wire: public clients notice nothing but a good peer.

mod benc;
mod compact;
pub mod dht;
pub mod lsd;
mod random;
pub mod tracker;
pub mod udp;
pub mod utp;
