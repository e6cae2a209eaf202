//! Where the content of a Chiral node lies: complete objects, and downloads on their way.
//! [`MemoryStore`] keeps it in memory, `FsStore` in a directory, through crashes.
//!
//! ```
//! use chiral_core::chunk_store::{ChunkStore, ImportRequest, ImportSource};
//! # #[cfg(feature = "fs-store")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use chiral_storage::{FsStore, FsStoreConfig};
//!
//! # let dir = tempfile::tempdir()?;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! # let (path, dir) = (dir.path().join("report.txt"), dir.path().join("store"));
//! std::fs::write(&path, "what was found")?;
//! let store = FsStore::open(dir, FsStoreConfig::default()).await?;
//!
//! // The file stays where it is; the store remembers what it is.
//! let object = store.import(ImportRequest::new(ImportSource::Path(path))).await?;
//! store.pin(object.header.cid, "my shares").await?;
//! println!("{}", object.header.link());
//!
//! let content = store.open(object.header.cid).await?.expect("just imported");
//! assert_eq!(content.read((5..8).into()).await?, "was");
//! store.shutdown().await?;
//! # Ok(()) })
//! # }
//! # #[cfg(not(feature = "fs-store"))]
//! # fn main() {}
//! ```
//!
//! # Modules
//!
//! - [`memory`]: content in memory, under a limit on bytes.
//! - [`identify`]: the identity of a file, with nothing stored.
//! - `fs`: content in a directory. `design.md` beside this crate has the format.
//!
//! # Features
//!
//! - `fs-store`: `FsStore`, on Unix.

mod beside;
mod blocking;
mod junction;
mod read_ahead;
mod requests;

#[cfg(feature = "fs-store")]
pub mod fs;
pub mod identify;
pub mod memory;

#[cfg(feature = "fs-store")]
pub use fs::{FsStore, FsStoreConfig};
pub use identify::identify_file;
pub use memory::MemoryStore;
