//! BitTorrent in both roles over real sockets: conformance, swarms, hostile peers.

#![cfg(feature = "bittorrent")]
// The helpers are tests too, which the lint cannot know.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "bittorrent/conformance.rs"]
mod conformance;
#[path = "bittorrent/crowd.rs"]
mod crowd;
#[path = "bittorrent/discovery.rs"]
mod discovery;
#[path = "bittorrent/holepunch.rs"]
mod holepunch;
#[path = "bittorrent/hostile.rs"]
mod hostile;
#[path = "bittorrent/liars.rs"]
mod liars;
#[path = "bittorrent/support.rs"]
mod support;
#[path = "bittorrent/swarm.rs"]
mod swarm;
#[path = "bittorrent/v2.rs"]
mod v2;
