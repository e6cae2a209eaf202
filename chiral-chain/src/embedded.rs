//! [`EmbeddedChain`]: a chain in this process, with nothing installed.
//!
//! Transactions are executed by revm under the rules of the spec, and make blocks with correct
//! roots, receipts and logs, which persist in one redb file if a directory is given.
//!
//! # How blocks are sealed
//! By this process alone, on demand or by hand ([`Sealing`]). **There is no proof of work**: mix
//! hash and nonce of every header are zero, though its difficulty follows the formula (EIP-100).
//! Blocks of others are not taken, and there are no reorganisations.
//!
//! # What is kept
//! All blocks (in memory, too, if there is no directory: nothing is ever thrown away), and the state after the newest one, which is also in memory. The state of
//! earlier blocks (balances, nonces, calls) can be asked for the last [`HISTORY_BLOCKS`] blocks
//! that were made since the chain was opened. Transactions that wait are in memory only: after a
//! crash they must be sent again.

mod block;
mod call;
mod client;
mod config;
mod difficulty;
mod engine;
mod execute;
mod overlay;
mod pool;
mod roots;
mod sealing;
mod state;
mod store;
mod trie;
mod validate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use config::{EmbeddedConfig, Sealing};
pub use engine::{MAX_LOG_BLOCKS, MAX_LOGS};
pub use pool::PoolLimits;
pub use state::HISTORY_BLOCKS;
pub use store::StoreError;

#[cfg(feature = "server")]
pub(crate) use block::StoredBlock;
pub(crate) use engine::Engine;
#[cfg(feature = "server")]
pub(crate) use engine::{Found, FoundLog, LogQuery, unavailable};

use crate::client::{BlockRef, ChainError};
use crate::spec::ChainSpec;

/// Questions that are worked on at once; others wait for their turn.
const MAX_AT_ONCE: u32 = 64;

/// A chain in this process. Clones are the same chain.
///
/// Whoever has opened it must [`shutdown`](crate::ChainClient::shutdown) it: that ends the
/// sealing task and lets go of the file. Needs a Tokio runtime.
#[derive(Clone, Debug)]
pub struct EmbeddedChain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None after the end, so that the file is let go.
    engine: Mutex<Option<Arc<Engine>>>,
    /// Closed at the end.
    turns: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    sealing: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let engine = self
            .engine
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if engine.is_some() {
            tracing::warn!("embedded chain dropped without shutdown");
        }
    }
}

impl EmbeddedChain {
    /// Opens the chain of a spec. A directory that holds a chain already is gone on with at its
    /// newest block; nothing that was ever answered as mined is lost, not even by a crash.
    ///
    /// # Errors
    /// [`StoreError`]; among them the directory of another chain, and one that another process
    /// has.
    ///
    /// # Cancel safety
    /// If it is dropped the chain may be opened all the same, and is closed at once.
    pub async fn open(spec: ChainSpec, config: EmbeddedConfig) -> Result<Self, StoreError> {
        let sealing = config.sealing;
        let opened = tokio::task::spawn_blocking(move || Engine::open(spec, config)).await;
        let engine = Arc::new(opened.map_err(|_| StoreError::Stopped)??);
        let (stop, stopped) = watch::channel(false);
        let turns = Arc::new(Semaphore::new(MAX_AT_ONCE as usize));
        let task = (sealing == Sealing::OnDemand)
            .then(|| tokio::spawn(sealing::run(engine.clone(), stopped)));
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Mutex::new(Some(engine)),
                turns,
                stop,
                sealing: tokio::sync::Mutex::new(task),
            }),
        })
    }

    /// Makes a block of what can be mined now, be it nothing. Its time may be ahead of the
    /// clock without a limit, if the last blocks were made within one second.
    ///
    /// # Errors
    /// [`ChainError::Store`]; the chain makes no more blocks after that. [`ChainError::Closed`].
    ///
    /// # Cancel safety
    /// If it is dropped the block may be made all the same.
    pub async fn seal(&self) -> Result<BlockRef, ChainError> {
        self.run(|engine| engine.seal(since_1970().as_secs()).map(|block| block.id()))
            .await
    }

    /// The spec that it was opened with.
    ///
    /// # Errors
    /// [`ChainError::Closed`].
    pub fn spec(&self) -> Result<ChainSpec, ChainError> {
        Ok(self.engine()?.spec.clone())
    }

    pub(crate) fn engine(&self) -> Result<Arc<Engine>, ChainError> {
        let engine = self
            .inner
            .engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or(ChainError::Closed)
    }

    /// Does something that may take a while where it does not hold up the runtime.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, ChainError> + Send + 'static,
    ) -> Result<T, ChainError> {
        let turn = self.inner.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| ChainError::Closed)?;
        let engine = self.engine()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&engine);
            drop(engine);
            drop(turn);
            done
        });
        // It panics or the runtime ends: either way there is no answer.
        done.await.map_err(|_| ChainError::Closed)?
    }

    async fn close(&self) {
        self.inner.stop.send_replace(true);
        if let Some(task) = self.inner.sealing.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the sealing task failed");
        }
        // Whoever has a turn finishes first.
        if let Ok(all) = self.inner.turns.acquire_many(MAX_AT_ONCE).await {
            all.forget();
            self.inner.turns.close();
        }
        let engine = self
            .inner
            .engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(engine) = engine {
            engine.close();
            // Closing the database waits for the disk.
            let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
        }
    }
}

/// The clock.
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
