#![doc = include_str!("../README.md")]

#[cfg(feature = "bittorrent")]
pub mod bittorrent;
pub mod downloads;
pub mod engine;
#[cfg(feature = "http")]
pub mod http;
pub mod limits;
pub mod manager;
pub mod peers;
pub mod reader;
pub mod scheduler;
pub mod selection;

pub use downloads::Downloads;
pub use engine::{
    Connector, Delivered, Download, DownloadReport, Engine, EngineConfig, Finished, Readable,
};
pub use limits::{Flow, Limiter, Uploads};
pub use manager::{NotRegistered, ProtocolManager};
pub use peers::{PeerBook, Penalty, PenaltyKind};
pub use reader::{ReadError, Reader};
