//! The factory that makes a contract at the same address on every chain.

use alloy_primitives::{Address, B256, address, keccak256};
use bytes::Bytes;

/// Where many chains have it (<https://github.com/Arachnid/deterministic-deployment-proxy>):
/// whoever sends it a salt and a code makes the contract, once.
pub const FACTORY: Address = address!("4e59b44847b379578588920ca78fbf26c0b4956c");

/// Where a contract is once [`FACTORY`] was told to make it (EIP-1014).
pub(super) fn address_of(salt: B256, creation_code: &[u8]) -> Address {
    FACTORY.create2(salt, keccak256(creation_code))
}

/// What to send to [`FACTORY`] to have it made; whoever does it.
pub(super) fn words(salt: B256, creation_code: &[u8]) -> Bytes {
    [salt.as_slice(), creation_code].concat().into()
}
