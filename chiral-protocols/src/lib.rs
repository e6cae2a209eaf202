#![doc = include_str!("../README.md")]

pub mod engine;
#[cfg(feature = "http")]
pub mod http;
pub mod manager;
pub mod scheduler;

pub use engine::{Connector, Delivered, Download, DownloadReport, Engine, EngineConfig, Finished};
pub use manager::{NotRegistered, ProtocolManager};
