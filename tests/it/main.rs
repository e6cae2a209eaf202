//! Journeys through the facade, over real sockets and real files on loopback.

mod journeys;
mod lifecycle;
mod support;
mod web;
