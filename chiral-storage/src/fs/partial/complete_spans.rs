//! The end of a download that lies in several files: each takes its own name.
//!
//! No intent is needed: a file is found under either name, so a crash in between leaves a
//! download that is complete, and ends when it is gone on with.

use std::sync::Arc;

use chiral_core::chunk_store::{Location, ObjectInfo};
use chiral_core::file_spans::FileSpans;
use chiral_core::{ManifestHeader, StoreError};

use super::{Data, Partial, Phase};
use crate::blocking::lock;

impl Partial {
    /// Ends the download, of which nothing stays but its files.
    pub(super) fn complete_spans(
        &self,
        phase: &mut Phase,
        spans: &Arc<FileSpans>,
        header: ManifestHeader,
    ) -> Result<ObjectInfo, StoreError> {
        let spread = match &self.data {
            Data::Spread(spread) if spread.spans() == &**spans => spread,
            _ => {
                return Err(StoreError::Unsupported {
                    what: "files that the download was not begun for",
                });
            }
        };
        let header = self.identify(header)?;
        self.flush()?;
        spread.land()?;
        {
            let _registry = lock(&self.shared.registry);
            self.shared.meta.complete_partial(self.transfer, None)?;
        }
        *phase = Phase::Complete;
        self.shared.clear_partial_files(self.transfer);
        Ok(ObjectInfo::new(header, Location::Files, Vec::new()))
    }
}
