//! BitTorrent, on our own wire: public clients notice nothing but a good peer.

pub mod assembly;
pub mod bencode;
mod compact;
pub mod create;
pub mod dht;
pub mod extension;
pub mod layout;
pub mod lsd;
pub mod magnet;
pub mod merkle;
pub mod metainfo;
pub mod mse;
pub mod paths;
pub mod peer;
pub mod pieces;
pub mod protocol;
mod random;
pub mod session;
pub mod smart_ban;
pub mod swarm;
pub mod target;
pub mod tracker;
pub mod udp;
pub mod utp;
pub mod wire;
