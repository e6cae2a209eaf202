//! Tasks that hyper spawns.

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns what belongs to connections: it is waited for with `tasks`, and ended by `closed`.
#[derive(Clone, Debug)]
pub(super) struct Background {
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
}

impl<F> Executor<F> for Background
where
    F: Future + Send + 'static,
{
    fn execute(&self, work: F) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            closed.run_until_cancelled(work).await;
        });
    }
}
