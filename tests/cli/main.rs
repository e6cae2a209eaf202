//! The command line, as processes: what `examples/chiral` promises its users.
//!
//! Needs `curl` and `sh`. `CHIRAL_KILLS` is how often a download is killed, 5 unless set;
//! `CHIRAL_PAYING_KILLS` how often one that pays, 10 unless set.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "full")]

mod channels;
mod commands;
mod control;
mod harness;
mod kills;
mod paying;
mod receipts;
mod share_and_get;
mod slow_link;
mod streaming;
mod torrents;
mod wallets;
