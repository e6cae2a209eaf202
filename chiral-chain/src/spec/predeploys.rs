//! Contracts that the development chain has from the start: `devnet-predeploys.json` beside
//! this file, which the script that compiles them writes.

use alloy_primitives::{Address, Bytes};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Predeploy {
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) code: Bytes,
}

pub(super) fn of_devnet() -> Vec<Predeploy> {
    serde_json::from_str(include_str!("devnet-predeploys.json"))
        .expect("a file of this crate, read by its tests")
}
