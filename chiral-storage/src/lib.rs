//! Chunk stores of the Chiral network.

mod blocking;

mod junction;
pub mod memory;
mod requests;

#[cfg(feature = "fs-store")]
pub mod fs;

#[cfg(feature = "fs-store")]
pub use fs::{FsStore, FsStoreConfig};
pub use memory::MemoryStore;
