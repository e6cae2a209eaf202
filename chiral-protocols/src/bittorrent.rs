//! BitTorrent, on our own wire: public clients notice nothing but a good peer.

mod arriving;
pub mod bencode;
mod compact;
pub mod create;
pub mod dht;
pub mod download;
pub mod extension;
pub mod layout;
pub mod lsd;
pub mod magnet;
mod mapped;
pub mod merkle;
pub mod metainfo;
pub mod mse;
pub mod paths;
pub mod peer;
pub mod pieces;
pub mod protocol;
mod random;
pub mod selection;
pub mod session;
pub mod swarm;
pub mod target;
mod torrent_pieces;
pub mod tracker;
pub mod udp;
pub mod unpack;
pub mod utp;
mod web_seed;
pub mod wire;

pub use arriving::Joined;
pub use mapped::MappedSource;
pub use torrent_pieces::TorrentPieces;
pub use web_seed::WebSeed;
