//! What the DHT's records promise, against whoever does not keep to them.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used)]

mod announcements;
mod node_records;
mod nodes;
mod reading;
mod storing;
