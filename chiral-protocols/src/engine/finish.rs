//! The end: the file goes to its place.

use chiral_core::{FileIdentification, ManifestHeader, MerkleRoot, TransferError};

use super::DownloadReport;
use super::active::Active;

impl Active<'_> {
    /// All that was wanted is proven: completes the file, or leaves the part that was asked
    /// for to be served.
    pub(super) async fn finish(mut self) -> Result<DownloadReport, TransferError> {
        self.partial.flush().await?;
        self.report();
        let (header, object) = match self.partial.recomputed_root().await? {
            Some(root) => {
                let pinned = self.run.request.target.root();
                if pinned.is_some_and(|pinned| pinned != root) {
                    return Err(TransferError::BadLink {
                        reason: "its root is not the file's",
                    });
                }
                let header = self.header(root)?;
                if self.run.request.only.is_some() {
                    (header, None)
                } else {
                    let destination = self.run.request.destination.clone();
                    let object = self.partial.complete(destination, header).await?;
                    (object.header.clone(), Some(object))
                }
            }
            None => match self.partial.header().await? {
                Some(header) => (header, None),
                None => return Err(self.run.no_sources(self.layout.size())),
            },
        };
        Ok(DownloadReport {
            header,
            object,
            delivered: self.run.attribution.delivered(),
            sources: self.run.attribution.reports(Some(self.layout)),
        })
    }

    /// Identity as it was proven, with the hints that somebody gave.
    fn header(&self, root: MerkleRoot) -> Result<ManifestHeader, TransferError> {
        let hints = self.hints.as_ref();
        let cid = self.cid.ok_or_else(|| self.unknown())?;
        // It was found by this name, and has turned out to be called so.
        let aliases = match (self.run.request.target, &self.run.request.pieces) {
            (FileIdentification::Alias(alias), Some(_)) => vec![alias],
            _ => Vec::new(),
        };
        Ok(ManifestHeader {
            size: self.layout.size(),
            cid,
            root,
            name: hints
                .and_then(|header| header.name.clone())
                .or_else(|| self.run.found_name.clone()),
            mime: hints.and_then(|header| header.mime.clone()),
            created_at: hints.map_or(0, |header| header.created_at),
            aliases,
        })
    }

    /// The error for a way of checking that needs the cid.
    pub(super) fn unknown(&self) -> TransferError {
        TransferError::Unknown {
            target: self.run.request.target.to_string(),
        }
    }
}
