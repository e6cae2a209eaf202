//! Under a root that is pinned or proven: chunks are checked in any order as they come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chiral_core::manifest::{PAGE_CHUNKS, page_count, page_of};
use chiral_core::{ByteRange, ChunkLayout, MerkleRoot, RangeSet, TransferError, VerifiedPage};

use super::active::{Active, Step};
use super::assembly::Assembled;
use super::checks::Checked;
use super::jobs::JobDone;
use super::run::describe;
use crate::scheduler::SourceId;

/// The next page is fetched when less than this is left to hand out, in bytes.
const PAGE_AHEAD: u64 = 512 << 20;

/// How long after a page was not to be had it is asked for again.
const PAGE_RETRY: Duration = Duration::from_secs(1);

/// Failures of one page before the download goes on without a manifest.
const PAGE_FAILURES: u32 = 5;

/// Chunks read back after a restart and not checked yet, at once.
const REREADS: usize = 8;

pub(super) struct Pinned {
    root: MerkleRoot,
    /// Bytes of the chunks that are to be got.
    wanted: RangeSet,
    /// Chunks of them that are not proven.
    left: u32,
    pages: BTreeMap<u32, VerifiedPage>,
    to_load: VecDeque<u32>,
    /// Pages that readers wait for.
    urgent: BTreeSet<u32>,
    loading: bool,
    /// Sources that the last page was asked of.
    asked: usize,
    failures: u32,
    retry_at: Duration,
    /// Chunks on disk that an earlier run did not prove.
    unchecked: Vec<u32>,
}

impl Active<'_> {
    pub(super) fn begin_pinned(&mut self, root: MerkleRoot) -> Pinned {
        let chunks = match self.run.request.only {
            Some(only) => self.layout.touched(only),
            None => 0..self.layout.count(),
        };
        let wanted = self.layout.span(chunks.start, chunks.end).into();
        let left = chunks
            .clone()
            .filter(|index| !self.proven.get(*index))
            .count() as u32;
        self.run.tellers.root_known(root);
        let needed = |page: &u32| {
            let span = page * PAGE_CHUNKS..page.saturating_add(1).saturating_mul(PAGE_CHUNKS);
            let first = span.start.max(chunks.start);
            (first..span.end.min(chunks.end)).any(|index| !self.proven.get(index))
        };
        let to_load = (0..page_count(self.layout)).filter(needed).collect();
        Pinned {
            root,
            wanted,
            left,
            pages: BTreeMap::new(),
            to_load,
            urgent: BTreeSet::new(),
            loading: false,
            asked: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            unchecked: Vec::new(),
        }
    }

    pub(super) fn step_pinned(
        &mut self,
        pinned: &mut Pinned,
    ) -> Result<Option<Step>, TransferError> {
        if pinned.left == 0 {
            return Ok(Some(Step::Done));
        }
        while self.jobs.len() + self.checks.len() < REREADS
            && let Some(index) = pinned.unchecked.pop()
        {
            self.reread(index);
        }
        let now = self.run.now();
        let hungry = self.scheduler.missing().len() < PAGE_AHEAD;
        if let Some(&index) = pinned.to_load.front()
            && (hungry || pinned.urgent.contains(&index))
            && !pinned.loading
        {
            let sources = self.announcers(pinned.root);
            // A download that begins where an earlier run ended begins before anybody is
            // connected; whoever comes then is asked at once.
            if now < pinned.retry_at && sources.len() <= pinned.asked {
                return Ok(None);
            }
            if pinned.failures > PAGE_FAILURES && self.run.request.only.is_none() {
                self.run.without_manifest = true;
                return Ok(Some(Step::Again));
            }
            (pinned.loading, pinned.asked) = (true, sources.len());
            self.load_page(pinned.root, index, &sources, true);
        }
        Ok(None)
    }

    /// Loads the pages first that are needed to check what readers want next.
    pub(super) fn pages_first(&mut self, pinned: &mut Pinned, wishes: &[ByteRange]) {
        let within = ByteRange::new(0, self.layout.size());
        let wanted = wishes.iter().filter_map(|wish| wish.intersection(within));
        let page = |at: u64| page_of(ChunkLayout::chunk_at(at));
        pinned.urgent = wanted
            .flat_map(|wish| page(wish.start)..=page(wish.end - 1))
            .collect();
        for &index in pinned.urgent.iter().rev() {
            if let Some(at) = pinned.to_load.iter().position(|page| *page == index) {
                pinned.to_load.remove(at);
                pinned.to_load.push_front(index);
            }
        }
    }

    fn announcers(&self, root: MerkleRoot) -> Vec<SourceId> {
        let announces = |header: &chiral_core::ManifestHeader| header.root == root;
        let known = self.run.known.iter();
        known
            .filter(|(_, c)| c.header.as_ref().is_some_and(announces))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn check_pinned(&mut self, pinned: &mut Pinned, chunk: Assembled) {
        let page = pinned.pages.get(&page_of(chunk.index));
        match page.and_then(|page| page.around(chunk.index)) {
            Some((before, after)) => self.check(chunk, before, after),
            // Only bytes of loaded pages are wanted; what else comes is not needed.
            None => {
                self.busy.remove(&chunk.index);
            }
        }
    }

    pub(super) fn pinned_done(&mut self, pinned: &mut Pinned, done: JobDone) {
        match done {
            JobDone::Checked(checked) => {
                self.checks.done(checked.len());
                for chunk in checked {
                    self.checked(pinned, chunk);
                }
            }
            JobDone::Page {
                index,
                page: Ok(page),
                ..
            } => {
                pinned.loading = false;
                pinned.failures = 0;
                pinned.to_load.retain(|waiting| *waiting != index);
                for chunk in page.chunks() {
                    let range = self.layout.range(chunk);
                    if self.proven.get(chunk) || !pinned.wanted.covers(range) {
                        continue;
                    }
                    if self.present.get(chunk) {
                        pinned.unchecked.push(chunk);
                    } else {
                        self.scheduler.want(range);
                    }
                }
                pinned.pages.insert(index, *page);
            }
            JobDone::Page {
                page: Err(error), ..
            } => {
                pinned.loading = false;
                pinned.failures += 1;
                pinned.retry_at = self.run.now() + PAGE_RETRY;
                self.run.last_trouble = Some(describe(&error));
            }
            JobDone::Reread(chunk) => self.check_pinned(pinned, chunk),
            _ => {}
        }
    }

    fn checked(&mut self, pinned: &mut Pinned, chunk: Checked) {
        let Checked {
            index,
            from,
            passed,
        } = chunk;
        if !passed {
            self.busy.remove(&index);
            self.present.set(index, false);
            self.blame_under_root(index, &from);
            return;
        }
        self.note_present(index);
        let new = !self.proven.get(index);
        self.note_proven(index, &from);
        if new && pinned.wanted.covers(self.layout.range(index)) {
            pinned.left -= 1;
        }
        self.drop_page(pinned, page_of(index));
    }

    /// Lets go of a page all of whose chunks are proven.
    fn drop_page(&self, pinned: &mut Pinned, index: u32) {
        let done = |page: &VerifiedPage| page.chunks().all(|chunk| self.proven.get(chunk));
        // Asked once per chunk; a page is looked through only once its last chunk is in.
        if let Some(page) = pinned.pages.get(&index)
            && self.proven.get(page.chunks().end - 1)
            && self.proven.get(page.chunks().start)
            && done(page)
        {
            pinned.pages.remove(&index);
        }
    }
}
