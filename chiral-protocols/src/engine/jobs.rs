//! Work that is not done in the download's own task: hashing, and what waits for disk or
//! network.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::transfer::TransferEventKind;
use chiral_core::{
    ChunkHash, ChunkLink, Coverage, ForwardChain, MerkleRoot, PartialFile, StoreError,
    TransferError, VerifiedPage,
};

use super::active::Active;
use super::assembly::{Assembled, Contributions};
use super::checks::Checked;
use super::pages;
use super::pieces::PieceChecked;
use crate::scheduler::SourceId;

/// What came of a job.
pub(super) enum JobDone {
    /// Chunks were checked under a root and, if they passed, written.
    Checked(Vec<Checked>),
    /// Bytes that cannot be judged yet were written; where they lead, if a hash before them
    /// was offered.
    Stored {
        index: u32,
        from: Contributions,
        link: Option<ChunkLink>,
    },
    /// The chunk at the frontier was tried from every hash offered.
    Examined {
        index: u32,
        bytes: Bytes,
        tried: Vec<ChunkHash>,
        closed: Option<ChunkLink>,
    },
    /// Chunks were hashed in order.
    Hashed { chain: ForwardChain },
    /// All is proven: these had sent other bytes, of this chunk.
    Wrong(Vec<(SourceId, u32)>),
    /// A page came, or nobody had it.
    Page {
        root: MerkleRoot,
        index: u32,
        page: Result<Box<VerifiedPage>, TransferError>,
    },
    /// A piece was checked by its own hash.
    Piece(PieceChecked),
    /// A chunk of a piece could not be read back for that.
    PieceUnread {
        piece: u32,
        ticket: u64,
        error: StoreError,
    },
    /// A chunk that was on disk was read back.
    Reread(Assembled),
    /// A source said again what it holds.
    Coverage {
        source: SourceId,
        coverage: Coverage,
    },
    /// The source did not say.
    Nothing,
    /// The disk failed.
    StoreFailed(StoreError),
}

/// Hashes on a thread for that. Only a panic can keep the answer away, and it goes on here.
pub(super) async fn hashing<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down; so is this task.
        Err(_) => std::future::pending().await,
    }
}

