//! State roots: one trie of accounts, and one for each account that has storage. A block costs
//! what it changed, not what there is.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};

use super::state::{Basic, Changes, State};
use super::trie::Trie;

/// The tries of the state after the head.
#[derive(Debug, Default)]
pub(super) struct Roots {
    accounts: Trie,
    storages: HashMap<Address, Trie>,
}

impl Roots {
    /// Builds them from scratch.
    pub(super) fn of(state: &State) -> Self {
        let mut roots = Self::default();
        for (address, basic, storage) in state.accounts() {
            for (slot, value) in storage {
                roots.set_slot(*address, *slot, *value);
            }
            roots.set_account(*address, Some(basic));
        }
        roots
    }

    /// Takes over what a block did, and answers the state root after it.
    pub(super) fn apply(&mut self, changes: &Changes) -> B256 {
        for (address, change) in &changes.accounts {
            if change.wiped {
                self.storages.remove(address);
            }
            for (slot, value) in &change.storage {
                self.set_slot(*address, *slot, *value);
            }
            self.set_account(*address, change.basic.as_ref());
        }
        self.accounts.root()
    }

    /// The state root.
    pub(super) fn root(&mut self) -> B256 {
        self.accounts.root()
    }

    fn set_slot(&mut self, address: Address, slot: U256, value: U256) {
        let rlp = if value.is_zero() {
            Vec::new()
        } else {
            alloy_rlp::encode(value)
        };
        let key = keccak256(slot.to_be_bytes::<32>());
        self.storages.entry(address).or_default().set(key, rlp);
    }

    fn set_account(&mut self, address: Address, basic: Option<&Basic>) {
        let rlp = match basic {
            None => {
                self.storages.remove(&address);
                Vec::new()
            }
            Some(basic) => {
                let storage_root = self
                    .storages
                    .get_mut(&address)
                    .map_or(EMPTY_ROOT_HASH, Trie::root);
                if storage_root == EMPTY_ROOT_HASH {
                    self.storages.remove(&address);
                }
                alloy_rlp::encode(TrieAccount {
                    nonce: basic.nonce,
                    balance: basic.balance,
                    storage_root,
                    code_hash: basic.code_hash,
                })
            }
        };
        self.accounts.set(keccak256(address), rlp);
    }
}
