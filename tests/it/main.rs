//! Journeys through the facade, over real sockets and real files on loopback.

mod control;
mod journeys;
mod lifecycle;
mod support;
