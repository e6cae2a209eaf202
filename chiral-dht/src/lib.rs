#![doc = include_str!("../README.md")]

pub mod memory_directory;
pub mod memory_network;
#[cfg(feature = "libp2p")]
pub mod records;
#[cfg(feature = "libp2p")]
pub mod swarm;

#[cfg(feature = "libp2p")]
pub use libp2p::Multiaddr;
pub use memory_directory::{MemoryDirectory, MemoryDirectoryNetwork};
pub use memory_network::{MemoryNetwork, MemoryNetworkHub};
#[cfg(feature = "libp2p")]
pub use swarm::{Libp2pConfig, Libp2pError, Libp2pNode};
