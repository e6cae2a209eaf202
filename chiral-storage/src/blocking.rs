//! Disk work on the runtime's threads for blocking work, and locks that outlive a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chiral_core::StoreError;

/// Runs `work` where blocking is allowed. It goes on if the future is dropped.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => Err(StoreError::Closed),
        },
    }
}

/// Locks; what a panicking holder left is used as it is, since every holder keeps the
/// guarded value consistent between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
