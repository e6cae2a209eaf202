//! The chain itself: everything here is synchronous, and may wait for the disk.

mod logs;
mod read;
mod seal;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use tokio::sync::{Notify, watch};

pub(crate) use logs::{FoundLog, LogQuery, block_logs};
pub use logs::{MAX_LOG_BLOCKS, MAX_LOGS};
pub(crate) use read::{Found, unavailable};
pub(super) use seal::Next;

use super::block::StoredBlock;
use super::config::EmbeddedConfig;
use super::pool::Pool;
use super::roots::Roots;
use super::state::{AccountChange, Basic, Changes, State, StateView};
use super::store::{Store, StoreError};
use super::validate::{self, refused};
use crate::client::{BlockRef, ChainError, RefusalKind};
use crate::spec::{ChainSpec, GenesisAccount};

/// Blocks that are kept decoded.
const RECENT_BLOCKS: usize = 64;

/// Hashes that are loaded for the BLOCKHASH opcode.
const BLOCK_HASHES: usize = 256;

/// Locks are taken in the order of the fields, and never across a wait.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) spec: ChainSpec,
    pub(crate) config: EmbeddedConfig,
    pub(crate) genesis: B256,
    store: Store,
    /// Whoever has it makes the next block.
    sealer: Mutex<Roots>,
    pool: Mutex<Pool>,
    state: Arc<RwLock<State>>,
    head: RwLock<Arc<StoredBlock>>,
    recent: Mutex<VecDeque<Arc<StoredBlock>>>,
    /// None after the end.
    heads: Mutex<Option<watch::Sender<BlockRef>>>,
    /// Told when there may be something to mine.
    pub(super) wake: Notify,
    /// A write failed: what is in memory may be ahead of what is on disk.
    stopped: AtomicBool,
}

/// Nothing panics while it holds a lock; what is behind would be whole even then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens the store, and writes block 0 if it is new.
    pub(super) fn open(spec: ChainSpec, config: EmbeddedConfig) -> Result<Self, StoreError> {
        let store = Store::open(config.data_dir.as_deref())?;
        let genesis = spec.genesis_hash();
        let (head, is_new) = match store.head()? {
            Some(head) => (head, false),
            None => {
                let header = spec.genesis_header();
                let total = header.difficulty;
                let block = StoredBlock::new(header, total, Vec::new(), Vec::new());
                store.commit(&block, &genesis_changes(&spec))?;
                (block, true)
            }
        };
        if !is_new {
            let first = store
                .header(0)?
                .ok_or(StoreError::Damaged { what: "no block 0" })?;
            let found = first.hash_slow();
            if found != genesis {
                return Err(StoreError::Genesis {
                    expected: genesis,
                    found,
                });
            }
        }
        let state = store.load_state(head.header.number, BLOCK_HASHES)?;
        let mut roots = Roots::of(&state);
        if roots.root() != head.header.state_root {
            return Err(StoreError::Damaged {
                what: "the state is not that of the head",
            });
        }
        let head = Arc::new(head);
        Ok(Self {
            genesis,
            store,
            sealer: Mutex::new(roots),
            pool: Mutex::new(Pool::new(config.pool)),
            state: Arc::new(RwLock::new(state)),
            heads: Mutex::new(Some(watch::Sender::new(head.id()))),
            recent: Mutex::new(VecDeque::from([head.clone()])),
            head: RwLock::new(head),
            wake: Notify::new(),
            stopped: AtomicBool::new(false),
            spec,
            config,
        })
    }

    /// The newest block.
    pub(crate) fn head(&self) -> Arc<StoredBlock> {
        self.head
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The state as a block left it.
    pub(crate) fn view(&self, number: u64) -> StateView {
        StateView::new(self.state.clone(), number)
    }

    /// The pool.
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    /// Follows the head; none after the end.
    pub(super) fn subscribe(&self) -> Option<watch::Receiver<BlockRef>> {
        lock(&self.heads).as_ref().map(watch::Sender::subscribe)
    }

    /// Ends the streams of heads.
    pub(super) fn close(&self) {
        lock(&self.heads).take();
    }

    /// Takes a transaction into the pool.
    pub(crate) fn send(&self, raw: &[u8]) -> Result<B256, ChainError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(failed(StoreError::Stopped));
        }
        let checked = validate::check(&self.spec, raw)?;
        let hash = *checked.transaction.tx_hash();
        let sender = checked.transaction.signer();
        // One that is mined has a nonce that is too low; its own name is the better answer.
        if self.store.transaction(hash).map_err(failed)?.is_some() {
            return Err(refused(RefusalKind::AlreadyKnown, "already known"));
        }
        let mut pool = self.pool();
        let hash = pool.insert(checked, self.account_now(sender))?;
        drop(pool);
        self.wake.notify_one();
        Ok(hash)
    }

    /// How many transactions wait for nothing but a block, and how many for others.
    #[cfg(feature = "server")]
    pub(crate) fn pool_counts(&self) -> (usize, usize) {
        self.pool().counts(|sender| self.account_now(sender).nonce)
    }

    /// An account after the newest block that the state has taken over.
    fn account_now(&self, address: Address) -> Basic {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .newest(address)
    }
}

/// A failure of the store, as callers see it.
pub(crate) fn failed(error: StoreError) -> ChainError {
    ChainError::Store(Box::new(error))
}

/// Block 0 makes the accounts of the spec out of nothing.
fn genesis_changes(spec: &ChainSpec) -> Changes {
    let mut changes = Changes::default();
    for (address, account) in &spec.alloc {
        let GenesisAccount {
            balance,
            nonce,
            code,
            storage,
        } = account;
        let code_hash = if code.is_empty() {
            KECCAK256_EMPTY
        } else {
            let hash = keccak256(code);
            changes.codes.insert(hash, code.clone().into());
            hash
        };
        let storage: BTreeMap<U256, U256> = storage
            .iter()
            .map(|(slot, value)| (U256::from_be_bytes(slot.0), U256::from_be_bytes(value.0)))
            .collect();
        let basic = Some(Basic {
            nonce: *nonce,
            balance: *balance,
            code_hash,
        });
        changes.accounts.insert(
            *address,
            AccountChange {
                basic,
                wiped: false,
                storage,
            },
        );
    }
    changes
}
