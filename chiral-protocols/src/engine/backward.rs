//! With only the cid: from the end of the file towards its start, each chunk proving the
//! hash before it.
//!
//! A check takes a pair: the bytes of a chunk and the hash before it, against a proven
//! hash. A pair that fails condemns neither half. The pair that closes proves the place;
//! only then are sources with other bytes put out and roots with another hash dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::manifest::page_of;
use chiral_core::transfer::TransferEventKind;
use chiral_core::{
    ByteRange, ChunkHash, ChunkLink, ManifestHeader, MerkleRoot, PartialFile, StoreError,
    TransferError, VerifiedChunk, VerifiedPage, chain,
};

use super::active::{Active, Step};
use super::assembly::{Assembled, Contributions, sole};
use super::jobs::JobDone;
use super::run::describe;
use crate::scheduler::{Blame, Order, SourceId};

/// Bytes kept of one place that did not close with any hash offered.
const MAX_SUSPECTS: usize = 8;

/// How long after a page was not to be had it is asked for again.
const PAGE_RETRY: Duration = Duration::from_secs(1);

/// Failures of one candidate's pages before it is dropped.
const PAGE_FAILURES: u32 = 4;

/// A root that strangers announce for the cid.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) root: MerkleRoot,
    pub(super) size: u64,
    pub(super) header: ManifestHeader,
    pub(super) announcers: Vec<SourceId>,
    pub(super) pages: BTreeMap<u32, Arc<VerifiedPage>>,
    loading: Option<u32>,
    failures: u32,
    retry_at: Duration,
}

impl Candidate {
    pub(super) fn new(header: ManifestHeader, announcer: SourceId) -> Self {
        Self {
            root: header.root,
            size: header.size,
            header,
            announcers: vec![announcer],
            pages: BTreeMap::new(),
            loading: None,
            failures: 0,
            retry_at: Duration::ZERO,
        }
    }

    /// The hash before a chunk under this root, if its page is here.
    pub(super) fn before(&self, index: u32) -> Option<ChunkHash> {
        Some(self.pages.get(&page_of(index))?.around(index)?.0)
    }
}

/// A chunk on disk, above which everything need not be proven yet.
struct Held {
    from: Contributions,
    link: Option<ChunkLink>,
}

/// Bytes that closed with no hash offered so far.
struct Suspect {
    from: Contributions,
    bytes: Bytes,
}

pub(super) struct Backward {
    /// The next chunk to prove, and its hash, which is proven; `None` when all are.
    frontier: Option<(u32, ChunkHash)>,
    candidates: Vec<Candidate>,
    held: BTreeMap<u32, Held>,
    suspects: Vec<Suspect>,
    /// Hashes before the frontier that all suspects have been tried with.
    tried: Vec<ChunkHash>,
    examining: bool,
}

