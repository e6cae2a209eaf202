//! Journeys through the facade, over real sockets and real files on loopback.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

mod auto_seed;
mod control;
mod failover;
mod heads;
mod in_band;
mod journeys;
mod lifecycle;
mod paying;
mod policies;
mod streaming;
mod support;
mod swarm_paying;
mod torrents;
mod trouble;
mod web;
mod web_seeds;
