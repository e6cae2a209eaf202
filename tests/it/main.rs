//! Journeys through the facade, over real sockets and real files on loopback.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

mod auto_seed;
mod control;
mod failover;
mod in_band;
mod journeys;
mod lifecycle;
mod paying;
mod streaming;
mod support;
mod trouble;
mod web;
