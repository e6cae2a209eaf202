#![doc = include_str!("../README.md")]

mod builder;
mod error;
mod get;
mod node;
mod settle;
mod share;
mod status;

pub use builder::NodeBuilder;
pub use error::{BuildError, NodeError};
pub use get::{DEFAULT_MAX_BYTES, Get, Getting, Got};
pub use node::Node;
pub use share::{Share, Shared};
pub use status::{NodeStatus, ProtocolStatus, TransferStatus};

pub use chiral_core as core;
pub use chiral_dht as dht;
pub use chiral_payment as payment;
pub use chiral_protocols as protocols;
pub use chiral_storage as storage;

pub use chiral_core::{
    ByteRange, Cid, ContentProtocol, Endpoint, FileIdentification, FileMetadata, Link,
    ManifestHeader, MerkleRoot, PeerDirectory, PeerId, PeerOffer, Price, Protocol, Transfer,
    TransferError, TransferId,
};
