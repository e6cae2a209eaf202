//! A small session, in every order in which it can happen: messages that come, are lost and come
//! again, sides that are killed and started again from what they wrote down, sides that go away
//! for good, locks that expire, a channel that is ended in the middle. After every single step
//! both sides take from the chain what they can, and count what they have lost.
//!
//! What decides is the real thing: [`PayerChannel`], [`PayeeChannel`] and [`Window`]. What is
//! sent is signed. The line, the chain and the time are the test's.
//!
//! [`PayerChannel`]: chiral_payment::channel::PayerChannel
//! [`PayeeChannel`]: chiral_payment::channel::PayeeChannel
//! [`Window`]: chiral_payment::channel::Window
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

mod hostile;
mod sealed;
mod session;
mod world;