impl Active<'_> {
    /// Writes bytes that cannot be judged yet, and finds where they lead from `before`.
    pub(super) fn store_linked(&mut self, chunk: Assembled, before: Option<ChunkHash>) {
        let (layout, partial) = (self.layout, self.partial.clone());
        self.jobs.spawn(async move {
            let Assembled {
                index, bytes, from, ..
            } = chunk;
            let link = match before {
                None => None,
                Some(before) => {
                    let bytes = bytes.clone();
                    hashing(move || ChunkLink::compress(layout, index, before, &bytes).ok()).await
                }
            };
            match partial.write_unproven(index, bytes).await {
                Ok(()) => JobDone::Stored { index, from, link },
                Err(error) => JobDone::StoreFailed(error),
            }
        });
    }

    /// Writes bytes that nothing is known about.
    pub(super) fn store_unproven(&mut self, chunk: Assembled) {
        self.store_linked(chunk, None);
    }

    /// Reads a chunk back and tries every hash that is said to precede it.
    pub(super) fn examine(&mut self, index: u32, after: ChunkHash, befores: Vec<ChunkHash>) {
        let (layout, partial) = (self.layout, self.partial.clone());
        self.jobs.spawn(async move {
            let bytes = match partial.read(index).await {
                Ok(bytes) => bytes,
                Err(error) => return JobDone::StoreFailed(error),
            };
            let (data, tried) = (bytes.clone(), befores.clone());
            let closed = hashing(move || {
                befores
                    .into_iter()
                    .filter_map(|before| ChunkLink::compress(layout, index, before, &data).ok())
                    .find(|link| link.after() == after)
            });
            JobDone::Examined {
                index,
                bytes,
                tried,
                closed: closed.await,
            }
        });
    }

    /// Hashes the chunks that follow in a chain: those that are given from memory, the others
    /// from disk.
    pub(super) fn hash_on(&mut self, mut chain: ForwardChain, chunks: Vec<Option<Bytes>>) {
        let partial = self.partial.clone();
        self.jobs.spawn(async move {
            let mut chunks = chunks.into_iter().peekable();
            while let Some(first) = chunks.next() {
                let first = match first {
                    Some(bytes) => bytes,
                    None => match partial.read(chain.next_index()).await {
                        Ok(bytes) => bytes,
                        Err(error) => return JobDone::StoreFailed(error),
                    },
                };
                // As many as there are in one go: to wake a thread for each takes its time.
                let rest = std::iter::from_fn(|| chunks.next_if(Option::is_some).flatten());
                let run: Vec<Bytes> = std::iter::once(first).chain(rest).collect();
                let (moved, pushed) = hashing(move || {
                    // Each goes back to whoever lent it as soon as it is hashed.
                    let pushed = run.into_iter().all(|bytes| chain.push(&bytes).is_ok());
                    (chain, pushed)
                })
                .await;
                chain = moved;
                if !pushed {
                    // The store handed out a chunk of another length than it took.
                    let index = chain.next_index();
                    return JobDone::StoreFailed(StoreError::Chunk { index });
                }
            }
            JobDone::Hashed { chain }
        });
    }

    /// Gets a page: kept from an earlier run, or from one of these sources.
    pub(super) fn load_page(
        &mut self,
        root: MerkleRoot,
        index: u32,
        sources: &[SourceId],
        keep: bool,
    ) {
        let (layout, partial) = (self.layout, self.partial.clone());
        let sources = super::tail::sources_of(&self.run.known, sources);
        let limit = self.run.config().request_timeout;
        self.jobs.spawn(async move {
            if keep && let Some(page) = pages::kept(&*partial, root, index).await {
                return JobDone::Page {
                    root,
                    index,
                    page: Ok(Box::new(page)),
                };
            }
            let page = pages::fetch(sources, root, layout, index, limit).await;
            if keep
                && let Ok(page) = &page
                && let Err(error) = partial.store_page(page).await
            {
                return JobDone::StoreFailed(error);
            }
            JobDone::Page {
                root,
                index,
                page: page.map(Box::new),
            }
        });
    }

    /// Reads a chunk back that an earlier run left unproven.
    pub(super) fn reread(&mut self, index: u32) {
        let partial: Arc<dyn PartialFile> = self.partial.clone();
        let from = self.run.unproven_from.remove(&index).unwrap_or_default();
        self.busy.insert(index);
        self.jobs.spawn(async move {
            match partial.read(index).await {
                Ok(bytes) => JobDone::Reread(Assembled::unchecked(index, bytes, from)),
                Err(error) => JobDone::StoreFailed(error),
            }
        });
    }

    /// Asks a source anew what it holds.
    pub(super) fn ask_coverage(&mut self, source: SourceId) {
        let Some(connected) = self.run.known.get(&source) else {
            return;
        };
        let asked = connected.source.clone();
        let limit = self.run.config().request_timeout;
        self.jobs.spawn(async move {
            match tokio::time::timeout(limit, asked.coverage()).await {
                Ok(Ok(coverage)) => JobDone::Coverage { source, coverage },
                _ => JobDone::Nothing,
            }
        });
    }

    /// A chunk's bytes are on disk.
    pub(super) fn note_present(&mut self, index: u32) {
        self.busy.remove(&index);
        if !self.present.set(index, true) {
            let unproven = self.unproven();
            self.run
                .driver
                .emit(TransferEventKind::ChunkPresent { index, unproven });
        }
    }

    /// A chunk is proven; whoever it came from delivered it.
    pub(super) fn note_proven(&mut self, index: u32, from: &Contributions) {
        if !self.proven.set(index, true) {
            self.run.attribution.proven(from);
            self.run.tellers.proven(from);
            self.run.owner.readable().proven(index);
            let unproven = self.unproven();
            self.run
                .driver
                .emit(TransferEventKind::ChunkProven { index, unproven });
        }
    }
}
