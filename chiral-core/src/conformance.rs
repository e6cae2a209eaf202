//! Conformance suites: one for each trait that implementers write, to be run in their own
//! tests (feature `conformance`).
//!
//! Each suite is a set of async functions that take a way of making fresh implementations
//! and panic with what was expected. None of them needs a particular runtime.

pub mod chunk_source;
pub mod chunk_store;
pub mod content_protocol;
pub mod payment_gate;
pub mod payment_settler;
pub mod peer_directory;
pub mod peer_network;
pub mod wallet;
