//! Telling sources what of their bytes is proven, and whether the root is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chiral_core::{ByteRange, ChunkSource, MerkleRoot, RangeSet};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::assembly::Contributions;
use crate::scheduler::SourceId;

/// Time for sources to hear the last of what is proven.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Time for a source to close.
const CLOSING: Duration = Duration::from_secs(5);

/// What a source has still to be told. Bounded by the chunks of the file: what touches is one.
#[derive(Debug, Default)]
struct News {
    proven: RangeSet,
    over: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    news: Mutex<News>,
    changed: Notify,
}

impl Mailbox {
    fn put(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Teller {
    source: Arc<dyn ChunkSource>,
    mailbox: Arc<Mailbox>,
}

/// One task for each source that ever took part, so that a slow one holds nothing up: also
/// those that were put out or are gone are told what of theirs was proven later.
#[derive(Debug, Default)]
pub(super) struct Tellers {
    by_source: BTreeMap<SourceId, Teller>,
    tasks: JoinSet<()>,
    /// Whether every chunk is checked as it comes, and under which root, if under one.
    known: Option<Option<MerkleRoot>>,
    /// Where what is proven begins, in a download from the end.
    frontier: Option<u64>,
}

impl Tellers {
    /// A source takes part.
    pub(super) fn join(&mut self, id: SourceId, source: Arc<dyn ChunkSource>) {
        if let Some(root) = self.known {
            say(&*source, root);
        } else if let Some(offset) = self.frontier {
            source.proven_from(offset);
        }
        let mailbox = Arc::<Mailbox>::default();
        self.tasks.spawn(tell(source.clone(), mailbox.clone()));
        self.by_source.insert(id, Teller { source, mailbox });
    }

    /// Every chunk is checked as it comes from now on, under this root.
    pub(super) fn root_known(&mut self, root: MerkleRoot) {
        self.checked(Some(root));
    }

    /// Every byte is checked soon after it came, by the hashes of another network.
    pub(super) fn pieces_known(&mut self) {
        self.checked(None);
    }

    fn checked(&mut self, root: Option<MerkleRoot>) {
        if self.known.replace(root).is_none() {
            for teller in self.by_source.values() {
                say(&*teller.source, root);
            }
        }
    }

    /// All from here on is proven, and what lies before it is next.
    pub(super) fn proven_from(&mut self, offset: u64) {
        if self.frontier.replace(offset) != Some(offset) && self.known.is_none() {
            for teller in self.by_source.values() {
                teller.source.proven_from(offset);
            }
        }
    }

    /// A chunk is proven; each is reported once.
    pub(super) fn proven(&self, from: &Contributions) {
        for (range, id) in from {
            if let Some(teller) = self.by_source.get(id) {
                teller.mailbox.put(|news| {
                    news.proven.insert(*range);
                });
            }
        }
    }

    /// Waits until every source has been told everything, then closes them all.
    pub(super) async fn finish(mut self) {
        for teller in self.by_source.values() {
            teller.mailbox.put(|news| news.over = true);
        }
        let told = async {
            while let Some(result) = self.tasks.join_next().await {
                // A panic in a protocol costs its source, not the download.
                if let Err(error) = result {
                    tracing::error!(%error, "a source was not told all that is proven");
                }
            }
        };
        if timeout(LAST_WORDS, told).await.is_err() {
            tracing::error!("sources did not hear in time what is proven");
        }
        let close = |teller: &Teller| {
            let source = teller.source.clone();
            async move { timeout(CLOSING, source.close()).await }
        };
        // One that does not close in time is dropped with this.
        join_all(self.by_source.values().map(close)).await;
    }
}

/// Tells a source that what it brings is checked.
fn say(source: &dyn ChunkSource, root: Option<MerkleRoot>) {
    match root {
        Some(root) => source.root_is(root),
        None => source.root_known(),
    }
}

async fn tell(source: Arc<dyn ChunkSource>, mailbox: Arc<Mailbox>) {
    loop {
        let (proven, over) = {
            let mut news = mailbox.lock();
            (std::mem::take(&mut news.proven), news.over)
        };
        if proven.is_empty() {
            if over {
                return;
            }
            mailbox.changed.notified().await;
            continue;
        }
        let runs: Vec<ByteRange> = proven.iter().collect();
        for run in runs {
            source.verified(run).await;
        }
    }
}
