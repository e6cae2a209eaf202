//! The accounts as they are now, and what they were a little while ago.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::database_interface::{DBErrorMarker, DatabaseRef};
use revm::state::AccountInfo;

/// Blocks back from the head whose state can still be asked.
pub const HISTORY_BLOCKS: u64 = 128;

/// Hashes that the BLOCKHASH opcode can ask for.
const BLOCK_HASHES: usize = 256;

/// An account without its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Basic {
    pub(crate) nonce: u64,
    pub(crate) balance: U256,
    pub(crate) code_hash: B256,
}

impl Default for Basic {
    fn default() -> Self {
        Self {
            nonce: 0,
            balance: U256::ZERO,
            code_hash: KECCAK256_EMPTY,
        }
    }
}

/// What a block did to one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountChange {
    /// The account afterwards; none if it is gone.
    pub(crate) basic: Option<Basic>,
    /// Whether everything that its storage had is gone before `storage` is written.
    pub(crate) wiped: bool,
    /// Slots that were written; zero removes.
    pub(crate) storage: BTreeMap<U256, U256>,
}

/// What a block did to the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) accounts: BTreeMap<Address, AccountChange>,
    pub(crate) codes: BTreeMap<B256, Bytes>,
}

#[derive(Debug, Default)]
struct Account {
    basic: Basic,
    storage: HashMap<U256, U256>,
}

/// What undoes one block.
#[derive(Debug, Default)]
struct Undo {
    accounts: HashMap<Address, Option<Basic>>,
    storage: HashMap<(Address, U256), U256>,
}

/// The state after the head, in memory, with what undoes the last [`HISTORY_BLOCKS`] blocks.
#[derive(Debug, Default)]
pub(crate) struct State {
    head: u64,
    accounts: HashMap<Address, Account>,
    codes: HashMap<B256, Bytecode>,
    /// Hashes up to the head, which is the last.
    hashes: VecDeque<B256>,
    /// The last one undoes the head.
    undo: VecDeque<Undo>,
}

impl State {
    /// An account as it was loaded from disk.
    pub(super) fn load_account(&mut self, address: Address, basic: Basic) {
        self.accounts.entry(address).or_default().basic = basic;
    }

    /// A slot as it was loaded from disk; its account is there already.
    pub(super) fn load_slot(&mut self, address: Address, slot: U256, value: U256) {
        self.accounts
            .entry(address)
            .or_default()
            .storage
            .insert(slot, value);
    }

    /// A code as it was loaded from disk.
    pub(super) fn load_code(&mut self, hash: B256, code: Bytes) {
        self.codes.insert(hash, Bytecode::new_raw(code));
    }

    /// The head and the hashes up to it, when everything is loaded.
    pub(super) fn load_head(&mut self, head: u64, hashes: Vec<B256>) {
        self.head = head;
        self.hashes = hashes.into();
    }

    /// Takes over what block `number` did. The caller has made it durable.
    pub(super) fn apply(&mut self, number: u64, hash: B256, changes: &Changes) {
        let mut undo = Undo::default();
        for (hash, code) in &changes.codes {
            self.codes
                .entry(*hash)
                .or_insert_with(|| Bytecode::new_raw(code.clone()));
        }
        for (address, change) in &changes.accounts {
            let old = self.accounts.get(address);
            undo.accounts
                .insert(*address, old.map(|account| account.basic));
            if change.wiped
                && let Some(old) = old
            {
                undo.storage.extend(
                    old.storage
                        .iter()
                        .map(|(slot, value)| ((*address, *slot), *value)),
                );
            }
            for slot in change.storage.keys() {
                let value = old.and_then(|account| account.storage.get(slot).copied());
                undo.storage
                    .insert((*address, *slot), value.unwrap_or_default());
            }
            let Some(basic) = change.basic else {
                self.accounts.remove(address);
                continue;
            };
            let account = self.accounts.entry(*address).or_default();
            account.basic = basic;
            if change.wiped {
                account.storage.clear();
            }
            for (slot, value) in &change.storage {
                if value.is_zero() {
                    account.storage.remove(slot);
                } else {
                    account.storage.insert(*slot, *value);
                }
            }
        }
        self.head = number;
        self.hashes.push_back(hash);
        if self.hashes.len() > BLOCK_HASHES {
            self.hashes.pop_front();
        }
        self.undo.push_back(undo);
        if self.undo.len() as u64 > HISTORY_BLOCKS {
            self.undo.pop_front();
        }
    }

