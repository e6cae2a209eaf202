//! The mainline DHT (BEP 5; 32 for IPv6, 42 for ids, 43 for read-only nodes): who is in a
//! torrent's swarm, without a tracker.
//!
//! [`MainlineDht`] runs a [`Node`] on a [`UdpPort`](crate::bittorrent::udp::UdpPort), which uTP
//! and UDP trackers can share. The node itself is a state machine without socket and clock.
//!
//! What others may do to it is limited: by address ([`allowance`]), by torrent and by address
//! ([`store`]), by the token that an announcement needs, and by one place for each address in
//! the table and in a search.

pub mod allowance;
mod driver;
pub mod krpc;
mod lookup;
mod node;
mod node_id;
mod saved;
pub mod store;
mod table;
mod tokens;
mod votes;

pub use driver::{DhtError, DhtStatus, MainlineDht, Peers};
pub use node::{Announcement, Event, Node, NodeConfig, SearchId};
pub use node_id::NodeId;

/// Most peers that one search finds.
pub const MAX_FOUND: usize = 2000;
/// Most searches for peers at a time.
pub const MAX_SEARCHES: usize = 64;
