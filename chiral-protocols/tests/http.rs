//! HTTP in both roles over real sockets: conformance, foreign clients, hostile peers.

#![cfg(feature = "http")]
// The helpers are tests too, which the lint cannot know.
#![allow(clippy::unwrap_used)]

#[path = "http/conformance.rs"]
mod conformance;
#[path = "http/curl.rs"]
mod curl;
#[path = "http/hostile_clients.rs"]
mod hostile_clients;
#[path = "http/hostile_messages.rs"]
mod hostile_messages;
#[path = "http/hostile_servers.rs"]
mod hostile_servers;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/mirrors.rs"]
mod mirrors;
#[path = "http/paying.rs"]
mod paying;
#[path = "http/payment.rs"]
mod payment;
#[path = "http/server.rs"]
mod server;
#[path = "http/support.rs"]
mod support;
#[path = "http/till.rs"]
mod till;
