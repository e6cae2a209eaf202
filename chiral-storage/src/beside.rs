//! Sidecars made in the same pass as the identity, each on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use chiral_core::chunk_store::ImportRequest;
use chiral_core::sidecar::MAX_SIDECAR_LEN;
use chiral_core::{FileHasher, StoreError};

use crate::requests;

/// Buffers that wait for a hasher that is slower than the others.
const WAITING: usize = 2;

/// A sidecar by name.
pub(crate) type Sidecar = (String, Bytes);

/// The hashers of one import.
pub(crate) struct Beside(Vec<Hasher>);

struct Hasher {
    name: String,
    place: Place,
}

enum Place {
    /// On the thread that hashes for the identity: of a small file.
    Here(Box<dyn FileHasher>),
    There(Worker),
}

struct Worker {
    /// None once the file has ended.
    feed: Option<SyncSender<Arc<Vec<u8>>>>,
    thread: Option<JoinHandle<Option<Bytes>>>,
}

impl Beside {
    /// Begins all hashers of a request that suit its file. With `threads`, each has one.
    pub(crate) fn start(
        request: &ImportRequest,
        size: u64,
        threads: bool,
    ) -> Result<Self, StoreError> {
        requests::check_sidecars(request)?;
        let suiting = request
            .sidecars
            .iter()
            .filter(|sidecar| sidecar.suits(size));
        let hashers = suiting.map(|sidecar| Hasher {
            name: sidecar.name().to_owned(),
            place: match threads {
                true => Worker::start(sidecar.start()),
                false => Place::Here(sidecar.start()),
            },
        });
        Ok(Self(hashers.collect()))
    }

    /// Takes the next bytes of the file; waits for hashers that fall behind.
    pub(crate) fn take_shared(&mut self, bytes: &Arc<Vec<u8>>) {
        for hasher in &mut self.0 {
            match &mut hasher.place {
                Place::Here(hasher) => hasher.update(bytes),
                Place::There(worker) => {
                    if let Some(feed) = &worker.feed {
                        // Who does not listen has panicked: seen at the end.
                        let _ = feed.send(Arc::clone(bytes));
                    }
                }
            }
        }
    }

    /// The same for bytes that are borrowed: threads are given a copy.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self
            .0
            .iter()
            .all(|hasher| matches!(hasher.place, Place::Here(_)))
        {
            for hasher in &mut self.0 {
                if let Place::Here(hasher) = &mut hasher.place {
                    hasher.update(bytes);
                }
            }
        } else {
            self.take_shared(&Arc::new(bytes.to_vec()));
        }
    }

    /// Ends the file. What is over the limit, or failed, is missing.
    pub(crate) fn finish(self) -> Vec<Sidecar> {
        let mut made = Vec::new();
        for Hasher { name, place } in self.0 {
            let bytes = match place {
                Place::Here(hasher) => hasher.finish(),
                Place::There(mut worker) => worker.join(),
            };
            match bytes {
                Some(bytes) if bytes.len() <= MAX_SIDECAR_LEN => made.push((name, bytes)),
                Some(bytes) => {
                    tracing::warn!(
                        name,
                        len = bytes.len(),
                        "sidecar over the limit is not kept"
                    );
                }
                None => tracing::debug!(name, "no sidecar of this file"),
            }
        }
        made
    }
}

impl Worker {
    fn start(hasher: Box<dyn FileHasher>) -> Place {
        let (feed, fed) = sync_channel::<Arc<Vec<u8>>>(WAITING);
        let (give, given) = sync_channel::<Box<dyn FileHasher>>(1);
        let thread = std::thread::Builder::new()
            .name("chiral-sidecar".into())
            .spawn(move || {
                let mut hasher = given.recv().ok()?;
                for bytes in fed {
                    hasher.update(&bytes);
                }
                hasher.finish()
            });
        match thread {
            Ok(thread) => {
                // It waits for this first of all.
                let _ = give.send(hasher);
                Place::There(Self {
                    feed: Some(feed),
                    thread: Some(thread),
                })
            }
            // Slower, but as good.
            Err(_) => Place::Here(hasher),
        }
    }

    fn join(&mut self) -> Option<Bytes> {
        self.feed = None;
        let ended = self.thread.take()?.join();
        if ended.is_err() {
            tracing::error!("hasher of a sidecar panicked");
        }
        ended.ok().flatten()
    }
}

impl Drop for Worker {
    /// A pass that fails leaves no thread behind.
    fn drop(&mut self) {
        self.join();
    }
}
