//! Limits on rates, up and down: token buckets in two levels, shared by weight.
//!
//! A [`Limiter`] has a rate for all of its [`Flow`]s together, and each flow may have one of its
//! own. Whoever moves bytes asks its flow first ([`Flow::acquire`]) and waits for its turn;
//! without a limit that costs nothing. What several flows share goes to them by weight; within
//! a flow everybody who asks has an equal part. All of it can be changed while bytes move.
//!
//! The engine has one limiter for downloads, with a flow for each. [`Uploads`] is the one for
//! what is served, with a flow for each file: any protocol that serves asks it.

mod bucket;
mod limiter;
mod shaper;
mod uploads;

pub use limiter::{Flow, Limiter};
pub use shaper::{FlowId, Grant, Shaper, Ticket};
pub use uploads::Uploads;
