//! Group commit: one thread makes the partial files of a store durable. It also closes the
//! objects that nobody asks for any more.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use chiral_core::{StoreError, TransferId};

use super::config::FsStoreConfig;
use super::meta::Meta;
use super::opened::Opened;
use super::partial::Partial;
use crate::blocking::lock;

/// The thread, and the partial files it has to look after.
#[derive(Debug)]
pub(super) struct Flusher {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    config: FsStoreConfig,
    opened: Arc<Opened>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    dirty: BTreeMap<TransferId, Arc<Partial>>,
    stopping: bool,
}

impl Flusher {
    /// Starts the thread, if the configuration wants one.
    pub(super) fn start(config: &FsStoreConfig, opened: &Arc<Opened>) -> std::io::Result<Self> {
        let (config, queue) = (config.clone(), Mutex::default());
        let inner = Arc::new(Inner {
            config,
            opened: Arc::clone(opened),
            queue,
            wake: Condvar::new(),
        });
        let thread = match inner.config.background {
            true => {
                let inner = Arc::clone(&inner);
                let named = std::thread::Builder::new().name("chiral-store".into());
                Some(named.spawn(move || inner.run())?)
            }
            false => None,
        };
        Ok(Self {
            inner,
            thread: Mutex::new(thread),
        })
    }

    /// Looks after a partial file until what was written to it is durable.
    pub(super) fn note(&self, partial: &Arc<Partial>) {
        self.inner.note(partial);
    }

    /// Looks after an object that has been opened.
    pub(super) fn note_opened(&self) {
        // Whoever is about to wait has looked at what is open with this lock held.
        let _queue = lock(&self.inner.queue);
        self.inner.wake.notify_one();
    }

    /// Ends the thread after the commit that is running.
    pub(super) fn stop(&self) {
        let dirty = {
            let mut queue = lock(&self.inner.queue);
            queue.stopping = true;
            std::mem::take(&mut queue.dirty)
        };
        self.inner.wake.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes writes durable panicked");
        }
        for partial in dirty.into_values() {
            partial.room.notify_waiters();
        }
    }
}

impl Inner {
    fn note(&self, partial: &Arc<Partial>) {
        let now = Instant::now();
        let due = lock(&partial.pending).due(&self.config, now);
        let mut queue = lock(&self.queue);
        let known = queue.dirty.contains_key(&partial.transfer);
        if !queue.stopping && !known {
            queue.dirty.insert(partial.transfer, Arc::clone(partial));
        }
        if !known || due.is_some_and(|due| due <= now) {
            self.wake.notify_one();
        }
    }

    fn run(&self) {
        while let Some(due) = self.wait() {
            if let Some(first) = due.first()
                && let Err(error) = commit(&first.shared.meta, &due)
            {
                tracing::error!(%error, "writes could not be made durable");
            }
            for partial in &due {
                let again = lock(&partial.pending).due(&self.config, Instant::now());
                if again.is_some() {
                    self.note(partial);
                }
            }
        }
    }

    /// Waits until some partial files are due; none when the store closes.
    fn wait(&self) -> Option<Vec<Arc<Partial>>> {
        let mut queue = lock(&self.queue);
        while !queue.stopping {
            let now = Instant::now();
            let mut due = Vec::new();
            let mut next = self.opened.expire(now);
            queue.dirty.retain(|_, partial| {
                let at = lock(&partial.pending).due(&self.config, now);
                match at {
                    Some(at) if at > now => {
                        next = Some(next.map_or(at, |next| next.min(at)));
                        return true;
                    }
                    Some(_) => due.push(Arc::clone(partial)),
                    None => {}
                }
                false
            });
            if !due.is_empty() {
                return Some(due);
            }
            queue = match next {
                Some(next) => {
                    let woken = self.wake.wait_timeout(queue, next - now);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }
}

/// Makes what has been written to these partial files durable: first the data of each, then
/// the bits of all.
pub(super) fn commit<P: Deref<Target = Partial>>(
    meta: &Meta,
    partials: &[P],
) -> Result<(), StoreError> {
    // In one order everywhere, so that two commits of several files do not wait for each other.
    let mut partials: Vec<&Partial> = partials.iter().map(|partial| &**partial).collect();
    partials.sort_by_key(|partial| partial.transfer);
    partials.dedup_by_key(|partial| partial.transfer);
    let commits: Vec<_> = partials
        .iter()
        .map(|partial| lock(&partial.commit))
        .collect();
    let mut result = Ok(());
    let (mut synced, mut changes) = (Vec::new(), Vec::new());
    for partial in &partials {
        let begun = lock(&partial.pending).begin_commit(partial.transfer);
        let Some(change) = begun else { continue };
        match partial.sync_files(!change.pages.is_empty()) {
            Ok(()) => {
                synced.push(*partial);
                changes.push(change);
            }
            Err(error) => {
                lock(&partial.pending).commit_failed(&change, &error, true, Instant::now());
                result = Err(error);
            }
        }
    }
    if !changes.is_empty() {
        let committed = meta.commit_partials(&changes);
        for (partial, change) in synced.iter().zip(&changes) {
            let mut pending = lock(&partial.pending);
            match &committed {
                Ok(()) => pending.committed(),
                Err(error) => pending.commit_failed(change, error, false, Instant::now()),
            }
        }
        result = result.and(committed);
    }
    drop(commits);
    for partial in partials {
        partial.room.notify_waiters();
    }
    result
}
