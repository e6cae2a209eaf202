//! BitTorrent, on our own wire: public clients notice nothing but a good peer.

pub mod extension;
pub mod mse;
pub mod peer;
pub mod protocol;
pub mod session;
pub mod swarm;
pub mod wire;
