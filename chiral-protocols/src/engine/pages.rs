//! Getting manifest pages.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::{ChunkLayout, ChunkSource, MerkleRoot, PartialFile, TransferError, VerifiedPage};

/// Rounds through all sources before a page is given up for now.
const ROUNDS: u32 = 2;

/// A page from one source, shown to lead to the root.
pub(super) async fn fetch_one(
    source: &dyn ChunkSource,
    root: MerkleRoot,
    layout: ChunkLayout,
    index: u32,
    limit: Duration,
) -> Result<VerifiedPage, TransferError> {
    let source_name = source.offer().endpoint.as_str().to_owned();
    let page = match tokio::time::timeout(limit, source.manifest_page(index)).await {
        Ok(page) => page?,
        Err(_) => return Err(TransferError::Timeout { source_name }),
    };
    let verified = tokio::task::spawn_blocking(move || page.verify(root, layout, index)).await;
    match verified {
        Ok(Ok(page)) => Ok(page),
        _ => Err(TransferError::Protocol {
            source_name,
            reason: "its manifest page does not lead to its root",
        }),
    }
}

/// A page that an earlier run kept, checked anew.
pub(super) async fn kept(
    partial: &dyn PartialFile,
    root: MerkleRoot,
    index: u32,
) -> Option<VerifiedPage> {
    let page = partial.page(index).await.ok()??;
    page.verify(root, partial.layout(), index).ok()
}

/// A page from whichever source has it. The error is that of the last one asked.
pub(super) async fn fetch(
    sources: Vec<Arc<dyn ChunkSource>>,
    root: MerkleRoot,
    layout: ChunkLayout,
    index: u32,
    limit: Duration,
) -> Result<VerifiedPage, TransferError> {
    let mut last = TransferError::NoSources {
        missing: 0,
        reason: "nobody who announces the root is connected".to_owned(),
    };
    for round in 0..ROUNDS {
        if round > 0 && !sources.is_empty() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for source in &sources {
            match fetch_one(&**source, root, layout, index, limit).await {
                Ok(page) => return Ok(page),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}
