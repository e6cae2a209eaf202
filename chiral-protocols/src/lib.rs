#![doc = include_str!("../README.md")]

pub mod engine;
#[cfg(feature = "http")]
pub mod http;
pub mod manager;
pub mod reader;
pub mod scheduler;

pub use engine::{
    Connector, Delivered, Download, DownloadReport, Engine, EngineConfig, Finished, Readable,
};
pub use manager::{NotRegistered, ProtocolManager};
pub use reader::{ReadError, Reader};
