//! Vocabulary and traits of the Chiral network.

pub mod range;
pub use range::{ByteRange, RangeSet, RequestGrid};
