//! The command line, as processes: what `examples/chiral` promises its users.
//!
//! Needs `curl` and `sh`. `CHIRAL_KILLS` is how often a download is killed, 5 unless set.

#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "http", feature = "fs-store"))]

mod commands;
mod harness;
mod kills;
mod share_and_get;
mod slow_link;
