//! A connected source and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::{
    ChunkLayout, ChunkSource, Coverage, FileIdentification, ManifestHeader, PeerOffer,
    TransferError,
};

use crate::scheduler::{self, SourceSpec};

/// A source with the answers to the first questions.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) source: Arc<dyn ChunkSource>,
    pub(super) header: Option<ManifestHeader>,
    pub(super) coverage: Coverage,
}

impl Connected {
    /// Asks a new source what it holds and what it knows.
    pub(super) async fn introduce(
        source: Arc<dyn ChunkSource>,
        target: &FileIdentification,
        limit: Duration,
    ) -> Result<Self, TransferError> {
        let name = source.offer().endpoint.as_str().to_owned();
        let questions = async {
            let header = source.manifest_header().await?;
            Ok::<_, TransferError>((header, source.coverage().await?))
        };
        let (header, coverage) = tokio::time::timeout(limit, questions).await.map_err(|_| {
            TransferError::Timeout {
                source_name: name.clone(),
            }
        })??;
        // A header for another file is no header for this one.
        let header = header.filter(|header| match (target.cid(), target.root()) {
            (Some(cid), _) => header.cid == cid,
            (None, Some(root)) => header.root == root,
            (None, None) => false,
        });
        Ok(Self {
            source,
            header,
            coverage,
        })
    }

    pub(super) fn offer(&self) -> &PeerOffer {
        self.source.offer()
    }

    pub(super) fn name(&self) -> &str {
        self.offer().endpoint.as_str()
    }

    /// Size in bytes as this source has it.
    pub(super) fn size(&self) -> Option<u64> {
        self.header
            .as_ref()
            .map(|header| header.size)
            .or(self.source.size())
    }

    /// Whether bytes of a file of this size can come from here.
    pub(super) fn fits(&self, layout: ChunkLayout) -> bool {
        self.size().is_none_or(|size| size == layout.size())
    }

    /// The source as the scheduler knows it.
    pub(super) fn spec(&self, layout: ChunkLayout) -> SourceSpec {
        let spec =
            SourceSpec::complete(self.source.max_requests().max(1)).with_grid(self.source.grid());
        match &self.coverage {
            Coverage::Complete => spec,
            partial => spec.with_coverage(partial.to_ranges(layout)),
        }
    }
}

/// Coverage in the scheduler's words.
pub(super) fn ranges(coverage: &Coverage, layout: ChunkLayout) -> chiral_core::RangeSet {
    coverage.to_ranges(layout)
}

/// How the scheduler should take a failure.
pub(super) fn failure_kind(error: &TransferError) -> scheduler::FailureKind {
    match error {
        TransferError::Missing { .. } => scheduler::FailureKind::Missing,
        TransferError::Refused {
            retryable: false, ..
        }
        | TransferError::PaymentRequired { .. } => scheduler::FailureKind::Refused,
        _ => scheduler::FailureKind::Temporary,
    }
}
