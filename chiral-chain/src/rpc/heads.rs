//! New heads, by asking for them.

use std::sync::Arc;

use futures_util::stream;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Inner;
use crate::{BlockRef, ChainError, HeadStream};

/// Heads after `known`. The node is asked only while somebody waits for the stream, so a slow
/// subscriber costs nothing and misses all but the newest. An unreachable node is asked again
/// with the next tick; the stream ends when the client is shut down.
pub(super) fn after(inner: Arc<Inner>, known: BlockRef) -> HeadStream {
    let period = inner
        .transport
        .config()
        .poll_interval
        .max(MIN_POLL_INTERVAL);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = (inner, known, ticks);
    Box::pin(stream::unfold(
        state,
        |(inner, known, mut ticks)| async move {
            loop {
                let tick = async {
                    ticks.tick().await;
                    inner.head().await
                };
                match inner.transport.until_closed(tick).await {
                    Ok(head) if head != known => return Some((head, (inner, head, ticks))),
                    Ok(_) => {}
                    Err(ChainError::Closed) => return None,
                    Err(error) => tracing::debug!(%error, "the chain's head cannot be asked"),
                }
            }
        },
    ))
}

/// The least time between two questions, whatever the settings say.
const MIN_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);
