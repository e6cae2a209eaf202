//! What a partial file holds, and how much of it is not durable yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use chiral_core::{Bitmap, StoreError, TransferId};

use super::super::config::FsStoreConfig;
use super::super::meta::partials::{PartialChanges, PartialState, SLICE_CHUNKS, slice};

/// State of a partial file in memory; a bit is set when its bytes have been handed to the
/// operating system.
#[derive(Debug)]
pub(in crate::fs) struct Pending {
    pub(super) present: Bitmap,
    pub(super) proven: Bitmap,
    /// Pages kept, with their lengths.
    pub(super) pages: BTreeMap<u32, u32>,
    slices: BTreeSet<u32>,
    new_pages: BTreeSet<u32>,
    /// Bits or pages that differ from those that are durable.
    dirty: bool,
    /// Chunks being written.
    reserved: u32,
    /// Chunks written since the last commit began, and the first of them.
    written: u32,
    oldest: Option<Instant>,
    /// The same of the commit that is running.
    committing: u32,
    committing_oldest: Option<Instant>,
    failure: Option<Failure>,
}

/// Why writes are not becoming durable, told to everybody who waits for that.
#[derive(Clone, Debug)]
struct Failure {
    text: String,
    operation: &'static str,
    path: PathBuf,
    no_space: bool,
    /// Data may have been lost: the partial file must be opened again from what is durable.
    fatal: bool,
    at: Instant,
}

impl Failure {
    fn error(&self) -> StoreError {
        let (operation, path) = (self.operation, self.path.clone());
        match self.no_space {
            true => StoreError::NoSpace { operation, path },
            false => StoreError::Io {
                operation,
                path,
                source: io::Error::other(self.text.clone()),
            },
        }
    }
}

impl Pending {
    pub(super) fn new(state: PartialState) -> Self {
        Self {
            present: state.present,
            proven: state.proven,
            pages: state.pages,
            slices: BTreeSet::new(),
            new_pages: BTreeSet::new(),
            dirty: false,
            reserved: 0,
            written: 0,
            oldest: None,
            committing: 0,
            committing_oldest: None,
            failure: None,
        }
    }

    /// Takes a place among the chunks that are not durable; false if there is none now.
    pub(super) fn reserve(
        &mut self,
        config: &FsStoreConfig,
        now: Instant,
    ) -> Result<bool, StoreError> {
        self.check_sound()?;
        let oldest = self.committing_oldest.or(self.oldest);
        let late =
            oldest.is_some_and(|oldest| now.duration_since(oldest) > config.max_undurable_delay);
        let many = self.reserved + self.written + self.committing >= config.max_undurable_chunks;
        if late && many {
            return match &self.failure {
                Some(failure) => Err(failure.error()),
                None => Ok(false),
            };
        }
        self.reserved += 1;
        Ok(true)
    }

