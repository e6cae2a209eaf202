//! Objects that were served a moment ago, kept open. To open one takes a transaction and two
//! files, which is more than reading a chunk of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chiral_core::Cid;

use super::content::FileContent;
use super::shared::Shared;
use crate::blocking::lock;

/// Most objects kept open, each of which holds two files.
const MAX_OPENED: usize = 16;

/// How long an object that nobody asks for is kept.
const KEEP: Duration = Duration::from_secs(2);

/// The objects. They hold the store, which holds them: `close` ends that.
#[derive(Debug, Default)]
pub(super) struct Opened {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: Vec<Kept>,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    content: FileContent,
    /// That of the metadata when its record was read.
    version: u64,
    used: Instant,
}

impl Opened {
    fn get(&self, cid: Cid, version: u64, now: Instant) -> Option<FileContent> {
        let mut state = lock(&self.state);
        let kept = &mut state.kept;
        let at = kept.iter().position(|one| one.content.cid() == cid)?;
        if kept[at].version != version {
            kept.swap_remove(at);
            return None;
        }
        kept[at].used = now;
        Some(kept[at].content.clone())
    }

    fn put(&self, content: FileContent, version: u64, now: Instant) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let kept = &mut state.kept;
        kept.retain(|one| one.content.cid() != content.cid());
        if kept.len() >= MAX_OPENED
            && let Some((oldest, _)) = kept.iter().enumerate().min_by_key(|(_, one)| one.used)
        {
            kept.swap_remove(oldest);
        }
        let used = now;
        kept.push(Kept {
            content,
            version,
            used,
        });
    }

    fn forget(&self, cid: Cid) {
        lock(&self.state)
            .kept
            .retain(|one| one.content.cid() != cid);
    }

    /// Closes what nobody has asked for lately; when to look again.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.kept.retain(|one| one.used + KEEP > now);
        state.kept.iter().map(|one| one.used + KEEP).min()
    }

    /// Closes all, for good.
    pub(super) fn close(&self) {
        let kept = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.kept)
        };
        drop(kept);
    }
}

impl Shared {
    /// An object that is open and was not touched since, on disk or in the records.
    pub(super) fn still_open(&self, cid: Cid) -> Option<FileContent> {
        let content = self
            .opened
            .get(cid, self.meta.version(), Instant::now())
            .filter(FileContent::is_current);
        if content.is_none() {
            self.opened.forget(cid);
        }
        content
    }

    /// Keeps an object open whose record was read at this version of the metadata.
    pub(super) fn keep_open(self: &Arc<Self>, content: &FileContent, version: u64) {
        self.opened.put(content.clone(), version, Instant::now());
        self.flusher.note_opened();
    }
}
