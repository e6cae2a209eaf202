//! The private protocol in both roles over a network in memory: conformance, payment,
//! connections that break, hostile peers.

#![cfg(feature = "private")]
// The helpers are tests too, which the lint cannot know.
#![allow(clippy::unwrap_used)]

mod by_name;
#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod hostile;
mod paying;
mod sealed;
mod sessions;
mod support;
#[path = "../http/till.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of http, which need more of it"
)]
mod till;
