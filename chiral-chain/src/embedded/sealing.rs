//! The task that makes blocks on demand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::engine::{Engine, Next};
use super::since_1970;

/// How long it rests after a failure that is not of the disk.
const REST: Duration = Duration::from_secs(1);

/// Makes blocks until it is told to stop.
pub(super) async fn run(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    // An error is the end of all handles, without a shutdown.
    while !*stop.borrow_and_update() && stop.has_changed().is_ok() {
        // Made before the question, so that nothing that comes after it is missed.
        let woken = engine.wake.notified();
        let wait = match engine.next(since_1970()) {
            Next::Now(seconds) => {
                let sealing = engine.clone();
                let sealed = tokio::task::spawn_blocking(move || sealing.seal(seconds)).await;
                match sealed {
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => tracing::error!(%error, "no block could be made"),
                    Err(error) => tracing::error!(%error, "making a block was cut off"),
                }
                REST
            }
            Next::After(wait) => wait,
            Next::Idle => {
                tokio::select! {
                    () = woken => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
        };
        // A new transaction does not make the clock go faster, but it may end the wait for a
        // lower base fee.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = woken => {}
            _ = stop.changed() => {}
        }
    }
}
