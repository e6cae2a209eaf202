//! [`Keeper`]: what is remembered of peers is kept in the data directory.

use std::path::Path;
use std::time::Duration;

use chiral_protocols::PeerBook;
use chiral_protocols::peers::PeerRecords;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::state_file::StateFile;

/// The file in the data directory, and its version.
const FILE: (&str, u32) = ("peers.json", 1);

/// News is gathered for so long before it is written.
const GATHER: Duration = Duration::from_secs(1);

/// Reads once, and writes when there is news; for good at the end.
#[derive(Debug)]
pub(crate) struct Keeper {
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl Keeper {
    /// Without a directory nothing is kept.
    pub(crate) fn start(book: PeerBook, directory: Option<&Path>) -> Self {
        let keeper = Self {
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        if let Some(directory) = directory {
            let file = StateFile::new(directory.join(FILE.0), FILE.1);
            if let Some(records) = file.read::<PeerRecords>() {
                book.restore(&records);
            }
            keeper.tasks.spawn(keep(book, file, keeper.closed.clone()));
        }
        keeper
    }

    /// Writes what there is; idempotent.
    pub(crate) async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn keep(book: PeerBook, file: StateFile, closed: CancellationToken) {
    let mut kept = book.records();
    while !closed.is_cancelled() {
        let news = async {
            book.changed().await;
            tokio::time::sleep(GATHER).await;
        };
        closed.run_until_cancelled(news).await;
        let records = book.records();
        if records == kept {
            continue;
        }
        let (to, what) = (file.clone(), records.clone());
        match tokio::task::spawn_blocking(move || to.write(&what)).await {
            Ok(Ok(())) => kept = records,
            // It is tried again with the next news.
            Ok(Err(error)) => tracing::error!(%error, "what is known of peers was not written"),
            Err(error) => tracing::error!(%error, "what is known of peers was not written"),
        }
    }
}
