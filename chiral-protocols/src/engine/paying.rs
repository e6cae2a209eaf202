//! Sources that arrange payment are late, and no more than that.

use super::active::Active;
use crate::scheduler::SourceId;

impl Active<'_> {
    /// Holds the sources that have begun to arrange payment and lets those go on that have
    /// ended. True if there is hope that one of them will.
    pub(super) fn hold_the_paying(&mut self) -> bool {
        let now = self.run.now();
        let patience = self.run.config().payment_patience;
        let mut hope = false;
        for (id, connected) in &self.run.known {
            if !connected.source.is_paying() {
                if self.paying.remove(id).is_some() {
                    self.scheduler.release(now, *id);
                }
                continue;
            }
            let since = *self.paying.entry(*id).or_insert(now);
            if now - since > patience {
                self.scheduler.release(now, *id);
            } else {
                hope = true;
                self.scheduler.hold(*id);
            }
        }
        let known = &self.run.known;
        self.paying
            .retain(|id: &SourceId, _| known.contains_key(id));
        hope
    }
}
