//! Buyer and seeder against each other, and each against a hostile other side, on a ledger
//! on which tests can put anything.
#![allow(clippy::unwrap_used)]

mod alone;
mod at_once;
mod bargain;
mod bounds;
mod channels;
mod claims;
mod contract;
mod crashes;
mod credit;
mod embedded;
mod ledger;
mod sessions;
mod support;
mod terms;
mod vanish;
