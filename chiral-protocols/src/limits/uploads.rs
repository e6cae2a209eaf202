//! [`Uploads`]: the limits on what a node serves, whatever the protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::{Cid, Rate};

use super::limiter::{Flow, Limiter};

/// Files with a flow before those are looked for that nobody is sent any more.
const FIRST_SWEEP: usize = 256;

/// Limits what is served: all of it, and each file. Cheap to clone; all clones are one.
///
/// A protocol that serves asks [`Uploads::flow`] for the flow of the file, and the flow
/// ([`Flow::acquire`]) before each piece that it sends. Files that are sent at once have equal
/// parts of what may be sent, and so have those who are sent the same file.
#[derive(Clone, Debug, Default)]
pub struct Uploads {
    limiter: Limiter,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    flows: BTreeMap<Cid, Flow>,
    sweep_at: usize,
}

impl PartialEq for Uploads {
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.files, &other.files)
    }
}

impl Eq for Uploads {}

impl Uploads {
    /// Limits nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits all that is served, from now on.
    pub fn set_limit(&self, limit: Option<Rate>) {
        self.limiter.set_limit(limit);
    }

    /// The limit on all that is served.
    pub fn limit(&self) -> Option<Rate> {
        self.limiter.limit()
    }

    /// Limits what is served of one file, from now on.
    pub fn set_file_limit(&self, cid: Cid, limit: Option<Rate>) {
        let mut files = self.files();
        match limit {
            Some(_) => self.entry(&mut files, cid).set_limit(limit),
            None => {
                if let Some(flow) = files.flows.get(&cid) {
                    flow.set_limit(None);
                }
            }
        }
    }

    /// The limit on one file.
    pub fn file_limit(&self, cid: Cid) -> Option<Rate> {
        self.files().flows.get(&cid).and_then(Flow::limit)
    }

    /// What to ask before a file's bytes are sent.
    pub fn flow(&self, cid: Cid) -> Flow {
        self.entry(&mut self.files(), cid).clone()
    }

    fn entry<'a>(&self, files: &'a mut Files, cid: Cid) -> &'a Flow {
        if files.flows.len() >= files.sweep_at.max(FIRST_SWEEP) {
            let used = |flow: &Flow| !flow.is_sole() || flow.limit().is_some();
            files.flows.retain(|_, flow| used(flow));
            files.sweep_at = 2 * files.flows.len();
        }
        let new = || self.limiter.flow(1, None);
        files.flows.entry(cid).or_insert_with(new)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u32) -> Cid {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Cid::from_bytes(bytes)
    }

    #[test]
    fn files_that_nobody_is_sent_are_forgotten_and_limited_ones_are_not() {
        let uploads = Uploads::new();
        let slow = "1MiB".parse().ok();
        uploads.set_file_limit(cid(0), slow);
        let held = uploads.flow(cid(1));
        for n in 2..10_000 {
            assert!(!uploads.flow(cid(n)).is_limited());
        }
        assert!(uploads.files().flows.len() <= 2 * FIRST_SWEEP);
        assert_eq!(uploads.file_limit(cid(0)), slow);
        uploads.set_file_limit(cid(1), slow);
        assert!(held.is_limited());
        uploads.set_file_limit(cid(1), None);
        uploads.set_limit(slow);
        assert!(held.is_limited() && uploads.flow(cid(3)).is_limited());
        assert_eq!((uploads.limit(), uploads.file_limit(cid(1))), (slow, None));
    }
}
