//! A node of the network over libp2p: [`Libp2pNode`].
//!
//! One task owns the swarm; [`PeerDirectory`](chiral_core::PeerDirectory) and
//! [`PeerNetwork`](chiral_core::PeerNetwork) speak to it. What is published is validated by
//! [`records`](crate::records), which knows nothing of the swarm.

pub mod address_policy;
pub mod config;
pub mod error;
pub mod node;

mod actor;
mod admission;
mod behaviour;
mod buffered;
mod data_dir;
mod directory;
mod framing;
mod handle;
mod kademlia;
mod muxer;
mod network;
mod node_record;
mod signer;
mod streams;
mod tls;
mod transport;

pub use address_policy::AddressPolicy;
pub use config::{ConnectionLimits, Libp2pConfig};
pub use data_dir::MAX_REMEMBERED_PEERS;
pub use directory::MAX_FILES;
pub use error::Libp2pError;
pub use node::Libp2pNode;
pub use node_record::{NODE_PROTOCOL, NodeInfo};

/// The directory's protocol.
pub const KAD_PROTOCOL: &str = "/chiral/kad/1.0.0";

/// Streams that wait for an acceptor; what comes beyond is reset.
pub const MAX_WAITING_STREAMS: usize = 64;

/// Messages that wait for a subscriber; what comes beyond is lost.
pub const MAX_WAITING_MESSAGES: usize = 64;

/// A peer's id as the traits have it.
fn to_core(peer: &libp2p::PeerId) -> chiral_core::PeerId {
    chiral_core::PeerId::from_bytes(&peer.to_bytes())
        .expect("a libp2p id is a code, a length and at most 42 bytes")
}

/// A peer's id as libp2p has it; none if it is of another kind.
fn from_core(peer: &chiral_core::PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(peer.as_bytes()).ok()
}
