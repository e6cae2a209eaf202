#![doc = include_str!("../README.md")]

mod auto_seed;
mod builder;
mod error;
#[cfg(all(feature = "chain", feature = "libp2p"))]
mod exchange;
mod get;
mod keeper;
#[cfg(all(feature = "chain", feature = "libp2p"))]
mod loopback;
#[cfg(feature = "chain")]
mod money;
mod node;
mod settle;
mod share;
mod start;
mod state_file;
mod status;
#[cfg(feature = "bittorrent")]
mod torrent;
mod unfinished;

pub use builder::NodeBuilder;
pub use error::{BuildError, NodeError};
pub use get::{DEFAULT_MAX_BYTES, Get, Getting, Got};
#[cfg(all(feature = "chain", feature = "libp2p"))]
pub use loopback::Loopback;
pub use node::Node;
pub use share::{Share, Shared};
pub use status::{NodeStatus, PenaltyStatus, ProtocolStatus, TransferStatus};
#[cfg(feature = "bittorrent")]
pub use torrent::{GetTorrent, GettingTorrent, GotFile, GotTorrent, TorrentSource};
pub use unfinished::Unfinished;

#[cfg(feature = "chain")]
pub use chiral_chain as chain;
pub use chiral_core as core;
pub use chiral_dht as dht;
pub use chiral_payment as payment;
pub use chiral_protocols as protocols;
pub use chiral_storage as storage;

pub use chiral_protocols::{ReadError, Reader};

pub use chiral_core::{
    ByteRange, Cid, ContentProtocol, Endpoint, FileIdentification, FileMetadata, Link,
    ManifestHeader, MerkleRoot, PeerDirectory, PeerId, PeerOffer, Price, Priority, Protocol, Rate,
    Transfer, TransferError, TransferId,
};