    /// Gives a place back, used or not.
    pub(super) fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// An error if data may have been lost since this was opened.
    pub(super) fn check_sound(&self) -> Result<(), StoreError> {
        match &self.failure {
            Some(failure) if failure.fatal => Err(failure.error()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.check_sound().is_ok()
    }

    /// Notes a chunk whose bytes have been written.
    pub(super) fn wrote(&mut self, index: u32, now: Instant) {
        self.present.set(index, true);
        self.written += 1;
        self.touch(index, now);
    }

    pub(super) fn set_proven(&mut self, index: u32, now: Instant) {
        self.proven.set(index, true);
        self.touch(index, now);
    }

    pub(super) fn clear(&mut self, index: u32, present: bool, now: Instant) {
        self.proven.set(index, false);
        if present {
            self.present.set(index, false);
        }
        self.touch(index, now);
    }

    pub(super) fn add_page(&mut self, page: u32, len: u32, now: Instant) {
        self.pages.insert(page, len);
        self.new_pages.insert(page);
        self.dirty = true;
        self.oldest.get_or_insert(now);
    }

    fn touch(&mut self, index: u32, now: Instant) {
        self.slices.insert(index / SLICE_CHUNKS);
        self.dirty = true;
        self.oldest.get_or_insert(now);
    }

    /// When a commit should begin; none if there is nothing to commit.
    pub(in crate::fs) fn due(&self, config: &FsStoreConfig, now: Instant) -> Option<Instant> {
        let oldest = self.oldest.filter(|_| self.dirty)?;
        match &self.failure {
            Some(failure) if failure.fatal => None,
            Some(failure) => Some(failure.at + config.max_undurable_delay),
            None if self.written >= config.commit_chunks => Some(now),
            None => Some(oldest + config.commit_delay),
        }
    }

    /// Takes what is to be committed; none if everything is durable.
    pub(in crate::fs) fn begin_commit(&mut self, transfer: TransferId) -> Option<PartialChanges> {
        if !self.dirty || !self.is_sound() {
            return None;
        }
        self.dirty = false;
        self.committing = std::mem::take(&mut self.written);
        self.committing_oldest = self.oldest.take();
        let slices = std::mem::take(&mut self.slices).into_iter();
        let pages = std::mem::take(&mut self.new_pages).into_iter();
        Some(PartialChanges {
            transfer,
            slices: slices
                .map(|at| (at, slice(&self.present, at), slice(&self.proven, at)))
                .collect(),
            pages: pages
                .filter_map(|page| Some((page, *self.pages.get(&page)?)))
                .collect(),
        })
    }

    /// The commit is durable.
    pub(in crate::fs) fn committed(&mut self) {
        self.committing = 0;
        self.committing_oldest = None;
        self.failure = None;
    }

    /// The commit failed. If only the metadata did, it is tried again later; if the data
    /// did, what the disk holds is not known any more.
    pub(in crate::fs) fn commit_failed(
        &mut self,
        changes: &PartialChanges,
        error: &StoreError,
        fatal: bool,
        now: Instant,
    ) {
        self.dirty = true;
        self.written += std::mem::take(&mut self.committing);
        self.oldest = self.committing_oldest.take().or(self.oldest);
        self.slices
            .extend(changes.slices.iter().map(|(slice, ..)| *slice));
        self.new_pages
            .extend(changes.pages.iter().map(|(page, _)| *page));
        let (operation, path) = match error {
            StoreError::Io {
                operation, path, ..
            }
            | StoreError::NoSpace { operation, path } => (*operation, path.clone()),
            _ => ("commit", PathBuf::new()),
        };
        self.failure = Some(Failure {
            text: error.to_string(),
            operation,
            path,
            no_space: matches!(error, StoreError::NoSpace { .. }),
            fatal,
            at: now,
        });
    }

    /// Nothing of this is wanted any more.
    pub(super) fn abandon(&mut self) {
        self.dirty = false;
        self.written = 0;
        self.oldest = None;
        self.slices.clear();
        self.new_pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pending() -> Pending {
        let bits = || Bitmap::new(10_000);
        Pending::new(PartialState {
            present: bits(),
            proven: bits(),
            pages: BTreeMap::new(),
        })
    }

    fn transfer() -> TransferId {
        TransferId::from_bytes([0; 16])
    }

    #[test]
    fn a_writer_waits_when_too_many_chunks_are_too_old() {
        let (config, begun) = (FsStoreConfig::default(), Instant::now());
        let late = begun + Duration::from_millis(501);
        let mut pending = pending();
        for index in 0..64 {
            assert!(
                pending.reserve(&config, late).unwrap(),
                "few chunks never wait"
            );
            pending.wrote(index, begun);
            pending.release();
        }
        assert!(
            pending.reserve(&config, begun).unwrap(),
            "young chunks never wait"
        );
        pending.release();
        assert!(!pending.reserve(&config, late).unwrap());
        let changes = pending.begin_commit(transfer()).unwrap();
        assert_eq!(changes.slices.len(), 1);
        assert!(
            !pending.reserve(&config, late).unwrap(),
            "a commit is not done when it begins"
        );
        pending.committed();
        assert!(pending.reserve(&config, late).unwrap());
    }

    #[test]
    fn a_commit_is_due_by_number_or_by_age() {
        let (config, begun) = (FsStoreConfig::default(), Instant::now());
        let mut pending = pending();
        assert_eq!(pending.due(&config, begun), None);
        pending.wrote(0, begun);
        assert_eq!(
            pending.due(&config, begun),
            Some(begun + Duration::from_millis(250))
        );
        for index in 1..32 {
            pending.wrote(index, begun);
        }
        assert_eq!(pending.due(&config, begun), Some(begun));
        pending.begin_commit(transfer()).unwrap();
        assert_eq!(pending.due(&config, begun), None);
        assert!(pending.begin_commit(transfer()).is_none());
    }

    #[test]
    fn a_failed_commit_is_tried_again_unless_data_may_be_lost() {
        let (config, begun) = (FsStoreConfig::default(), Instant::now());
        let late = begun + Duration::from_secs(1);
        let mut pending = pending();
        for index in 0..64 {
            pending.wrote(index * 100, begun);
        }
        let changes = pending.begin_commit(transfer()).unwrap();
        let full = StoreError::NoSpace {
            operation: "commit",
            path: "meta".into(),
        };
        pending.commit_failed(&changes, &full, false, begun);
        assert!(matches!(
            pending.reserve(&config, late),
            Err(StoreError::NoSpace { .. })
        ));
        assert!(pending.due(&config, begun).is_some());
        let again = pending.begin_commit(transfer()).unwrap();
        assert_eq!(again.slices, changes.slices);
        pending.commit_failed(&again, &full, true, begun);
        assert!(!pending.is_sound());
        assert_eq!(pending.due(&config, late), None);
        assert!(
            pending.begin_commit(transfer()).is_none(),
            "lost data is never claimed"
        );
    }
}
