//! Buyer and seeder against each other, and each against a hostile other side, on a ledger
//! on which tests can put anything.
#![allow(clippy::unwrap_used)]

mod bargain;
mod claims;
mod crashes;
mod credit;
mod embedded;
mod ledger;
mod sessions;
mod support;
mod terms;
mod vanish;
