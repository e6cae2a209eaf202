#![doc = include_str!("../README.md")]

#[cfg(feature = "bittorrent")]
pub mod bittorrent;
#[cfg(any(feature = "http", feature = "private"))]
mod chunk_hashes;
pub mod downloads;
pub mod engine;
#[cfg(feature = "http")]
pub mod http;
mod lane;
pub mod limits;
pub mod manager;
#[cfg(any(feature = "http", feature = "private"))]
mod meter;
#[cfg(any(feature = "http", feature = "private"))]
mod payer;
pub mod peers;
#[cfg(feature = "private")]
pub mod private;
pub mod reader;
pub mod scheduler;
#[cfg(any(feature = "http", feature = "private"))]
mod seeds;
pub mod selection;

pub use downloads::Downloads;
pub use engine::{
    Connector, Delivered, Download, DownloadReport, Engine, EngineConfig, Finished, Readable,
};
pub use limits::{Flow, Limiter, Uploads};
pub use manager::{NotRegistered, ProtocolManager};
pub use peers::{PeerBook, Penalty, PenaltyKind};
pub use reader::{ReadError, Reader};
