//! The contracts that payments use, as they are called from here. Their sources, and what
//! they compile to, are in `contracts/` of this crate.

pub mod batch_pay;
pub mod channels;
pub mod factory;

pub use batch_pay::{BatchPayment, Leg};
pub use channels::ChannelState;
