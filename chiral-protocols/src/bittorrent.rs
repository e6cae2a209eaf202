//! BitTorrent, on our own wire: public clients notice nothing but a good peer.

pub mod assembly;
pub mod bencode;
pub mod create;
pub mod layout;
pub mod magnet;
pub mod merkle;
pub mod metainfo;
pub mod paths;
pub mod pieces;
pub mod smart_ban;
pub mod target;
