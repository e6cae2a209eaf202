//! The settler against a real chain in this process: each bill is paid exactly once, whatever
//! crashes, is lost or lies.
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

mod crashes;
mod faults;
mod gathering;
mod ordinary;
mod restored;
mod rig;
mod steps;
mod storm;
mod unreliable;
