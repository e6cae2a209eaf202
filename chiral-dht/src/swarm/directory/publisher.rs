//! The task that publishes what is due.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Shared;
use super::table::{Job, Statement};
use crate::records::{Publication, RecordError, provider_key};
use crate::swarm::handle::{Closed, Stored};

/// Files that are published at once.
const AT_ONCE: usize = 16;

/// How long an attempt may take: two phases of a query, each with its own timeout.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(65);

/// How often it is looked whether the network has grown.
const GROWTH_EVERY: Duration = Duration::from_secs(10);

/// When nothing is due, a while: the task is woken when something is.
const LONG: Duration = Duration::from_secs(3600);

/// Publishes until the directory or the node is stopped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut status = shared.handle.status.clone();
    let mut growth = interval(GROWTH_EVERY);
    growth.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = FuturesUnordered::new();
    let mut was_known = 0;
    loop {
        while running.len() < AT_ONCE {
            let Some(job) = shared.table().take_due(Instant::now()) else {
                break;
            };
            shared.reserve().await;
            running.push(publish(&shared, job));
        }
        let next = if running.len() < AT_ONCE {
            shared.table().next_due()
        } else {
            None
        };
        let next = next.unwrap_or_else(|| Instant::now() + LONG);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.wake.notified() => {}
            () = sleep_until(next) => {}
            Some(()) = running.next() => {}
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                let known = status.borrow_and_update().known;
                if was_known == 0 && known > 0 {
                    shared.table().network_grew(known, Instant::now());
                }
                was_known = known;
            }
            _ = growth.tick() => {
                let known = status.borrow().known;
                shared.table().network_grew(known, Instant::now());
            }
        }
    }
}

/// One attempt to publish one file's statement.
async fn publish(shared: &Shared, job: Job) {
    let known = shared.handle.status.borrow().known;
    let attempt = timeout(ATTEMPT_TIMEOUT, store(shared, &job)).await;
    let acknowledged = match attempt {
        Ok(Ok(acknowledged)) => acknowledged,
        Ok(Err(error)) => {
            tracing::warn!(cid = %job.cid, %error, "not published");
            0
        }
        Err(_) => 0,
    };
    let pause = jittered(pause(shared, &job.statement));
    let now = (Instant::now(), shared.now().as_secs());
    shared
        .table()
        .attempted(job, acknowledged, known, now, pause);
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the wallet did not sign")]
    Wallet,
    #[error("the node is shut down")]
    Closed,
}

impl From<Closed> for PublishError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// Puts the records of a statement; answers how many nodes acknowledged the least of them.
async fn store(shared: &Shared, job: &Job) -> Result<usize, PublishError> {
    let binding = shared.binding().await.map_err(|_| PublishError::Wallet)?;
    let now = shared.now();
    let publication = {
        let mut table = shared.table();
        let seq = table.sequence.next(now);
        let publication = match &job.statement {
            Statement::Announced(announcement) => {
                Publication::announce(&shared.key, binding, announcement, seq, now)?
            }
            Statement::Withdrawn(header, until) => {
                Publication::withdraw(&shared.key, header, seq, *until, now)?
            }
        };
        table.signed(job, publication.expires_at);
        publication
    };
    if let Statement::Announced(_) = job.statement {
        shared.handle.provide(provider_key(job.cid)).await?;
    }
    let puts = publication
        .records
        .into_iter()
        .map(|(key, value)| shared.handle.put(key.to_kad(), value));
    let mut least = usize::MAX;
    for stored in join_all(puts).await {
        least = least.min(match stored? {
            Stored::By(nodes) => nodes,
            Stored::Refused => 0,
        });
    }
    Ok(least)
}

/// How long until a statement that others hold is to be repeated.
fn pause(shared: &Shared, statement: &Statement) -> Duration {
    match statement {
        // An announcement that holds for less is repeated as much sooner.
        Statement::Announced(announcement) => {
            let share = shared.republish.as_secs_f64() / shared.lifetime.as_secs_f64();
            announcement.lifetime.mul_f64(share).min(shared.republish)
        }
        Statement::Withdrawn(..) => LONG,
    }
}

/// Up to a sixth shorter or longer, so that what was announced together does not stay so.
fn jittered(pause: Duration) -> Duration {
    // Without randomness there is no jitter, which is no harm to one node.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let spread = pause / 3;
    let offset = spread.mul_f64(f64::from(random) / f64::from(u32::MAX));
    pause - pause / 6 + offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_sixth() {
        let pause = Duration::from_secs(60);
        for _ in 0..100 {
            let found = jittered(pause);
            assert!(
                found >= pause * 5 / 6 && found <= pause * 7 / 6,
                "{found:?}"
            );
        }
    }
}
