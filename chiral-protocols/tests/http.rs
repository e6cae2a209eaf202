//! HTTP in both roles over real sockets: conformance, foreign clients, hostile peers.

#![cfg(feature = "http")]
// The helpers are tests too, which the lint cannot know.
#![allow(clippy::unwrap_used)]

#[path = "http/codings.rs"]
mod codings;
mod common;
#[path = "http/conformance.rs"]
mod conformance;
#[path = "http/curl.rs"]
mod curl;
#[path = "http/frames.rs"]
mod frames;
#[path = "http/hostile_clients.rs"]
mod hostile_clients;
#[cfg(feature = "tls")]
#[path = "http/hostile_http2.rs"]
mod hostile_http2;
#[path = "http/hostile_messages.rs"]
mod hostile_messages;
#[path = "http/hostile_servers.rs"]
mod hostile_servers;
#[path = "http/http2.rs"]
mod http2;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/manners.rs"]
mod manners;
#[path = "http/metalink.rs"]
mod metalink;
#[path = "http/mirrors.rs"]
mod mirrors;
#[path = "http/page.rs"]
mod page;
#[path = "http/paying.rs"]
mod paying;
#[path = "http/payment.rs"]
mod payment;
#[path = "http/pipelining.rs"]
mod pipelining;
#[path = "http/proxies.rs"]
mod proxies;
#[path = "http/ranges.rs"]
mod ranges;
#[path = "http/server.rs"]
mod server;
#[path = "http/support.rs"]
mod support;
#[path = "http/till.rs"]
mod till;
#[cfg(feature = "tls")]
#[path = "http/tls.rs"]
mod tls;
#[cfg(feature = "tls")]
#[path = "http/tls_support.rs"]
mod tls_support;
