//! What follows from bytes that did not pass.

use chiral_core::transfer::TransferEventKind;

use super::active::Active;
use super::assembly::{Contributions, sole};
use crate::scheduler::{Blame, SourceId};

impl Active<'_> {
    /// A chunk contradicts a hash under a pinned or proven root: a sole sender is out; of
    /// several nobody is, and the chunk is fetched again whole from one.
    pub(super) fn blame_under_root(&mut self, index: u32, from: &Contributions) {
        self.run
            .driver
            .emit(TransferEventKind::ChunkRefetched { index });
        let range = self.layout.range(index);
        let now = self.run.now();
        match sole(from) {
            Some(source) => {
                self.ban(source, &format!("chunk {index} contradicts its hash"));
                self.scheduler.invalidate(now, range, Blame::Nobody);
            }
            // Read back from disk after a restart: nobody here is to blame.
            None if from.is_empty() => self.scheduler.want(range),
            None => self.scheduler.retry_whole(now, range, &[]),
        }
    }

    /// Puts a source out, with everything of its that is not proven and not yet on disk.
    pub(super) fn ban(&mut self, source: SourceId, reason: &str) {
        let now = self.run.now();
        self.run.put_out(source, reason);
        self.scheduler.ban(now, source);
        self.abort_all(source);
        for range in self.assemblies.discard(source) {
            self.scheduler.invalidate(now, range, Blame::Nobody);
        }
    }
}
