//! Swarms: the torrents of a node, their peers, and the sockets between.
//!
//! Each connection is a task of its own, which alone touches its socket and its
//! [`Session`](super::session::Session). What others want of it is left in its
//! `PeerHandle`, under a lock that nobody holds for long, and the task is
//! woken; what it has for others lies there too. Each torrent has a task that looks after its
//! pieces and chokes and unchokes its peers ([`Choker`]).

mod bans;
mod buyer;
mod choker;
mod config;
mod connection;
mod conversation;
mod dial;
mod discovery;
mod greet;
mod handle;
mod hashes;
mod info;
mod known;
mod limits;
mod listener;
mod node;
mod sales;
mod served;
mod source;
mod torrent;
mod upkeep;

pub use choker::{Candidate, Choker, ChokerConfig};
pub use config::{BitTorrentConfig, BitTorrentError};
pub use info::TorrentInfo;
pub use source::PeerSource;

pub(super) use dial::DialError;
pub(super) use discovery::{Discovery, Ports};
pub(super) use hashes::MAX_LAYER;
pub(super) use known::Origin;
pub(super) use node::{Node, info_hash_of};
pub(super) use torrent::Torrent;