    /// What undoes the blocks after `number`, the earliest first.
    fn undo_from(&self, number: u64) -> Result<impl Iterator<Item = &Undo>, StateError> {
        let back = self
            .head
            .checked_sub(number)
            .ok_or(StateError::Unknown { number })?;
        let skip = (self.undo.len() as u64)
            .checked_sub(back)
            .ok_or(StateError::Pruned {
                number,
                head: self.head,
            })?;
        Ok(self
            .undo
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX)))
    }

    /// An account after the head; the empty one where there is none.
    pub(super) fn newest(&self, address: Address) -> Basic {
        self.accounts
            .get(&address)
            .map(|account| account.basic)
            .unwrap_or_default()
    }

    fn basic(&self, address: Address, number: u64) -> Result<Option<Basic>, StateError> {
        for undo in self.undo_from(number)? {
            if let Some(old) = undo.accounts.get(&address) {
                return Ok(*old);
            }
        }
        Ok(self.accounts.get(&address).map(|account| account.basic))
    }

    fn storage(&self, address: Address, slot: U256, number: u64) -> Result<U256, StateError> {
        for undo in self.undo_from(number)? {
            if let Some(old) = undo.storage.get(&(address, slot)) {
                return Ok(*old);
            }
        }
        let account = self.accounts.get(&address);
        Ok(account
            .and_then(|account| account.storage.get(&slot).copied())
            .unwrap_or_default())
    }

    /// Every account, as the tries are built from.
    pub(super) fn accounts(
        &self,
    ) -> impl Iterator<Item = (&Address, &Basic, &HashMap<U256, U256>)> {
        self.accounts
            .iter()
            .map(|(address, account)| (address, &account.basic, &account.storage))
    }
}

/// Why the state of a block cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StateError {
    /// It is too old.
    #[error("state of block {number} is not kept any more: the head is {head}")]
    Pruned { number: u64, head: u64 },
    /// There is no such block yet.
    #[error("no block {number}")]
    Unknown { number: u64 },
    /// An account names a code that is not there.
    #[error("code {0} is missing")]
    CodeMissing(B256),
}

impl DBErrorMarker for StateError {}

/// The state as block `number` left it. It stays that while later blocks come, until the
/// block is more than [`HISTORY_BLOCKS`] old; no lock is held between two questions.
#[derive(Clone, Debug)]
pub(crate) struct StateView {
    state: Arc<RwLock<State>>,
    number: u64,
}

impl StateView {
    pub(super) fn new(state: Arc<RwLock<State>>, number: u64) -> Self {
        Self { state, number }
    }

    fn read<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        // Nothing panics while it writes; the state would be whole even then.
        ask(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An account; the empty one where there is none.
    pub(crate) fn basic(&self, address: Address) -> Result<Basic, StateError> {
        Ok(self
            .read(|state| state.basic(address, self.number))?
            .unwrap_or_default())
    }

    /// A code; empty for an account without one.
    pub(crate) fn code(&self, address: Address) -> Result<Bytes, StateError> {
        let hash = self.basic(address)?.code_hash;
        if hash == KECCAK256_EMPTY {
            return Ok(Bytes::new());
        }
        Ok(self.code_by_hash_ref(hash)?.original_bytes())
    }
}

impl DatabaseRef for StateView {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        let basic = self.read(|state| state.basic(address, self.number))?;
        Ok(basic.map(|basic| AccountInfo {
            balance: basic.balance,
            nonce: basic.nonce,
            code_hash: basic.code_hash,
            account_id: None,
            code: None,
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StateError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        self.read(|state| state.codes.get(&hash).cloned())
            .ok_or(StateError::CodeMissing(hash))
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.read(|state| state.storage(address, slot, self.number))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        Ok(self
            .read(|state| {
                let back = state.head.checked_sub(number)?;
                let back = usize::try_from(back).ok()?;
                let index = state.hashes.len().checked_sub(1)?.checked_sub(back)?;
                state.hashes.get(index).copied()
            })
            .unwrap_or_default())
    }
}