impl Active<'_> {
    pub(super) async fn begin_backward(
        &mut self,
        candidates: Vec<Candidate>,
        last: Option<(VerifiedChunk, SourceId)>,
    ) -> Result<Backward, TransferError> {
        if let Some((chunk, from)) = last {
            let (index, range) = (chunk.index(), self.layout.range(chunk.index()));
            if !self.proven.get(index) {
                self.partial.write(chunk).await?;
                self.run
                    .attribution
                    .received(from, range.len(), self.run.now());
                self.note_present(index);
                self.note_proven(index, &vec![(range, from)]);
            }
        }
        // What an earlier run proved is walked over by the first step.
        let cid = self.cid.ok_or_else(|| self.unknown())?;
        let frontier = self.layout.last().map(|last| (last, cid.into()));
        self.scheduler.set_order(Order::Backward);
        let mut backward = Backward {
            frontier,
            candidates,
            held: BTreeMap::new(),
            suspects: Vec::new(),
            tried: Vec::new(),
            examining: false,
        };
        for index in 0..self.layout.count() {
            if !self.present.get(index) {
                self.scheduler.want(self.layout.range(index));
            } else if !self.proven.get(index) {
                let from = self.run.unproven_from.remove(&index).unwrap_or_default();
                backward.held.insert(index, Held { from, link: None });
            }
        }
        self.slide(&backward);
        Ok(backward)
    }

    /// Lets bytes be fetched only from the window below the frontier.
    fn slide(&mut self, backward: &Backward) {
        if let Some((index, _)) = backward.frontier {
            let end = self.layout.range(index).end;
            self.run.tellers.proven_from(end);
            for (id, connected) in &self.run.known {
                self.scheduler.set_reach(*id, connected.source.lends());
            }
        }
        let window = match backward.frontier {
            None => ByteRange::new(0, 0),
            Some((index, _)) => {
                let reach = self.run.config().window_chunks.max(1);
                self.layout
                    .span((index + 1).saturating_sub(reach), index + 1)
            }
        };
        self.scheduler.set_window(window);
    }

    /// A source announces a root: one that is known, or another candidate.
    pub(super) fn announced(&mut self, backward: &mut Backward, id: SourceId) {
        if let Some(connected) = self.run.known.get(&id) {
            self.scheduler.set_reach(id, connected.source.lends());
        }
        let Some(header) = self.run.known.get(&id).and_then(|c| c.header.clone()) else {
            return;
        };
        if header.size != self.layout.size() {
            return;
        }
        let same = |candidate: &&mut Candidate| candidate.root == header.root;
        if let Some(candidate) = backward.candidates.iter_mut().find(same) {
            candidate.announcers.push(id);
            candidate.retry_at = Duration::ZERO;
        } else if backward.candidates.len() < self.run.config().max_candidates {
            backward.candidates.push(Candidate::new(header, id));
        }
    }

    pub(super) fn link_backward(&mut self, backward: &mut Backward, chunk: Assembled) {
        let leading = backward
            .candidates
            .iter()
            .find_map(|c| c.before(chunk.index));
        self.store_linked(chunk, leading);
    }

    pub(super) async fn step_backward(
        &mut self,
        backward: &mut Backward,
    ) -> Result<Option<Step>, TransferError> {
        self.advance(backward).await?;
        let Some((index, hash)) = backward.frontier else {
            return Ok(Some(Step::Done));
        };
        if self.load_pages(backward, index) {
            return Ok(Some(Step::Again));
        }
        let offered = backward.offered(index);
        if backward.held.contains_key(&index) {
            if !offered.is_empty() && !backward.examining {
                backward.examining = true;
                self.examine(index, hash, offered);
            }
        } else if !backward.suspects.is_empty() {
            let new: Vec<_> = offered
                .into_iter()
                .filter(|hash| !backward.tried.contains(hash))
                .collect();
            if !new.is_empty() {
                backward.tried.extend(&new);
                self.absolve(backward, index, hash, &new).await?;
            } else if self.nobody_left_for(index) {
                // Every source has sent this chunk and it fits no manifest: the manifests
                // are wrong, or all the sources are.
                self.run.without_manifest = true;
                return Ok(Some(Step::Again));
            }
        }
        Ok(None)
    }

    /// Whether a chunk is wanted, not on its way, and no source is left to ask for it.
    fn nobody_left_for(&self, index: u32) -> bool {
        let range = self.layout.range(index);
        !self.busy.contains(&index)
            && !self.present.get(index)
            && self.scheduler.unserved().covers(range)
            && self.run.connections.all_tried()
    }

    /// Proves what can be proven with what is on disk.
    async fn advance(&mut self, backward: &mut Backward) -> Result<(), TransferError> {
        let mut links = Vec::new();
        let before = backward.frontier;
        while let Some((index, hash)) = backward.frontier {
            if self.proven.get(index) {
                // Proven by an earlier run: the store knows the hash before it.
                backward.frontier = below(&*self.partial, index, hash).await?;
                continue;
            }
            let Some(link) = backward.held.get(&index).and_then(|held| held.link) else {
                break;
            };
            // From this hash the bytes lead elsewhere: others are tried.
            let Ok(proof) = link.prove(hash) else { break };
            links.push(proof);
            let from = backward
                .held
                .remove(&index)
                .map(|held| held.from)
                .unwrap_or_default();
            self.note_proven(index, &from);
            for forger in self.judge(backward, index, link) {
                self.drop_held(backward, forger).await?;
            }
            backward.frontier = index.checked_sub(1).map(|below| (below, link.before()));
        }
        if !links.is_empty() {
            self.partial.prove(links).await?;
        }
        if backward.frontier != before {
            self.slide(backward);
        }
        Ok(())
    }

    /// A place is proven: now others' bytes and hashes for it can be judged. Answers who is
    /// out for them.
    fn judge(&mut self, backward: &mut Backward, index: u32, link: ChunkLink) -> Vec<SourceId> {
        let mut forgers = Vec::new();
        backward.tried.clear();
        for suspect in std::mem::take(&mut backward.suspects) {
            let right = chain::check(
                self.layout,
                index,
                link.before(),
                link.after(),
                &suspect.bytes,
            );
            if right.is_err()
                && let Some(source) = sole(&suspect.from)
            {
                self.ban(
                    source,
                    &format!("chunk {index} contradicts its proven hash"),
                );
                forgers.push(source);
            }
        }
        let wrong = |candidate: &mut Candidate| {
            let before = candidate.before(index);
            before.is_some_and(|before| before != link.before())
        };
        for candidate in backward.candidates.extract_if(.., wrong) {
            self.refuse(
                &candidate,
                format!("its hash before chunk {index} is wrong"),
            );
        }
        let page = page_of(index);
        for candidate in &mut backward.candidates {
            candidate.pages.retain(|at, _| *at <= page);
        }
        forgers
    }

    /// What came from a forger and is not proven is fetched again from others, all of it at
    /// once: else each of its chunks would hold the frontier up in turn.
    async fn drop_held(
        &mut self,
        backward: &mut Backward,
        forger: SourceId,
    ) -> Result<(), TransferError> {
        let now = self.run.now();
        let of_it = |_: &u32, held: &mut Held| sole(&held.from) == Some(forger);
        for (index, _) in backward.held.extract_if(.., of_it) {
            self.present.set(index, false);
            self.partial.forget(index).await?;
            self.run
                .driver
                .emit(TransferEventKind::ChunkRefetched { index });
            let range = self.layout.range(index);
            self.scheduler.invalidate(now, range, Blame::Nobody);
        }
        Ok(())
    }

    /// A root is not the file's: whoever announced it rests for a while. Their bytes need not
    /// be wrong.
    fn refuse(&mut self, candidate: &Candidate, reason: String) {
        let root = candidate.root;
        self.run
            .driver
            .emit(TransferEventKind::RootRefused { root, reason });
        let now = self.run.now();
        for announcer in &candidate.announcers {
            self.scheduler.distrust(now, *announcer);
        }
    }

    /// Sees to it that each candidate's pages for the window are here. True if no candidate
    /// is left.
    fn load_pages(&mut self, backward: &mut Backward, index: u32) -> bool {
        let now = self.run.now();
        let reach = self.run.config().window_chunks.max(1);
        let lowest = page_of((index + 1).saturating_sub(reach));
        let mut wishes = Vec::new();
        let before = backward.candidates.len();
        backward.candidates.retain_mut(|candidate| {
            let missing = [page_of(index), lowest]
                .into_iter()
                .find(|page| !candidate.pages.contains_key(page));
            if let Some(page) = missing
                && candidate.loading.is_none()
                && now >= candidate.retry_at
            {
                if candidate.failures > PAGE_FAILURES {
                    self.run.driver.emit(TransferEventKind::RootRefused {
                        root: candidate.root,
                        reason: "nobody has its manifest".to_owned(),
                    });
                    return false;
                }
                candidate.loading = Some(page);
                wishes.push((candidate.root, page, candidate.announcers.clone()));
            }
            true
        });
        for (root, page, announcers) in wishes {
            self.load_page(root, page, &announcers, false);
        }
        // After a restart there are none until sources have come; that is no reason to give up.
        let refused = before > 0 && backward.candidates.is_empty();
        self.run.without_manifest |= refused;
        refused
    }

    pub(super) async fn backward_done(
        &mut self,
        backward: &mut Backward,
        done: JobDone,
    ) -> Result<(), TransferError> {
        match done {
            JobDone::Stored { index, from, link } => {
                self.note_present(index);
                backward.held.insert(index, Held { from, link });
            }
            JobDone::Examined {
                index,
                bytes,
                tried,
                closed,
            } => {
                backward.examining = false;
                match (closed, backward.held.get_mut(&index)) {
                    (Some(link), Some(held)) => held.link = Some(link),
                    _ => self.suspect(backward, index, bytes, tried).await?,
                }
            }
            JobDone::Page { root, index, page } => {
                let now = self.run.now();
                let candidate = backward.candidates.iter_mut().find(|c| c.root == root);
                match (candidate, page) {
                    (Some(candidate), Ok(page)) => {
                        candidate.loading = None;
                        candidate.failures = 0;
                        candidate.pages.insert(index, Arc::from(page));
                    }
                    (Some(candidate), Err(error)) => {
                        candidate.loading = None;
                        candidate.failures += 1;
                        candidate.retry_at = now + PAGE_RETRY;
                        self.run.last_trouble = Some(describe(&error));
                    }
                    (None, _) => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The bytes at the frontier close with no hash that is offered: they are kept aside,
    /// and the chunk is fetched again whole from somebody else.
    async fn suspect(
        &mut self,
        backward: &mut Backward,
        index: u32,
        bytes: Bytes,
        tried: Vec<ChunkHash>,
    ) -> Result<(), TransferError> {
        let Some(held) = backward.held.remove(&index) else {
            return Ok(());
        };
        self.partial.forget(index).await?;
        self.present.set(index, false);
        if backward.suspects.is_empty() {
            backward.tried = tried;
        } else {
            backward.tried.retain(|hash| tried.contains(hash));
        }
        if backward.suspects.len() < MAX_SUSPECTS {
            backward.suspects.push(Suspect {
                from: held.from.clone(),
                bytes,
            });
        }
        let asked: Vec<SourceId> = backward
            .suspects
            .iter()
            .filter_map(|s| sole(&s.from))
            .collect();
        self.run.last_trouble = Some(format!("chunk {index} fits no announced manifest"));
        self.run
            .driver
            .emit(TransferEventKind::ChunkRefetched { index });
        let range = self.layout.range(index);
        self.scheduler.retry_whole(self.run.now(), range, &asked);
        Ok(())
    }

    /// Another hash is offered for a place where bytes were put aside.
    async fn absolve(
        &mut self,
        backward: &mut Backward,
        index: u32,
        after: ChunkHash,
        offered: &[ChunkHash],
    ) -> Result<(), TransferError> {
        let closes = |suspect: &Suspect| {
            offered
                .iter()
                .filter_map(|b| ChunkLink::compress(self.layout, index, *b, &suspect.bytes).ok())
                .find(|link| link.after() == after)
        };
        let found = backward
            .suspects
            .iter()
            .enumerate()
            .find_map(|(at, s)| Some((at, closes(s)?)));
        if let Some((at, link)) = found {
            let Suspect { from, bytes } = backward.suspects.remove(at);
            self.partial.write_unproven(index, bytes).await?;
            self.note_present(index);
            backward.held.insert(
                index,
                Held {
                    from,
                    link: Some(link),
                },
            );
        }
        Ok(())
    }
}

impl Backward {
    /// Hashes said to precede a chunk, each once.
    fn offered(&self, index: u32) -> Vec<ChunkHash> {
        let mut offered: Vec<ChunkHash> = self
            .candidates
            .iter()
            .filter_map(|candidate| candidate.before(index))
            .collect();
        offered.sort_unstable();
        offered.dedup();
        offered
    }
}

/// The frontier below a chunk that is proven already.
async fn below(
    partial: &dyn PartialFile,
    index: u32,
    hash: ChunkHash,
) -> Result<Option<(u32, ChunkHash)>, TransferError> {
    let contradiction = || TransferError::from(StoreError::Chunk { index });
    if partial.proven_hash(index).await? != Some(hash) {
        return Err(contradiction());
    }
    let Some(next) = index.checked_sub(1) else {
        return Ok(None);
    };
    let before = partial.proven_hash(next).await?;
    before
        .map(|before| Some((next, before)))
        .ok_or_else(contradiction)
}
