//! What a block's transactions have done so far, above the state of its parent.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::database_interface::{Database, DatabaseCommit, DatabaseRef};
use revm::primitives::AddressMap;
use revm::state::{Account, AccountInfo};

use super::state::{AccountChange, Basic, Changes, StateError, StateView};

/// A state that is written to without the one beneath being touched.
#[derive(Debug)]
pub(super) struct Overlay {
    base: StateView,
    changes: Changes,
}

impl Overlay {
    pub(super) fn new(base: StateView) -> Self {
        Self {
            base,
            changes: Changes::default(),
        }
    }

    /// What was done.
    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }

    /// An account as it is now; the empty one where there is none.
    pub(super) fn account(&self, address: Address) -> Result<Basic, StateError> {
        match self.changes.accounts.get(&address) {
            Some(change) => Ok(change.basic.unwrap_or_default()),
            None => self.base.basic(address),
        }
    }

    /// Adds to a balance, as a block reward does.
    pub(super) fn credit(&mut self, address: Address, amount: U256) -> Result<(), StateError> {
        let mut basic = self.account(address)?;
        basic.balance = basic.balance.saturating_add(amount);
        self.changes.accounts.entry(address).or_default().basic = Some(basic);
        Ok(())
    }
}

impl Database for Overlay {
    type Error = StateError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        Ok(match self.changes.accounts.get(&address) {
            Some(change) => change.basic.map(|basic| AccountInfo {
                balance: basic.balance,
                nonce: basic.nonce,
                code_hash: basic.code_hash,
                account_id: None,
                code: None,
            }),
            None => self.base.basic_ref(address)?,
        })
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, StateError> {
        match self.changes.codes.get(&hash) {
            Some(code) => Ok(Bytecode::new_raw(code.clone())),
            None => self.base.code_by_hash_ref(hash),
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, StateError> {
        if let Some(change) = self.changes.accounts.get(&address) {
            if let Some(value) = change.storage.get(&slot) {
                return Ok(*value);
            }
            if change.wiped {
                return Ok(U256::ZERO);
            }
        }
        self.base.storage_ref(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, StateError> {
        self.base.block_hash_ref(number)
    }
}

impl DatabaseCommit for Overlay {
    fn commit(&mut self, state: AddressMap<Account>) {
        for (address, account) in state {
            if !account.is_touched() {
                continue;
            }
            let change = self.changes.accounts.entry(address).or_default();
            // EIP-161: what was touched and is empty is not there.
            if account.is_selfdestructed() || account.is_empty() {
                *change = AccountChange {
                    basic: None,
                    wiped: true,
                    storage: BTreeMap::new(),
                };
                continue;
            }
            if account.is_created() {
                change.wiped = true;
                change.storage.clear();
            }
            if let Some(code) = &account.info.code
                && account.info.code_hash != KECCAK256_EMPTY
                && account.is_created()
            {
                self.changes
                    .codes
                    .insert(account.info.code_hash, code.original_bytes());
            }
            change.basic = Some(Basic {
                nonce: account.info.nonce,
                balance: account.info.balance,
                code_hash: account.info.code_hash,
            });
            for (slot, value) in account.changed_storage_slots() {
                change.storage.insert(*slot, value.present_value);
            }
        }
    }
}
